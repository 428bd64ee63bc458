package files

import (
	"bytes"
	"encoding/binary"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"unicode/utf16"

	"golang.org/x/sys/unix"
)

// Read reads a regular file, following symbolic links; of one that has more
// than most bytes it gives most+1. It never waits: a named pipe would have
// its reader wait for a writer, for ever where there is none. An error is a
// *fs.PathError; for what is not a regular file it wraps KindError.
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

// ReadIn is Read for a name below a root that others may write to: it follows no symbolic link, at
// no part of the name.
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

// OpenDir opens a directory. Like Read, it never waits.
func OpenDir(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NONBLOCK, 0)
}

// Write replaces the content of a file that another process reads, or makes it with the mode. It
// writes to regular files and to devices of characters, such as /dev/null, never through a
// symbolic link or into a file that has another name as well, as these may lead to a file that was
// not meant, and it never waits: a named pipe could make it.
func Write(path string, data []byte, mode fs.FileMode) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, mode)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	stat, _ := info.Sys().(*syscall.Stat_t)
	switch {
	case info.Mode()&fs.ModeCharDevice != 0:
	case !info.Mode().IsRegular():
		return &fs.PathError{Op: "write", Path: path, Err: KindError(info.Mode())}
	case stat != nil && stat.Nlink > 1:
		return &fs.PathError{Op: "write", Path: path, Err: syscall.EMLINK}
	default:
		if err := file.Truncate(0); err != nil {
			return err
		}
	}
	if _, err := file.Write(data); err != nil {
		return err
	}
	return file.Close()
}

// Text returns a file's text as UTF-8 and without a byte order mark,
// which Windows editors and shells write; marked says that there was
// one. Text of which a mark says that it is UTF-16 is converted.
func Text(data []byte) (text []byte, marked bool) {
	if text, marked = bytes.CutPrefix(data, []byte("\xef\xbb\xbf")); marked {
		return text, true
	}
	switch {
	case len(data)%2 != 0:
		return data, false
	case bytes.HasPrefix(data, []byte{0xff, 0xfe}):
		return FromUTF16(data[2:], binary.LittleEndian), true
	case bytes.HasPrefix(data, []byte{0xfe, 0xff}):
		return FromUTF16(data[2:], binary.BigEndian), true
	}
	return data, false
}

// FromUTF16 is the text in UTF-8. Half a character at the end is dropped.
func FromUTF16(data []byte, order binary.ByteOrder) []byte {
	units := make([]uint16, len(data)/2)
	for i := range units {
		units[i] = order.Uint16(data[2*i:])
	}
	return []byte(string(utf16.Decode(units)))
}
