package output

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/files"
)

// A process that hangs with the lock keeps others from publishing for ten seconds each, and none from reading.
func TestVolume_lockedByAnother(t *testing.T) {
	eachLayout(t, func(t *testing.T, layout string) {
		cfg, v, b := published(t, layout, TypePEM)
		d, err := v.unlocked(cfg.Dir)
		require.NoError(t, err)
		unlock, err := lock(d, nil)
		require.NoError(t, err)
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			found, err := Read(cfg)
			require.NoError(t, err)
			require.True(t, found.equal(b))
			require.Equal(t, b.Note, ReadNote(cfg.Dir))
			require.Zero(t, time.Since(began))
			_, err = v.Publish(newBundle())
			require.EqualError(t, err, `locking "`+cfg.Dir+`": another process has worked in this directory for 10s`)
			require.GreaterOrEqual(t, time.Since(began), files.LockWait)
		})
		unlock()
		mustPublish(t, v, newBundle())
	})
}

// Two processes may find the directory missing at the same time.
func TestOpen_directoryMadeByAnotherMeanwhile(t *testing.T) {
	cfg, b := newConfig(t, LayoutSymlink, TypePEM), newBundle()
	published := false
	_, err := open(cfg, func(op, path string) error {
		if op == files.OpRename && !published {
			published = true
			faster := cfg
			faster.Dir = filepath.Join(filepath.Dir(cfg.Dir), "faster")
			mustPublish(t, mustOpen(t, faster), b)
			return os.Rename(faster.Dir, cfg.Dir)
		}
		return nil
	})
	require.NoError(t, err)
	requireCurrent(t, cfg, b)
	require.Equal(t, map[string]string{"certs": "drwxr-x---"}, listing(t, filepath.Dir(cfg.Dir)))
}
