package files

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Read reads a regular file, following symbolic links; of one that has more than most bytes it gives most+1. It
// never waits: a named pipe would have its reader wait for a writer, for ever where there is none. An error is a
// *fs.PathError; for what is no regular file it wraps KindError.
func Read(path string, most int64) ([]byte, fs.FileInfo, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	defer file.Close()
	return readRegular(file, path, most)
}

func readRegular(file *os.File, path string, most int64) ([]byte, fs.FileInfo, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, nil, &fs.PathError{Op: "read", Path: path, Err: KindError(info.Mode())}
	}
	data, err := io.ReadAll(io.LimitReader(file, most+1))
	return data, info, err
}

// ReadIn is Read for a name below a root that others may write to: it follows no symbolic link, at no part of the name.
func ReadIn(root *os.Root, name string, most int64) ([]byte, fs.FileInfo, error) {
	at, err := root.Open(".")
	if err != nil {
		return nil, nil, err
	}
	defer func() { at.Close() }()
	parts := strings.Split(name, "/")
	for i, part := range parts {
		flags := unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOFOLLOW | unix.O_CLOEXEC
		if i < len(parts)-1 {
			flags |= unix.O_DIRECTORY
		}
		if !filepath.IsLocal(part) {
			return nil, nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
		}
		fd, err := unix.Openat(int(at.Fd()), part, flags, 0)
		switch err {
		case nil:
		case unix.ELOOP:
			err = KindError(fs.ModeSymlink)
		case unix.ENXIO:
			err = KindError(fs.ModeSocket)
		}
		if err != nil {
			return nil, nil, &fs.PathError{Op: "open", Path: name, Err: err}
		}
		at.Close()
		at = os.NewFile(uintptr(fd), name)
	}
	return readRegular(at, name, most)
}

// KindError says what there is in place of a regular file.
type KindError fs.FileMode

func (k KindError) Error() string {
	kind := "a device, pipe or socket"
	switch {
	case fs.FileMode(k).IsDir():
		kind = "a directory"
	case fs.FileMode(k)&fs.ModeSymlink != 0:
		kind = "a symbolic link"
	}
	return "is " + kind + ", want a file"
}

// OpenDir opens a directory. Like Read, it waits for nobody.
func OpenDir(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NONBLOCK, 0)
}
