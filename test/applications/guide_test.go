package applications

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

// guide is what a page of docs/how-to tells its reader to set, and to write into files.
type guide struct {
	variables []string          // NAME=value, in the order of its table
	files     map[string]string // by the name in the comment above the block
}

var (
	variableRow = regexp.MustCompile("(?m)^\\| `([A-Z0-9_]+)` \\| `([^`]+)` \\|")
	namedFile   = regexp.MustCompile("(?s)<!-- ([\\w.-]+) -->\n```\\w+\n(.*?)```\n")
)

func readGuide(t *testing.T, name string) (g guide) {
	t.Helper()
	text := string(fixture.Must(os.ReadFile("../../docs/how-to/" + name + ".md")))
	for _, match := range variableRow.FindAllStringSubmatch(text, -1) {
		g.variables = append(g.variables, match[1]+"="+match[2])
	}
	g.files = map[string]string{}
	for _, match := range namedFile.FindAllStringSubmatch(text, -1) {
		g.files[match[1]] = match[2]
	}
	require.NotEmpty(t, g.variables, "docs/how-to/%s.md has no table of variables", name)
	require.NotEmpty(t, g.files, "docs/how-to/%s.md shows no file", name)
	return g
}

// settings are the variables whose names begin with the prefix.
func (g guide) settings(prefix string) (variables []string) {
	for _, variable := range g.variables {
		if strings.HasPrefix(variable, prefix) {
			variables = append(variables, variable)
		}
	}
	return variables
}
