package sidecar

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/files"
)

// patience bounds waits for what happens at once unless something is wrong.
const patience = 20 * time.Second

// watched is a Watch that runs over a volume with one file, keystore.p12.
type watched struct {
	t         *testing.T
	dir       string
	disturbed chan struct{}
	requests  chan string
}

func startWatch(t *testing.T, trigger string) *watched {
	t.Helper()
	return startWatching(t, trigger, files.NewWatcher(t.Context(), slog.Default()))
}

func startWatching(t *testing.T, trigger string, by *files.Watcher) *watched {
	t.Helper()
	root := t.TempDir()
	w := &watched{t: t, dir: filepath.Join(root, "volume"), disturbed: make(chan struct{}, 1),
		requests: make(chan string, 1)}
	require.NoError(t, os.Mkdir(w.dir, 0o700))
	w.write("keystore.p12")
	if trigger != "" {
		trigger = filepath.Join(root, trigger)
	}
	watch := &Watch{
		Dir: w.dir, Names: []string{"keystore.p12"}, Trigger: trigger, Disturbed: w.disturbed, Requests: w.requests,
		Watcher: by, Log: slog.New(slog.DiscardHandler), recheck: 50 * time.Millisecond,
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { watch.Run(ctx); close(ended) }()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	w.awaitDisturbed() // at the start, so the watches stand
	return w
}

func (w *watched) write(name string) {
	w.t.Helper()
	require.NoError(w.t, os.WriteFile(filepath.Join(w.dir, name), []byte("x"), 0o600))
}

func (w *watched) awaitDisturbed() {
	w.t.Helper()
	select {
	case <-w.disturbed:
	case <-time.After(patience):
		require.Fail(w.t, "nobody was told")
	}
}

func (w *watched) awaitRequest() {
	w.t.Helper()
	select {
	case reason := <-w.requests:
		require.Equal(w.t, "trigger file", reason)
	case <-time.After(patience):
		require.Fail(w.t, "no renewal is asked for")
	}
}

func TestWatch_withoutWatcher_looksFromTimeToTime(t *testing.T) {
	w := startWatching(t, "renew", nil)
	for range 2 {
		w.awaitDisturbed()
		require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(w.dir), "renew"), nil, 0o600))
		w.awaitRequest()
	}
}

func TestWatch_publishedFiles_everyChangeIsTold(t *testing.T) {
	w := startWatch(t, "")
	path := filepath.Join(w.dir, "keystore.p12")
	for _, harm := range []struct {
		name string
		do   func() error
	}{
		{"written", func() error { return os.WriteFile(path, []byte("y"), 0o600) }},
		{"mode changed", func() error { return os.Chmod(path, 0o666) }},
		{"removed", func() error { return os.Remove(path) }},
		{"made again", func() error { return os.WriteFile(path, nil, 0o600) }},
		{"moved away", func() error { return os.Rename(path, path+".old") }},
		{"a generation appears", func() error {
			if err := os.Mkdir(filepath.Join(w.dir, "..gen"), 0o700); err != nil {
				return err
			}
			return os.Symlink("..gen", filepath.Join(w.dir, "..data"))
		}},
		{"written in the generation", func() error {
			return os.WriteFile(filepath.Join(w.dir, "..gen", "keystore.p12"),
				nil, 0o600)
		}},
		{"the generation moved away", func() error {
			return os.Rename(filepath.Join(w.dir, "..gen"),
				filepath.Join(w.dir, "..old"))
		}},
		{"the directory removed", func() error { return os.RemoveAll(w.dir) }},
		{"the directory made again", func() error { return os.Mkdir(w.dir, 0o700) }},
		{"a file in it", func() error { return os.WriteFile(path, nil, 0o600) }},
	} {
		require.NoError(t, harm.do(), harm.name)
		t.Log(harm.name)
		w.awaitDisturbed()
	}
}

func TestWatch_otherFilesInTheDirectory_areNobodysBusiness(t *testing.T) {
	w := startWatch(t, "volume/renew")
	w.write("application.log")
	w.write("renew") // its event comes after the other's
	w.awaitRequest()
	// Whoever is disturbed is told when files have settled, which is after this.
	select {
	case <-w.disturbed:
		assert.Fail(t, "somebody was told")
	case <-time.After(3 * settle):
	}
}

// The kernel tells nothing of a directory above those that are watched.
func TestWatch_ancestorIsRenamed_isNoticedAndFollowed(t *testing.T) {
	w := startWatch(t, "volume/renew")
	root := filepath.Dir(w.dir)
	require.NoError(t, os.Rename(root, root+".old"))
	w.awaitDisturbed()
	require.NoError(t, os.MkdirAll(w.dir, 0o700))
	w.awaitDisturbed()
	w.write("keystore.p12")
	w.awaitDisturbed()
	w.write("renew")
	w.awaitRequest()
}

func TestWatch_trigger(t *testing.T) {
	w := startWatch(t, "late/er/renew")
	dir := filepath.Join(filepath.Dir(w.dir), "late", "er")
	path := filepath.Join(dir, "renew")
	appear := func() {
		t.Helper()
		require.NoError(t, os.WriteFile(path, nil, 0o600))
		w.awaitRequest()
		require.NoFileExists(t, path)
	}
	// Its directory is made after the start, and once more.
	for range 2 {
		require.NoError(t, os.MkdirAll(dir, 0o700))
		appear()
		appear()
		require.NoError(t, os.RemoveAll(filepath.Dir(dir)))
	}
	// It is moved into place, in a directory that comes with it.
	other := filepath.Join(t.TempDir(), "late")
	require.NoError(t, os.MkdirAll(filepath.Join(other, "er"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(other, "er", "renew"), nil, 0o600))
	require.NoError(t, os.Rename(other, filepath.Dir(dir)))
	w.awaitRequest()
	assert.NoFileExists(t, path)
}

func TestWatch_triggerThatCannotBeRemoved_asksOnce(t *testing.T) {
	w := startWatch(t, "renew")
	path := filepath.Join(filepath.Dir(w.dir), "renew")
	full := filepath.Join(t.TempDir(), "renew")
	require.NoError(t, os.MkdirAll(filepath.Join(full, "in it"), 0o700))
	require.NoError(t, os.Rename(full, path)) // a directory that is not empty
	w.awaitRequest()
	require.NoError(t, os.Chmod(path, 0o755))
	w.write("keystore.p12")
	w.awaitDisturbed()
	assert.Empty(t, w.requests)
}
