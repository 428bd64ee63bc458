package output

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"slices"
	"strconv"
	"syscall"

	"github.com/certfetcher/certfetcher/internal/files"
)

const (
	// lockName is the file by which the processes that change a volume keep out of one another's
	// way. It stays there.
	lockName = "..lock"

	// asidePrefix, with a number, is the new name of what is
	// not certfetcher's but has a name of one of its files.
	asidePrefix = "..foreign-"
	asideMost   = 16

	// filesMost bounds the files of a directory that is removed at once: a set has a dozen.
	filesMost = 1000
)

// disk changes a volume, and moves aside what is not certfetcher's.
type disk struct {
	files.Disk
	log *slog.Logger
}

// moveAside gives something that is not certfetcher's another name, in one step, whatever it is.
func (d disk) moveAside(name, reason string) error {
	for n := 1; n <= asideMost; n++ {
		to := asidePrefix + strconv.Itoa(n)
		if d.Exists(to) {
			continue
		}
		err := d.Do(files.OpRename, name, func() error { return d.Root.Rename(name, to) })
		if errors.Is(err, fs.ErrNotExist) {
			return nil // another process was faster
		}
		if err != nil {
			return err
		}
		d.log.Warn("moved aside what is not certfetcher's but had the name of one of its files: "+
			"find out which process puts it there",
			"path", d.Path(name), "to", d.Path(to), "error", reason)
		return nil
	}
	return &FileError{
		Op: files.OpRename, Path: d.Path(name),
		Err: errors.New("it is not certfetcher's, and nothing more is moved aside"),
		Hint: fmt.Sprintf("remove it, and what is there as %s1 to %[1]s%d; find out who puts it there", asidePrefix,
			asideMost),
	}
}

// removeFiles removes a file, a link, or a directory with the files in it: those of certfetcher
// hold nothing else. A directory with more in it is another process's: emptied is false then, as
// removing it all could take very long.
func (d disk) removeFiles(name string) (emptied bool, err error) {
	info, err := d.Root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	if info.IsDir() {
		dir, err := d.OpenDir(name)
		if err != nil {
			return false, err
		}
		defer dir.Close()
		names, err := dir.Readdirnames(filesMost)
		if err != nil && !errors.Is(err, io.EOF) {
			return false, err
		}
		inside, err := d.Root.OpenRoot(name)
		if err != nil {
			return false, err
		}
		defer inside.Close()
		for _, file := range names {
			err := inside.Remove(file)
			if err != nil && !errors.Is(err, fs.ErrNotExist) && !notEmpty(err) {
				return false, err
			}
		}
	}
	err = d.Root.Remove(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return true, nil
	case notEmpty(err):
		return false, nil
	}
	return err == nil, err
}

func notEmpty(err error) bool {
	return errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, syscall.EEXIST)
}

// remove removes what has a name of certfetcher's, or nothing when there is none. What removeFiles
// cannot empty is moved aside.
func (d disk) remove(name string) error {
	emptied := false
	err := d.Do(files.OpRemove, name, func() (err error) { emptied, err = d.removeFiles(name); return err })
	if err != nil || emptied {
		return err
	}
	return d.moveAside(name, "it holds more than the files of certfetcher")
}

// list gives the names in a directory that fit, sorted. Any number of others may be there.
func (d disk) list(name string, fits func(name string) bool) ([]string, error) {
	f, err := d.OpenDir(name)
	if err != nil {
		return nil, files.NewError(files.OpRead, d.Path(name), err)
	}
	defer f.Close()
	var names []string
	for {
		some, err := f.Readdirnames(filesMost) // and not ReadDir, which looks at each file as well
		for _, name := range some {
			if fits(name) {
				names = append(names, name)
			}
		}
		if errors.Is(err, io.EOF) {
			slices.Sort(names)
			return names, nil
		}
		if err != nil {
			return nil, files.NewError(files.OpRead, d.Path(name), err)
		}
	}
}
