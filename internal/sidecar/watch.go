package sidecar

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/certfetcher/certfetcher/internal/files"
)

const (
	// settle is how long published files must be left alone before the Loop looks at them: most changes consist of
	// several, our own publications among them.
	settle = 100 * time.Millisecond
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

	recheck    time.Duration // 0: that of the Loop
	generation string        // the directory that ..data points to; empty: there is none
}

// dataLink is the link that the symlink layout swaps.
const dataLink = "..data"

// Run watches until ctx ends. It fails only at the start, when the kernel gives no watcher.
func (w *Watch) Run(ctx context.Context) error {
	complain := func(dir string, err error) { w.Log.Warn("watching files failed", "dir", dir, "error", err.Error()) }
	f := &files.Follower{
		Dirs: w.directories, Look: w.look, Moved: func() { w.takeTrigger(false) }, Quiet: settle,
		Recheck: cmp.Or(w.recheck, recheck), Changed: func() { offer(w.Disturbed, struct{}{}) }, Failed: complain,
	}
	if err := f.Start(); err != nil {
		return err
	}
	w.takeTrigger(false)
	f.Run(ctx)
	return nil
}

// offer does not wait: where something is waiting to be looked at already, it will be seen then.
func offer[T any](to chan<- T, what T) {
	select {
	case to <- what:
	default:
	}
}

// look tells whether an event concerns published files, and whether a directory came, went or was swapped.
func (w *Watch) look(name string, created, removed bool) (changed, moved bool) {
	if name == w.Trigger && !removed {
		w.takeTrigger(created)
	}
	moved = above(name, w.Dir) || name != w.Trigger && above(name, w.Trigger)
	inDir, base := filepath.Dir(name) == w.Dir, filepath.Base(name)
	switch {
	case above(name, w.Dir), inDir && base == dataLink, name == w.generation:
		return true, true
	case inDir:
		return len(w.Names) == 0 || slices.Contains(w.Names, base), moved
	}
	return filepath.Dir(name) == w.generation, moved
}

// above tells whether name is path or a directory on the way to it.
func above(name, path string) bool {
	return path != "" && (name == path || strings.HasPrefix(path, strings.TrimSuffix(name, "/")+"/"))
}

// directories are those of the published files and the one of the trigger file, or the nearest above that
// exists, in which it would appear.
func (w *Watch) directories() []string {
	dirs := []string{files.NearestDir(w.Dir)}
	w.generation = ""
	if target, err := os.Readlink(filepath.Join(w.Dir, dataLink)); err == nil && filepath.Base(target) == target {
		w.generation = filepath.Join(w.Dir, target)
		dirs = append(dirs, w.generation)
	}
	if w.Trigger != "" {
		dirs = append(dirs, files.NearestDir(filepath.Dir(w.Trigger)))
	}
	return dirs
}

// takeTrigger removes the trigger file and asks for a renewal. One that cannot be removed counts when it has
// just appeared: else it would ask again and again.
func (w *Watch) takeTrigger(appeared bool) {
	if w.Trigger == "" {
		return
	}
	err := os.Remove(w.Trigger)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return
	case err != nil:
		if !appeared {
			return
		}
		w.Log.Warn("the trigger file cannot be removed", "path", w.Trigger, "error", err.Error())
	}
	w.Log.Info("the trigger file asks for a renewal", "path", w.Trigger)
	offer(w.Requests, reasonTrigger)
}
