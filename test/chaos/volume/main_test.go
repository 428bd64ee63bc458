// Package volume runs the built certfetcher on volumes on which others do what they can: put foreign objects under its
// names, hold its locks, and end it at any stage.
package volume

import (
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/chaos"
	"github.com/certfetcher/certfetcher/test/service"
)

func TestMain(m *testing.M) { chaos.Main(m, map[string]func(string) int{"hold": holdLocks}) }

// exitVolume is the exit code for a volume that cannot be written to.
const exitVolume = 10

func start(t *testing.T) *service.Service {
	t.Helper()
	return service.Run(t, service.Options{})
}

// on is a volume of a layout, for certificates of the service.
func on(t *testing.T, s *service.Service, layout string, types ...string) *chaos.Volume {
	t.Helper()
	return chaos.NewVolume(t, s.Environment(""), layout, types...)
}

// ofEachLayout makes volumes with a set.
func ofEachLayout(t *testing.T, s *service.Service) map[string]*chaos.Volume {
	t.Helper()
	made := map[string]*chaos.Volume{}
	for _, layout := range chaos.Layouts {
		made[layout] = on(t, s, layout)
		made[layout].Publish()
	}
	return made
}

// requireRefused wants a run to end with a text before it asks for a certificate; the set stays.
func requireRefused(t *testing.T, s *service.Service, v *chaos.Volume, run *exec.Cmd, text string) {
	t.Helper()
	before, asked := v.Set(), s.Requests()
	code, printed := chaos.Run(t, run)
	require.Equal(t, exitVolume, code, printed)
	require.Contains(t, printed, text)
	require.Equal(t, asked, s.Requests(), "asked in vain: %s", printed)
	require.Equal(t, before, v.Set())
}
