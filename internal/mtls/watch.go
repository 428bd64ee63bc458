package mtls

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/certfetcher/certfetcher/internal/files"
	"github.com/certfetcher/certfetcher/internal/pki"
)

// settle is how long the files must be left alone before they are read: a replacement consists of
// several steps, and of several files.
const settle = 200 * time.Millisecond

// Watcher follows the files of an identity. It polls nothing.
type Watcher struct {
	follower
	done chan struct{} // closed when the watcher has ended, after its context
}

// Watch begins to follow the files until ctx ends. initial is what Load gave; a change since then
// is found. onReload, which may be nil, is called with each replacement: the new identity, or the
// error that made it unusable, in which case the old one stays. It is called from one goroutine.
// Both are logged here.
func Watch(ctx context.Context, from Files, initial *Identity, log *slog.Logger,
	onReload func(*Identity, error)) (*Watcher, error) {
	w := &Watcher{done: make(chan struct{})}
	w.begin(from, initial, log, onReload)
	var failed error // at the start
	f := &files.Follower{Dirs: from.dirs, Changed: w.look, Quiet: settle, Failed: func(dir string, err error) {
		failed = fmt.Errorf("%q: %w", dir, err)
	}}
	err := f.Start()
	if err == nil && failed != nil {
		f.Close()
		err = failed
	}
	if err != nil {
		return nil, fmt.Errorf("watching the mutual TLS files: %w", err)
	}
	f.Failed = func(dir string, err error) {
		log.Warn("watching the mutual TLS files failed", "dir", dir, "error", err.Error())
	}
	go func() {
		defer close(w.done)
		f.Run(ctx)
	}()
	return w, nil
}

// Current is the identity to use now.
func (w *Watcher) Current() *Identity { return w.current.Load() }

// ServerConfig is that of the current identity for each new connection. Connections that exist
// keep what they began with.
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

// dirs are the directories to follow.
func (f Files) dirs() (dirs []string) {
	for _, path := range []string{f.KeystorePath, f.KeystoreKeyPath, f.KeystorePasswordFile,
		f.TruststorePath, f.TruststorePasswordFile} {
		if path != "" {
			dirs = append(dirs, files.DirsOf(path)...)
		}
	}
	return dirs
}

// follower has the identity in use, and replaces it when the files have changed.
type follower struct {
	files    Files
	log      *slog.Logger
	onReload func(*Identity, error)
	current  atomic.Pointer[Identity]

	// What follows belongs to the goroutine that looks.
	seen    [sha256.Size]byte // of the files at the last look, good or bad
	lastErr string            // of the last look, where the files could not even be read
}

func (f *follower) begin(files Files, initial *Identity, log *slog.Logger, onReload func(*Identity, error)) {
	f.files, f.log, f.onReload, f.seen = files, log, onReload, initial.digest
	f.current.Store(initial)
}

// look reads the files, and replaces the identity when they have changed.
func (f *follower) look() {
	read, err := read(f.files)
	if err != nil {
		if err.Error() != f.lastErr {
			f.lastErr = err.Error()
			f.seen = [sha256.Size]byte{} // what comes next is news
			f.refuse(err)
		}
		return
	}
	f.lastErr = ""
	digest := read.digest()
	if digest == f.seen {
		return
	}
	f.seen = digest
	next, err := read.identity(f.files)
	if err != nil {
		f.refuse(err)
		return
	}
	f.current.Store(next)
	var about []any
	if leaf := next.Certificate.Leaf; leaf != nil {
		about = []any{"subject", pki.DN(leaf.RawSubject), "serial", pki.Serial(leaf), "not_after", leaf.NotAfter}
	}
	f.log.Info("mutual TLS identity replaced", append(about, "roots", len(next.Roots))...)
	if f.onReload != nil {
		f.onReload(next, nil)
	}
}

func (f *follower) refuse(err error) {
	f.log.Error("the new mutual TLS files are unusable, keeping the identity in use", "error", err.Error())
	if f.onReload != nil {
		f.onReload(nil, err)
	}
}

// WithoutWatcher follows the files where Watch fails, which a machine without a free inotify
// instance makes it do: they are read at each call of current. What goes to log and onReload,
// which may be nil, is as with Watch, but only then.
func WithoutWatcher(files Files, initial *Identity, log *slog.Logger,
	onReload func(*Identity, error)) (current func() *Identity) {
	f := &follower{}
	f.begin(files, initial, log, onReload)
	var looking sync.Mutex
	return func() *Identity {
		looking.Lock()
		defer looking.Unlock()
		f.look()
		return f.current.Load()
	}
}
