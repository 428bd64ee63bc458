package output

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// mountMemory mounts a file system of the given options; false without the right to. The same errors are
// injected elsewhere, at every step.
func mountMemory(t *testing.T, dir, options string) bool {
	t.Helper()
	require.NoError(t, os.MkdirAll(dir, 0o750))
	err := syscall.Mount("tmpfs", dir, "tmpfs", 0, options)
	if errors.Is(err, syscall.EPERM) {
		t.Log("no right to mount: only injected errors are tested here")
		return false
	}
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(dir, 0)) })
	return true
}

func TestVolume_Publish_onAFullDisk(t *testing.T) {
	for _, layout := range layouts {
		for room := range 12 { // pages that are free
			cfg := newConfig(t, layout, TypePEM, TypeJKS)
			if !mountMemory(t, cfg.Dir, "size=256k") {
				return
			}
			v := mustOpen(t, cfg)
			old, renewed := newBundle(), newBundle()
			mustPublish(t, v, old)
			fill(t, cfg.Dir, room)
			if room == 0 {
				before := listing(t, cfg.Dir)
				require.ErrorIs(t, v.Writable(), syscall.ENOSPC)
				require.Equal(t, before, listing(t, cfg.Dir))
			}

			_, err := v.Publish(renewed)
			if err == nil {
				require.Greater(t, room, 3, "what changes has more pages than these")
				requireCurrent(t, cfg, renewed)
				continue
			}
			require.ErrorIs(t, err, syscall.ENOSPC)
			assert.ErrorContains(t, err, "the volume is full: enlarge it or make room")
			requireCurrent(t, cfg, old)
			require.NoError(t, os.Remove(filepath.Join(cfg.Dir, "filler")))
			requireNothingLeft(t, listing(t, cfg.Dir), layout)
			mustPublish(t, v, renewed)
			requireCurrent(t, cfg, renewed)
		}
	}
}

// fill leaves so many pages free.
func fill(t *testing.T, dir string, room int) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "filler"))
	require.NoError(t, err)
	size := 0
	for page := make([]byte, 4096); err == nil; size++ {
		_, err = f.Write(page)
	}
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.NoError(t, f.Truncate(int64(max(size-1-room, 0))*4096))
	require.NoError(t, f.Close())
}

func TestVolume_fileMountedInTheWay(t *testing.T) {
	for _, layout := range layouts {
		cfg := newConfig(t, layout, TypePEM)
		v := mustOpen(t, cfg)
		mounted := filepath.Join(cfg.Dir, "keystore.pem")
		require.NoError(t, os.WriteFile(mounted, nil, 0o600))
		err := syscall.Mount(mounted, mounted, "", syscall.MS_BIND, "")
		if errors.Is(err, syscall.EPERM) {
			t.Skip("no right to mount")
		}
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, syscall.Unmount(mounted, 0)) })

		before := listing(t, cfg.Dir)
		want := `renaming "` + mounted + `": device or resource busy (something is mounted under this name alone, as with a subPath: mount the whole directory)`
		require.EqualError(t, v.Writable(), want)
		_, err = v.Publish(newBundle())
		require.EqualError(t, err, want)
		require.Equal(t, before, listing(t, cfg.Dir))
	}
}

func TestVolume_readOnly(t *testing.T) {
	for _, layout := range layouts {
		cfg := newConfig(t, layout, TypePEM)
		if !mountMemory(t, cfg.Dir, "size=1m") {
			return
		}
		b := newBundle()
		mustPublish(t, mustOpen(t, cfg), b)
		require.NoError(t, syscall.Mount("", cfg.Dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))

		requireCurrent(t, cfg, b)
		v := mustOpen(t, cfg)
		require.False(t, mustPublish(t, v, b).Changed)
		want := `creating directory "` + cfg.Dir + `/..stage": read-only file system (the file system is read-only: mount the volume without readOnly)`
		require.EqualError(t, v.Writable(), want)
		_, err := v.Publish(newBundle())
		require.EqualError(t, err, want)
		requireCurrent(t, cfg, b)
	}
}
