package files

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/fsnotify/fsnotify"
)

// Watcher is the one inotify instance of a program, which all its Followers share: a user has few of
// them on a host (fs.inotify.max_user_instances), in all containers together. Without one, as nil
// or where the kernel gives none, Followers look at the files from time to time.
type Watcher struct {
	log    *slog.Logger
	life   context.Context   // it lasts as long
	kernel *fsnotify.Watcher // nil: none
	watch  func(path string) error

	adding sync.Mutex // held while followers come and go
	// mu is held while what follows changes, or is read without adding. It is not held during a call of
	// kernel, which may wait until an event is taken.
	mu     sync.Mutex
	places []*place
	said   map[string]bool // what was logged
}

// place is a directory that is watched, under whatever names: the kernel has one watch for all of them.
type place struct {
	path string // that the kernel's events name
	info fs.FileInfo
	by   []interest
}

// interest is that of a Follower in a directory, under the Follower's name of it.
type interest struct {
	follower *Follower
	dir      string
}

// event is what happened to path, which is in a followed directory or is one.
type event struct {
	path             string
	created, removed bool
}

// inbox keeps the events that a Follower has not taken yet, equal ones once: a file that is written all
// the time has one.
type inbox struct {
	news   chan struct{}
	mu     sync.Mutex
	events []event
	lost   bool // some are not among them
}

// room is that of an inbox. Of more events, a Follower only learns that there were some.
const room = 64

func (i *inbox) put(e event) {
	i.mu.Lock()
	defer i.mu.Unlock()
	switch {
	case slices.Contains(i.events, e):
	case len(i.events) == room:
		i.lost = true
	default:
		i.events = append(i.events, e)
	}
	i.ring()
}

func (i *inbox) lose() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.lost = true
	i.ring()
}

func (i *inbox) ring() {
	select {
	case i.news <- struct{}{}:
	default:
	}
}

func (i *inbox) take() (events []event, lost bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	events, lost, i.events, i.lost = i.events, i.lost, nil, false
	return events, lost
}

// Unwatched is logged as a warning, once, where there is no watcher, and once for each directory that it cannot watch.
const Unwatched = "files are looked at once a minute, as the kernel gives no watcher"

// errNoWatcher says that there is no inotify instance, which was logged.
var errNoWatcher = errors.New("no watcher")

// NewWatcher makes the Watcher of a program, which lasts until ctx ends. It does not fail: log is
// told when the kernel gives no inotify instance.
func NewWatcher(ctx context.Context, log *slog.Logger) *Watcher {
	return newWatcher(ctx, log, fsnotify.NewWatcher)
}

func newWatcher(ctx context.Context, log *slog.Logger, open func() (*fsnotify.Watcher, error)) *Watcher {
	w := &Watcher{log: log, life: ctx, said: map[string]bool{}}
	kernel, err := open()
	if err != nil {
		log.Warn(Unwatched, "error", err.Error())
		return w
	}
	w.kernel, w.watch = kernel, kernel.Add
	go w.run(ctx)
	return w
}

// none tells whether no directory can be watched.
func (w *Watcher) none() bool { return w == nil || w.kernel == nil }

func (w *Watcher) run(ctx context.Context) {
	defer w.kernel.Close()
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-w.kernel.Events:
			w.tell(e)
		case err := <-w.kernel.Errors:
			w.mu.Lock()
			if !errors.Is(err, fsnotify.ErrEventOverflow) { // which means events, only not which
				w.complain("", err)
			}
			for _, p := range w.places {
				p.lose()
			}
			w.mu.Unlock()
		}
	}
}

// tell hands an event to those who follow the directory that it was in, or that it was about. It
// waits for none of them.
func (w *Watcher) tell(e fsnotify.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	path := filepath.Clean(e.Name)
	for _, p := range w.places {
		within := ""
		if p.path != path {
			if p.path != filepath.Dir(path) {
				continue
			}
			within = filepath.Base(path)
		}
		for _, i := range p.by {
			i.follower.inbox.put(event{
				filepath.Join(i.dir, within), e.Has(fsnotify.Create), e.Has(fsnotify.Remove) || e.Has(fsnotify.Rename),
			})
		}
	}
}

// lose has all followers of the place begin again.
func (p *place) lose() {
	for _, i := range p.by {
		i.follower.inbox.lose()
	}
}

// add has the follower told of what happens in dir, also when it was before: a directory that was
// removed and made again has lost its watch.
func (w *Watcher) add(f *Follower, dir string) error {
	if w.none() {
		return errNoWatcher
	}
	w.adding.Lock()
	defer w.adding.Unlock()
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	err = w.watch(w.join(interest{f, filepath.Clean(dir)}, info))
	if err != nil && !errors.Is(err, fs.ErrNotExist) && w.life.Err() == nil { // or the file descriptor is closed
		w.mu.Lock()
		defer w.mu.Unlock()
		w.complain(dir, err)
	}
	return err
}

// join notes the interest in the directory that info is about, and returns the path to watch it under.
func (w *Watcher) join(of interest, info fs.FileInfo) string {
	for _, p := range slices.Clone(w.places) {
		if now, err := os.Stat(p.path); err != nil || !os.SameFile(p.info, now) {
			w.forget(p) // it is no longer where it was
		}
	}
	at := func(p *place) bool { return p.path == of.dir || os.SameFile(p.info, info) }
	i := slices.IndexFunc(w.places, at)
	if i >= 0 && slices.Contains(w.places[i].by, of) {
		return w.places[i].path
	}
	w.remove(of) // from where the name led before
	i = slices.IndexFunc(w.places, at)
	w.mu.Lock()
	defer w.mu.Unlock()
	if i < 0 {
		i = len(w.places)
		w.places = append(w.places, &place{path: of.dir, info: info})
	}
	w.places[i].by = append(w.places[i].by, of)
	return w.places[i].path
}

// leave ends the interest of the follower in dir.
func (w *Watcher) leave(f *Follower, dir string) {
	if w.none() {
		return
	}
	w.adding.Lock()
	defer w.adding.Unlock()
	w.remove(interest{f, filepath.Clean(dir)})
}

// remove ends an interest, and the watch with the last one.
func (w *Watcher) remove(of interest) {
	for _, p := range slices.Clone(w.places) {
		i := slices.Index(p.by, of)
		if i < 0 {
			continue
		}
		w.mu.Lock()
		p.by = slices.Delete(p.by, i, i+1)
		w.mu.Unlock()
		if len(p.by) == 0 {
			w.forget(p)
		}
	}
}

// forget ends the watch of a place. Those who still follow it begin again.
func (w *Watcher) forget(p *place) {
	_ = w.kernel.Remove(p.path) // a directory that is gone has taken its watch along
	w.mu.Lock()
	defer w.mu.Unlock()
	w.places = slices.DeleteFunc(w.places, func(other *place) bool { return other == p })
	p.lose()
}

// complain logs what was not logged before.
func (w *Watcher) complain(dir string, err error) {
	text := dir + err.Error()
	if w.said[text] {
		return
	}
	w.said[text] = true
	if dir == "" {
		w.log.Warn("watching files failed", "error", err.Error())
		return
	}
	w.log.Warn(Unwatched, "dir", dir, "error", err.Error())
}
