package files

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

const lockName = "..lock"

func openDirAt(t *testing.T, path string) *os.File {
	t.Helper()
	dir := fixture.Must(os.Open(path))
	t.Cleanup(func() { dir.Close() })
	return dir
}

func TestLock_severalAtOnce_areAloneEach(t *testing.T) {
	for label, lock := range map[string]func(*os.File, string, <-chan struct{}) (func(), error){"kept": Lock,
		"removed": LockAndRemove} {
		path := t.TempDir()
		var inside, most, rounds atomic.Int64
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				dir, err := os.Open(path)
				if !assert.NoError(t, err) {
					return
				}
				defer dir.Close()
				for range 10 {
					unlock, err := lock(dir, lockName, nil)
					if !assert.NoError(t, err) {
						return
					}
					most.Store(max(most.Load(), inside.Add(1)))
					rounds.Add(1)
					inside.Add(-1)
					unlock()
				}
			})
		}
		all.Wait()
		assert.EqualValues(t, 1, most.Load(), label)
		assert.EqualValues(t, 40, rounds.Load(), label)
		_, err := os.Lstat(filepath.Join(path, lockName))
		assert.Equal(t, label == "removed", os.IsNotExist(err), label)
	}
}

// Whoever may not write to the directory must not be able to open the lock, and everybody else must.
func TestLock_hasTheModeOfThoseWhoMayWrite(t *testing.T) {
	for mode, want := range map[os.FileMode]string{
		0o700: "-rw-------", 0o755: "-rw-------", 0o770: "-rw-rw----", 0o775: "-rw-rw----",
		0o777: "-rw-rw-rw-", 0o777 | os.ModeSticky: "-rw-rw-rw-",
	} {
		path := t.TempDir()
		for _, before := range []os.FileMode{mode, 0o700, 0o777} { // it is mended when the directory's mode changes
			require.NoError(t, os.Chmod(path, before))
			for range 2 {
				unlock, err := Lock(openDirAt(t, path), lockName, nil)
				require.NoError(t, err)
				unlock()
				require.NoError(t, os.Chmod(path, mode))
			}
			info := fixture.Must(os.Lstat(filepath.Join(path, lockName)))
			assert.Equal(t, want, info.Mode().String(), mode)
		}
	}
}

func TestLock_foreignObject_isReportedAndNeitherOpenedNorChanged(t *testing.T) {
	for what, put := range map[string]func(path, other string) error{
		"FIFO":      func(path, _ string) error { return syscall.Mkfifo(path, 0o600) },
		"directory": func(path, _ string) error { return os.Mkdir(path, 0o700) },
		"link":      func(path, other string) error { return os.Symlink(other, path) },
		"hard link": func(path, other string) error { return os.Link(other, path) },
	} {
		dir, other := t.TempDir(), filepath.Join(t.TempDir(), "other")
		require.NoError(t, os.WriteFile(other, nil, 0o640))
		require.NoError(t, put(filepath.Join(dir, lockName), other))
		_, err := Lock(openDirAt(t, dir), lockName, nil)
		var foreign *ForeignLockError
		require.ErrorAs(t, err, &foreign, what)
		info := fixture.Must(os.Stat(other))
		assert.Equal(t, "-rw-r-----", info.Mode().String(), what)
	}
}

func TestLock_replacedWhileItIsWaitedFor_isTheNewOne(t *testing.T) {
	path := t.TempDir()
	unlock, err := Lock(openDirAt(t, path), lockName, nil)
	require.NoError(t, err)
	second := make(chan func(), 1)
	go func() {
		unlock, err := Lock(openDirAt(t, path), lockName, nil)
		assert.NoError(t, err)
		second <- unlock
	}()
	time.Sleep(5 * poll)
	require.NoError(t, os.Remove(filepath.Join(path, lockName)))
	release := <-second // has made another
	info := fixture.Must(os.Stat(filepath.Join(path, lockName)))
	assert.Zero(t, info.Size())
	done := make(chan struct{})
	close(done)
	_, err = Lock(openDirAt(t, path), lockName, done)
	assert.ErrorIs(t, err, context.Canceled, "the new one is held")
	unlock()
	release()
}

// A release that knows flock(2) only is waited for, as long as it takes to publish, and waits for this one.
func TestLock_ofAnEarlierRelease(t *testing.T) {
	obstructed.Store(false) // by another test
	path := t.TempDir()
	old := int(openDirAt(t, path).Fd())
	require.NoError(t, syscall.Flock(old, syscall.LOCK_EX))
	released := make(chan time.Time, 1)
	time.AfterFunc(200*time.Millisecond, func() {
		now := time.Now()
		_ = syscall.Flock(old, syscall.LOCK_UN)
		released <- now
	})
	unlock, err := Lock(openDirAt(t, path), lockName, nil)
	require.NoError(t, err)
	assert.True(t, time.Now().After(<-released), "it works while the other does")
	assert.ErrorIs(t, syscall.Flock(old, syscall.LOCK_SH|syscall.LOCK_NB), syscall.EWOULDBLOCK)
	unlock()
	require.NoError(t, syscall.Flock(old, syscall.LOCK_EX|syscall.LOCK_NB))

	began := time.Now()
	for range 10 { // and one that never ends delays this process once
		unlock, err := Lock(openDirAt(t, path), lockName, nil)
		require.NoError(t, err)
		unlock()
	}
	assert.Less(t, time.Since(began), 5*waitForOld)
}

func TestLock_whereNothingCanBeWritten_doesWithout(t *testing.T) {
	unlock, err := Lock(openDirAt(t, "/proc/self"), lockName, nil)
	require.NoError(t, err)
	unlock()
}
