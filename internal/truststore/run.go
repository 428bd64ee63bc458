package truststore

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/certfetcher/certfetcher/internal/files"
)

// Result is what a run changed.
type Result struct {
	Added    []Added    // to the first truststore
	Replaced []Replaced // in the order in which they were replaced
}

// Replaced is a file that has new content.
type Replaced struct {
	Path   string // as configured
	Backup string // where the content before is kept; empty when a run had written it, or there was none
}

// Changed says whether anything was.
func (r Result) Changed() bool { return len(r.Replaced) > 0 }

// Run merges and copies once. It may be called again and again with the same
// configuration, by several processes as well, of which one at a time works: with
// nothing to do it reads the files and writes none. Each change is logged. The
// error, when there is one, is of type *Error; nothing has been changed then, except
// when a file could not be replaced after others had been, which the result lists.
func Run(cfg Config, log *slog.Logger) (Result, error) {
	return newRun(cfg, nil).do(cfg, log)
}

// run is one pass, from reading to replacing:
//
//  1. Read everything and work out all new contents, in memory. This finds the faults.
//  2. Back up what will be replaced.
//  3. Write the new contents next to their destinations, and sync them.
//  4. Rename them one after the other, and sync their directories.
//
// A crash before step 4 leaves every destination as it was, one within it some of them new, each
// whole; the next run removes what was staged and does what is missing.
type run struct {
	disk     disk
	now      func() time.Time
	claimed  map[string]string // by the real path of each destination: as configured
	seen     map[string]seen   // by the path: what the plan depends on
	changes  []*change
	looking  bool     // change nothing
	leftover bool     // a killed run left files, which this one did not remove because it is looking
	usual    []string // paths of truststores that have the password of a JDK's cacerts
	warnings []string // one sentence each
}

// change is a file to be replaced.
type change struct {
	path     string // as configured; its backup is next to it
	real     string // with links resolved
	current  *file  // nil: there is none
	next     file
	exitCode int // when it cannot be replaced

	staged string
}

func newRun(cfg Config, step files.StepFunc) *run {
	now := cfg.Now
	if now == nil {
		now = time.Now
	}
	r := &run{disk: disk{step}, now: now}
	r.begin()
	return r
}

// begin forgets all plans.
func (r *run) begin() {
	*r = run{disk: r.disk, now: r.now, claimed: map[string]string{}, seen: map[string]seen{}}
}

func (r *run) do(cfg Config, log *slog.Logger) (Result, error) {
	dirs, err := cfg.destinationDirs()
	if err != nil {
		return Result{}, err
	}
	// The lock is a file as long as it is held. With nothing to do not even that file is made.
	r.looking = true
	added, planErr := r.plan(cfg)
	if planErr != nil || len(r.changes) > 0 || r.leftover {
		unlock, err := lock(dirs)
		if err != nil {
			return Result{}, fail(codeOther, "waiting for another run: %w", err)
		}
		defer unlock()
		if planErr != nil || r.leftover || !r.holds() {
			r.begin()
			if added, err = r.plan(cfg); err != nil {
				return Result{}, err
			}
		}
	}
	for _, path := range r.usual {
		log.Info("opened a truststore with the password of a JDK's cacerts: no password file is configured for it",
			"truststore", path)
	}
	for _, warning := range r.warnings {
		log.Warn("post-processing continues with a warning", "error", warning)
	}
	replaced, err := r.apply()
	if len(replaced) == 0 {
		return Result{}, err
	}
	for _, a := range added {
		log.Info("certificate added to truststore", "truststore", cfg.Truststores[0].Path,
			"alias", a.Alias, "subject", a.Subject, "sha256", a.SHA256, "from", a.From)
	}
	for _, f := range replaced {
		log.Info("file replaced", "path", f.Path, "backup", f.Backup)
	}
	return Result{added, replaced}, err
}

// plan is step 1.
func (r *run) plan(cfg Config) (added []Added, err error) {
	if len(cfg.Truststores) > 0 {
		if added, err = r.merge(cfg.Truststores); err != nil {
			return nil, err
		}
	}
	for _, c := range cfg.Keystores {
		if err := r.copy(c); err != nil {
			return nil, err
		}
	}
	return added, nil
}

// read gives the content that the file will have when everything planned so far is done.
func (r *run) read(path string) (file, error) {
	real, err := realPath(path)
	if err != nil {
		return file{}, err
	}
	for _, c := range r.changes {
		if c.real == real {
			return c.next, nil
		}
	}
	return r.readFile(path)
}

// seen is what a path held when it was read; the error is nil, or fs.ErrNotExist.
type seen struct {
	file file
	err  error
}

// readFile is readFile for what the plan depends on.
func (r *run) readFile(path string) (file, error) {
	f, err := readFile(path)
	r.seen[path] = seen{f, err}
	return f, err
}

// holds says whether a plan without an error is still right:
// nothing that it depends on has changed since.
func (r *run) holds() bool {
	for path, was := range r.seen {
		now, err := readFile(path)
		if errors.Is(was.err, fs.ErrNotExist) && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if was.err != nil || err != nil || !now.equal(was.file) {
			return false
		}
	}
	return true
}

// apply does what was planned: steps 2 to 4 of run.
func (r *run) apply() ([]Replaced, error) {
	defer func() {
		for _, c := range r.changes {
			if c.staged != "" {
				r.disk.discard(c.staged)
			}
		}
	}()
	var planned, done []Replaced
	for _, c := range r.changes {
		if c.current == nil {
			if err := r.disk.makeDir(filepath.Dir(c.real)); err != nil {
				return nil, fail(c.exitCode, "writing keystore: %w", err)
			}
		}
		backup, err := r.disk.backUp(c.path, c.current, c.next)
		if err != nil {
			return nil, fail(codeBackup, "backing up %q: %w", c.path, err)
		}
		planned = append(planned, Replaced{c.path, backup})
	}
	for _, c := range r.changes {
		var err error
		if c.staged, err = r.disk.stage(c.real, c.next); err != nil {
			return nil, fail(c.exitCode, "writing destination: %w", err)
		}
	}
	for i, c := range r.changes {
		if c.current != nil && !same(c.real, c.current.data) {
			return done, fail(c.exitCode, "writing destination: another process changed %q during the run: run again",
				c.path)
		}
		if err := r.disk.replace(c.staged, c.real); err != nil {
			return done, fail(c.exitCode, "writing destination: %w", err)
		}
		c.staged = ""
		done = append(done, planned[i])
	}
	for _, c := range r.changes {
		if err := r.disk.syncDir(filepath.Dir(c.real)); err != nil {
			return done, fail(c.exitCode, "writing destination: %w", err)
		}
	}
	return done, nil
}

// Check reports everything that would make Run fail. It changes nothing that is there: to find out
// whether files can be written it writes some next to each destination, with the size, mode and
// owner that the backup and the new content would have, and removes them again. A source that is
// missing is not a fault when later says that its path will be made before Run.
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

// try writes what apply would write for a destination, each file next to its place, and removes it
// again. A destination that cannot be read has been reported before.
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
