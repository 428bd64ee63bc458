package files

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

// following runs a Follower of what dirs lists, with a Watcher unless it has one; each call of Changed is one value.
// end waits for the end of Run.
func following(t *testing.T, f *Follower) (changes chan int, end func()) {
	t.Helper()
	changes = make(chan int, 1000)
	count := 0
	f.Changed = func() { count++; changes <- count }
	if f.Watcher == nil {
		f.Watcher = NewWatcher(t.Context(), failing(t))
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { f.Run(ctx); close(done) }()
	end = func() { cancel(); <-done }
	t.Cleanup(end)
	require.Equal(t, 1, <-changes, "once at the start")
	return changes, end
}

// failing is a log that nothing should be written to.
func failing(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(writer(func(line string) { t.Error(line) }), nil))
}

type writer func(string)

func (w writer) Write(line []byte) (int, error) { w(string(line)); return len(line), nil }

func TestFollower_manyChangesAtOnce_areFew(t *testing.T) {
	dir := t.TempDir()
	changes, end := following(t, &Follower{Dirs: func() []string { return []string{dir} },
		Quiet: 50 * time.Millisecond})
	for range 200 {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), []byte("x"), 0o600))
	}
	require.NotZero(t, <-changes)
	end()
	assert.Less(t, len(changes), 20)
}

func TestFollower_changesThatNeverRest_areSeenAllTheSame(t *testing.T) {
	dir := t.TempDir()
	changes, end := following(t, &Follower{Dirs: func() []string { return []string{dir} },
		Quiet: 50 * time.Millisecond})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for len(changes) < 2 {
			_ = os.WriteFile(filepath.Join(dir, "file"), []byte("x"), 0o600)
		}
	}()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		assert.Fail(t, "nothing was seen")
	}
	end()
}

func TestFollower_anotherDirectoryInItsPlace_isFollowed(t *testing.T) {
	top := t.TempDir()
	dir := filepath.Join(top, "above", "dir")
	require.NoError(t, os.MkdirAll(dir, 0o700))
	moved := make(chan struct{}, 100)
	changes, _ := following(t, &Follower{
		Dirs: func() []string { return []string{NearestDir(dir)} }, Quiet: time.Millisecond,
		Recheck: 10 * time.Millisecond,
		Moved:   func() { moved <- struct{}{} },
	})
	<-moved // at the start
	require.NoError(t, os.Rename(filepath.Join(top, "above"), filepath.Join(top, "elsewhere")))
	require.NoError(t, os.MkdirAll(dir, 0o700))
	<-moved
	<-changes
	for len(changes) > 0 {
		<-changes
	}
	time.Sleep(50 * time.Millisecond) // so that the next change is the one below, mostly
	require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	<-changes
}

// What the kernel tells of the directory before does not count here, only what stands in its place.
func TestFollower_replacedWhileChangedReads_isFollowed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dir")
	require.NoError(t, os.Mkdir(dir, 0o700))
	changes, moved := make(chan struct{}, 100), make(chan struct{}, 100)
	first := true
	f := &Follower{Dirs: func() []string { return []string{dir} }, Quiet: time.Millisecond,
		Look: func(path string, created, _ bool) (bool, bool) {
			return created && filepath.Base(path) == "file", false
		},
		Moved: func() { moved <- struct{}{} }, Watcher: NewWatcher(t.Context(), failing(t))}
	f.Changed = func() {
		if changes <- struct{}{}; first {
			first = false
			assert.NoError(t, os.Rename(dir, dir+"-before"))
			assert.NoError(t, os.Mkdir(dir, 0o700))
		}
	}
	go f.Run(t.Context())
	<-changes
	<-moved
	<-changes
	require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	<-changes
}

func TestDirsOf(t *testing.T) {
	dir := fixture.Must(filepath.EvalSymlinks(t.TempDir()))
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "real/deep"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "real/deep/file"), nil, 0o600))
	require.NoError(t, os.Symlink("real", filepath.Join(dir, "link")))
	require.NoError(t, os.Symlink("../link/deep/file", filepath.Join(dir, "real/up")))
	require.NoError(t, os.Symlink("circle", filepath.Join(dir, "circle")))
	for _, row := range []struct {
		is, path string
		want     []string
	}{
		{"a plain file", "real/deep/file", []string{"real/deep"}},
		{"through a link", "link/deep/file", []string{"", "real/deep"}},
		{"a link through a link", "real/up", []string{"real", "", "real/deep"}},
		{"a file that is not there", "real/none", []string{"real"}},
		{"a directory that is not there", "real/none/file", []string{"real"}},
		{"a link to itself", "circle", []string{""}},
	} {
		t.Run(row.is, func(t *testing.T) {
			var want []string
			for _, d := range row.want {
				want = append(want, filepath.Join(dir, d))
			}
			assert.Equal(t, want, DirsOf(filepath.Join(dir, row.path)))
		})
	}
}
