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

// The names of what is kept beside a destination.
const (
	backupSuffix = ".bak"
	stateSuffix  = ".bak.state"
)

// state is what is known of a destination. Its file has a line for each field.
//
// A backup is what the destination last held that somebody else had put there. It is made before a
// destination is changed, and what this program wrote itself is never backed up: however often the
// sources are renewed, the backup stays. When somebody puts something new in the destination's place,
// the next change backs that up instead.
//
// A backup that no state knows is not touched: either the ONAP post-processor made it, and it is the
// only copy of what was there first, or it has nothing to do with either. The backup then goes to
// .bak.1, or the next number that is free.
type state struct {
	backup string // its path; empty when nothing of anybody else was there
	// written are the SHA-256 digests of what the destination holds if nobody else changed it: the
	// content before the last change, when that was this program's too, and after it. Both, because the
	// state is written before the destination, and a crash may come in between.
	written []string
}

// backUp prepares beside path for the content next in the place of the current one, nil when there is
// none. It tells where the current content is kept, empty when that is this program's own.
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

// planBackup works out what backUp does: the state to write, and where the current content is kept.
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

// freeBackup finds the first path that has no backup of anything else than the data.
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

// readState reads what is known of a destination. A file that is missing or not understood is as good
// as none: then nothing there counts as this program's own.
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
