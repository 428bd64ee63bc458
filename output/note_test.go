package output

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// notePath is where the note of what is published in a layout stands.
func notePath(cfg Config) string {
	if cfg.Layout == LayoutSymlink {
		return filepath.Join(cfg.Dir, dataLink, noteName)
	}
	return filepath.Join(cfg.Dir, noteName)
}

func TestVolume_note_isPublishedWithItsSet(t *testing.T) {
	for _, other := range layouts {
		eachLayout(t, func(t *testing.T, layout string) {
			cfg, v, b := published(t, layout, TypePEM)
			assert.Len(t, v.Files(), 4, "readers do not see it")
			assert.Equal(t, "-rw-r--r--", stat(t, notePath(cfg)).Mode().String())
			requireCurrent(t, cfg, b)
			b.Note = []byte("asked for again")
			require.Equal(t, []string{"..request has another content"}, mustPublish(t, v, b).Differences)
			requireCurrent(t, cfg, b)
			assert.False(t, mustPublish(t, v, b).Changed)

			cfg.Layout = other
			v, b = mustOpen(t, cfg), newBundle()
			mustPublish(t, v, b)
			requireCurrent(t, cfg, b)
			requireNothingLeft(t, listing(t, cfg.Dir), other)
			assert.Equal(t, other == LayoutInplace, listing(t, cfg.Dir)[noteName] != "", "left at the top")

			b = newBundle()
			b.Note = nil
			mustPublish(t, v, b)
			requireCurrent(t, cfg, b)
			assert.NoFileExists(t, notePath(cfg), "that of another set goes with it")
		})
	}
}

// A set is worth as much as its files are, whatever happened to the note.
func TestVolume_note_thatCannotBeOne_leavesTheSetAsItIs(t *testing.T) {
	for name, harm := range map[string]func(path string) error{
		"missing":     os.Remove,
		"too large":   func(path string) error { return os.Truncate(path, NoteLimit+1) },
		"a link":      replaceBy(makeLink),
		"a directory": replaceBy(makeDir),
	} {
		eachLayout(t, func(t *testing.T, layout string) {
			cfg, v, b := published(t, layout, TypePEM)
			require.NoError(t, harm(notePath(cfg)))
			has, err := mustOpen(t, cfg).Current()
			require.NoError(t, err, name)
			require.Empty(t, has.Note)
			has.Note = b.Note
			require.True(t, has.equal(b))
			require.Len(t, mustRestore(t, v).Differences, 1)
			requireCurrent(t, cfg, b)
		})
	}
}
