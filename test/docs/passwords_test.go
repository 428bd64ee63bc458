package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// valueOfASecret is a variable that holds a secret and is given a value, as YAML, shell, Dockerfiles and JSON do it.
var valueOfASecret = regexp.MustCompile(
	`\b(?:(?:OUTPUT_)?(?:KEYSTORE|TRUSTSTORE)_PASSWORD|DEVCA_IAK)(?:"?\s*[:=]\s*|[,}]?\s*value:\s*)["']?[^\s"'$]`)

// A process of the same user may read the environment for a moment, and whoever may look at the pod sees it for good.
func TestExamples_givePasswordsAsFiles(t *testing.T) {
	for _, example := range []string{"KEYSTORE_PASSWORD=changeit", "KEYSTORE_PASSWORD: changeit",
		`{name: KEYSTORE_PASSWORD, value: "x"}`, `"DEVCA_IAK": "x"`} {
		require.Regexp(t, valueOfASecret, example)
	}
	looked := 0
	look := func(path string) {
		content, err := os.ReadFile(path)
		require.NoError(t, err)
		looked++
		for _, found := range valueOfASecret.FindAllString(string(content), -1) {
			assert.Fail(t, "a password is given as a value, want a file, …_FILE", "%s: %s", path, found)
		}
	}
	look(filepath.Join(root, "README.md"))
	for _, dir := range []string{"docs", "deploy"} {
		require.NoError(t, filepath.WalkDir(filepath.Join(root, dir),
			func(path string, entry fs.DirEntry, err error) error {
				if err == nil && entry.Type().IsRegular() && filepath.Ext(path) != ".go" {
					look(path)
				}
				return err
			}))
	}
	assert.Greater(t, looked, 20)
}
