package chaos

import (
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestRecord_withoutBeingTold_writesNothing(t *testing.T) {
	t.Setenv("FIGURES", "")
	before, err := os.ReadFile(Path())
	if err != nil {
		require.ErrorIs(t, err, os.ErrNotExist)
	}
	Record(t, "key", "tried", "result")
	after, err := os.ReadFile(Path())
	if err != nil {
		require.ErrorIs(t, err, os.ErrNotExist)
	}
	assert.Equal(t, before, after)
}
