package output

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"reflect"
	"syscall"
	"time"

	"github.com/certfetcher/certfetcher/internal/files"
)

// readLimit bounds what is read of one file, in bytes. A CertService response has at most a
// megabyte, in Base64, and the largest store has some ten kilobytes; there are ten files, and they
// are held in memory twice.
const readLimit = 2 << 20

const (
	// stablePatience is how long a reader without the lock waits for a publication to end.
	stablePatience = time.Second
	stablePause    = 10 * time.Millisecond
)

// snapshot is what is on a volume under the names of certfetcher's files, seen once.
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
	err  error // why it cannot be one of certfetcher's

	shared bool // it has another name as well, perhaps elsewhere
}

// holds tells whether the file could be read and has this content.
func (f found) holds(data []byte) bool { return f.err == nil && bytes.Equal(f.data, data) }

// look takes a snapshot. In the symlink layout it resolves ..data once and reads what that led to.
func (d disk) look() snapshot {
	generation := d.generation()
	s := snapshot{layout: LayoutInplace, generated: generation != "",
		unsettled: d.Exists(commitDir), files: map[string]found{}}
	if s.generated {
		s.layout = LayoutSymlink
	} else if _, err := d.Root.Stat(dataLink); errors.Is(err, fs.ErrNotExist) {
		s.dangling, _ = d.Root.Readlink(dataLink) // an error: there is no such link
	}
	note := noteName
	if s.generated {
		note = generation + "/" + noteName
	}
	if d.Exists(note) {
		s.noted = d.read(note)
	}
	for _, f := range catalogue {
		if !d.Exists(f.Name) {
			continue
		}
		switch {
		case !s.generated:
			s.files[f.Name] = d.read(f.Name)
		case !d.linksTo(f.Name, throughData+f.Name):
			s.files[f.Name] = found{err: fmt.Errorf("is not a link to %q", throughData+f.Name)}
		case d.Exists(generation + "/" + f.Name):
			s.files[f.Name] = d.read(generation + "/" + f.Name)
		}
	}
	return s
}

// lookUndisturbed is look for a reader without the lock: what it returns was the same twice, with
// no publication under way, unless one does not end.
func (d disk) lookUndisturbed() snapshot {
	s := d.look()
	for end := time.Now().Add(stablePatience); ; {
		again := d.look()
		if same := reflect.DeepEqual(s, again); same && !s.unsettled || time.Now().After(end) {
			return again
		} else if same || s.unsettled {
			time.Sleep(stablePause)
		}
		s = again
	}
}

// read reads a regular file of the volume; everything that is read there goes through it. It never
// waits, and follows no link, whatever another process may have put in the file's place.
func (d disk) read(name string) found { return d.readAtMost(name, readLimit) }

func (d disk) readAtMost(name string, most int64) found {
	data, info, err := files.ReadIn(d.Root, name, most)
	if _, foreign := errors.AsType[files.KindError](err); foreign {
		return found{err: errors.New("is not a regular file")}
	}
	if err == nil && int64(len(data)) > most {
		err = fmt.Errorf("has %d bytes, want at most %d", info.Size(), most)
	}
	if err != nil {
		// The caller's error names the path.
		return found{err: fmt.Errorf("cannot be read: %w", files.NewError(files.OpRead, d.Path(name), err).Err)}
	}
	return found{data: data, mode: info.Mode().Perm(), gid: files.GroupOf(info), shared: nameCount(info) > 1}
}

// nameCount counts the names of a file; 1 where the system does not tell.
func nameCount(info fs.FileInfo) uint64 {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(stat.Nlink)
	}
	return 1
}
