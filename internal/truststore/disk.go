package truststore

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/certfetcher/certfetcher/internal/files"
	"github.com/certfetcher/certfetcher/internal/keystore"
)

// file is a file as it was read.
type file struct {
	data     []byte
	mode     fs.FileMode // permissions only
	uid, gid int         // -1: that of this process, and files.Inherit
}

func (f file) equal(other file) bool {
	return bytes.Equal(f.data, other.data) && f.mode == other.mode && f.uid == other.uid && f.gid == other.gid
}

// readFile reads a regular file that is not larger than a store may be.
func readFile(path string) (file, error) {
	data, info, err := files.Read(path, keystore.MaxSize)
	if err != nil {
		return file{}, fmt.Errorf("%q %w", path, files.Explain(path, files.Reason(err)))
	}
	if len(data) > keystore.MaxSize {
		return file{}, fmt.Errorf("%q has more than %d bytes, the most that a store may have", path, keystore.MaxSize)
	}
	read := file{data: data, mode: info.Mode().Perm(), uid: -1, gid: files.GroupOf(info)}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		read.uid = int(stat.Uid)
	}
	return read, nil
}

// same says whether a file still has the content.
func same(path string, data []byte) bool {
	f, err := readFile(path)
	return err == nil && bytes.Equal(f.data, data)
}

// disk changes files in small steps, whose errors are of type *files.Error.
type disk struct{ step files.StepFunc }

func (d disk) do(op, path string, step func() error) error {
	return files.Disk{Dir: filepath.Dir(path), Step: d.step}.Do(op, filepath.Base(path), step)
}

// temporaryMark is in the names of files that are not in
// their place yet, between the name of the file and a number.
const temporaryMark = ".postprocess-"

// lockName is the file that keeps other runs out of a directory; it exists only while one works.
const lockName = ".postprocess-lock"

// stage writes a file next to the path that it is for, synced, with the mode and the owner of f.
func (d disk) stage(path string, f file) (temporary string, err error) {
	opened, err := files.OpenDisk(filepath.Dir(path), f.gid, d.step)
	if err != nil {
		return "", err
	}
	defer opened.Close()
	name := "." + filepath.Base(path) + temporaryMark + strconv.FormatInt(time.Now().UnixNano(), 36)
	t, err := opened.WriteFile(name, f.data, f.mode)
	if t != nil {
		defer t.Close()
		temporary = opened.Path(name)
	}
	if err == nil && f.uid >= 0 {
		err = opened.Do("setting the owner of", name, func() error { return giveTo(t, f.uid) })
	}
	if err == nil {
		err = opened.Do(files.OpSync, name, t.Sync)
	}
	if err == nil {
		if closing := t.Close(); closing != nil { // network file systems report a failed write only here
			err = files.NewError(files.OpWrite, path, closing)
		}
	}
	if err == nil {
		return temporary, nil
	}
	if temporary != "" {
		d.discard(temporary)
	}
	if failure, ok := errors.AsType[*files.Error](err); ok {
		failure.Path = path // not the temporary one
	}
	return "", err
}

// giveTo makes a user the owner of a file. Only root may do that; for other processes the group
// has to be enough, by which containers share a volume.
func giveTo(f *os.File, uid int) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && int(stat.Uid) == uid {
		return nil
	}
	if err := f.Chown(uid, -1); !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return nil
}

// replace puts a staged file in its place.
func (d disk) replace(temporary, path string) error {
	return d.do(files.OpRename, path, func() error { return os.Rename(temporary, path) })
}

// write stages a file, puts it in its place and makes that durable.
func (d disk) write(path string, f file) error {
	temporary, err := d.stage(path, f)
	if err != nil {
		return err
	}
	if err := d.replace(temporary, path); err != nil {
		d.discard(temporary)
		return err
	}
	return d.syncDir(filepath.Dir(path))
}

// syncDir makes the names in a directory durable.
func (d disk) syncDir(dir string) error {
	opened, err := files.OpenDisk(dir, files.Inherit, d.step)
	if err != nil {
		return err
	}
	defer opened.Close()
	return opened.SyncDir(".")
}

func (d disk) makeDir(dir string) error {
	return d.do(files.OpMakeDir, dir, func() error { return os.MkdirAll(dir, 0o750) })
}

// discard removes a staged file after a failure, which is what gets reported. What it cannot
// remove, the next run does.
func (d disk) discard(temporary string) {
	_ = d.do(files.OpRemove, temporary, func() error { return os.Remove(temporary) })
}

// sweep removes the files that a killed run left next to a file, which may hold private keys.
func (d disk) sweep(path string) error {
	for _, left := range leftovers(path) {
		err := d.do(files.OpRemove, left, func() error { return os.Remove(left) })
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// leftovers are the files that were staged for a path. A directory that is missing, or closed to
// this process, has none.
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

// lock keeps other runs away that would change files in one of the
// directories, until unlock. A directory that does not exist yet, or cannot
// be read, is skipped: the step that needs it reports what is wrong.
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
			return nil, files.NewError(files.OpLock, dir, err)
		}
		held = append(held, func() { release(); f.Close() })
	}
	return unlock, nil
}
