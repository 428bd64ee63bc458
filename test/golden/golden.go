// Package golden holds the texts that tests expect in files, one line for each test: its name, a tab and the text.
// go test -update writes them again from what the tests got; the difference is for review.
package golden

import (
	"flag"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var (
	update = flag.Bool("update", false, "write the golden files")
	mu     sync.Mutex
)

// Check compares a text with the one in the file for this test.
func Check(t *testing.T, file, got string) {
	t.Helper()
	mu.Lock()
	defer mu.Unlock()
	content, err := os.ReadFile(file)
	if !*update {
		require.NoError(t, err)
	}
	texts := map[string]string{}
	for line := range strings.Lines(string(content)) {
		name, text, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		texts[name] = text
	}
	line := strings.TrimSuffix(strings.TrimPrefix(strconv.Quote(got), `"`), `"`)
	line = strings.ReplaceAll(line, `\"`, `"`)
	if !*update {
		want, known := texts[t.Name()]
		require.True(t, known, "%s has no line for %s", file, t.Name())
		assert.Equal(t, want, line)
		return
	}
	texts[t.Name()] = line
	var out strings.Builder
	for _, name := range slices.Sorted(maps.Keys(texts)) {
		out.WriteString(name + "\t" + texts[name] + "\n")
	}
	require.NoError(t, os.WriteFile(file, []byte(out.String()), 0o644))
}
