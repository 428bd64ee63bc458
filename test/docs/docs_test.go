// Package docs holds the documents against the code: what they generate from it is up to date, links
// lead somewhere, commands are run by CI or a test or name what there is, examples parse, and variables, metrics and
// paths exist.
package docs

import (
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/config"
	"github.com/certfetcher/certfetcher/internal/enroll"
	"github.com/certfetcher/certfetcher/internal/program"
	"github.com/certfetcher/certfetcher/output"
	"github.com/certfetcher/certfetcher/test/chaos"
)

var update = flag.Bool("update", false, "rewrite the generated parts of the documents")

const root = "../.."

// generated are the parts of documents that come from the code, by document and by the name in their
// markers.
func generated(t *testing.T) map[string]map[string]string {
	t.Helper()
	return map[string]map[string]string{
		"docs/reliability.md":   {"figures": figures(t)},
		"README.md":             {"variables": firstVariables(), "exit codes": exitCodes()},
		"docs/configuration.md": {"variables": allVariables()},
		"docs/applications.md":  {"files": outputFiles()},
		"docs/certservice.md": {
			"certservice --help": textBlock(help(t, "certservice")),
			"devca --help":       textBlock(help(t, "devca")),
		},
	}
}

// firstVariables are those that a first user sets.
func firstVariables() string {
	first := []string{
		"REQUEST_URL", "CA_NAME", "KEYSTORE_PATH", "TRUSTSTORE_PATH", "COMMON_NAME", "ORGANIZATION", "STATE", "COUNTRY",
		"OUTPUT_PATH", "OUTPUT_TYPE",
	}
	text := "| variable | default | meaning |\n|---|---|---|\n"
	for _, v := range config.Variables {
		if slices.Contains(first, v.Name) {
			text += fmt.Sprintf("| %s | %s | %s |\n", names(v), given(v), cell.Replace(v.Help))
		}
	}
	return text
}

// allVariables has a table for each group.
func allVariables() string {
	text, group := "", ""
	for _, v := range config.Variables {
		if v.Group != group {
			group = v.Group
			text += "\n## " + group + "\n\n| variable | default | meaning | rule |\n|---|---|---|---|\n"
		}
		text += fmt.Sprintf("| %s | %s | %s | %s |\n", names(v), given(v), cell.Replace(v.Help), cell.Replace(v.Rule))
	}
	return text + "\n"
}

var cell = strings.NewReplacer("|", `\|`, "<", "&lt;", ">", "&gt;", "*", `\*`, "_", `\_`, "~", `\~`)

func names(v program.Variable) string {
	if v.Secret {
		return "`" + v.Name + "`, `" + v.Name + "_FILE`"
	}
	return "`" + v.Name + "`"
}

func given(v program.Variable) string {
	if v.Default != "" {
		return "`" + v.Default + "`"
	}
	return "*" + v.Need() + "*"
}

func exitCodes() string {
	text := "| exit code | stage | meaning |\n|---|---|---|\n| 0 | | success |\n"
	for _, stage := range enroll.Stages() {
		text += fmt.Sprintf("| %d | `%s` | %s |\n", stage.ExitCode(), stage, stage.Meaning())
	}
	return text
}

// outputFiles is the table of the files that each output type writes, in the order in which they are replaced.
func outputFiles() string {
	var table strings.Builder
	table.WriteString("| file | `OUTPUT_TYPE` | content | mode |\n|---|---|---|---|\n")
	for _, f := range output.Files() {
		mode := "0644"
		if f.Secret() {
			mode = "`OUTPUT_FILE_MODE`"
		}
		fmt.Fprintf(&table, "| `%s` | %s | %s | %s |\n", f.Name, strings.Join(f.Formats, ", "), f.Content, mode)
	}
	return table.String()
}

// figures is the table of what the fault and load tests measured last.
func figures(t *testing.T) string {
	t.Helper()
	all, err := chaos.Read()
	require.NoError(t, err)
	var table strings.Builder
	table.WriteString("| test | tried | result |\n|---|---|---|\n")
	for _, key := range slices.Sorted(maps.Keys(all)) {
		f := all[key]
		fmt.Fprintf(&table, "| `%s` | %s | %s |\n", f.Test, f.Tried, f.Result)
	}
	return table.String()
}

// A figure whose test is gone would stay for ever.
func TestReliability_figures_haveTheirTest(t *testing.T) {
	tests := map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func (Test\w+)`)
	require.NoError(t, filepath.WalkDir(filepath.Join(root, "test/chaos"),
		func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			for _, match := range declared.FindAllStringSubmatch(string(text), -1) {
				tests[match[1]] = true
			}
			return err
		}))
	all, err := chaos.Read()
	require.NoError(t, err)
	for _, figure := range all {
		name, _, _ := strings.Cut(figure.Test, "/")
		assert.True(t, tests[name], "%s is in test/testdata/figures.json and nowhere else: remove it there", name)
	}
}

func textBlock(text string) string { return "```text\n" + text + "```\n" }

func TestDocuments_generatedParts_areUpToDate(t *testing.T) {
	for document, parts := range generated(t) {
		path := filepath.Join(root, document)
		content, err := os.ReadFile(path)
		require.NoError(t, err)
		text := string(content)
		for name, want := range parts {
			start := "<!-- " + name + ": generated by make docs -->\n"
			before, rest, found := strings.Cut(text, start)
			require.True(t, found, "%s lacks %q", document, start)
			got, after, found := strings.Cut(rest, "<!-- end -->")
			require.True(t, found)
			if *update {
				text = before + start + want + "<!-- end -->" + after
				continue
			}
			assert.Equal(t, want, got, "%s is out of date: make docs", document)
		}
		if *update {
			require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
		}
	}
}

var link = regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)

func TestDocuments_linksLeadSomewhere(t *testing.T) {
	for _, d := range documents(t) {
		for _, match := range link.FindAllStringSubmatch(d.prose, -1) {
			_, err := os.Stat(filepath.Join(root, filepath.Dir(d.path), match[1]))
			assert.NoError(t, err, "%s links to %s", d.path, match[1])
		}
	}
}

// The manifest on the README's first screen is a file that the manifests' tests check.
func TestReadme_manifest_isTheExample(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join(root, "README.md"))
	require.NoError(t, err)
	example, err := os.ReadFile(filepath.Join(root, "deploy/kubernetes/examples/init-container.yaml"))
	require.NoError(t, err)
	_, manifest, found := strings.Cut(string(example), "\n")
	require.True(t, found)
	assert.Contains(t, string(readme), "```yaml\n"+manifest+"```\n")
}

func TestArchitecture_namesEveryPackage(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docs/architecture.md"))
	require.NoError(t, err)
	packages, err := filepath.Glob(filepath.Join(root, "internal/*"))
	require.NoError(t, err)
	assert.NotEmpty(t, packages)
	for _, path := range packages {
		assert.Contains(t, string(text), "`internal/"+filepath.Base(path)+"`",
			"docs/architecture.md does not say what it is for")
	}
}
