package truststore

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/certfetcher/certfetcher/internal/files"
)

// Result is what a run changed.
type Result struct {
	Added    []Added    // to the first truststore
	Replaced []Replaced // in the order in which they were replaced
}

// Replaced is a file that has got a new content.
type Replaced struct {
	Path   string // as configured
	Backup string // where the content before is kept; empty when it was this program's own, or there was none
}

// Changed says whether anything was.
func (r Result) Changed() bool { return len(r.Replaced) > 0 }

// Run merges and copies once. It may be called again and again with the same configuration, by several processes as
// well, of which one at a time works: with nothing to do it reads the files and writes none. Each change is logged. The
// error, when there is one, is of type *Error; nothing has been changed then, unless it is a file that
// could not be replaced when others had been already, which the result lists.
func Run(cfg Config, log *slog.Logger) (Result, error) {
	return newRun(cfg, nil).do(cfg, log)
}

// run is one pass, from reading to replacing:
//
//  1. Read everything and work out every new content, in memory. What is wrong is found here.
//  2. Back up what will be replaced.
//  3. Write the new contents beside their places, and sync them.
//  4. Rename them one after the other, and sync their directories.
//
// A crash before step 4 leaves every destination as it was, one within it some of them new, each whole;
// the next run removes what was staged and does what is missing.
type run struct {
	disk     disk
	now      func() time.Time
	claimed  map[string]string // by the real path of each destination: as configured
	seen     map[string]seen   // by the path: what the plan depends on
	changes  []*change
	looking  bool     // nothing is changed
	leftover bool     // met while looking: a killed run left something
	usual    []string // paths of truststores that have the usual password
	warnings []string // one sentence each
}

// change is a file to be replaced.
type change struct {
	path     string // as configured; its backup is beside it
	real     string // with links resolved
	current  *file  // nil: there is none
	next     file
	exitCode int // when it cannot be replaced

	staged string
}

func newRun(cfg Config, step func(op, path string) error) *run {
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
	var result Result
	dirs, err := cfg.destinationDirs()
	if err != nil {
		return Result{}, err
	}
	// The lock is a file for as long as it is held. Where nothing is to be done not even that is made.
	r.looking = true
	added, planErr := r.plan(cfg)
	if planErr != nil || len(r.changes) > 0 || r.leftover {
		unlock, err := lock(dirs)
		if err != nil {
			return Result{}, failed(codeOther, "waiting for another run: %w", err)
		}
		defer unlock()
		if planErr != nil || r.leftover || !r.holds() {
			r.begin()
			if added, err = r.plan(cfg); err != nil {
				return Result{}, err
			}
		}
	}
	result.Added = added
	for _, path := range r.usual {
		log.Info("truststore opened with the password of a JDK's cacerts, as no file with another is named", "truststore", path)
	}
	for _, warning := range r.warnings {
		log.Warn("post-processing with a warning", "warning", warning)
	}
	replaced, err := r.apply()
	result.Replaced = replaced
	if len(replaced) == 0 {
		return Result{}, err
	}
	result.log(log, cfg)
	return result, err
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

// destinationDirs are the directories in which files may be replaced, each once and in an order that is the same
// for all runs.
func (c Config) destinationDirs() ([]string, error) {
	var dirs []string
	add := func(path string, exitCode int) error {
		real, err := realPath(path)
		if err != nil {
			return failed(exitCode, "resolving destination: %w", err)
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

func (r Result) log(log *slog.Logger, cfg Config) {
	for _, a := range r.Added {
		log.Info("certificate added to truststore", "truststore", cfg.Truststores[0].Path,
			"alias", a.Alias, "subject", a.Subject, "sha256", a.SHA256, "from", a.From)
	}
	for _, f := range r.Replaced {
		log.Info("file replaced", "path", f.Path, "backup", f.Backup)
	}
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

// holds tells whether a plan without an error is still right: nothing that it depends on has changed since.
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

// copy plans a file in the place of another.
func (r *run) copy(c Copy) error {
	source, err := r.read(c.Source)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return failed(codeMissing, "keystore %q of %s does not exist", c.Source, sourcesVariable)
	case err != nil:
		return failed(codeCopy, "reading keystore: %w", err)
	}
	real, err := r.claim(c.Destination, codeCopy)
	if err != nil {
		return err
	}
	// A destination that exists keeps its owner and group, and allows nobody what only one of the two files did; a new
	// one is closed to others in any case.
	next := file{data: source.data, mode: source.mode &^ 0o007, uid: -1, gid: -1}
	current, err := r.readFile(real)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		r.changes = append(r.changes, &change{path: c.Destination, real: real, next: next, exitCode: codeCopy})
	case err != nil:
		return failed(codeCopy, "reading destination: %w", err)
	case !bytes.Equal(current.data, source.data):
		next.mode, next.uid, next.gid = source.mode&current.mode, current.uid, current.gid
		if lost := current.mode &^ next.mode & 0o444; lost != 0 {
			r.warnings = append(r.warnings, fmt.Sprintf("%q had mode %04o and gets %04o, because its source %q has %04o: %s can no longer read it; "+
				"give the source the mode that readers need (OUTPUT_FILE_MODE)", c.Destination, current.mode, next.mode, c.Source, source.mode, readers(lost)))
		}
		r.changes = append(r.changes, &change{path: c.Destination, real: real, current: &current, next: next, exitCode: codeCopy})
	}
	return nil
}

// readers names who has a right to read, of a mode.
func readers(mode fs.FileMode) string {
	var who []string
	for _, class := range []struct {
		bit  fs.FileMode
		name string
	}{{0o400, "its owner"}, {0o040, "its group"}, {0o004, "others"}} {
		if mode&class.bit != 0 {
			who = append(who, class.name)
		}
	}
	return strings.Join(who, " and ")
}

// claim resolves a destination, whether or not it will have to be replaced, and clears what a killed run
// left beside it.
func (r *run) claim(path string, exitCode int) (real string, err error) {
	if real, err = realPath(path); err != nil {
		return "", failed(exitCode, "resolving destination: %w", err)
	}
	if other, taken := r.claimed[real]; taken {
		return "", failed(codeConfiguration, "file %q would be written twice, as %q and as %q: want each destination once, and none of them first in %s",
			real, other, path, truststoresVariable)
	}
	r.claimed[real] = path
	if err := replaceable(real); err != nil {
		return "", failed(exitCode, "writing destination: %w", err)
	}
	for _, p := range slices.Compact([]string{path, real}) {
		if r.looking {
			r.leftover = r.leftover || len(leftovers(p)) > 0
			continue
		}
		if err := r.disk.sweep(p); err != nil {
			return "", failed(exitCode, "clearing what a killed run left: %w", err)
		}
	}
	return real, nil
}

// replaceable refuses a file that is mounted by itself: nothing can be renamed over it.
func replaceable(real string) error {
	dir, err := files.OpenDir(filepath.Dir(real))
	if err != nil {
		return nil // whoever writes there meets it as well, and says so
	}
	defer dir.Close()
	if files.IsMounted(dir, filepath.Base(real)) {
		return fmt.Errorf("%q is mounted by itself, as with a subPath or a volume for one file, and cannot be replaced: "+
			"mount the directory that it is in", real)
	}
	return nil
}

// realPath resolves links, so that a file is replaced and not the link to it. Of a path to nothing it
// resolves the directory.
func realPath(path string) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return real, fileError("resolving", path, err)
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	if errors.Is(err, fs.ErrNotExist) {
		return filepath.Clean(path), nil
	}
	return filepath.Join(dir, filepath.Base(path)), fileError("resolving", path, err)
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
				return nil, failed(c.exitCode, "writing keystore: %w", err)
			}
		}
		backup, err := r.disk.backUp(c.path, c.current, c.next)
		if err != nil {
			return nil, failed(codeBackup, "backing up %q: %w", c.path, err)
		}
		planned = append(planned, Replaced{c.path, backup})
	}
	for _, c := range r.changes {
		var err error
		if c.staged, err = r.disk.stage(c.real, c.next); err != nil {
			return nil, failed(c.exitCode, "writing destination: %w", err)
		}
	}
	for i, c := range r.changes {
		if c.current != nil && !same(c.real, c.current.data) {
			return done, failed(c.exitCode, "writing destination: %q was changed by somebody else meanwhile, run again", c.path)
		}
		if err := r.disk.settle(c.staged, c.real); err != nil {
			return done, failed(c.exitCode, "writing destination: %w", err)
		}
		c.staged = ""
		done = append(done, planned[i])
	}
	for _, c := range r.changes {
		if err := r.disk.syncDir(filepath.Dir(c.real)); err != nil {
			return done, failed(c.exitCode, "writing destination: %w", err)
		}
	}
	return done, nil
}
