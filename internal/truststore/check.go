package truststore

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"

	"github.com/certfetcher/certfetcher/internal/files"
)

// Check reports everything that would make Run fail. It changes nothing that is there: to find out whether files can be
// written it writes some next to each destination, with the size, mode and owner that the backup and the new content
// would have, and removes them again. A source that is missing is not a fault when later says that its path will be
// made before Run.
func Check(cfg Config, later func(path string) bool) []error {
	return newRun(cfg, nil).check(cfg, later)
}

func (r *run) check(cfg Config, later func(path string) bool) []error {
	r.looking = true
	var errs []error
	note := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	switch len(cfg.Truststores) {
	case 0:
	case 1: // nothing is added to it
		if !r.awaitsStore(cfg.Truststores[0], later) {
			_, err := r.load(cfg.Truststores[0])
			note(err)
		}
	default:
		note(r.checkMerge(cfg.Truststores, later, note))
	}
	for _, c := range cfg.Keystores {
		if r.isAwaited(c.Source, later) {
			_, err := r.claim(c.Destination, codeCopy)
			note(err)
			continue
		}
		note(r.copy(c))
	}
	for _, real := range slices.Sorted(maps.Keys(r.claimed)) {
		note(r.try(r.claimed[real], real))
	}
	return errs
}

// checkMerge plans the merge of those truststores that can be read.
func (r *run) checkMerge(stores []Store, later func(path string) bool, note func(error)) error {
	var loaded []*store
	for _, s := range stores {
		if r.awaitsStore(s, later) {
			continue
		}
		opened, err := r.load(s)
		note(err)
		if err == nil {
			loaded = append(loaded, opened)
		}
	}
	if len(loaded) > 0 && loaded[0].path == stores[0].Path {
		_, err := r.mergeLoaded(loaded)
		return err
	}
	_, err := r.claim(stores[0].Path, codeSave)
	return err
}

// awaitsStore says whether a truststore or its password is yet to be made.
func (r *run) awaitsStore(s Store, later func(path string) bool) bool {
	return r.isAwaited(s.Path, later) || s.PasswordPath != "" && r.isAwaited(s.PasswordPath, later)
}

// isAwaited says whether a file is yet to be made.
func (r *run) isAwaited(path string, later func(path string) bool) bool {
	_, err := r.read(path)
	return errors.Is(err, fs.ErrNotExist) && later(path)
}

// try writes what apply would write for a destination, each file next to its place, and removes it again. A
// destination that cannot be read has been reported before.
func (r *run) try(path, real string) error {
	dir, err := files.ExistingDir(filepath.Dir(real))
	if err != nil {
		return err
	}
	now, err := readFile(real)
	var current *file
	next := file{mode: 0o600, uid: -1, gid: files.Inherit}
	switch {
	case err == nil:
		current, next = &now, now
	case !errors.Is(err, fs.ErrNotExist):
		return nil
	}
	for _, c := range r.changes {
		if c.real == real {
			next = c.next
		}
	}
	s, backup, err := planBackup(path, current, next)
	if err != nil {
		return fmt.Errorf("backing up %q: %w", path, err)
	}
	trials := map[string]file{filepath.Join(dir, filepath.Base(real)): next}
	if current != nil {
		state := next
		state.data = s.marshal()
		trials[path+stateSuffix] = state
	}
	if backup != "" && !same(backup, current.data) {
		trials[backup] = *current
	}
	for _, place := range slices.Sorted(maps.Keys(trials)) {
		trial := trials[place]
		trial.data = make([]byte, len(trial.data))
		rand.Read(trial.data) // no secret, and no zeros, which need no room where files are compressed
		temporary, err := r.disk.stage(place, trial)
		if err != nil {
			return err
		}
		defer r.disk.discard(temporary) // at the end, so that there must be room for all
	}
	return nil
}
