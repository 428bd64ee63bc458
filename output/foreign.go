package output

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"syscall"

	"github.com/certfetcher/certfetcher/internal/files"
)

const (
	// lockName is the file by which the processes that change a volume keep out of one another's way. It stays there.
	lockName = "..lock"

	// asidePrefix, with a number, is where what is somebody else's goes that has a name of ours.
	asidePrefix = "..foreign-"
	asideMost   = 16

	// filesMost is how many files a directory of ours may have to be removed at once: a set has a dozen.
	filesMost = 1000
)

// moveAside gives something that is not ours another name, in one step, whatever it is.
func (d disk) moveAside(name, reason string) error {
	for n := 1; n <= asideMost; n++ {
		to := asidePrefix + strconv.Itoa(n)
		if d.Exists(to) {
			continue
		}
		err := d.Do(files.OpRename, name, func() error { return d.Root.Rename(name, to) })
		if errors.Is(err, fs.ErrNotExist) {
			return nil // somebody else was faster
		}
		if err != nil {
			return err
		}
		if d.aside != nil {
			d.aside(d.Path(name), d.Path(to), reason)
		}
		return nil
	}
	return &FileError{
		Op: files.OpRename, Path: d.Path(name), Err: errors.New("it is not certfetcher's, and nothing more is moved aside"),
		Hint: fmt.Sprintf("remove it, and what is there as %s1 to %[1]s%d; find out who puts it there", asidePrefix, asideMost),
	}
}

// removeFiles removes a file, a link, or a directory with the files in it: ours have no more. What else there is in a
// directory, and how much, is somebody else's doing: it is moved aside, as removing it could take for ever.
func (d disk) removeFiles(name string) (emptied bool, err error) {
	info, err := d.Root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	if info.IsDir() {
		entries, err := d.some(name, filesMost)
		if err != nil {
			return false, err
		}
		for _, entry := range entries {
			err := d.Root.Remove(name + "/" + entry.Name())
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

// remove removes what has a name of ours, or nothing when there is none. See removeFiles.
func (d disk) remove(name string) error {
	emptied := false
	err := d.Do(files.OpRemove, name, func() (err error) { emptied, err = d.removeFiles(name); return err })
	if err != nil || emptied {
		return err
	}
	return d.moveAside(name, "it holds more than the files of certfetcher")
}

// some reads up to most entries of a directory, in no order.
func (d disk) some(name string, most int) ([]fs.DirEntry, error) {
	f, err := d.OpenDir(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	entries, err := f.ReadDir(most)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return entries, err
}

// list names those entries of a directory that fit, sorted. It bears any number of others.
func (d disk) list(name string, fits func(fs.DirEntry) bool) ([]string, error) {
	f, err := d.OpenDir(name)
	if err != nil {
		return nil, files.NewError(files.OpRead, d.Path(name), err)
	}
	defer f.Close()
	var names []string
	for {
		entries, err := f.ReadDir(filesMost)
		for _, entry := range entries {
			if fits(entry) {
				names = append(names, entry.Name())
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
