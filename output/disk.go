package output

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
	opOpen    = "opening"
	opRead    = "reading"
	opLock    = "locking"
	opMakeDir = "creating directory"
	opCreate  = "creating"
	opWrite   = "writing"
	opGroup   = "setting the group of"
	opMode    = "setting the mode of"
	opSync    = "syncing"
	opLink    = "creating link"
	opRename  = "renaming"
	opRemove  = "removing"
)

// inherit stands for the group that the kernel gives: the directory's when its setgid bit is set
// (as it is on a volume with an fsGroup), else the process's.
const inherit = -1

// disk does everything that changes a volume, in small steps. Names are relative to the volume's root
// and nothing outside of it can be reached, whatever links others put there. All errors are of type
// *FileError.
type disk struct {
	root *os.Root
	dir  string // the root's path, for errors
	gid  int    // or inherit
	step stepFunc

	aside func(path, to, reason string) // is told what was moved aside; may be nil
}

// stepFunc is called before each step; the step fails with its error. Tests bend the disk with it, it
// is nil otherwise.
type stepFunc func(op, path string) error

func (d disk) path(name string) string { return filepath.Join(d.dir, name) }

func (d disk) do(op, name string, step func() error) error {
	var err error
	if d.step != nil {
		err = d.step(op, d.path(name))
	}
	if err == nil {
		err = step()
	}
	if err != nil {
		return fileError(op, d.path(name), err)
	}
	return nil
}

// makeDir creates a directory. It is closed to all but the owner until it has its group.
func (d disk) makeDir(name string, mode fs.FileMode) error {
	if err := d.do(opMakeDir, name, func() error { return d.root.Mkdir(name, 0o700) }); err != nil {
		return err
	}
	info, err := d.root.Lstat(name)
	if err != nil {
		return fileError(opMakeDir, d.path(name), err)
	}
	if d.gid != inherit && groupOf(info) != d.gid {
		if err := d.do(opGroup, name, func() error { return d.root.Lchown(name, -1, d.gid) }); err != nil {
			return err
		}
	}
	// Said explicitly, as the umask took its part of the mode before. The kernel hands on setgid.
	return d.do(opMode, name, func() error { return d.root.Chmod(name, mode|info.Mode()&fs.ModeSetgid) })
}

// writeFile makes a new file, which is not synced yet. It is closed to all but the owner until it has its
// group. The caller closes it, also after an error if it is not nil.
func (d disk) writeFile(name string, data []byte, mode fs.FileMode) (f *os.File, err error) {
	err = d.do(opCreate, name, func() (err error) {
		f, err = d.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := d.do(opWrite, name, func() error { _, err := f.Write(data); return err }); err != nil {
		return f, err
	}
	info, err := f.Stat()
	if err != nil {
		return f, fileError(opWrite, d.path(name), err)
	}
	if d.gid != inherit && groupOf(info) != d.gid {
		if err := d.do(opGroup, name, func() error { return f.Chown(-1, d.gid) }); err != nil {
			return f, err
		}
	}
	return f, d.do(opMode, name, func() error { return f.Chmod(mode) })
}

// syncFiles makes files durable that stand in a directory, and their names in it. All are synced at the
// same time, as file systems write them out together then.
func (d disk) syncFiles(dir string, files []*os.File) error {
	errs := make([]error, len(files)+1)
	var syncs sync.WaitGroup
	for i, f := range files {
		name := dir + "/" + filepath.Base(f.Name())
		if err := d.do(opSync, name, func() error { return nil }); err != nil {
			errs[i] = err
			break
		}
		syncs.Go(func() {
			if err := f.Sync(); err != nil {
				errs[i] = fileError(opSync, d.path(name), err)
			}
		})
	}
	errs[len(files)] = d.syncDir(dir)
	syncs.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// syncDir makes the names in a directory durable.
func (d disk) syncDir(name string) error {
	return d.do(opSync, name, func() error {
		f, err := d.openDir(name)
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

func (d disk) rename(from, to string) error {
	return d.do(opRename, to, func() error { return d.root.Rename(from, to) })
}

// replaceLink makes name a symbolic link to target, by way of the temporary name, in one rename.
func (d disk) replaceLink(target, name, temporary string) error {
	if err := d.do(opLink, temporary, func() error { return d.root.Symlink(target, temporary) }); err != nil {
		return err
	}
	return d.rename(temporary, name)
}

func (d disk) exists(name string) bool {
	_, err := d.root.Lstat(name)
	return err == nil
}

// groupOf is the number of a file's group, or inherit where the system has none.
func groupOf(info fs.FileInfo) int {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(stat.Gid)
	}
	return inherit
}
