package fileaccess

import (
	"io"
	"io/fs"
	"os"
	"syscall"
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

// KindError says what there is in place of a regular file.
type KindError fs.FileMode

func (k KindError) Error() string {
	kind := "a device, pipe or socket"
	if fs.FileMode(k).IsDir() {
		kind = "a directory"
	}
	return "is " + kind + ", want a file"
}
