package output

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What Writable promises is kept: with every amount of room and of inodes, a publication succeeds where it said so.
func TestVolume_Writable_tellsBeforehandWhetherAPublicationHasRoom(t *testing.T) {
	for _, layout := range layouts {
		for _, first := range []bool{true, false} {
			for _, limit := range []string{"size=%dk,nr_inodes=1000", "size=10m,nr_inodes=%d"} {
				yes, no := 0, 0
				for n := 4; n <= 200; n += 4 {
					cfg := newConfig(t, layout, TypePEM, TypeJKS)
					if !mountMemory(t, cfg.Dir, fmt.Sprintf(limit, n)) {
						return
					}
					if !first {
						if v, err := Open(cfg); err != nil {
							continue
						} else if _, err := v.Publish(newBundle()); err != nil {
							continue // not even the set before had room
						}
					}
					v, err := Open(cfg)
					if err != nil {
						require.ErrorIs(t, err, syscall.ENOSPC)
						continue
					}
					_, _ = v.Current() // as certfetcher does
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
			}
		}
	}
}

// Old generations for slow readers are worth less than a new set.
func TestVolume_Publish_makesRoomOutOfOldGenerations(t *testing.T) {
	cfg := newConfig(t, LayoutSymlink, TypePEM)
	if !mountMemory(t, cfg.Dir, "size=80k") {
		return
	}
	v := mustOpen(t, cfg)
	for range 12 {
		require.NoError(t, v.Writable())
		mustPublish(t, v, newBundle())
	}
	assert.Less(t, len(generations(t, cfg.Dir)), 1+oldMost)
	entries, err := os.ReadDir(filepath.Join(cfg.Dir, current(t, cfg.Dir)))
	require.NoError(t, err)
	assert.Len(t, entries, 5, "four files and the record of the request")
}
