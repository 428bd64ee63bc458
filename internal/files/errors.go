// Package files reads, writes, locks and follows files that other processes see or choose, and says what keeps a
// process from one, in words that help an operator. It never waits for another process to open or close a file.
package files

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Reason is an error of the file system without the path, which whoever reports it names anyway.
func Reason(err error) error {
	var number syscall.Errno
	if errors.As(err, &number) {
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
			return fmt.Errorf("may not be read by user %d: its mode is %s; set fsGroup in the pod's securityContext, or another defaultMode of its volume (%w)", os.Geteuid(), info.Mode(), err)
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

// Within tells whether a path is in a directory or below it, by their names alone. Both are absolute.
func Within(dir, path string) bool {
	relative, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(relative)
}
