package output

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// mountMemory mounts a file system of the given options on the volume; without the right to, it skips the test. The
// same errors are injected elsewhere, at every step.
func mountMemory(t *testing.T, cfg Config, options string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(cfg.Dir, 0o750))
	err := syscall.Mount("tmpfs", cfg.Dir, "tmpfs", 0, options)
	if errors.Is(err, syscall.EPERM) {
		t.Skip("no right to mount")
	}
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(cfg.Dir, 0)) })
}

func TestVolume_fileMountedInTheWay(t *testing.T) {
	eachLayout(t, func(t *testing.T, layout string) {
		cfg := newConfig(t, layout, TypePEM)
		v, mounted := mustOpen(t, cfg), filepath.Join(cfg.Dir, "keystore.pem")
		writeFile(t, cfg.Dir, "keystore.pem", "")
		err := syscall.Mount(mounted, mounted, "", syscall.MS_BIND, "")
		if errors.Is(err, syscall.EPERM) {
			t.Skip("no right to mount")
		}
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, syscall.Unmount(mounted, 0)) })

		before := listing(t, cfg.Dir)
		want := `renaming "` + mounted + `": device or resource busy ` +
			`(something is mounted under this name alone, as with a subPath: mount the whole directory)`
		require.EqualError(t, v.Writable(), want)
		_, err = v.Publish(newBundle())
		require.EqualError(t, err, want)
		require.Equal(t, before, listing(t, cfg.Dir))
	})
}

func TestVolume_readOnly(t *testing.T) {
	eachLayout(t, func(t *testing.T, layout string) {
		cfg, b := newConfig(t, layout, TypePEM), newBundle()
		mountMemory(t, cfg, "size=1m")
		mustPublish(t, mustOpen(t, cfg), b)
		require.NoError(t, syscall.Mount("", cfg.Dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))

		requireCurrent(t, cfg, b)
		v := mustOpen(t, cfg)
		require.False(t, mustPublish(t, v, b).Changed)
		want := `creating directory "` + cfg.Dir + `/..stage": read-only file system ` +
			`(the file system is read-only: mount the volume without readOnly)`
		require.EqualError(t, v.Writable(), want)
		_, err := v.Publish(newBundle())
		require.EqualError(t, err, want)
		requireCurrent(t, cfg, b)
	})
}

// What Writable promises is kept: with every amount of room and of inodes, a publication succeeds where it said so.
func TestVolume_Writable_tellsBeforehandWhetherAPublicationHasRoom(t *testing.T) {
	for _, limit := range []string{"size=%dk,nr_inodes=1000", "size=10m,nr_inodes=%d"} {
		for _, first := range []bool{true, false} {
			eachLayout(t, func(t *testing.T, layout string) {
				yes, no := 0, 0
				for n := 4; n <= 200; n += 4 {
					cfg := newConfig(t, layout, TypePEM, TypeJKS)
					mountMemory(t, cfg, fmt.Sprintf(limit, n))
					v, err := Open(cfg)
					if err != nil {
						require.ErrorIs(t, err, syscall.ENOSPC)
						continue
					}
					if !first {
						if _, err := v.Publish(newBundle()); err != nil {
							continue // not even the set before had room
						}
						v = reopened(t, cfg)
					}
					if err := v.Writable(); err != nil {
						no++
						require.ErrorIs(t, err, syscall.ENOSPC)
						assert.ErrorContains(t, err, "a publication writes ")
						continue
					}
					yes++
					_, err = v.Publish(newBundle())
					require.NoError(t, err, "%s, first %t, "+limit, layout, first, n)
				}
				assert.NotZero(t, yes, "%s, first %t, %s", layout, first, limit)
				assert.NotZero(t, no, "%s, first %t, %s", layout, first, limit)
			})
		}
	}
}

// Old generations for slow readers are worth less than a new set.
func TestVolume_Publish_makesRoomOutOfOldGenerations(t *testing.T) {
	cfg := newConfig(t, LayoutSymlink, TypePEM)
	mountMemory(t, cfg, "size=80k")
	v := mustOpen(t, cfg)
	for range 12 {
		require.NoError(t, v.Writable())
		mustPublish(t, v, newBundle())
	}
	assert.Less(t, len(generations(t, v)), 1+oldMost)
	entries, err := os.ReadDir(filepath.Join(cfg.Dir, dataLink))
	require.NoError(t, err)
	assert.Len(t, entries, 5, "four files and the record of the request")
}
