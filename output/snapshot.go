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
	generated bool   // ..data points to a generation
	dangling  string // where ..data points when nothing is there
	unsettled bool   // a committed publication is not finished
	files     map[string]found
	noted     found // the note; zero when there is none
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
	} else if _, err := d.root.Stat(dataLink); errors.Is(err, fs.ErrNotExist) {
		s.dangling, _ = d.root.Readlink(dataLink) // an error: there is no such link
	}
	note := noteName
	if s.generated {
		note = generation + "/" + noteName
	}
	if d.exists(note) {
		s.noted = d.read(note)
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
	if info, err := d.root.Lstat(name); err == nil && !info.Mode().IsRegular() {
		return found{err: errors.New("is not a regular file")}
	}
	file, err := d.readRegular(name)
	if err != nil {
		// The path is said by whoever reports it.
		return found{err: fmt.Errorf("cannot be read: %w", fileError(opRead, d.path(name), err).Err)}
	}
	return file
}

func (d disk) readRegular(name string) (found, error) {
	f, err := d.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return found{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return found{}, err
	}
	if info.Size() > readLimit {
		return found{}, fmt.Errorf("has %d bytes, want at most %d", info.Size(), readLimit)
	}
	data, err := io.ReadAll(io.LimitReader(f, readLimit))
	if err != nil {
		return found{}, err
	}
	return found{data: data, mode: info.Mode().Perm(), gid: groupOf(info)}, nil
}
