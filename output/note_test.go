package output

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// A set is worth as much as its files are, whatever happened to the note.
func TestVolume_note_thatCannotBeOne_leavesTheSetAsItIs(t *testing.T) {
	for name, line := range map[string]string{"missing": "remove NOTE", "too large": "truncate NOTE 65537",
		"a link": "link NOTE /etc/passwd", "a directory": "mkdir NOTE"} {
		eachLayout(t, func(t *testing.T, layout string) {
			cfg, v, b := published(t, layout, TypePEM)
			if name[:2] == "a " {
				require.NoError(t, os.Remove(notePath(cfg)))
			}
			newPlayer(t, cfg).play(line)
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
