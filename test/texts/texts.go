// Package texts reads what tests expect from files, where long texts are easier to read than in Go.
package texts

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Read returns the paragraphs of a file in testdata by their first lines, which are sentences after "## ".
func Read(t testing.TB, file string) map[string]string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", file))
	require.NoError(t, err)
	texts := map[string]string{}
	for _, paragraph := range strings.Split("\n"+string(data), "\n## ")[1:] {
		sentence, text, _ := strings.Cut(paragraph, "\n")
		texts[sentence] = strings.TrimSpace(text)
	}
	return texts
}
