package sidecar

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

// SMB mounts and some FUSE file systems have no symbolic links. That must be known before a certificate is asked for,
// or each start of a pod that can never begin would cost one.
func TestVolumeWithoutLinks_isRefusedBeforeTheRequest(t *testing.T) {
	t.Parallel()
	strace := fixture.RequirePrograms(t, "strace")[0]
	s := startService(t, time.Hour, nil)
	traced := func(t *testing.T, errno string, variables []string, args ...string) (int, string) {
		command := exec.Command(strace, append([]string{"-f", "-qq", "-o", "/dev/null", "-e", "trace=symlinkat",
			"-e", "inject=symlinkat:error=" + errno, filepath.Join(binDir, "certfetcher")}, args...)...)
		command.Env = variables
		output, err := command.CombinedOutput()
		if err != nil {
			require.IsType(t, &exec.ExitError{}, err)
		}
		return command.ProcessState.ExitCode(), strings.ReplaceAll(string(output), `\"`, `"`)
	}
	for _, errno := range []string{"EOPNOTSUPP", "EPERM", "ENOSYS"} {
		for _, mode := range []string{"init", "sidecar"} {
			t.Run(fmt.Sprintf("%s %s", mode, errno), func(t *testing.T) {
				volume := filepath.Join(t.TempDir(), "volume")
				variables := append(environment(s.URL, s.Dir, volume), "MODE="+mode)
				code, output := traced(t, errno, variables)
				assert.Equal(t, 10, code, output)
				assert.Contains(t, output, `creating link "`+volume)
				assert.Contains(t, output,
					"symbolic links do not work on this volume: set OUTPUT_LAYOUT=inplace, or use another volume")
				assert.Zero(t, s.Requests())
			})
		}
	}
	t.Run("doctor says the same", func(t *testing.T) {
		code, output := traced(t, "EOPNOTSUPP", environment(s.URL, s.Dir, filepath.Join(t.TempDir(), "volume")),
			"doctor")
		assert.Equal(t, 10, code, output)
		assert.Contains(t, output, "links do not work on this volume")
		assert.Contains(t, output, "set OUTPUT_LAYOUT=inplace, or use another volume")
	})
	t.Run("inplace needs none", func(t *testing.T) {
		asked := s.Requests()
		code, output := traced(t, "EOPNOTSUPP", append(environment(s.URL, s.Dir, filepath.Join(t.TempDir(), "volume")),
			"MODE=init", "OUTPUT_LAYOUT=inplace"))
		assert.Equal(t, 0, code, output)
		assert.Equal(t, asked+1, s.Requests())
	})
}
