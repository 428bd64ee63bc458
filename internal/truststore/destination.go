package truststore

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/certfetcher/certfetcher/internal/files"
)

// destinationDirs are the directories in which files may be replaced, each once and in the same
// order for all runs.
func (c Config) destinationDirs() ([]string, error) {
	var dirs []string
	add := func(path string, exitCode int) error {
		real, err := realPath(path)
		if err != nil {
			return fail(exitCode, "resolving destination: %w", err)
		}
		dirs = append(dirs, filepath.Dir(real))
		return nil
	}
	if len(c.Truststores) > 0 {
		if err := add(c.Truststores[0].Path, codeSave); err != nil {
			return nil, err
		}
	}
	for _, pair := range c.Keystores {
		if err := add(pair.Destination, codeCopy); err != nil {
			return nil, err
		}
	}
	slices.Sort(dirs)
	return slices.Compact(dirs), nil
}

// copy plans a file in the place of another.
func (r *run) copy(c Copy) error {
	source, err := r.read(c.Source)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fail(codeMissing, "keystore %q of %s does not exist", c.Source, sourcesVariable)
	case err != nil:
		return fail(codeCopy, "reading keystore: %w", err)
	}
	real, err := r.claim(c.Destination, codeCopy)
	if err != nil {
		return err
	}
	// A destination that exists keeps its owner and group. Its mode allows what both files
	// allowed; that of a new one allows others nothing.
	next := file{data: source.data, mode: source.mode &^ 0o007, uid: -1, gid: files.Inherit}
	current, err := r.readFile(real)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		r.changes = append(r.changes, &change{path: c.Destination, real: real, next: next, exitCode: codeCopy})
	case err != nil:
		return fail(codeCopy, "reading destination: %w", err)
	case !bytes.Equal(current.data, source.data):
		next.mode, next.uid, next.gid = source.mode&current.mode, current.uid, current.gid
		if lost := current.mode &^ next.mode & 0o444; lost != 0 {
			r.warnings = append(r.warnings,
				fmt.Sprintf("%q had mode %04o and gets %04o, because its source %q has %04o: "+
					"%s can no longer read it; give the source the mode that readers need (OUTPUT_FILE_MODE)",
					c.Destination, current.mode, next.mode, c.Source, source.mode, readers(lost)))
		}
		r.changes = append(r.changes,
			&change{path: c.Destination, real: real, current: &current, next: next, exitCode: codeCopy})
	}
	return nil
}

// readers names the classes of users that a mode allows to read.
func readers(mode fs.FileMode) string {
	var names []string
	for i, name := range []string{"its owner", "its group", "others"} {
		if mode&(0o400>>(3*i)) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, " and ")
}

// claim resolves a destination, whether or not it will have to be replaced, and removes what a
// killed run left next to it.
func (r *run) claim(path string, exitCode int) (real string, err error) {
	if real, err = realPath(path); err != nil {
		return "", fail(exitCode, "resolving destination: %w", err)
	}
	if other, taken := r.claimed[real]; taken {
		return "", fail(codeConfiguration, "file %q would be written twice, as %q and as %q: "+
			"want each destination once, and none of them as the first entry of %s", real, other,
			path, truststoresVariable)
	}
	r.claimed[real] = path
	if err := checkReplaceable(real); err != nil {
		return "", fail(exitCode, "writing destination: %w", err)
	}
	for _, p := range slices.Compact([]string{path, real}) {
		if r.looking {
			r.leftover = r.leftover || len(leftovers(p)) > 0
			continue
		}
		if err := r.disk.sweep(p); err != nil {
			return "", fail(exitCode, "removing the files of a killed run: %w", err)
		}
	}
	return real, nil
}

// checkReplaceable refuses a file that is a mount of its own: nothing can be renamed over it.
func checkReplaceable(real string) error {
	dir, err := files.OpenDir(filepath.Dir(real))
	if err != nil {
		return nil // the step that writes there fails too, and reports it
	}
	defer dir.Close()
	if files.IsMounted(dir, filepath.Base(real)) {
		return fmt.Errorf(
			"%q is mounted by itself, as with a subPath or a volume for one file, and cannot be replaced: "+
				"mount the directory that it is in", real)
	}
	return nil
}

// realPath resolves links, so that a file is replaced and not the link to it. Of a path to nothing
// it resolves the directory.
func realPath(path string) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		var dir string
		if dir, err = filepath.EvalSymlinks(filepath.Dir(path)); errors.Is(err, fs.ErrNotExist) {
			return filepath.Clean(path), nil
		}
		real = filepath.Join(dir, filepath.Base(path))
	}
	if err != nil {
		return "", files.NewError("resolving", path, err)
	}
	return real, nil
}
