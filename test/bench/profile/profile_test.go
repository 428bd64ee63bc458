package profile

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMeasure_ofThisTree(t *testing.T) {
	bin, root := t.TempDir(), "../../.."
	require.NoError(t, Build(root, bin))
	loader, err := BuildLoad(root, bin)
	require.NoError(t, err)

	r, err := Measure(bin, loader, t.TempDir(), Options{Connections: 4, Key: "ECDSA-P256", For: time.Second})
	require.NoError(t, err)
	sum := 0.0
	for kind, share := range r.Shares {
		assert.Contains(t, Kinds, kind)
		sum += share
	}
	assert.InDelta(t, 1, sum, 1e-9)
	assert.Greater(t, r.Shares[Cryptography], 0.1)
	assert.Less(t, r.Shares[Rest], 0.1, "the rule knows the packages")
	assert.Greater(t, r.Enrolments, 10)
	assert.Greater(t, r.Allocations/uint64(r.Enrolments), uint64(100))

	h, err := MeasureHandshakes(bin, loader, t.TempDir(), "P-256", true, 200*time.Millisecond)
	require.NoError(t, err)
	assert.Greater(t, h.Resumed, h.Connections/2)
}
