package mtls

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
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

// Watcher follows the files of an identity.
type Watcher struct {
	files    Files
	log      *slog.Logger
	onReload func(*Identity, error)
	follower *files.Follower
	done     chan struct{} // closed when the watcher has ended, after its context
	current  atomic.Pointer[Identity]

	looking sync.Mutex        // held while looking, for what follows
	seen    [sha256.Size]byte // of the files at the last look, good or bad
	lastErr string            // of the last look, where the files could not even be read
}

// Watch follows the files until ctx ends. initial is what Load gave; a change since then is found.
// onReload, which may be nil, is called with each replacement: the new identity, or the error that
// made it unusable, in which case the old one stays. There is one call at a time. Both are logged here.
func Watch(ctx context.Context, by *files.Watcher, from Files, initial *Identity, log *slog.Logger,
	onReload func(*Identity, error)) *Watcher {
	w := &Watcher{files: from, log: log, onReload: onReload, done: make(chan struct{}), seen: initial.digest}
	w.current.Store(initial)
	w.follower = &files.Follower{Watcher: by, Dirs: from.dirs, Changed: w.look, Quiet: settle}
	go func() {
		defer close(w.done)
		w.follower.Run(ctx)
	}()
	return w
}

// Fresh is the identity to use now. Where the kernel does not tell of changes, it reads the files.
func (w *Watcher) Fresh() *Identity {
	if w.follower.Polls() {
		w.look()
	}
	return w.Current()
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

// look reads the files, and replaces the identity when they have changed.
func (w *Watcher) look() {
	w.looking.Lock()
	defer w.looking.Unlock()
	read, err := read(w.files)
	if err != nil {
		if err.Error() != w.lastErr {
			w.lastErr = err.Error()
			w.seen = [sha256.Size]byte{} // what comes next is news
			w.refuse(err)
		}
		return
	}
	w.lastErr = ""
	digest := read.digest()
	if digest == w.seen {
		return
	}
	w.seen = digest
	next, err := read.identity(w.files)
	if err != nil {
		w.refuse(err)
		return
	}
	w.current.Store(next)
	var about []any
	if leaf := next.Certificate.Leaf; leaf != nil {
		about = []any{"subject", pki.DN(leaf.RawSubject), "serial", pki.Serial(leaf), "not_after", leaf.NotAfter}
	}
	w.log.Info("mutual TLS identity replaced", append(about, "roots", len(next.Roots))...)
	if w.onReload != nil {
		w.onReload(next, nil)
	}
}

func (w *Watcher) refuse(err error) {
	w.log.Error("the new mutual TLS files are unusable, keeping the identity in use", "error", err.Error())
	if w.onReload != nil {
		w.onReload(nil, err)
	}
}
