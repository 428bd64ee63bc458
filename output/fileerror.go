package output

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// FileError is a step on the volume that failed.
type FileError struct {
	Op   string // what was being done, such as "creating"
	Path string
	Err  error
	Hint string // what an operator may do about it, may be empty
}

func (e *FileError) Error() string {
	text := fmt.Sprintf("%s %q: %v", e.Op, e.Path, e.Err)
	if e.Hint != "" {
		text += " (" + e.Hint + ")"
	}
	return text
}

// Unwrap gives the reason, which holds the system's error number where there is one.
func (e *FileError) Unwrap() error { return e.Err }

// fileError makes a FileError; the hint is found now, while the volume is as the failure met it.
func fileError(op, path string, err error) *FileError {
	// The system's own errors repeat a path, and name it relative to the volume.
	var pathError *fs.PathError
	var linkError *os.LinkError
	switch {
	case errors.As(err, &pathError):
		err = pathError.Err
	case errors.As(err, &linkError):
		err = linkError.Err
	}
	return &FileError{Op: op, Path: path, Err: err, Hint: hint(op, path, err)}
}

func hint(op, path string, err error) string {
	switch {
	case errors.Is(err, syscall.EROFS):
		return "the file system is read-only: mount the volume without readOnly"
	case errors.Is(err, syscall.ENOSPC):
		return "the volume is full: enlarge it or make room"
	case errors.Is(err, syscall.EDQUOT):
		return "the quota is used up: enlarge it or make room"
	case errors.Is(err, syscall.EFBIG):
		return "this process may not write files so large: raise the limit (ulimit -f)"
	case errors.Is(err, syscall.ENOTDIR):
		return "a part of the path is a file: remove it or give another path"
	case errors.Is(err, syscall.EISDIR):
		return "a directory has the name of a file of ours: remove it or give another path"
	case errors.Is(err, syscall.EBUSY):
		return "something is mounted under this name alone, as with a subPath: mount the whole directory"
	case op == opLink && noLinks(err):
		return "symbolic links do not work on this volume: set OUTPUT_LAYOUT=inplace, or use another volume"
	case op == opGroup && errors.Is(err, fs.ErrPermission):
		return identity() + "; only a member of a group may give files to it: add the process to the group, in Kubernetes by fsGroup or supplementalGroups"
	case errors.Is(err, fs.ErrPermission):
		return identity() + "; " + owner(path) + ": give that user or group the right to write, in Kubernetes by fsGroup"
	}
	return ""
}

// noLinks tells whether the error of making a link is that of a file system without symbolic links. symlink(2) has
// EPERM for that; SMB mounts and FUSE file systems return the others. A missing right to write is EACCES.
func noLinks(err error) bool {
	return slices.ContainsFunc([]syscall.Errno{syscall.EPERM, syscall.EOPNOTSUPP, syscall.ENOSYS, syscall.EINVAL},
		func(errno syscall.Errno) bool { return errors.Is(err, errno) })
}

// identity says as whom the process runs.
func identity() string {
	text := fmt.Sprintf("running as uid %d, gid %d", os.Geteuid(), os.Getegid())
	if groups, err := os.Getgroups(); err == nil && len(groups) > 0 {
		text += ", groups " + strings.Trim(fmt.Sprint(groups), "[]")
	}
	return text
}

// owner says whose the directory is that decides over the path: the nearest that can be seen.
func owner(path string) string {
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			if dir != filepath.Dir(dir) {
				continue
			}
			return "the directory cannot be seen"
		}
		text := fmt.Sprintf("directory %q has mode %s", dir, info.Mode())
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			text += fmt.Sprintf(", uid %d, gid %d", stat.Uid, stat.Gid)
		}
		return text
	}
}
