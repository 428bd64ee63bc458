// Package startup looks at what the built programs are from their first moments on: whether others can read them, what
// a signal does, and how they end where the machine does not give them what Go's runtime needs.
package startup

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/chaos"
	"github.com/certfetcher/certfetcher/test/fixture"
)

// binDir holds the programs under test; spyPath is this test as a spy. Every user may run them.
var binDir, spyPath string

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "spy" {
		os.Exit(spy(os.Args[2]))
	}
	fixture.RunTests(m, &binDir, chaos.Self(&spyPath, "spy"))
}

// environment is one with which each of the three programs runs until it is ended: certfetcher waits for a CertService
// that takes the connection and says nothing.
func environment(t *testing.T) []string {
	t.Helper()
	dir, err := os.MkdirTemp(filepath.Dir(spyPath), "identity-") // below what every user may read
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	require.NoError(t, os.Chmod(dir, 0o755))
	out := dir + "/out"
	require.NoError(t, os.Mkdir(out, 0o700))
	require.NoError(t, os.Chmod(out, 0o777))
	authority, err := fixture.NewCA("Transport")
	require.NoError(t, err)
	chaos.WriteIdentity(t, authority, dir)
	for _, name := range []string{"client.pem", "truststore.pem"} { // for those who run it as another user
		require.NoError(t, os.Chmod(filepath.Join(dir, name), 0o644))
	}
	return fixture.Environment("https://"+chaos.Silent(t)+"/v1/certificate/", dir, out, "HTTPS_PORT=0",
		"DEVCA_ADDR=127.0.0.1:0", "CMP_SERVERS_PATH="+dir+"/none.json", "METRICS_ADDR=")
}
