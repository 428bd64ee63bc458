package docs

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v4"

	"github.com/certfetcher/certfetcher/internal/certservice"
	"github.com/certfetcher/certfetcher/test/fixture"
)

// document is a Markdown file, by its path from the root.
type document struct {
	path   string
	blocks []block
	prose  string // what stands outside of blocks
}

// block is what stands between fences.
type block struct{ place, language, text string }

// documents are all Markdown files of the repository.
func documents(t *testing.T) []document {
	t.Helper()
	var list []document
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && slices.Contains([]string{".git", "bin", "dist"}, entry.Name()) {
			return fs.SkipDir
		}
		if filepath.Ext(path) == ".md" {
			list = append(list, readDocument(t, path))
		}
		return nil
	})
	require.NoError(t, err)
	require.Greater(t, len(list), 5)
	return list
}

func readDocument(t *testing.T, path string) document {
	t.Helper()
	d := document{path: fixture.Must(filepath.Rel(root, path))}
	var open *block
	for number, line := range slices.Collect(strings.Lines(readAll(t, d.path))) {
		language, fence := strings.CutPrefix(strings.TrimSpace(line), "```")
		switch {
		case fence && open == nil:
			open = &block{place: fmt.Sprintf("%s:%d", d.path, number+1), language: language}
		case fence:
			d.blocks = append(d.blocks, *open)
			open = nil
		case open != nil:
			open.text += line
		default:
			d.prose += line
		}
	}
	require.Nil(t, open, "%s ends within a block", d.path)
	return d
}

// A language is one that is checked below; text is for what no one types or parses.
func TestBlocks_areChecked(t *testing.T) {
	for _, d := range documents(t) {
		for _, b := range d.blocks {
			switch b.language {
			case "json":
				checkJSON(t, b)
			case "yaml":
				var value any
				assert.NoError(t, yaml.Unmarshal([]byte(b.text), &value), b.place)
			case "diff":
				checkDiff(t, b)
			case "mermaid":
				checkMermaid(t, b)
			case "sh", "text": // TestDocuments_whatTheyShow_isThere has the commands
			default:
				assert.Fail(t, "a block of no known language",
					"%s: %q, want sh, json, yaml, diff, mermaid or text", b.place, b.language)
			}
		}
	}
}

// checkMermaid holds a diagram to what GitHub renders: a kind that it knows, and as many closing brackets as opening
// ones.
func checkMermaid(t *testing.T, b block) {
	t.Helper()
	assert.Regexp(t, `^(flowchart (LR|TB)|sequenceDiagram)\n`, b.text, b.place)
	for _, pair := range []string{"[]", "()", "{}"} {
		opened, closed := strings.Count(b.text, pair[:1]), strings.Count(b.text, pair[1:])
		assert.Equal(t, opened, closed, "%s: %s", b.place, pair)
	}
	assert.Equal(t, strings.Count(b.text, "subgraph "),
		strings.Count(b.text, "\n  end\n")+strings.Count(b.text, "\n    end\n"),
		"%s: each subgraph has an end", b.place)
}

// mounted are the files that documented cmpServers.json name.
var mounted = regexp.MustCompile(`"/[^"]*/[^"/]+\.(?:pem|crt|key)"`)

func checkJSON(t *testing.T, b block) {
	t.Helper()
	var value map[string]any
	assert.NoError(t, json.Unmarshal([]byte(b.text), &value), b.place)
	if value["cmpv2Servers"] == nil {
		return
	}
	// Only the files that it names are not there.
	dir := t.TempDir()
	authority := fixture.Must(fixture.NewCA("Anchor"))
	require.NoError(t, authority.WriteIdentity(dir, "certservice"))
	content := mounted.ReplaceAllStringFunc(b.text, func(path string) string {
		return map[string]string{".pem": `"truststore.pem"`, ".crt": `"client-certificate.pem"`,
			".key": `"client-key.pem"`}[filepath.Ext(strings.Trim(path, `"`))]
	})
	path := filepath.Join(dir, "cmpServers.json")
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	var log bytes.Buffer // of warnings
	logger := slog.New(slog.NewTextHandler(&log, nil))
	build := func(certservice.Server) (certservice.Authority, error) { return nil, nil }
	assert.Empty(t, certservice.NewConfiguration(path, build, nil, logger).Check(), b.place)
	assert.Empty(t, log.String(), b.place)
}

// checkDiff looks at what a reader is told to write: it stands in a manifest that runs, or is a command of the program.
func checkDiff(t *testing.T, b block) {
	t.Helper()
	manifest, added := readAll(t, example), 0
	for line := range strings.Lines(b.text) {
		text, found := strings.CutPrefix(line, "+")
		if !found {
			continue
		}
		added++
		text = strings.TrimSpace(text)
		if command, found := strings.CutPrefix(text, "args: ["); found {
			checkShown(t, b.place, "certfetcher "+strings.TrimSuffix(command, "]"))
		} else {
			assert.True(t, strings.Contains(manifest, text+"\n"), "%s: %s", b.place, line)
		}
	}
	assert.NotZero(t, added, b.place)
}
