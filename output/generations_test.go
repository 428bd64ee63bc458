package output

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
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

// current is the directory that readers find behind ..data, and generations are all of them.
func current(v *Volume) string { return readlink(v.path(dataLink)) }

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
