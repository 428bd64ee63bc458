package chaos

import (
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestRecord_withoutBeingTold_writesNothing(t *testing.T) {
	t.Setenv("FIGURES", "")
	before, _ := os.ReadFile(Path())
	Record(t, "key", 1, 2)
	after, _ := os.ReadFile(Path())
	assert.Equal(t, string(before), string(after))
}
