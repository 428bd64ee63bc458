package programs

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/stretchr/testify/require"
)

// Scripts writes the scripts of archives into a directory for testscript: each file of an archive is a script. A script
// with lines "each NAME=VALUE..." is one for each, with those variables set at its line "given", or else at its top.
func Scripts(t testing.TB, pattern string) (dir string) {
	t.Helper()
	archives, err := filepath.Glob(pattern)
	require.NoError(t, err)
	require.NotEmpty(t, archives)
	dir = t.TempDir()
	for _, path := range archives {
		archive, err := txtar.ParseFile(path)
		require.NoError(t, err)
		for _, script := range archive.Files {
			for row, text := range rows(string(script.Data)) {
				name := strings.TrimSuffix(filepath.Base(path), ".txtar") + " " + script.Name + row
				path := filepath.Join(dir, strings.ReplaceAll(name, " ", "_")+".txt")
				require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
			}
		}
	}
	return dir
}

// rows are the scripts that a text with lines "each" stands for, by what is added to its name.
func rows(text string) map[string]string {
	var body, each []string
	for line := range strings.Lines(text) {
		if row, found := strings.CutPrefix(line, "each "); found {
			each = append(each, row)
		} else {
			body = append(body, line)
		}
	}
	if len(each) == 0 {
		return map[string]string{"": text}
	}
	if !slices.Contains(body, "given\n") {
		body = slices.Insert(body, 0, "given\n")
	}
	scripts := map[string]string{}
	for n, row := range each {
		scripts[fmt.Sprintf(" %d", n+1)] = strings.Replace(strings.Join(body, ""), "given\n", "env "+row, 1)
	}
	return scripts
}
