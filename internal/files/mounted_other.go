//go:build !linux

package files

import "os"

// IsMounted is known for Linux only, where certfetcher's containers run.
func IsMounted(*os.File, string) bool { return false }
