package output

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestIsGeneration_certfetchersAndTheKubelets_andNothingElse(t *testing.T) {
	for _, name := range []string{"..2026_11_25_22_03_01.379", "..2026_11_25_22_03_01.3154780571"} {
		assert.True(t, isGeneration(name), name)
	}
	for _, name := range []string{
		"..2026_11_25_22_03_01", "..2026_11_25_22_03_01.", "..2026_11_25_22_03_01.37x", "..2026_11_25_22_03_01.1.2",
		"..2026_13_25_22_03_01.379", "2026_11_25_22_03_01.379", "..data", "..2026_1_25_22_03_01.379", "",
	} {
		assert.False(t, isGeneration(name), name)
	}
}

// clock is a time that tests set.
type clock struct{ now time.Time }

func (c *clock) pass(d time.Duration) { c.now = c.now.Add(d) }

// clockedVolume is a volume in the symlink layout at the time of the clock, with so many publications a second apart.
func clockedVolume(t *testing.T, publications int) (*Volume, *clock) {
	t.Helper()
	cfg, c := newConfig(t, LayoutSymlink, TypePEM), &clock{start}
	cfg.Now = func() time.Time { return c.now }
	v := mustOpen(t, cfg)
	for range publications {
		c.pass(time.Second)
		mustPublish(t, v, newBundle())
	}
	return v, c
}

// current is the directory that readers find behind ..data, and generations are all of them.
func current(t *testing.T, v *Volume) string {
	t.Helper()
	return readlink(v.path(dataLink))
}

func generations(t *testing.T, v *Volume) []string {
	t.Helper()
	var names []string
	for name := range listing(t, v.cfg.Dir) {
		if isGeneration(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// A reader that has resolved ..data and is slow finds its files after eight more publications.
func TestVolume_Publish_leavesASlowReaderItsFiles(t *testing.T) {
	v, c := clockedVolume(t, 1)
	reader := v.path(current(t, v))
	certificate := readFile(reader, "keystore.pem")
	for range oldMost {
		c.pass(time.Second)
		mustPublish(t, v, newBundle())
		assert.Equal(t, certificate, readFile(reader, "keystore.pem"))
	}
	for range 12 {
		mustPublish(t, v, newBundle())
		assert.Len(t, generations(t, v), 1+oldMost, "no more than these are kept")
	}
	assert.NoDirExists(t, reader)
}

func TestVolume_Restore_removesWhatWasReplacedTenMinutesAgo(t *testing.T) {
	v, c := clockedVolume(t, 1)
	assert.Zero(t, v.OldDue())
	c.pass(24 * time.Hour) // not how old it is counts, but how long ago it was replaced
	for range 2 {
		c.pass(time.Minute)
		mustPublish(t, v, newBundle())
	}
	names := generations(t, v)
	require.Len(t, names, 3)
	assert.Equal(t, c.now.Add(-time.Minute).Add(oldKept), v.OldDue())
	for _, row := range []struct {
		pass time.Duration
		left []string
	}{{oldKept - time.Minute, names}, {time.Second, names[1:]}, {time.Minute, names[2:]}} {
		c.pass(row.pass)
		assert.False(t, mustRestore(t, v).Changed, "readers see no change")
		assert.Equal(t, row.left, generations(t, v))
	}
	assert.Zero(t, v.OldDue())
}

// What a process does not remember is in the names, and these are as good as the clock was.
func TestVolume_Open_afterTheClockWasSet(t *testing.T) {
	for name, row := range map[string]struct {
		set  time.Duration
		kept int
	}{
		"not set":           {0, 3},
		"a little forward":  {oldKept - 10*time.Second, 3},
		"a day forward":     {24 * time.Hour, 1},
		"a little backward": {-oldKept + 10*time.Second, 3},
		"a day backward":    {-24 * time.Hour, 1},
	} {
		t.Run(name, func(t *testing.T) {
			v, c := clockedVolume(t, 3)
			last := current(t, v)
			c.pass(row.set)
			again := mustOpen(t, v.cfg)
			assert.Len(t, generations(t, v), row.kept)
			assert.Equal(t, last, current(t, v))

			// The next publication is the newest by its name, too, and leaves the one before.
			mustPublish(t, again, newBundle())
			assert.Greater(t, current(t, v), last)
			assert.Contains(t, generations(t, v), last)
		})
	}
}

// A generation that never became the current one is removed, and so is one whose files another process changed.
func TestVolume_Publish_removesWhatNoReaderShouldUse(t *testing.T) {
	v, c := clockedVolume(t, 1)
	unpublished := v.path(nextGeneration("", c.now.Add(time.Minute)))
	require.NoError(t, os.Mkdir(unpublished, 0o750))
	c.pass(time.Second)
	mustPublish(t, v, newBundle())
	assert.NoDirExists(t, unpublished)

	changed := v.path(current(t, v))
	require.NoError(t, os.Chmod(filepath.Join(changed, "key.pem"), 0o666))
	c.pass(time.Second)
	mustPublish(t, v, newBundle())
	assert.NoDirExists(t, changed)
}
