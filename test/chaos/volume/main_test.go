// Package volume runs the built certfetcher on volumes on which others do what they can: put foreign objects under its
// names, hold its locks, and end it at any stage.
package volume

import (
	"os"
	"os/exec"
	"testing"

	"github.com/certfetcher/certfetcher/test/chaos"
	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/service"
	"github.com/stretchr/testify/require"
)

// binDir holds the program under test, built once; every user may run it.
var binDir, self string

func TestMain(m *testing.M) {
	if lockDir := os.Getenv("VOLUME_TEST_LOCK"); lockDir != "" {
		os.Exit(holdLock(lockDir))
	}
	fixture.UseMemory()
	fixture.RunTests(m, &binDir, chaos.Self(&self, "holder"))
}

func startService(t *testing.T) *service.Service {
	t.Helper()
	return service.Run(t, service.Options{})
}

// force fetches a certificate whatever is on the volume.
const force = "FORCE_ENROLL=true"

// run runs a certfetcher to its end; publish is run where it must succeed.
func run(t *testing.T, s *service.Service, volume, layout string, more ...string) (code int, out string) {
	t.Helper()
	return chaos.Run(t, program(s, volume, layout, nil, more...))
}

func publish(t *testing.T, s *service.Service, volume, layout string, environment ...string) {
	t.Helper()
	code, out := run(t, s, volume, layout, environment...)
	require.Zero(t, code, "%s: %s", volume, out)
}

// probe wants the set on the volume to be whole.
func probe(t *testing.T, s *service.Service, volume, layout, where string) {
	t.Helper()
	code, out := chaos.Run(t, program(s, volume, layout, []string{"probe"}))
	require.Zero(t, code, "%s: %s", where, out)
}

// program is a certfetcher for a volume.
func program(s *service.Service, volume, layout string, args []string, more ...string) *exec.Cmd {
	cmd := exec.Command(binDir+"/certfetcher", args...)
	cmd.Env = s.Environment(volume, append([]string{"OUTPUT_TYPE=PEM", "OUTPUT_LAYOUT=" + layout, "HEALTH_ADDR=off"},
		more...)...)
	return cmd
}
