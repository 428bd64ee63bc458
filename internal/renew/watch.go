package renew

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// settle is how long published files must be left alone before somebody looks at them: most changes
	// consist of several, our own publications among them.
	settle = 100 * time.Millisecond
	// settleMost bounds the waiting where there is no rest.
	settleMost = time.Second
)

// reasonTrigger is the reason of the renewals that the trigger file asks for.
const reasonTrigger = "trigger file"

// Watch turns changes of files into what a Loop listens to. The kernel tells it, also of directories that are
// removed and made again. Only whether one above them was renamed has to be looked at, once a minute.
type Watch struct {
	// Dir is where files are published, and Names are theirs, none for any. Of anything else in Dir, only
	// the link ..data of the symlink layout matters, and what is in the directory that it points to.
	Dir   string
	Names []string
	// Trigger is the path of a file that asks for a renewal and is removed then; empty: none.
	Trigger string

	Disturbed chan<- struct{} // has room for one
	Requests  chan<- string   // has room for one
	Log       *slog.Logger

	recheck time.Duration // 0: that of the Loop
}

// dataLink is the link that the symlink layout swaps.
const dataLink = "..data"

// Run watches until ctx ends. It fails only at the start, when the kernel gives no watcher.
func (w *Watch) Run(ctx context.Context) error {
	notify, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watching files: %w", err)
	}
	defer notify.Close()
	r := &watching{Watch: w, notify: notify, seen: map[string]fs.FileInfo{}}
	r.follow()
	r.takeTrigger(false)
	// What happened before the watches stood made no event.
	timer := time.NewTimer(0)
	defer timer.Stop()
	ticker := time.NewTicker(cmp.Or(w.recheck, recheck))
	defer ticker.Stop()
	var since time.Time // the first event that nobody has been told of
	for {
		disturbed := false
		select {
		case <-ctx.Done():
			return nil
		case event := <-notify.Events:
			disturbed = r.handle(event)
		case err := <-notify.Errors:
			if !errors.Is(err, fsnotify.ErrEventOverflow) {
				r.complain(err)
			}
			// Events were lost, so nothing is known.
			r.follow()
			r.takeTrigger(false)
			disturbed = true
		case <-ticker.C:
			if disturbed = r.moved(); disturbed {
				r.startOver()
				r.takeTrigger(false)
			}
		case <-timer.C:
			since = time.Time{}
			offer(w.Disturbed, struct{}{})
		}
		if disturbed {
			if since.IsZero() {
				since = time.Now()
			}
			timer.Reset(max(0, min(settle, settleMost-time.Since(since))))
		}
	}
}

// offer does not wait: where something is waiting to be looked at already, it will be seen then.
func offer[T any](to chan<- T, what T) {
	select {
	case to <- what:
	default:
	}
}

// watching is a Watch that runs.
type watching struct {
	*Watch
	notify     *fsnotify.Watcher
	generation string                 // the directory that ..data points to; empty: there is none
	watched    []string               // directories
	seen       map[string]fs.FileInfo // what they were when they were last watched
	complaint  string                 // said last
}

// handle tells whether published files may have changed.
func (w *watching) handle(event fsnotify.Event) (disturbed bool) {
	name := event.Name
	triggerMoved, dirMoved := above(name, w.Trigger), above(name, w.Dir)
	if name == w.Trigger {
		if !event.Has(fsnotify.Remove) && !event.Has(fsnotify.Rename) {
			w.takeTrigger(event.Has(fsnotify.Create))
		}
	} else if triggerMoved {
		w.follow()
		w.takeTrigger(false)
	}
	inDir, base := filepath.Dir(name) == w.Dir, filepath.Base(name)
	switch {
	case dirMoved, inDir && base == dataLink, name == w.generation:
		w.follow()
		return true
	case inDir:
		return len(w.Names) == 0 || slices.Contains(w.Names, base)
	}
	return filepath.Dir(name) == w.generation
}

// above tells whether name is path or a directory on the way to it.
func above(name, path string) bool {
	return path != "" && (name == path || strings.HasPrefix(path, strings.TrimSuffix(name, "/")+"/"))
}

// follow watches the directories that matter now, and no others.
func (w *watching) follow() {
	want := w.directories()
	// Again where one of them came or went before its watch stood.
	for again := []string(nil); !slices.Equal(want, again); want, again = w.directories(), want {
		for _, dir := range w.watched {
			if !slices.Contains(want, dir) {
				_ = w.notify.Remove(dir) // one that is gone has taken its watch along
			}
		}
		for _, dir := range want {
			// Added again even when known: one that was removed and made anew has lost its watch.
			if err := w.notify.Add(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
				w.complain(fmt.Errorf("%q: %w", dir, err))
			}
			w.seen[dir], _ = os.Stat(dir) // one that is gone is another the next time
		}
		w.watched = want
	}
}

// moved tells whether something else is now where a watched directory was.
func (w *watching) moved() bool {
	return slices.ContainsFunc(w.watched, func(dir string) bool {
		now, err := os.Stat(dir)
		return err != nil || !os.SameFile(w.seen[dir], now)
	})
}

// startOver follows the paths, and no longer the directories that were there.
func (w *watching) startOver() {
	for _, dir := range w.watched {
		_ = w.notify.Remove(dir)
	}
	w.watched = nil
	clear(w.seen)
	w.follow()
}

// directories are those of the published files and the one of the trigger file, or the nearest above that
// exists, in which it would appear.
func (w *watching) directories() []string {
	dirs := []string{existing(w.Dir)}
	w.generation = ""
	if target, err := os.Readlink(filepath.Join(w.Dir, dataLink)); err == nil && filepath.Base(target) == target {
		w.generation = filepath.Join(w.Dir, target)
		dirs = append(dirs, w.generation)
	}
	if w.Trigger != "" {
		dirs = append(dirs, existing(filepath.Dir(w.Trigger)))
	}
	return dirs
}

func existing(dir string) string {
	for {
		info, err := os.Stat(dir)
		if parent := filepath.Dir(dir); (err != nil || !info.IsDir()) && parent != dir {
			dir = parent
			continue
		}
		return dir
	}
}

// takeTrigger removes the trigger file and asks for a renewal. One that cannot be removed counts when it has
// just appeared: else it would ask again and again.
func (w *watching) takeTrigger(appeared bool) {
	if w.Trigger == "" {
		return
	}
	err := os.Remove(w.Trigger)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return
	case err != nil:
		w.complain(err)
		if !appeared {
			return
		}
	}
	w.Log.Info("the trigger file asks for a renewal", "path", w.Trigger)
	offer(w.Requests, reasonTrigger)
}

// complain says a problem once, not at each event.
func (w *watching) complain(err error) {
	if err.Error() != w.complaint {
		w.complaint = err.Error()
		w.Log.Warn("watching files failed", "error", err.Error())
	}
}
