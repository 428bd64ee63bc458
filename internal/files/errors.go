// Package files reads, writes, locks and follows files that other processes see or choose, and
// says what keeps a process from one, in words that help an operator. It never waits for another
// process to open or close a file.
package files

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

// Reason is an error of the file system without the path,
// which the one who reports it names anyway.
func Reason(err error) error {
	if number, ok := errors.AsType[syscall.Errno](err); ok {
		return number
	}
	return err
}

// Explain says why a file cannot be read, and what to try, as a sentence's rest after the path.
func Explain(path string, err error) error {
	if kind, ok := errors.AsType[KindError](err); ok {
		return kind
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("does not exist: check the path and the volume mounted there (%w)", err)
	case errors.Is(err, fs.ErrPermission):
		if info, statErr := os.Stat(path); statErr == nil {
			return fmt.Errorf(
				"may not be read by user %d: its mode is %s; set fsGroup in the pod's securityContext, or another "+
					"defaultMode of its volume (%w)", os.Geteuid(), info.Mode(), err)
		}
		return fmt.Errorf("may not be reached by user %d: check the modes of its directories (%w)", os.Geteuid(), err)
	}
	return fmt.Errorf("cannot be read: %w", err)
}

// ExistingDir is dir, or the nearest directory above it that exists: the rest can be made.
func ExistingDir(dir string) (string, error) {
	for at := dir; ; at = filepath.Dir(at) {
		info, err := os.Stat(at)
		switch {
		case err == nil && !info.IsDir():
			return "", fmt.Errorf("%q is a file, want a directory", at)
		case err == nil || errors.Is(err, fs.ErrPermission):
			return at, nil
		case errors.Is(err, fs.ErrNotExist):
			if _, err := os.Lstat(at); err == nil {
				return "", fmt.Errorf("%q is a link to a directory that does not exist", at)
			}
		case !errors.Is(err, syscall.ENOTDIR):
			return "", fmt.Errorf("%q cannot be looked at: %w", at, Reason(err))
		}
	}
}

// Within tells whether a path is in a directory or below it,
// by their names alone. Both are absolute.
func Within(dir, path string) bool {
	relative, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(relative)
}

// Error is a step on a directory or file that failed.
type Error struct {
	Op   string // what was being done, such as "creating"
	Path string
	Err  error
	Hint string // what an operator may do about it, may be empty
}

func (e *Error) Error() string {
	text := fmt.Sprintf("%s %q: %v", e.Op, e.Path, e.Err)
	if e.Hint != "" {
		text += " (" + e.Hint + ")"
	}
	return text
}

// Unwrap gives the reason, which holds the system's error number where there is one.
func (e *Error) Unwrap() error { return e.Err }

// NewError makes an Error; the hint is found now, while the volume is as the failure met it.
func NewError(op, path string, err error) *Error {
	// The system's own errors repeat a path, and name it relative to the directory.
	if pathError, ok := errors.AsType[*fs.PathError](err); ok {
		err = pathError.Err
	} else if linkError, ok := errors.AsType[*os.LinkError](err); ok {
		err = linkError.Err
	}
	return &Error{Op: op, Path: path, Err: err, Hint: hint(op, path, err)}
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
	case op == OpLink && noLinks(err):
		return "symbolic links do not work on this volume: set OUTPUT_LAYOUT=inplace, or use another volume"
	case op == OpGroup && errors.Is(err, fs.ErrPermission):
		return identity() +
			"; only a member of a group may give files to it: add the process to the group, in " +
			"Kubernetes by fsGroup or supplementalGroups"
	case errors.Is(err, fs.ErrPermission):
		return identity() + "; " + owner(path) +
			": give that user or group the right to write, in Kubernetes by fsGroup"
	}
	return ""
}

// noLinks tells whether the error of making a link is that of a file system without symbolic
// links. symlink(2) has EPERM for that; SMB mounts and FUSE file systems return the others. A
// missing right to write is EACCES.
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
