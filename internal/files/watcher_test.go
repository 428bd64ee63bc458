package files

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// told is what a Follower of one directory learns: the paths of its events.
func told(t *testing.T, w *Watcher, dir string) (paths chan string, end func()) {
	t.Helper()
	paths = make(chan string, 1000)
	changes, end := following(t, &Follower{Watcher: w, Quiet: time.Millisecond, Recheck: 10 * time.Millisecond,
		Dirs: func() []string { return []string{NearestDir(dir)} },
		Look: func(path string, _, _ bool) (bool, bool) { paths <- path; return true, true }})
	go func() {
		for {
			select {
			case <-changes:
			case <-t.Context().Done():
				return
			}
		}
	}()
	return paths, end
}

func await(t *testing.T, paths <-chan string, want string) {
	t.Helper()
	for {
		select {
		case path := <-paths:
			if path == want {
				return
			}
		case <-time.After(20 * time.Second):
			require.Fail(t, "nothing is told", want)
		}
	}
}

func write(t *testing.T, path string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte("x"), 0o600))
}

func TestWatcher_severalFollowers_learnOfTheirDirectoriesOnly(t *testing.T) {
	w := NewWatcher(t.Context(), failing(t))
	one, other := t.TempDir(), t.TempDir()
	first, _ := told(t, w, one)
	second, _ := told(t, w, other)
	write(t, filepath.Join(one, "file"))
	await(t, first, filepath.Join(one, "file"))
	assert.Empty(t, second)
	write(t, filepath.Join(other, "file"))
	await(t, second, filepath.Join(other, "file"))
}

// The kernel has one watch for a directory, whatever it is called.
func TestWatcher_oneDirectoryUnderSeveralNames_isToldUnderEach(t *testing.T) {
	w := NewWatcher(t.Context(), failing(t))
	top := t.TempDir()
	dir, link := filepath.Join(top, "dir"), filepath.Join(top, "link")
	require.NoError(t, os.Mkdir(dir, 0o700))
	require.NoError(t, os.Symlink("dir", link))
	byLink, endByLink := told(t, w, link)
	byDir, _ := told(t, w, dir)
	alsoByDir, endAlso := told(t, w, dir)
	write(t, filepath.Join(dir, "file"))
	await(t, byLink, filepath.Join(link, "file"))
	await(t, byDir, filepath.Join(dir, "file"))
	await(t, alsoByDir, filepath.Join(dir, "file"))

	endByLink() // whose name the watch has
	endAlso()
	write(t, filepath.Join(dir, "later"))
	await(t, byDir, filepath.Join(dir, "later"))
}

func TestWatcher_anotherDirectoryInItsPlace_isToldToAll(t *testing.T) {
	w := NewWatcher(t.Context(), failing(t))
	top := t.TempDir()
	dir, link := filepath.Join(top, "above", "dir"), filepath.Join(top, "link")
	require.NoError(t, os.MkdirAll(dir, 0o700))
	require.NoError(t, os.Symlink(dir, link))
	byLink, _ := told(t, w, link)
	byDir, _ := told(t, w, dir)
	for i := range 20 {
		next := filepath.Join(top, "next") // complete, as nobody looks below it while it is made
		require.NoError(t, os.MkdirAll(filepath.Join(next, "dir"), 0o700))
		require.NoError(t, os.Rename(filepath.Join(top, "above"), filepath.Join(top, fmt.Sprint("before", i))))
		require.NoError(t, os.Rename(next, filepath.Join(top, "above")))
		// Nothing is told of what happens before the change is seen.
		until := time.Now().Add(20 * time.Second)
		for seen := map[string]bool{}; len(seen) < 2; {
			require.True(t, time.Now().Before(until), "not told: %v", seen)
			write(t, filepath.Join(dir, "file"))
			select {
			case path := <-byLink:
				if path == filepath.Join(link, "file") {
					seen["link"] = true
				}
			case path := <-byDir:
				if path == filepath.Join(dir, "file") {
					seen["dir"] = true
				}
			case <-time.After(time.Millisecond):
			}
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	assert.LessOrEqual(t, len(w.places), 3, "what is no longer followed is forgotten")
}

func TestWatcher_followerThatIsSlow_keepsNoOtherFromLearning(t *testing.T) {
	w := NewWatcher(t.Context(), failing(t))
	dir := t.TempDir()
	busy, release := make(chan struct{}), make(chan struct{})
	var looks, moves int
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		(&Follower{Watcher: w, Dirs: func() []string { return []string{dir} }, Quiet: time.Millisecond,
			Look:  func(string, bool, bool) (bool, bool) { looks++; return false, false },
			Moved: func() { moves++ },
			Changed: func() {
				busy <- struct{}{}
				<-release
			}}).Run(ctx)
	}()
	<-busy
	quick, _ := told(t, w, dir)
	for i := range 10 * room {
		path := filepath.Join(dir, fmt.Sprint(i))
		write(t, path)
		await(t, quick, path)
	}
	release <- struct{}{}
	<-busy // as events were lost
	cancel()
	close(release)
	<-done
	assert.Less(t, looks, 2*room)
	assert.GreaterOrEqual(t, moves, 2, "at the start, and as events were lost")
}

func TestWatcher_lastFollowerEnds_endsTheWatch(t *testing.T) {
	w := NewWatcher(t.Context(), failing(t))
	dir := t.TempDir()
	_, end := told(t, w, dir)
	assert.Equal(t, []string{dir}, w.kernel.WatchList())
	end()
	assert.Empty(t, w.kernel.WatchList())
	assert.Empty(t, w.places)
}

func TestFollower_kernelGivesNoWatcher_looksFromTimeToTime(t *testing.T) {
	var logged strings.Builder
	log := slog.New(slog.NewTextHandler(&logged, nil))
	w := newWatcher(t.Context(), log, func() (*fsnotify.Watcher, error) { return nil, syscall.EMFILE })
	dir := t.TempDir()
	for range 2 {
		moved := make(chan struct{}, 1000)
		f := &Follower{Watcher: w, Dirs: func() []string { return []string{dir} }, Quiet: time.Millisecond,
			Recheck: 10 * time.Millisecond, Moved: func() { moved <- struct{}{} }}
		changes, end := following(t, f)
		for range 3 {
			<-moved
			<-changes
		}
		assert.True(t, f.Polls())
		end()
	}
	assert.Equal(t, 1, strings.Count(logged.String(), "level=WARN msg=\""+Unwatched+"\" error=\"too many open files\""))
	assert.Equal(t, 1, strings.Count(logged.String(), "\n"))
}

// A user may have an instance left, but no watch.
func TestFollower_directoryThatCannotBeWatched_isLookedAtFromTimeToTimeUntilItCan(t *testing.T) {
	var logged strings.Builder
	dir := t.TempDir()
	w := NewWatcher(t.Context(), slog.New(slog.NewTextHandler(&logged, nil)))
	var free atomic.Bool
	w.watch = func(path string) error {
		if !free.Load() {
			return syscall.ENOSPC
		}
		return w.kernel.Add(path)
	}
	f := &Follower{Watcher: w, Dirs: func() []string { return []string{dir} }, Quiet: time.Millisecond,
		Recheck: 10 * time.Millisecond}
	changes, end := following(t, f)
	for range 3 {
		<-changes
	}
	assert.True(t, f.Polls())
	free.Store(true)
	require.Eventually(t, func() bool { return !f.Polls() }, 20*time.Second, time.Millisecond)
	end()
	assert.Equal(t, 1, strings.Count(logged.String(), "level=WARN msg=\""+Unwatched+"\" dir="+dir))
	assert.Equal(t, 1, strings.Count(logged.String(), "\n"))
}
