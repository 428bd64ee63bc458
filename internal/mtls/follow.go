package mtls

import (
	"crypto/sha256"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/certfetcher/certfetcher/internal/pki"
)

// follower has the identity in use, and replaces it when the files have changed.
type follower struct {
	files    Files
	log      *slog.Logger
	onReload func(*Identity, error)
	current  atomic.Pointer[Identity]

	// What follows belongs to whoever looks.
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
			f.seen = [sha256.Size]byte{} // whatever comes next is news
			f.refused(err)
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
		f.refused(err)
		return
	}
	f.current.Store(next)
	f.log.Info("mutual TLS identity replaced", "subject", pki.DN(next.Certificate.Leaf.RawSubject),
		"serial", pki.Serial(next.Certificate.Leaf), "not_after", next.Certificate.Leaf.NotAfter, "roots", len(next.Roots))
	if f.onReload != nil {
		f.onReload(next, nil)
	}
}

func (f *follower) refused(err error) {
	f.log.Error("the new mutual TLS files are unusable, keeping the identity in use", "error", err.Error())
	if f.onReload != nil {
		f.onReload(nil, err)
	}
}

// WithoutWatcher follows the files where Watch fails, which a machine without a free inotify instance makes
// it do: they are read whenever somebody asks for the identity. What is told to log and onReload, which may
// be nil, is as with Watch, but only then.
func WithoutWatcher(files Files, initial *Identity, log *slog.Logger, onReload func(*Identity, error)) (current func() *Identity) {
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
