package files

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
)

// What a disk does, in the words of its errors.
const (
	OpOpen    = "opening"
	OpRead    = "reading"
	OpLock    = "locking"
	OpMakeDir = "creating directory"
	OpCreate  = "creating"
	OpWrite   = "writing"
	OpGroup   = "setting the group of"
	OpMode    = "setting the mode of"
	OpSync    = "syncing"
	OpLink    = "creating link"
	OpRename  = "renaming"
	OpRemove  = "removing"
)

// Inherit stands for the group that the kernel gives: the directory's when its setgid bit is set
// (as it is on a volume with an fsGroup), else the process's.
const Inherit = -1

// Disk changes what is in one directory and below, in small steps. Names are relative to the
// directory, and nothing outside of it can be reached, whatever links other processes put there.
// All errors are of type *Error.
type Disk struct {
	Root *os.Root
	Dir  string // the root's path, for errors
	GID  int    // the group of what is created, or Inherit
	Step StepFunc
}

// StepFunc is called before each step, with what is done (Op…) and to which path; the step fails
// with its error. Tests inject faults with it. It is nil otherwise.
type StepFunc func(op, path string) error

// OpenDisk opens a directory for changes. It does not wait
// for anything that has the directory's name instead.
func OpenDisk(dir string, gid int, step StepFunc) (Disk, error) {
	info, err := os.Stat(dir)
	if err == nil && !info.IsDir() {
		err = syscall.ENOTDIR // a named pipe would have OpenRoot wait
	}
	var root *os.Root
	if err == nil {
		root, err = os.OpenRoot(dir)
	}
	if err != nil {
		return Disk{}, NewError(OpOpen, dir, err)
	}
	return Disk{Root: root, Dir: dir, GID: gid, Step: step}, nil
}

// Open opens a directory on the disk as one of its own: what is done in it often is not looked up
// from the top each time. The caller closes it.
func (d Disk) Open(name string) (Disk, error) {
	root, err := d.Root.OpenRoot(name)
	if err != nil {
		return Disk{}, NewError(OpOpen, d.Path(name), err)
	}
	return Disk{Root: root, Dir: d.Path(name), GID: d.GID, Step: d.Step}, nil
}

// Close gives the directory back.
func (d Disk) Close() error { return d.Root.Close() }

// Path is the path of a name.
func (d Disk) Path(name string) string { return filepath.Join(d.Dir, name) }

// Do takes one step, and words its error.
func (d Disk) Do(op, name string, step func() error) error {
	var err error
	if d.Step != nil {
		err = d.Step(op, d.Path(name))
	}
	if err == nil {
		err = step()
	}
	if err != nil {
		return NewError(op, d.Path(name), err)
	}
	return nil
}

// MakeDir creates a directory. It is closed to all but the owner until it has its group.
func (d Disk) MakeDir(name string, mode fs.FileMode) error {
	if err := d.Do(OpMakeDir, name, func() error { return d.Root.Mkdir(name, 0o700) }); err != nil {
		return err
	}
	info, err := d.Root.Lstat(name)
	if err != nil {
		return NewError(OpMakeDir, d.Path(name), err)
	}
	if d.GID != Inherit && GroupOf(info) != d.GID {
		if err := d.Do(OpGroup, name, func() error { return d.Root.Lchown(name, -1, d.GID) }); err != nil {
			return err
		}
	}
	// Said explicitly, as the umask took its part of the mode before. The kernel hands on setgid.
	return d.Do(OpMode, name, func() error { return d.Root.Chmod(name, mode|info.Mode()&fs.ModeSetgid) })
}

// WriteFile makes a new file, which is not synced yet. It is closed to all but the owner until it
// has its group. The caller closes it, also after an error if it is not nil.
func (d Disk) WriteFile(name string, data []byte, mode fs.FileMode) (f *os.File, err error) {
	err = d.Do(OpCreate, name, func() (err error) {
		f, err = d.Root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := d.Do(OpWrite, name, func() error { _, err := f.Write(data); return err }); err != nil {
		return f, err
	}
	info, err := f.Stat()
	if err != nil {
		return f, NewError(OpWrite, d.Path(name), err)
	}
	if d.GID != Inherit && GroupOf(info) != d.GID {
		if err := d.Do(OpGroup, name, func() error { return f.Chown(-1, d.GID) }); err != nil {
			return f, err
		}
	}
	return f, d.Do(OpMode, name, func() error { return f.Chmod(mode) })
}

// SyncFiles makes files durable that stand in the disk's directory, and their names in it. All are
// synced at the same time, as file systems write them out together then.
func (d Disk) SyncFiles(files []*os.File) error {
	errs := make([]error, len(files)+1)
	var syncs sync.WaitGroup
	for i, f := range files {
		name := filepath.Base(f.Name())
		if err := d.Do(OpSync, name, func() error { return nil }); err != nil {
			errs[i] = err
			break
		}
		syncs.Go(func() {
			if err := f.Sync(); err != nil {
				errs[i] = NewError(OpSync, d.Path(name), err)
			}
		})
	}
	errs[len(files)] = d.SyncDir(".")
	syncs.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// SyncDir makes the names in a directory durable.
func (d Disk) SyncDir(name string) error {
	return d.Do(OpSync, name, func() error {
		f, err := d.OpenDir(name)
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

// Rename gives a file or directory another name, in place of what has that name.
func (d Disk) Rename(from, to string) error {
	return d.Do(OpRename, to, func() error { return d.Root.Rename(from, to) })
}

// ReplaceLink makes name a symbolic link to target, by way of the temporary name, in one rename.
func (d Disk) ReplaceLink(target, name, temporary string) error {
	if err := d.MakeLink(target, temporary); err != nil {
		return err
	}
	return d.Rename(temporary, name)
}

// MakeLink makes a symbolic link to target, where there is nothing of that name.
func (d Disk) MakeLink(target, name string) error {
	return d.Do(OpLink, name, func() error { return d.Root.Symlink(target, name) })
}

// Exists tells whether there is anything under a name, a link that leads nowhere included.
func (d Disk) Exists(name string) bool {
	_, err := d.Root.Lstat(name)
	return err == nil
}

// GroupOf is the number of a file's group, or Inherit where the system has none.
func GroupOf(info fs.FileInfo) int {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(stat.Gid)
	}
	return Inherit
}

// OpenDir opens a directory, and nothing that could make it wait.
func (d Disk) OpenDir(name string) (*os.File, error) {
	return d.Root.OpenFile(name, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NONBLOCK, 0)
}

// IsRegular tells whether a name is a regular file, and not a link to one.
func (d Disk) IsRegular(name string) bool {
	info, err := d.Root.Lstat(name)
	return err == nil && info.Mode().IsRegular()
}

// IsDirectory tells whether a name is a directory, and not a link to one.
func (d Disk) IsDirectory(name string) bool {
	info, err := d.Root.Lstat(name)
	return err == nil && info.IsDir()
}
