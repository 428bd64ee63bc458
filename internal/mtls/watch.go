package mtls

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/certfetcher/certfetcher/internal/files"
)

// settle is how long the files must be left alone before they are read: a replacement consists of several steps, and of
// several files.
const settle = 200 * time.Millisecond

// Watcher follows the files of an identity. It polls nothing.
type Watcher struct {
	follower
	done chan struct{}
}

// Watch begins to follow the files until ctx ends. initial is what Load gave; a change since then is found.
// onReload, which may be nil, is told of each replacement: the new identity, or the error that made it
// unusable, in which case the old one stays. It is called from one goroutine. Both are logged here.
func Watch(ctx context.Context, from Files, initial *Identity, log *slog.Logger, onReload func(*Identity, error)) (*Watcher, error) {
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

// dirs are the directories to follow.
func (f Files) dirs() (dirs []string) {
	for _, path := range []string{f.KeystorePath, f.KeystoreKeyPath, f.KeystorePasswordFile, f.TruststorePath, f.TruststorePasswordFile} {
		if path != "" {
			dirs = append(dirs, files.DirsOf(path)...)
		}
	}
	return dirs
}
