package output

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"github.com/certfetcher/certfetcher/internal/files"
)

// journalName is the file at the top of a volume that holds what a new process needs to go on with
// an enrolment. It has the new private key in it, so it is for its owner alone.
const (
	journalName      = "..enrolment"
	journalTemporary = "..enrolment_tmp"
	journalMode      = 0o600
	// JournalLimit is the size of a journal, in bytes.
	JournalLimit = 256 << 10
)

// Journal returns what SaveJournal kept; nil when there is nothing, or another process that runs is
// at it. What cannot be certfetcher's own, another kind of file, another user's, or one that others
// may read, is moved aside.
func (v *Volume) Journal() (data []byte, err error) {
	err = v.doAlone(func(d disk) error {
		var info fs.FileInfo
		data, info, err = files.ReadIn(d.Root, journalName, JournalLimit)
		reason := foreignJournal(data, info, err)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case reason != "":
			data = nil
			return d.moveAside(journalName, reason)
		}
		if !v.holdJournal(d) {
			data = nil
			v.cfg.Log.Warn("another process enrols on this volume", "path", d.Path(journalName))
		}
		return nil
	})
	return data, err
}

// foreignJournal says why a file is not a journal of this user; empty when it may be one.
func foreignJournal(data []byte, info fs.FileInfo, err error) string {
	if err != nil {
		return err.Error()
	}
	stat, _ := info.Sys().(*syscall.Stat_t)
	switch mode := info.Mode(); {
	case mode != journalMode:
		return fmt.Sprintf("its mode is %v, want %v", mode, fs.FileMode(journalMode))
	case stat != nil && int(stat.Uid) != os.Geteuid():
		return fmt.Sprintf("it is of user %d, want %d", stat.Uid, os.Geteuid())
	case stat != nil && stat.Nlink != 1:
		return "it has other names"
	case len(data) > JournalLimit:
		return fmt.Sprintf("it has more than %d bytes", JournalLimit)
	}
	return ""
}

// holdJournal takes the journal for this process, for as long as that runs. It returns false when
// another one has it.
func (v *Volume) holdJournal(d disk) bool {
	if v.journal != nil {
		return true
	}
	f, err := d.Root.OpenFile(journalName, os.O_RDWR|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	if errors.Is(syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB), syscall.EWOULDBLOCK) {
		f.Close()
		return false
	}
	v.journal = f
	return true
}

// SaveJournal keeps data durably, in place of what was kept before. Where another process that runs
// has its own there, nothing is kept: a restart would begin a new enrolment.
func (v *Volume) SaveJournal(data []byte) error {
	return v.doAlone(func(d disk) error {
		if !v.holdJournal(d) {
			return nil
		}
		if err := d.remove(journalTemporary); err != nil {
			return err
		}
		f, err := d.WriteFile(journalTemporary, data, journalMode)
		if err == nil {
			_ = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) // it is new, so no other process has it
			err = d.SyncFiles([]*os.File{f})
		}
		if err == nil {
			err = d.Rename(journalTemporary, journalName)
		}
		if err != nil {
			f.Close() // of nil, an error
			return err
		}
		v.journal.Close()
		v.journal = f
		return d.SyncDir(".")
	})
}

// RemoveJournal removes what this process has kept, if there is anything.
func (v *Volume) RemoveJournal() error {
	return v.doAlone(func(d disk) error {
		if v.journal == nil {
			return nil
		}
		v.journal.Close()
		v.journal = nil
		if err := d.remove(journalName); err != nil {
			return err
		}
		return d.SyncDir(".")
	})
}
