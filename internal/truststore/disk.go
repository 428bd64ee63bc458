package truststore

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/certfetcher/certfetcher/internal/files"
	"github.com/certfetcher/certfetcher/internal/keystore"
)

// file is a file as it was read.
type file struct {
	data     []byte
	mode     fs.FileMode // permissions only
	uid, gid int
}

func (f file) equal(other file) bool {
	return bytes.Equal(f.data, other.data) && f.mode == other.mode && f.uid == other.uid && f.gid == other.gid
}

// disk changes files in small steps.
type disk struct {
	// step is called before each step; the step fails with its error. Tests bend the disk with it, it
	// is nil otherwise.
	step func(op, path string) error
}

func (d disk) do(op, path string, step func() error) error {
	var err error
	if d.step != nil {
		err = d.step(op, path)
	}
	if err == nil {
		err = step()
	}
	return fileError(op, path, err)
}

// fileError words an error of the file system; it is nil for nil.
func fileError(op, path string, err error) error {
	// The system's own errors repeat the path, or name a temporary one.
	var pathError *fs.PathError
	var linkError *os.LinkError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &pathError):
		err = pathError.Err
	case errors.As(err, &linkError):
		err = linkError.Err
	}
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%s %q: %w (running as uid %d, gid %d)", op, path, err, os.Geteuid(), os.Getegid())
	}
	return fmt.Errorf("%s %q: %w", op, path, err)
}

// readFile reads a regular file that is not larger than a store may be.
func readFile(path string) (file, error) {
	data, info, err := files.Read(path, keystore.MaxSize)
	if kind, ok := errors.AsType[files.KindError](err); ok {
		return file{}, fmt.Errorf("%q is no regular file (%s)", path, fs.FileMode(kind))
	}
	if err != nil && info == nil {
		return file{}, fileError("opening", path, err)
	}
	if err != nil {
		return file{}, fileError("reading", path, err)
	}
	if len(data) > keystore.MaxSize {
		return file{}, fmt.Errorf("%q has more than %d bytes, the most that a store may have", path, keystore.MaxSize)
	}
	read := file{data: data, mode: info.Mode().Perm(), uid: os.Geteuid(), gid: -1}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		read.uid, read.gid = int(stat.Uid), int(stat.Gid)
	}
	return read, nil
}

// temporaryMark is in the names of files that are not in their place yet, between the name of the file
// and random digits.
const temporaryMark = ".postprocess-"

// lockName is the file by which several runs keep out of one another's way; it is there only while one works.
const lockName = ".postprocess-lock"

// stage writes a file beside the place that it is for, synced, with the mode and owner of f. It is
// closed to all but its owner until it has them; the group stays the directory's when f has none.
func (d disk) stage(path string, f file) (temporary string, err error) {
	var t *os.File
	err = d.do("creating a file beside", path, func() (err error) {
		t, err = os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+temporaryMark+"*")
		return err
	})
	if err != nil {
		return "", err
	}
	defer t.Close()
	err = d.do("writing", path, func() error { _, err := t.Write(f.data); return err })
	if err == nil && f.gid >= 0 {
		err = d.do("keeping the owner of", path, func() error { return chown(t, f.uid, f.gid) })
	}
	if err == nil {
		err = d.do("setting the mode of", path, func() error { return t.Chmod(f.mode) })
	}
	if err == nil {
		err = d.do("syncing", path, t.Sync)
	}
	if err == nil {
		err = fileError("writing", path, t.Close()) // network file systems report a failed write only here
	}
	if err != nil {
		d.discard(t.Name())
		return "", err
	}
	return t.Name(), nil
}

// chown gives the file its owner and group. Only root may give files away; without that, the group
// does: it is what containers share a volume by.
func chown(f *os.File, uid, gid int) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && int(stat.Uid) == uid && int(stat.Gid) == gid {
		return nil
	}
	if err := f.Chown(uid, gid); !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return f.Chown(-1, gid)
}

// settle puts a staged file in its place.
func (d disk) settle(temporary, path string) error {
	return d.do("replacing", path, func() error { return os.Rename(temporary, path) })
}

// write stages a file, puts it in its place and makes that durable.
func (d disk) write(path string, f file) error {
	temporary, err := d.stage(path, f)
	if err != nil {
		return err
	}
	if err := d.settle(temporary, path); err != nil {
		d.discard(temporary)
		return err
	}
	return d.syncDir(filepath.Dir(path))
}

// syncDir makes the names in a directory durable.
func (d disk) syncDir(dir string) error {
	return d.do("syncing", dir, func() error {
		f, err := files.OpenDir(dir)
		if err != nil {
			return err
		}
		defer f.Close()
		// Some network and FUSE file systems cannot sync a directory; there is no other way to ask.
		if err := f.Sync(); !errors.Is(err, syscall.EINVAL) && !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
		return nil
	})
}

func (d disk) makeDir(dir string) error {
	return d.do("creating directory", dir, func() error { return os.MkdirAll(dir, 0o750) })
}

// discard removes a staged file after a failure, which is what gets reported. What it cannot remove,
// the next run does.
func (d disk) discard(temporary string) {
	_ = d.do("removing", temporary, func() error { return os.Remove(temporary) })
}

// sweep removes the files that a killed run left beside a file, which may hold private keys.
func (d disk) sweep(path string) error {
	for _, left := range leftovers(path) {
		if err := d.do("removing", left, func() error { return os.Remove(left) }); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// leftovers are the files that were staged for a path. A directory that is missing, or closed to this process, has none.
func leftovers(path string) (paths []string) {
	dir, prefix := filepath.Dir(path), "."+filepath.Base(path)+"."
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		if name := e.Name(); strings.HasPrefix(name, prefix) && strings.Contains(name, temporaryMark) {
			paths = append(paths, filepath.Join(dir, name))
		}
	}
	return paths
}

// same tells whether a file still has the content.
func same(path string, data []byte) bool {
	f, err := readFile(path)
	return err == nil && bytes.Equal(f.data, data)
}

// lock keeps other runs away that would change files in one of the directories, until unlock. One that cannot be
// opened yet, or not read, is passed over: what is wrong with it is said by the step that needs it.
func lock(dirs []string) (unlock func(), err error) {
	var held []func()
	unlock = func() {
		for _, release := range held {
			release()
		}
	}
	for _, dir := range dirs {
		f, err := files.OpenDir(dir)
		if err != nil {
			continue
		}
		release, err := files.LockAndRemove(f, lockName, nil)
		if err != nil {
			f.Close()
			unlock()
			return nil, fileError("locking", dir, err)
		}
		held = append(held, func() { release(); f.Close() })
	}
	return unlock, nil
}
