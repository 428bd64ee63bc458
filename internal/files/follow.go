package files

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// Follower says when files may have changed. It follows the directories that they are in by
// inotify, and those of the links on the way to them: a Kubernetes volume is renewed by swapping
// the link ..data, and other writers rename a new file into place. Most replacements consist of
// several steps, and concern several files.
type Follower struct {
	// Watcher is that of the program. Where it cannot watch a directory, the Follower looks at the
	// files each time that it rechecks.
	Watcher *Watcher
	// Dirs lists the directories to follow now (DirsOf, NearestDir). It is asked again before and
	// after each call of Changed, and when Look says so.
	Dirs func() []string
	// Changed is called once at the start, as files may have changed before the watches stood, and
	// then whenever there was a change and nothing more for the time Quiet, but not later than ten
	// times that after the first.
	Changed func()
	Quiet   time.Duration
	// Look gets each event in a directory, with the path concerned and whether something was
	// created there. It says whether files may have changed, and whether Dirs may give other
	// directories now. Nil: every event is a change.
	Look func(path string, created, removed bool) (changed, moved bool)
	// Moved is called at the start, and when other directories may be followed than before: Look
	// said so, one was replaced, or events were lost or do not come. Nil for nothing to do.
	Moved func()
	// Recheck is how often to look whether another directory stands where a followed one was,
	// which the kernel does not tell when one above it was renamed; 0: once a minute.
	Recheck time.Duration

	inbox   inbox
	watched []string
	seen    map[string]fs.FileInfo // what the directories were when they were last watched
	polls   atomic.Bool            // not all directories can be watched
}

// Run calls Changed until ctx ends.
func (f *Follower) Run(ctx context.Context) {
	f.inbox.news, f.seen = make(chan struct{}, 1), map[string]fs.FileInfo{}
	defer f.unfollow()
	timer := time.NewTimer(0)
	defer timer.Stop()
	recheck := time.NewTicker(cmp.Or(f.Recheck, time.Minute))
	defer recheck.Stop()
	var since time.Time // the first change that Changed was not called for
	for {
		changed := false
		select {
		case <-ctx.Done():
			return
		case <-f.inbox.news:
			events, lost := f.inbox.take()
			if changed = lost; lost {
				f.startOver()
			}
			for _, e := range events {
				changed = f.handle(e) || changed
			}
		case <-recheck.C:
			if changed = f.Polls() || f.hasReplaced(); changed {
				f.startOver()
			}
		case <-timer.C:
			since = time.Time{}
			moved := f.follow() // before Changed reads: what changes after this is an event again
			f.Changed()
			if f.follow() {
				moved = true
				timer.Reset(0) // what is followed from now on may have changed already
			}
			if moved {
				f.callMoved()
			}
		}
		if changed {
			if since.IsZero() {
				since = time.Now()
			}
			timer.Reset(max(0, min(f.Quiet, 10*f.Quiet-time.Since(since))))
		}
	}
}

// Polls tells whether the Follower learns of some changes only when it rechecks.
func (f *Follower) Polls() bool { return f.Watcher.none() || f.polls.Load() }

func (f *Follower) handle(e event) (changed bool) {
	if f.Look == nil {
		return true
	}
	changed, moved := f.Look(e.path, e.created, e.removed)
	if moved {
		f.follow()
		f.callMoved()
	}
	return changed
}

// follow watches the directories that matter now, and no others. It tells whether they are others
// than before, be it under the same paths.
func (f *Follower) follow() (moved bool) {
	want := f.dirs()
	// Again where one of them came or went before its watch stood.
	for again := []string(nil); !slices.Equal(want, again); want, again = f.dirs(), want {
		for _, dir := range f.watched {
			if !slices.Contains(want, dir) {
				f.Watcher.leave(f, dir)
			}
		}
		polls := false
		for _, dir := range want {
			// Before the watch: of two that replace one another meanwhile, the earlier is known.
			before := f.seen[dir]
			f.seen[dir], _ = os.Stat(dir) // one that is gone is another the next time
			if before != nil && slices.Contains(f.watched, dir) && !os.SameFile(before, f.seen[dir]) {
				moved = true
				f.Watcher.leave(f, dir) // what was there before
			}
			// Added again even when known: one that was removed and made again has lost its watch.
			if err := f.Watcher.add(f, dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
				polls = true
			}
		}
		f.polls.Store(polls)
		moved = moved || !slices.Equal(f.watched, want)
		f.watched = want
	}
	return moved
}

func (f *Follower) dirs() []string {
	return slices.Compact(slices.Sorted(slices.Values(f.Dirs())))
}

// hasReplaced tells whether something else is now where a followed directory was.
func (f *Follower) hasReplaced() bool {
	return slices.ContainsFunc(f.watched, func(dir string) bool {
		now, err := os.Stat(dir)
		return err != nil || !os.SameFile(f.seen[dir], now)
	})
}

// startOver follows the paths, and no longer the directories that were there.
func (f *Follower) startOver() {
	f.unfollow()
	f.follow()
	f.callMoved()
}

func (f *Follower) unfollow() {
	for _, dir := range f.watched {
		f.Watcher.leave(f, dir)
	}
	f.watched = nil
	clear(f.seen)
}

func (f *Follower) callMoved() {
	if f.Moved != nil {
		f.Moved()
	}
}

// NearestDir is dir, or the nearest directory above it that
// exists, whatever keeps the others from being seen.
func NearestDir(dir string) string {
	for {
		info, err := os.Stat(dir)
		if parent := filepath.Dir(dir); (err != nil || !info.IsDir()) && parent != dir {
			dir = parent
			continue
		}
		return dir
	}
}

// maxLinks ends the walk through symbolic links that go in a circle, as the kernel does.
const maxLinks = 40

// DirsOf are those in which a change can change what path leads to:
// the one that the file is in, and one for each symbolic link on the
// way. Where the way ends early, it is the last directory that exists.
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
