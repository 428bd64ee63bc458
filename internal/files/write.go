package files

import (
	"io/fs"
	"os"
	"syscall"
)

// Write replaces the content of a file that somebody else reads, or makes it with the mode. It writes to regular files
// and to devices of characters, such as /dev/null, never through a symbolic link or into a file that has another name
// as well, as these may lead to a file that was not meant, and it never waits: a named pipe could make it.
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
