//go:build !linux

package doctor

import "errors"

// statFileSystem is known for Linux only, where certfetcher's containers run.
func statFileSystem(string) (name string, kind kind, free uint64, inodes *uint64, err error) {
	return "", kindUnknown, 0, nil, errors.ErrUnsupported
}
