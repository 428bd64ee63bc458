package output

import (
	"os"
	"path/filepath"
	"strings"
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
	for _, layout := range layouts {
		for _, other := range layouts {
			t.Run(layout+", then "+other, func(t *testing.T) {
				cfg := newConfig(t, layout, TypeP12)
				v := mustOpen(t, cfg)
				b := newBundle()
				p := mustPublish(t, v, b)
				assert.Len(t, p.Files, 4, "readers are not told of it")
				info, err := os.Stat(notePath(cfg))
				require.NoError(t, err)
				assert.Equal(t, "-rw-r--r--", info.Mode().String())
				requireCurrent(t, cfg, b)

				cfg.Layout = other
				next := newBundle()
				v = mustOpen(t, cfg)
				mustPublish(t, v, next)
				requireCurrent(t, cfg, next)
				requireNothingLeft(t, listing(t, cfg.Dir), other)
				_, atTop := listing(t, cfg.Dir)[noteName]
				assert.Equal(t, other == LayoutInplace, atTop)

				without := newBundle()
				without.Note = nil
				mustPublish(t, v, without)
				requireCurrent(t, cfg, without)
				assert.NoFileExists(t, notePath(cfg), "that of another set goes with it")
			})
		}
	}
}

func TestVolume_note_thatChanges_isPublishedAlone(t *testing.T) {
	for _, layout := range layouts {
		t.Run(layout, func(t *testing.T) {
			cfg := newConfig(t, layout, TypePEM)
			v := mustOpen(t, cfg)
			b := newBundle()
			mustPublish(t, v, b)
			b.Note = []byte("asked for again")
			assert.Equal(t, []string{"..request has another content"}, mustPublish(t, v, b).Differences)
			requireCurrent(t, cfg, b)
			assert.False(t, mustPublish(t, v, b).Changed)
		})
	}
}

// A set is worth as much as its files are, whatever became of the note.
func TestVolume_note_thatIsNone_leavesTheSetAsItIs(t *testing.T) {
	for name, harm := range map[string]func(path string) error{
		"missing":   os.Remove,
		"too large": func(path string) error { return os.WriteFile(path, []byte(strings.Repeat("x", NoteLimit+1)), 0o600) },
		"a link": func(path string) error {
			if err := os.Remove(path); err != nil {
				return err
			}
			return os.Symlink("/etc/passwd", path)
		},
		"a directory": func(path string) error {
			if err := os.Remove(path); err != nil {
				return err
			}
			return os.Mkdir(path, 0o700)
		},
	} {
		for _, layout := range layouts {
			t.Run(layout+" "+name, func(t *testing.T) {
				cfg := newConfig(t, layout, TypePEM)
				v := mustOpen(t, cfg)
				b := newBundle()
				mustPublish(t, v, b)
				require.NoError(t, harm(notePath(cfg)))
				has, err := mustOpen(t, cfg).Current()
				require.NoError(t, err)
				require.Empty(t, has.Note)
				has.Note = b.Note
				require.True(t, has.equal(b))
				p, err := v.Restore()
				require.NoError(t, err)
				require.Len(t, p.Differences, 1)
				requireCurrent(t, cfg, b)
			})
		}
	}
}

func TestVolume_note_tooLarge_isRefused(t *testing.T) {
	b := newBundle()
	b.Note = make([]byte, NoteLimit+1)
	_, err := mustOpen(t, newConfig(t, LayoutSymlink, TypePEM)).Publish(b)
	require.EqualError(t, err, "encoding keystore.pem: has a note of 65537 bytes, want at most 65536")
}
