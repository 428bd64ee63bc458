package output

import (
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestContents_sayWhatIsInEachFileOfTheCatalogue(t *testing.T) {
	var names []string
	for _, f := range catalogue {
		names = append(names, f.name)
	}
	assert.ElementsMatch(t, names, slices.Collect(maps.Keys(contents)))
}
