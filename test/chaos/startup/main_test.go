// Package startup looks at what the built programs are from their first moments on: whether others can read them, what
// a signal does, and how they end where the machine does not give them what Go's runtime needs.
package startup

import (
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/chaos"
	"github.com/certfetcher/certfetcher/test/fixture"
)

func TestMain(m *testing.M) { chaos.Main(m, map[string]func(string) int{"spy": spy}) }

const interruption = syscall.SIGTERM

// interrupted is how each program ends by a signal.
var interrupted = map[string]int{"certfetcher": 99, "certservice": 0, "devca": 0}

// environment is one with which each of the three programs runs until it is ended, by whatever user: certfetcher waits
// for a CertService that takes the connection and says nothing.
func environment(t *testing.T) []string {
	t.Helper()
	dir := t.TempDir()
	chaos.WriteIdentity(t, fixture.Must(fixture.NewCA("Transport")), dir)
	chaos.Show(t, dir)
	out := dir + "/out"
	require.NoError(t, os.Mkdir(out, 0o700))
	require.NoError(t, os.Chmod(out, 0o777))
	return fixture.Environment("https://"+chaos.Silent(t)+"/v1/certificate/", dir, out, "HTTPS_PORT=0",
		"DEVCA_ADDR=127.0.0.1:0", "CMP_SERVERS_PATH="+dir+"/none.json", "METRICS_ADDR=")
}
