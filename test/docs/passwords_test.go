package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

// valueOfASecret is a variable that holds a secret and is given a value, as YAML, shell, Dockerfiles and JSON do it.
var valueOfASecret = regexp.MustCompile(
	`\b(?:(?:OUTPUT_)?(?:KEYSTORE|TRUSTSTORE)_PASSWORD|DEVCA_IAK)(?:"?\s*[:=]\s*|[,}]?\s*value:\s*)["']?[^\s"'${]`)

// A process of the same user may read the environment for a moment, and whoever may look at the pod sees it for good.
func TestExamples_givePasswordsAsFiles(t *testing.T) {
	for _, example := range []string{"KEYSTORE_PASSWORD=changeit", "KEYSTORE_PASSWORD: changeit",
		`{name: KEYSTORE_PASSWORD, value: "x"}`, `"DEVCA_IAK": "x"`} {
		require.Regexp(t, valueOfASecret, example)
	}
	files := 0
	for _, top := range []string{"README.md", "docs", "deploy"} {
		require.NoError(t, filepath.WalkDir(filepath.Join(root, top),
			func(path string, entry fs.DirEntry, err error) error {
				if err != nil || !entry.Type().IsRegular() || filepath.Ext(path) == ".go" {
					return err
				}
				files++
				found := valueOfASecret.FindAllString(string(fixture.Must(os.ReadFile(path))), -1)
				assert.Empty(t, found, "%s gives a password as a value, want a file, …_FILE", path)
				return nil
			}))
	}
	assert.Greater(t, files, 20)
}
