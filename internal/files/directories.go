package files

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxLinks ends the walk through symbolic links that go in a circle, as the kernel does.
const maxLinks = 40

// DirsOf are those in which a change can change what path leads to: the one that the file is in, and
// one for each symbolic link on the way. Where the way ends early, it is the last directory that exists.
func DirsOf(path string) []string {
	path, err := filepath.Abs(path)
	if err != nil {
		return []string{filepath.Dir(path)}
	}
	var found []string
	add := func(dir string) {
		if !slices.Contains(found, dir) {
			found = append(found, dir)
		}
	}
	at, rest, links := "/", components(path), 0
	for len(rest) > 0 {
		next := filepath.Join(at, rest[0])
		info, err := os.Lstat(next)
		switch {
		case err != nil:
			add(at)
			return found
		case info.Mode()&os.ModeSymlink != 0:
			add(at)
			target, err := os.Readlink(next)
			if links++; err != nil || links > maxLinks {
				return found
			}
			if filepath.IsAbs(target) {
				at = "/"
			}
			rest = append(components(target), rest[1:]...)
		case len(rest) == 1:
			add(at)
			return found
		default:
			at, rest = next, rest[1:]
		}
	}
	return found
}

func components(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
}
