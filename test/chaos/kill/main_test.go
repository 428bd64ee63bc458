//go:build linux && amd64

package kill

import (
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/service"
)

// binDir holds the programs under test.
var binDir string

func TestMain(m *testing.M) {
	fixture.UseMemory() // thousands of runs sync their files
	fixture.RunTests(m, &binDir)
}

func startService(t testing.TB) *service.Service {
	t.Helper()
	return service.Run(t, service.Options{})
}

// environment is that of a container whose certificate comes from s; later variables take the place of earlier ones.
func environment(s *service.Service, volume string, variables ...string) []string {
	return s.Environment(volume, append([]string{"SANS=app.example.org", "RETRY_MAX_ELAPSED=10s", "HEALTH_ADDR=off"},
		variables...)...)
}

// copyVolume makes to a copy of from, with modes, links and times.
func copyVolume(t testing.TB, from, to string) {
	t.Helper()
	require.NoError(t, os.RemoveAll(to))
	if _, err := os.Lstat(from); err != nil {
		return // a scene that begins without a volume
	}
	out, err := exec.Command("cp", "-a", from, to).CombinedOutput()
	require.NoError(t, err, string(out))
}
