package applications

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v4"

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

// The annotations of a guide are its variables, in the words of the injection.
func TestGuides_annotations_areTheVariables(t *testing.T) {
	pages := fixture.Must(filepath.Glob("../../docs/how-to/*.md"))
	require.Greater(t, len(pages), 5)
	words := map[string]string{"inject": "MODE", "output-type": "OUTPUT_TYPE", "common-name": "COMMON_NAME"}
	for _, page := range pages {
		g := readGuide(t, strings.TrimSuffix(filepath.Base(page), ".md"))
		var block struct{ Annotations map[string]string }
		require.NoError(t, yaml.Unmarshal([]byte(g.files["annotations"]), &block), page)
		var variables []string
		for name, value := range block.Annotations {
			_, word, _ := strings.Cut(name, "/")
			variable, spelt := strings.CutPrefix(word, "env.")
			if !spelt {
				variable = words[word]
			}
			if variable != "COMMON_NAME" { // which each application has of its own
				variables = append(variables, variable+"="+value)
			}
		}
		assert.ElementsMatch(t, g.variables, variables, page)
	}
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
