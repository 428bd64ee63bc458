package truststore

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// The names of what is kept next to a destination.
const (
	backupSuffix = ".bak"
	stateSuffix  = ".bak.state"
)

// state is what runs remember of a destination. Its file has a line for each field.
//
// A backup is the last content of the destination that another program or a person put there. It
// is made before a destination is changed. What this program wrote itself is never backed up:
// however often the sources are renewed, the backup stays. When something else is put in the
// destination's place, the next change backs that up instead.
//
// A backup that no state names is kept: either the ONAP post-processor made it, and it is the only
// copy of the first content, or it belongs to neither program. The backup then goes to .bak.1, or
// the next number that is free.
type state struct {
	backup string // its path; empty when there was only content of this program, or none
	// written are the SHA-256 digests of this program's own contents: of the one before the last
	// change, if it was this program's too, and of the one after it. Both, because the state is
	// written before the destination, and a crash may come in between.
	written []string
}

// backUp prepares a change of path from the current content, nil when there is none, to the next
// one. It returns where the current content is kept, empty when that is this program's own.
func (d disk) backUp(path string, current *file, next file) (backup string, err error) {
	s, backup, err := planBackup(path, current, next)
	if err != nil {
		return "", err
	}
	if backup != "" && !same(backup, current.data) {
		if err := d.write(backup, *current); err != nil {
			return "", err
		}
	}
	// The owner and mode are the destination's: the digest of a password file is for the same eyes.
	next.data = s.marshal()
	return backup, d.write(path+stateSuffix, next)
}

// planBackup works out what backUp does: the state to write, and where to keep the current content.
func planBackup(path string, current *file, next file) (s state, backup string, err error) {
	if s, err = readState(path); err != nil {
		return state{}, "", err
	}
	written := []string{digestOf(next.data)}
	switch {
	case current == nil:
	case slices.Contains(s.written, digestOf(current.data)):
		written = append([]string{digestOf(current.data)}, written...)
	default:
		if s.backup == "" {
			if s.backup, err = freeBackup(path, current.data); err != nil {
				return state{}, "", err
			}
		}
		backup = s.backup
	}
	s.written = written
	return s, backup, nil
}

// freeBackup finds the first path that has no backup, or one of the same data.
func freeBackup(path string, data []byte) (string, error) {
	backup := path + backupSuffix
	for n := 1; ; n++ {
		f, err := readFile(backup)
		switch {
		case errors.Is(err, fs.ErrNotExist), err == nil && bytes.Equal(f.data, data):
			return backup, nil
		case err != nil:
			return "", err
		}
		backup = path + backupSuffix + "." + strconv.Itoa(n)
	}
}

func (s state) marshal() []byte {
	name := "none"
	if s.backup != "" {
		name = filepath.Base(s.backup)
	}
	return []byte("backup: " + name + "\nwritten: " + strings.Join(s.written, " ") + "\n")
}

// readState reads the state of a destination. Without a state file, or with one that cannot be
// understood, nothing there counts as this program's own.
func readState(path string) (state, error) {
	f, err := readFile(path + stateSuffix)
	if errors.Is(err, fs.ErrNotExist) {
		return state{}, nil
	}
	if err != nil {
		return state{}, err
	}
	first, second, _ := strings.Cut(string(f.data), "\n")
	name, named := strings.CutPrefix(first, "backup: ")
	digests, listed := strings.CutPrefix(second, "written: ")
	if !named || !listed {
		return state{}, nil
	}
	s := state{written: strings.Fields(digests)}
	if strings.HasPrefix(name, filepath.Base(path)+backupSuffix) && filepath.Base(name) == name {
		s.backup = filepath.Join(filepath.Dir(path), name)
	}
	return s, nil
}

func digestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
