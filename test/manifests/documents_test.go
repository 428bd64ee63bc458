package manifests

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/peer"
)

var shellBlock = regexp.MustCompile("(?s)```sh\n(.*?)```")

// The commands in the READMEs need a cluster; what they name is rendered by the other tests.
func TestReadmes_commands_nameWhatIsThere(t *testing.T) {
	applied := map[string]bool{}
	for _, path := range append(kustomizations(t), plainManifests(t)...) {
		applied[filepath.Clean(strings.TrimPrefix(path, "../../"))] = true
	}
	for _, readme := range []string{"kubernetes/README.md", "helm/README.md"} {
		content, err := os.ReadFile(filepath.Join(deploy, readme))
		require.NoError(t, err)
		blocks := shellBlock.FindAllStringSubmatch(string(content), -1)
		require.NotEmpty(t, blocks, readme)
		for _, block := range blocks {
			for line := range strings.Lines(block[1]) {
				command, _, _ := strings.Cut(line, "#")
				words := strings.Fields(command)
				switch {
				case len(words) == 0:
				case words[0] == "kubectl":
					path := strings.TrimSuffix(words[len(words)-1], "/")
					assert.True(t, applied[path], "%s: %s", readme, line)
				case words[0] == "helm":
					var charts int
					for _, word := range words {
						if strings.HasPrefix(word, "deploy/") {
							_, err := os.Stat(filepath.Join("../..", word, "Chart.yaml"))
							assert.NoError(t, err, "%s: %s", readme, line)
							charts++
						}
					}
					assert.Equal(t, 1, charts, "%s: %s", readme, line)
				default:
					assert.Fail(t, "a command that no test knows", "%s: %s", readme, line)
				}
			}
		}
	}
}

func TestShellScripts_passShellcheck(t *testing.T) {
	shellcheck := peer.Require(t, "shellcheck")[0]
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
