package output

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/certfetcher/certfetcher/internal/files"
)

// LookupGroup finds the number of the group that Config.Group names; -1 for an empty name, which
// leaves the group to the directory.
func LookupGroup(name string) (int, error) {
	if name == "" {
		return files.Inherit, nil
	}
	if gid, err := strconv.ParseUint(name, 10, 31); err == nil {
		return int(gid), nil
	}
	group, err := user.LookupGroup(name)
	if err != nil {
		return 0, fmt.Errorf("finding group %q: no group of that name in /etc/group, give its number", name)
	}
	return strconv.Atoi(group.Gid)
}

// DirectoryMode is the mode of directories that are made, by that of the files with secrets in
// them: open to the group, and to others only where they may read the secrets, as they could not
// get at them otherwise.
func DirectoryMode(secretMode fs.FileMode) fs.FileMode {
	if secretMode&0o004 != 0 {
		return 0o755
	}
	return 0o750
}

// makeDirectory makes a directory and its parents where they are missing. What exists keeps its
// mode and group. A new directory appears under its name only when it has mode and group: killed
// half-way, the next run would take it for another's, and leave it closed.
func (v *Volume) makeDirectory(path string) error {
	info, err := os.Stat(path)
	switch {
	case err == nil && info.IsDir():
		return nil
	case err == nil:
		return &FileError{Op: files.OpMakeDir, Path: path, Err: syscall.ENOTDIR,
			Hint: "it is a file: remove it or give another path"}
	case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR):
		return files.NewError(files.OpOpen, path, err)
	}
	if info, err := os.Lstat(path); err == nil && info.IsDir() {
		return nil // another process has made it meanwhile
	} else if err == nil {
		return &FileError{Op: files.OpOpen, Path: path, Err: syscall.ENOENT,
			Hint: "it is a link to a directory that does not exist"}
	}
	parent, name := filepath.Dir(path), filepath.Base(path)
	if err := v.makeDirectory(parent); err != nil {
		return err
	}
	d, err := v.unlocked(parent)
	if err != nil {
		return err
	}
	defer d.Close()
	for tries := 1; ; tries++ {
		err := v.makeNamed(d, name)
		if err == nil {
			return d.SyncDir(".")
		}
		// Another process may have been faster, or may make
		// it at the same time under the same temporary name.
		if info, statErr := os.Stat(path); statErr == nil && info.IsDir() {
			return nil
		}
		if tries == 10 || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
}

// makeNamed makes a directory of d under a temporary name, and renames it.
func (v *Volume) makeNamed(d disk, name string) error {
	temporary := ".." + name + "_tmp"
	if d.Exists(temporary) {
		if err := d.remove(temporary); err != nil {
			return err
		}
	}
	if err := d.MakeDir(temporary, DirectoryMode(v.cfg.FileMode)); err != nil {
		return err
	}
	err := d.Rename(temporary, name)
	if err != nil {
		_ = d.remove(temporary)
	}
	return err
}

// lock keeps other processes that work on the volume away,
// for instance the same program in another pod.
func lock(d disk, done <-chan struct{}) (unlock func(), err error) {
	f, err := d.Root.Open(".")
	if err != nil {
		return nil, files.NewError(files.OpOpen, d.Dir, err)
	}
	release, err := files.Lock(f, lockName, done)
	if foreign, ok := errors.AsType[*files.ForeignLockError](err); ok {
		if err = d.moveAside(lockName, foreign.Error()); err == nil {
			release, err = files.Lock(f, lockName, done)
		}
	}
	if err != nil {
		f.Close()
		if _, ok := errors.AsType[*FileError](err); !ok {
			err = lockError(d.Dir, err)
		}
		return nil, err
	}
	return func() { release(); f.Close() }, nil
}

func lockError(dir string, err error) *FileError {
	failure := &FileError{Op: files.OpLock, Path: dir, Err: err}
	if !errors.Is(err, files.ErrLocked) && !errors.Is(err, context.Canceled) {
		failure.Path = filepath.Join(dir, lockName)
		failure.Hint = "remove it, nothing is lost with it"
	}
	return failure
}
