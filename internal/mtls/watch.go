package mtls

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// settle is how long the files must be left alone before they are read: a replacement consists of
	// several steps, and of several files.
	settle = 200 * time.Millisecond
	// settleMost bounds the waiting where something else in the directory never rests.
	settleMost = 2 * time.Second
)

// Watcher follows the files of an identity: the directories they are in, and those of every symbolic link
// on the way to them, because a Kubernetes volume is renewed by swapping the link ..data and other
// writers rename a new file into place. It polls nothing.
type Watcher struct {
	follower
	notify  *fsnotify.Watcher
	watched map[string]bool
	done    chan struct{}
}

// Watch begins to follow the files until ctx ends. initial is what Load gave; a change since then is found.
// onReload, which may be nil, is told of each replacement: the new identity, or the error that made it
// unusable, in which case the old one stays. It is called from one goroutine. Both are logged here.
func Watch(ctx context.Context, files Files, initial *Identity, log *slog.Logger, onReload func(*Identity, error)) (*Watcher, error) {
	notify, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watching the mutual TLS files: %w", err)
	}
	w := &Watcher{notify: notify, watched: map[string]bool{}, done: make(chan struct{})}
	w.begin(files, initial, log, onReload)
	if err := w.follow(); err != nil {
		notify.Close()
		return nil, fmt.Errorf("watching the mutual TLS files: %w", err)
	}
	go w.run(ctx)
	return w, nil
}

// Current is the identity to use now.
func (w *Watcher) Current() *Identity { return w.current.Load() }

// Done is closed when the watcher has ended, after ctx.
func (w *Watcher) Done() <-chan struct{} { return w.done }

// ServerConfig is that of the current identity for each new connection. Connections that exist keep what
// they began with.
func (w *Watcher) ServerConfig(clientAuth tls.ClientAuthType) *tls.Config {
	var (
		mu     sync.Mutex
		of     *Identity
		config *tls.Config // kept while the identity stays, as it holds the keys of session tickets
	)
	outer := w.Current().ServerConfig(clientAuth)
	outer.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		mu.Lock()
		defer mu.Unlock()
		if now := w.Current(); now != of {
			of, config = now, now.ServerConfig(clientAuth)
		}
		return config, nil
	}
	return outer
}

func (w *Watcher) run(ctx context.Context) {
	defer close(w.done)
	defer w.notify.Close()
	// The files may have changed before the watches stood, so the first look needs no event.
	timer := time.NewTimer(0)
	defer timer.Stop()
	var since time.Time // the first event not looked at yet
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.notify.Events:
		case err := <-w.notify.Errors:
			if !errors.Is(err, fsnotify.ErrEventOverflow) { // which means events, only not which
				w.log.Warn("watching the mutual TLS files failed", "error", err.Error())
			}
		case <-timer.C:
			since = time.Time{}
			// Before reading: what changes after this is an event again.
			if err := w.follow(); err != nil {
				w.log.Warn("watching the mutual TLS files failed", "error", err.Error())
			}
			w.look()
			continue
		}
		if since.IsZero() {
			since = time.Now()
		}
		timer.Reset(max(0, min(settle, settleMost-time.Since(since))))
	}
}

// follow watches the directories that matter now, and no others.
func (w *Watcher) follow() error {
	want := map[string]bool{}
	f := w.files
	for _, path := range []string{f.KeystorePath, f.KeystoreKeyPath, f.KeystorePasswordFile, f.TruststorePath, f.TruststorePasswordFile} {
		if path != "" {
			for _, dir := range directories(path) {
				want[dir] = true
			}
		}
	}
	for dir := range w.watched {
		if !want[dir] {
			// A directory that is gone has taken its watch along, so an error says nothing.
			_ = w.notify.Remove(dir)
			delete(w.watched, dir)
		}
	}
	var failed error
	for dir := range want {
		// Added again even when known: one removed and made anew has lost its watch.
		if err := w.notify.Add(dir); err != nil {
			failed = fmt.Errorf("%q: %w", dir, err)
			continue
		}
		w.watched[dir] = true
	}
	return failed
}
