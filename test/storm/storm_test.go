package storm

import (
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The targets: all within 1.3 times what a CA needs that is never idle, nobody after one and a half times, and nothing
// issued for nobody.
func TestPlay_meetsTheTargets(t *testing.T) {
	document, err := os.ReadFile("../../docs/storms.md")
	require.NoError(t, err)
	for _, settings := range Scenarios(10_000) {
		if settings.Kind != Start && settings.Pods > 1000 {
			continue // an outage takes seconds to play through
		}
		r := Play(settings)
		what := r.Row()
		assert.Len(t, r.Done, r.Pods, what)
		assert.LessOrEqual(t, r.Ratio(), 1.3, what)
		assert.Zero(t, r.Starved, what)
		assert.Zero(t, r.Wasted, what)
		if runtime.GOARCH == "amd64" { // others round differently
			assert.True(t, strings.Contains(string(document), what), "docs/storms.md lacks, so make bench: %s", what)
		}
	}
}

func TestPlay_isTheSameForASeed(t *testing.T) {
	settings := Scenarios(1000)[0]
	first, second := Play(settings), Play(settings)
	assert.Equal(t, first, second)
	settings.Seed++
	assert.NotEqual(t, first.Done, Play(settings).Done)
}

// The model notices what the targets are about: where many replicas send a slow CA what they have, before they know
// how slow it is, it issues for clients that have gone.
func TestPlay_noticesWaste(t *testing.T) {
	settings := Scenarios(1000)[0]
	settings.PerSecond, settings.Pods, settings.Replicas = 3, 300, 8
	r := Play(settings)
	assert.Len(t, r.Done, r.Pods)
	assert.Positive(t, r.Wasted)
	assert.Greater(t, r.Tries, r.Pods)
}
