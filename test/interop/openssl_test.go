package interop

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

// accepting is what the server writes when it listens, with the port that it got.
var accepting = regexp.MustCompile(`^ACCEPT .*:(\d+)( |$)`)

// opensslCommand prepares openssl cmp, away from the machine's configuration and proxies.
func opensslCommand(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	openssl := fixture.RequirePrograms(t, "openssl")[0]
	command := exec.CommandContext(t.Context(), openssl, append([]string{"cmp", "-config", "", "-batch"}, args...)...)
	command.Env = []string{"PATH=" + os.Getenv("PATH")}
	return command
}

// startOpenSSL runs openssl cmp as server until the test ends and returns its URL. The server chooses
// its port itself. It must not be tried by connecting: it answers one connection at a time, and one without
// a request stops it.
func startOpenSSL(t testing.TB, args ...string) (url string) {
	t.Helper()
	command := opensslCommand(t, append([]string{"-port", "0"}, args...)...)
	command.Stderr = t.Output()
	output := fixture.Must(command.StdoutPipe())
	require.NoError(t, command.Start())
	t.Cleanup(func() {
		command.Process.Kill() // an error means that it has ended by itself
		command.Wait()         // the error says that it was killed
	})
	for lines := bufio.NewScanner(output); lines.Scan(); {
		if match := accepting.FindStringSubmatch(lines.Text()); match != nil {
			go io.Copy(io.Discard, output) // or the server waits for a reader
			return "http://127.0.0.1:" + match[1]
		}
	}
	require.FailNow(t, "the server ended")
	return ""
}
