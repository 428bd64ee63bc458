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

// clock is a time that tests set.
type clock struct{ now time.Time }

func (c *clock) pass(d time.Duration) { c.now = c.now.Add(d) }

// clockedVolume is a volume in the symlink layout at the time of the clock.
func clockedVolume(t *testing.T) (*Volume, *clock) {
	t.Helper()
	cfg := newConfig(t, LayoutSymlink, TypePEM)
	c := &clock{start}
	cfg.Now = func() time.Time { return c.now }
	return mustOpen(t, cfg), c
}

// current is the directory that readers find behind ..data, and generations are all of them.
func current(t *testing.T, dir string) string {
	t.Helper()
	target, err := os.Readlink(filepath.Join(dir, dataLink))
	require.NoError(t, err)
	return target
}

func generations(t *testing.T, dir string) []string {
	t.Helper()
	var names []string
	for name := range listing(t, dir) {
		if isGeneration(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// A reader that has resolved ..data and is slow finds its files after eight more publications.
func TestVolume_Publish_leavesASlowReaderItsFiles(t *testing.T) {
	v, c := clockedVolume(t)
	mustPublish(t, v, newBundle())
	reader, err := os.OpenRoot(filepath.Join(v.cfg.Dir, current(t, v.cfg.Dir)))
	require.NoError(t, err)
	defer reader.Close()
	certificate, err := reader.ReadFile("keystore.pem")
	require.NoError(t, err)
	for range oldMost {
		c.pass(time.Second)
		mustPublish(t, v, newBundle())
		_, err := reader.ReadFile("key.pem")
		require.NoError(t, err)
	}
	again, err := reader.ReadFile("keystore.pem")
	require.NoError(t, err)
	assert.Equal(t, certificate, again)

	for range 12 {
		mustPublish(t, v, newBundle())
		assert.Len(t, generations(t, v.cfg.Dir), 1+oldMost, "no more than these are kept")
	}
	_, err = reader.ReadFile("key.pem")
	assert.ErrorIs(t, err, os.ErrNotExist)
}

func TestVolume_Restore_removesWhatWasReplacedTenMinutesAgo(t *testing.T) {
	v, c := clockedVolume(t)
	mustPublish(t, v, newBundle())
	assert.Zero(t, v.OldDue())
	c.pass(24 * time.Hour) // how old a generation is makes no difference, but how long ago it was replaced
	for range 2 {
		c.pass(time.Minute)
		mustPublish(t, v, newBundle())
	}
	names := generations(t, v.cfg.Dir)
	require.Len(t, names, 3)
	assert.Equal(t, c.now.Add(-time.Minute).Add(oldKept), v.OldDue())

	c.pass(oldKept - time.Minute)
	restore := func() []string {
		t.Helper()
		p, err := v.Restore()
		require.NoError(t, err)
		assert.False(t, p.Changed, "readers see no change")
		return generations(t, v.cfg.Dir)
	}
	assert.Equal(t, names, restore())
	c.pass(time.Second)
	assert.Equal(t, names[1:], restore())
	c.pass(time.Minute)
	assert.Equal(t, names[2:], restore())
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
			v, c := clockedVolume(t)
			for range 3 {
				c.pass(time.Second)
				mustPublish(t, v, newBundle())
			}
			last := current(t, v.cfg.Dir)
			c.pass(row.set)
			again := mustOpen(t, v.cfg)
			assert.Len(t, generations(t, v.cfg.Dir), row.kept)
			assert.Equal(t, last, current(t, v.cfg.Dir))

			// The next publication is the newest by its name, too, and leaves the one before.
			mustPublish(t, again, newBundle())
			assert.Greater(t, current(t, v.cfg.Dir), last)
			assert.Contains(t, generations(t, v.cfg.Dir), last)
		})
	}
}

// A generation that was made and never became the current one goes, and so does one whose files somebody changed.
func TestVolume_Publish_removesWhatNobodyShouldRead(t *testing.T) {
	v, c := clockedVolume(t)
	mustPublish(t, v, newBundle())
	unpublished := filepath.Join(v.cfg.Dir, nextGeneration("", c.now.Add(time.Minute)))
	require.NoError(t, os.Mkdir(unpublished, 0o750))
	c.pass(time.Second)
	mustPublish(t, v, newBundle())
	assert.NoDirExists(t, unpublished)

	changed := current(t, v.cfg.Dir)
	require.NoError(t, os.Chmod(filepath.Join(v.cfg.Dir, changed, "key.pem"), 0o666))
	c.pass(time.Second)
	mustPublish(t, v, newBundle())
	assert.NotContains(t, generations(t, v.cfg.Dir), changed)
}
