package output

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestIsGeneration_oursAndTheKubelets_andNothingElse(t *testing.T) {
	for name, want := range map[string]bool{
		"..2026_11_25_22_03_01.379":        true,
		"..2026_11_25_22_03_01.3154780571": true, // the kubelet's
		"..1970_01_01_00_00_00.000":        true,
		"..2026_11_25_22_03_01":            false,
		"..2026_11_25_22_03_01.":           false,
		"..2026_11_25_22_03_01.37x":        false,
		"..2026_11_25_22_03_01.1.2":        false,
		"..2026_13_25_22_03_01.379":        false,
		"2026_11_25_22_03_01.379":          false,
		"..data":                           false,
		"..2026_1_25_22_03_01.379":         false,
		"":                                 false,
	} {
		assert.Equal(t, want, isGeneration(name), name)
	}
}
