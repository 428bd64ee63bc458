// Package startup looks at what the built programs are from their first moments on: whether others can read them, what
// a signal does, and how they end where the machine does not give them what Go's runtime needs.
package startup

import (
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

// binDir holds the programs under test, and scratch the spy; every user may run them.
var binDir, scratch string

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "spy" {
		os.Exit(spy(os.Args[2]))
	}
	fixture.RunTests(m, &binDir, func(dir string) error {
		scratch = dir
		// The spy is this binary, which is where only root may be. Written while other tests start programs, it would
		// be busy for a moment.
		self, err := os.ReadFile("/proc/self/exe")
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, "spy"), self, 0o755)
	})
}

// deadline is for what must end. It is far more than anything here takes, also on a loaded machine.
const deadline = 60 * time.Second

// environment is one with which each of the three programs runs until it is ended: certfetcher waits for a CertService
// that takes the connection and says nothing.
func environment(t *testing.T) []string {
	t.Helper()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { silent.Close() })
	dir, err := os.MkdirTemp(scratch, "identity-") // below what every user may read
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	require.NoError(t, os.Chmod(dir, 0o755))
	out := filepath.Join(dir, "out")
	require.NoError(t, os.Mkdir(out, 0o700))
	require.NoError(t, os.Chmod(out, 0o777))
	authority, err := fixture.NewCA("Transport")
	require.NoError(t, err)
	key, chain, err := authority.Identity("localhost")
	require.NoError(t, err)
	require.NoError(t, fixture.WriteIdentity(dir, key, chain, authority.Root))
	for _, name := range []string{"client.pem", "truststore.pem"} { // for those who run it as another user
		require.NoError(t, os.Chmod(filepath.Join(dir, name), 0o644))
	}
	return []string{
		"REQUEST_URL=https://" + silent.Addr().String() + "/v1/certificate/", "CA_NAME=RA", "OUTPUT_PATH=" + out,
		"COMMON_NAME=app.example.org", "ORGANIZATION=Example", "STATE=Skane", "COUNTRY=SE", "KEY_ALGORITHM=ECDSA-P256",
		"KEYSTORE_PATH=" + filepath.Join(dir, "client.pem"), "TRUSTSTORE_PATH=" + filepath.Join(dir, "truststore.pem"),
		"HTTPS_PORT=0", "DEVCA_ADDR=127.0.0.1:0", "CMP_SERVERS_PATH=" + filepath.Join(dir, "none.json"),
		"METRICS_ADDR=", "TERMINATION_MESSAGE_PATH=",
	}
}
