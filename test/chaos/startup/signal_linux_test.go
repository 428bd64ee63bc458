package startup

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/chaos"
	"github.com/certfetcher/certfetcher/test/fixture"
)

// costly are packages that take long to initialise, and so have to come later.
var costly = []string{"github.com/kelseyhightower/envconfig",
	"net/http", "crypto/tls", "net"}

// The runtime tells of each package that is initialised. From ours on, a signal has the program's own exit code: the
// packages of libraries, and the first statement of main, come after it.
func TestSIGTERM_whilePackagesAreInitialised_isNotLost(t *testing.T) {
	t.Parallel()
	variables := environment(t)
	for program, want := range interrupted {
		for range chaos.Amount(2, 10, 50) {
			cmd := chaos.Program(program, variables, "GODEBUG=inittrace=1")
			stderr := fixture.Must(cmd.StderrPipe())
			require.NoError(t, cmd.Start())
			kill := time.AfterFunc(chaos.Deadline, func() { _ = cmd.Process.Kill() })
			lines := bufio.NewScanner(stderr)
			for lines.Scan() {
				words := strings.Fields(lines.Text() + " .")
				if words[1] == "github.com/certfetcher/certfetcher/internal/startup" {
					break
				}
				assert.NotContains(t, costly, words[1], "%s: before the signal is handled", program)
			}
			require.NoError(t, cmd.Process.Signal(interruption))
			_, _ = io.Copy(io.Discard, stderr)
			_ = cmd.Wait()
			kill.Stop()
			require.Equal(t, want, cmd.ProcessState.ExitCode(), "%s: %s", program, cmd.ProcessState)
		}
	}
}

// outcomes counts how a program ends when SIGTERM is sent at moments from 0 to 10 ms after exec.
func outcomes(t *testing.T, program string, times int, with *syscall.SysProcAttr) map[string]int {
	t.Helper()
	variables := environment(t)
	counts := map[string]int{}
	for i := range times {
		cmd := chaos.Program(program, variables)
		cmd.SysProcAttr = with
		p := chaos.Start(t, cmd)
		delay := time.Duration(i) * 10 * time.Millisecond / time.Duration(times)
		for begun := time.Now(); time.Since(begun) < delay; {
		}
		p.Signal(t, interruption)
		// As process 1 it does not get a signal that no one handles; what comes later counts.
		again := time.AfterFunc(500*time.Millisecond,
			func() { counts["lost, and handled later"]++; _ = cmd.Process.Signal(interruption) })
		p.Wait(chaos.Deadline)
		again.Stop()
		counts[cmd.ProcessState.String()]++
	}
	return counts
}

func TestSIGTERM_inTheFirst10ms_endsEveryProgram(t *testing.T) {
	t.Parallel()
	times := chaos.Amount(10, 60, 500)
	for program, want := range interrupted {
		counts := outcomes(t, program, times, nil)
		ours := fmt.Sprintf("exit status %d", want)
		assert.Equal(t, times, counts[ours]+counts["signal: terminated"], "%v", counts)
		chaos.Record(t, program, program, times, counts[ours], ours, counts["signal: terminated"])
	}
}

// In a container the program is process 1, to which the kernel gives no signal that is not handled, and for which the
// runtime, when it has a handler but no one asked for the signal, ends with 2.
func TestSIGTERM_inTheFirst10ms_asProcess1_endsEveryProgram(t *testing.T) {
	t.Parallel()
	times := chaos.Amount(4, 40, 500)
	// Only root makes process namespaces.
	asRoot := chaos.As(t, 0, 0, chaos.Program("certfetcher", nil)).SysProcAttr
	asRoot.Cloneflags = syscall.CLONE_NEWPID
	counts := outcomes(t, "certfetcher", times, asRoot)
	ours, runtimes := counts["exit status 99"], counts["exit status 2"]
	assert.Equal(t, times, ours+runtimes, "%v", counts)
	chaos.Record(t, "", times, ours, counts["lost, and handled later"], runtimes)
}
