package mtls

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/keystore"
	"github.com/certfetcher/certfetcher/test/fixture"
)

type reload struct {
	identity *Identity
	err      error
}

// following loads the files and watches them; what the watcher reports comes through the channel.
func following(t *testing.T, f Files) (*Watcher, chan reload, *logBuffer) {
	t.Helper()
	initial, err := Load(f)
	require.NoError(t, err)
	return followingFrom(t, f, initial)
}

func followingFrom(t *testing.T, f Files, initial *Identity) (*Watcher, chan reload, *logBuffer) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	reloads := make(chan reload, 100)
	var logged logBuffer
	w, err := Watch(ctx, f, initial, slog.New(slog.NewTextHandler(&logged, nil)),
		func(i *Identity, err error) { reloads <- reload{i, err} })
	require.NoError(t, err)
	t.Cleanup(func() { cancel(); <-w.done })
	return w, reloads, &logged
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// next waits for a report.
func next(t *testing.T, reloads chan reload) reload {
	t.Helper()
	for {
		select {
		case r := <-reloads:
			// On a busy machine the watcher may look between put's truncation of a file and its write.
			if r.err != nil && strings.Contains(r.err.Error(), "store is empty") {
				continue
			}
			return r
		case <-time.After(20 * time.Second):
			require.Fail(t, "no replacement was reported")
			panic("unreachable")
		}
	}
}

// nextGood waits for a report without an error: there may be others between two steps of a slow machine.
func nextGood(t *testing.T, reloads chan reload) *Identity {
	t.Helper()
	for {
		if r := next(t, reloads); r.err == nil {
			return r.identity
		}
	}
}

func put(t testing.TB, path string, data []byte) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, data, 0o600))
}

func TestWatcher_sees_every_way_of_replacing(t *testing.T) {
	before, after := newPKI(t, "Before"), newPKI(t, "After")
	oldStore, oldTrust := before.store(t), before.trust(t)
	newStore := p12(t, keystore.ProfileModern, after.keyEntry("a"))
	for _, row := range []struct {
		is      string
		start   func(t testing.TB, dir string) Files
		replace func(t *testing.T, dir string)
	}{
		{"renamed into place", plainFiles(oldStore, oldTrust), func(t *testing.T, dir string) {
			put(t, filepath.Join(dir, "store.tmp"), newStore)
			require.NoError(t, os.Rename(filepath.Join(dir, "store.tmp"), filepath.Join(dir, "store")))
		}},
		{"a Secret's volume, as the kubelet swaps it", func(t testing.TB, dir string) Files {
			kubelet(t, dir, "..2026_01", map[string][]byte{"store": oldStore, "trust": oldTrust})
			return filesIn(dir)
		}, func(t *testing.T, dir string) {
			kubelet(t, dir, "..2026_02", map[string][]byte{"store": newStore, "trust": oldTrust})
			require.NoError(t, os.RemoveAll(filepath.Join(dir, "..2026_01")))
		}},
		{"with a new password", func(t testing.TB, dir string) Files {
			f := plainFiles(oldStore, oldTrust)(t, dir)
			f.KeystorePasswordFile = filepath.Join(t.TempDir(), "password")
			put(t, f.KeystorePasswordFile, []byte(password+"\n"))
			require.NoError(t, os.Symlink(f.KeystorePasswordFile, filepath.Join(dir, "password")))
			f.KeystorePasswordFile = filepath.Join(dir, "password")
			return f
		}, func(t *testing.T, dir string) {
			entries := []keystore.Entry{after.keyEntry("a")}
			store := fixture.Must(keystore.EncodeJKS(entries, "another secret", time.Now()))
			put(t, filepath.Join(dir, "store"), store)
			secret := fixture.Must(os.Readlink(filepath.Join(dir, "password")))
			put(t, secret, []byte("another secret\n"))
		}},
		{"a link from elsewhere into a Secret's volume", func(t testing.TB, dir string) Files {
			require.NoError(t, os.MkdirAll(filepath.Join(dir, "secret"), 0o700))
			require.NoError(t, os.Mkdir(filepath.Join(dir, "app"), 0o700))
			kubelet(t, filepath.Join(dir, "secret"), "..2026_01",
				map[string][]byte{"store": oldStore, "trust": oldTrust})
			require.NoError(t, os.Symlink("../secret/store", filepath.Join(dir, "app/store")))
			require.NoError(t, os.Symlink(filepath.Join(dir, "secret/trust"), filepath.Join(dir, "app/trust")))
			return filesIn(filepath.Join(dir, "app"))
		}, func(t *testing.T, dir string) {
			kubelet(t, filepath.Join(dir, "secret"), "..2026_02",
				map[string][]byte{"store": newStore, "trust": oldTrust})
		}},
		{"a link that is turned to another directory", func(t testing.TB, dir string) Files {
			for name, data := range map[string][]byte{"one": oldStore, "two": newStore} {
				require.NoError(t, os.Mkdir(filepath.Join(dir, name), 0o700))
				put(t, filepath.Join(dir, name, "store"), data)
				put(t, filepath.Join(dir, name, "trust"), oldTrust)
			}
			require.NoError(t, os.Symlink("one", filepath.Join(dir, "current")))
			return filesIn(filepath.Join(dir, "current"))
		}, func(t *testing.T, dir string) {
			require.NoError(t, os.Symlink("two", filepath.Join(dir, "tmp")))
			require.NoError(t, os.Rename(filepath.Join(dir, "tmp"), filepath.Join(dir, "current")))
		}},
	} {
		t.Run(row.is, func(t *testing.T) {
			dir := t.TempDir()
			w, reloads, logged := following(t, row.start(t, dir))
			assert.Equal(t, before.chain[0], w.Current().Certificate.Leaf)
			row.replace(t, dir)
			replaced := nextGood(t, reloads)
			assert.Equal(t, after.chain[0], replaced.Certificate.Leaf)
			assert.Same(t, replaced, w.Current())
			assert.Contains(t, logged.String(), `msg="mutual TLS identity replaced" subject="CN=After"`)
		})
	}
}

func filesIn(dir string) Files {
	return Files{
		KeystorePath: filepath.Join(dir, "store"), KeystorePassword: password,
		TruststorePath: filepath.Join(dir, "trust"), TruststorePassword: password,
	}
}

// files writes the identity and its CA into a directory.
func (p *testPKI) files(t *testing.T, dir string) Files {
	return plainFiles(p.store(t), p.trust(t))(t, dir)
}

func plainFiles(store, trust []byte) func(testing.TB, string) Files {
	return func(t testing.TB, dir string) Files {
		put(t, filepath.Join(dir, "store"), store)
		put(t, filepath.Join(dir, "trust"), trust)
		return filesIn(dir)
	}
}

// kubelet publishes a generation of a Secret's volume: a directory with the files, the link ..data
// swapped to it, and for each file a link through that.
func kubelet(t testing.TB, dir, generation string, files map[string][]byte) {
	t.Helper()
	require.NoError(t, os.Mkdir(filepath.Join(dir, generation), 0o700))
	for name, data := range files {
		put(t, filepath.Join(dir, generation, name), data)
	}
	require.NoError(t, os.Symlink(generation, filepath.Join(dir, "..data_tmp")))
	require.NoError(t, os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
	for name := range files {
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)); !os.IsExist(err) {
			require.NoError(t, err)
		}
	}
}

func TestWatcher_broken_replacement_keeps_the_old_identity(t *testing.T) {
	p, q := newPKI(t, "Test"), newPKI(t, "Other")
	dir := t.TempDir()
	f := p.files(t, dir)
	w, reloads, logged := following(t, f)
	initial := w.Current()

	put(t, f.KeystorePath, []byte("hello"))
	r := next(t, reloads)
	assert.EqualError(t, r.err, `KEYSTORE_PATH "`+f.KeystorePath+
		`": store is in no known format, want JKS, PKCS#12 or PEM`)
	assert.Nil(t, r.identity)
	assert.Same(t, initial, w.Current())
	assert.Contains(t, logged.String(),
		`level=ERROR msg="the new mutual TLS files are unusable, keeping the identity in use" error="KEYSTORE_PATH`)

	require.NoError(t, os.Remove(f.KeystorePath))
	r = next(t, reloads)
	assert.ErrorContains(t, r.err, `KEYSTORE_PATH "`+f.KeystorePath+`" does not exist`)
	assert.Same(t, initial, w.Current())

	put(t, f.KeystorePath, q.store(t))
	r = next(t, reloads)
	require.NoError(t, r.err)
	assert.Equal(t, q.chain[0], w.Current().Certificate.Leaf)
}

func TestWatcher_directory_removed_and_made_again(t *testing.T) {
	p, q := newPKI(t, "Test"), newPKI(t, "Other")
	parent := t.TempDir()
	dir := filepath.Join(parent, "certs")
	require.NoError(t, os.Mkdir(dir, 0o700))
	f := p.files(t, dir)
	w, reloads, _ := following(t, f)
	require.NoError(t, os.RemoveAll(dir))
	require.Error(t, next(t, reloads).err)
	made := filepath.Join(parent, "new")
	require.NoError(t, os.Mkdir(made, 0o700))
	q.files(t, made)
	require.NoError(t, os.Rename(made, dir))
	nextGood(t, reloads)
	assert.Equal(t, q.chain[0], w.Current().Certificate.Leaf)
}

func TestWatcher_other_files_and_equal_contents_are_no_replacement(t *testing.T) {
	p, q := newPKI(t, "Test"), newPKI(t, "Other")
	dir := t.TempDir()
	store := p.store(t)
	f := plainFiles(store, p.trust(t))(t, dir)
	_, reloads, _ := following(t, f)
	put(t, filepath.Join(dir, "unrelated"), []byte("x"))
	for _, data := range [][]byte{store, q.store(t)} { // at one blow: half a file is a replacement
		put(t, filepath.Join(dir, "new"), data)
		require.NoError(t, os.Rename(filepath.Join(dir, "new"), f.KeystorePath))
	}
	r := next(t, reloads)
	require.NoError(t, r.err)
	assert.Equal(t, q.chain[0], r.identity.Certificate.Leaf, "the first replacement reported is the real one")
	assert.Empty(t, reloads)
}

func TestWithoutWatcher_looks_whenever_it_is_asked(t *testing.T) {
	p, q := newPKI(t, "Test"), newPKI(t, "Other")
	f := p.files(t, t.TempDir())
	initial, err := Load(f)
	require.NoError(t, err)
	reloads := make(chan reload, 100)
	current := WithoutWatcher(f, initial, slog.New(slog.DiscardHandler),
		func(i *Identity, err error) { reloads <- reload{i, err} })
	assert.Same(t, initial, current())
	assert.Empty(t, reloads)

	put(t, f.KeystorePath, []byte("hello"))
	assert.Same(t, initial, current())
	assert.ErrorContains(t, (<-reloads).err, "store is in no known format")
	assert.Same(t, initial, current())
	assert.Empty(t, reloads, "it is said once")

	put(t, f.KeystorePath, q.store(t))
	next := current()
	assert.Equal(t, q.chain[0], next.Certificate.Leaf)
	assert.Same(t, next, (<-reloads).identity)
	assert.Same(t, next, current())
	assert.Empty(t, reloads)
}

func TestWatch_finds_a_change_since_Load(t *testing.T) {
	p, q := newPKI(t, "Test"), newPKI(t, "Other")
	f := p.files(t, t.TempDir())
	initial, err := Load(f)
	require.NoError(t, err)
	put(t, f.KeystorePath, q.store(t))
	_, reloads, _ := followingFrom(t, f, initial)
	assert.Equal(t, q.chain[0], next(t, reloads).identity.Certificate.Leaf)
}

func TestWatcher_ServerConfig_serves_the_new_identity(t *testing.T) {
	p, q := newPKI(t, "Before"), newPKI(t, "After")
	f := p.files(t, t.TempDir())
	w, reloads, _ := following(t, f)
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.TLS = w.ServerConfig(tls.RequireAndVerifyClientCert)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	served := func(as *Identity) (string, error) {
		cfg := as.ClientConfig()
		cfg.NextProtos = []string{"h2", "http/1.1"}
		conn, err := tls.Dial("tcp", s.Listener.Addr().String(), cfg)
		if err != nil {
			return "", err
		}
		defer conn.Close()
		state := conn.ConnectionState()
		return state.PeerCertificates[0].Subject.CommonName + " " + state.NegotiatedProtocol, nil
	}
	before := w.Current()
	name, err := served(before)
	require.NoError(t, err)
	assert.Equal(t, "Before http/1.1", name)

	put(t, f.TruststorePath, q.trust(t))
	put(t, f.KeystorePath, q.store(t))
	for w.Current().Certificate.Leaf.Subject.CommonName != "After" || !w.Current().Roots[0].Equal(q.ca.Root) {
		next(t, reloads)
	}
	name, err = served(w.Current())
	require.NoError(t, err)
	assert.Equal(t, "After http/1.1", name)
	_, err = served(before)
	assert.ErrorContains(t, err, "certificate signed by unknown authority")
}
