package output

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// readLimit bounds what is read of one file; the largest store of ours has some ten kilobytes.
const readLimit = 16 << 20

// snapshot is what is on a volume under the names of ours, seen once.
type snapshot struct {
	layout    string
	generated bool // ..data points to a generation
	unsettled bool // a committed publication is not finished
	files     map[string]found
}

// found is one file of a snapshot.
type found struct {
	data []byte
	mode fs.FileMode
	gid  int
	err  error // why it cannot be one of ours
}

// holds tells whether the file could be read and has this content.
func (f found) holds(data []byte) bool { return f.err == nil && bytes.Equal(f.data, data) }

// look takes a snapshot. In the symlink layout it resolves ..data once and reads what that led to.
func (d disk) look() snapshot {
	generation := d.generation()
	s := snapshot{layout: LayoutInplace, generated: generation != "", unsettled: d.exists(commitDir), files: map[string]found{}}
	if s.generated {
		s.layout = LayoutSymlink
	}
	for _, f := range catalogue {
		if !d.exists(f.name) {
			continue
		}
		switch {
		case !s.generated:
			s.files[f.name] = d.read(f.name)
		case !d.linksTo(f.name, throughData+f.name):
			s.files[f.name] = found{err: fmt.Errorf("is not a link to %q", throughData+f.name)}
		case d.exists(generation + "/" + f.name):
			s.files[f.name] = d.read(generation + "/" + f.name)
		}
	}
	return s
}

// read reads a regular file. It never waits, whatever somebody may have put in its place.
func (d disk) read(name string) found {
	f, err := d.root.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		if info, lstatErr := d.root.Lstat(name); lstatErr == nil && !info.Mode().IsRegular() {
			return found{err: errors.New("is not a regular file")}
		}
		return found{err: fmt.Errorf("cannot be read: %w", fileError(opRead, d.path(name), err).Err)}
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return found{err: fmt.Errorf("cannot be read: %w", err)}
	}
	if !info.Mode().IsRegular() {
		return found{err: errors.New("is not a regular file")}
	}
	data, err := io.ReadAll(io.LimitReader(f, readLimit+1))
	if err != nil {
		return found{err: fmt.Errorf("cannot be read: %w", err)}
	}
	if len(data) > readLimit {
		return found{err: fmt.Errorf("is larger than %d bytes", readLimit)}
	}
	return found{data: data, mode: info.Mode().Perm(), gid: groupOf(info)}
}
