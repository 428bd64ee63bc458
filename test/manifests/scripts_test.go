package manifests

import (
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

func TestShellScripts_passShellcheck(t *testing.T) {
	shellcheck := fixture.RequirePrograms(t, "shellcheck")[0]
	scripts := []string{"../../.ci/run"}
	for _, root := range []string{deploy, ".."} {
		walk(t, root, func(path string) {
			if strings.HasSuffix(path, ".sh") {
				scripts = append(scripts, path)
			}
		})
	}
	for _, path := range scripts {
		t.Run(path, func(t *testing.T) {
			info, err := os.Stat(path)
			require.NoError(t, err)
			assert.Equal(t, fs.FileMode(0o111), info.Mode()&0o111, "is not executable")
			output, err := exec.Command(shellcheck, "--severity=style", path).CombinedOutput()
			assert.NoError(t, err, "%s", output)
		})
	}
}
