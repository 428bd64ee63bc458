package startup

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/chaos"
)

const interruption = syscall.SIGTERM

// interrupted is how each program ends by a signal.
var interrupted = map[string]int{"certfetcher": 99, "certservice": 0, "devca": 0}

// costly are packages that take long to initialise, and so have to come later.
var costly = []string{"github.com/VictoriaMetrics/metrics", "github.com/kelseyhightower/envconfig",
	"net/http", "crypto/tls", "net"}

// The runtime tells of each package that is initialised. From ours on, a signal has the program's own exit code: the
// packages of libraries, and the first statement of main, come after it.
func TestSIGTERM_whilePackagesAreInitialised_isNotLost(t *testing.T) {
	t.Parallel()
	variables := environment(t)
	for program, want := range interrupted {
		for range chaos.Amount(2, 10, 50) {
			cmd := exec.Command(filepath.Join(binDir, program))
			cmd.Env = append([]string{"GODEBUG=inittrace=1"}, variables...)
			stderr, err := cmd.StderrPipe()
			require.NoError(t, err)
			require.NoError(t, cmd.Start())
			kill := time.AfterFunc(chaos.Deadline, func() { _ = cmd.Process.Kill() })
			var before []string
			lines := bufio.NewScanner(stderr)
			for lines.Scan() && !strings.HasPrefix(lines.Text(),
				"init github.com/certfetcher/certfetcher/internal/startup ") {
				if strings.HasPrefix(lines.Text(), "init ") {
					before = append(before, lines.Text())
				}
			}
			require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
			_, _ = io.Copy(io.Discard, stderr)
			_ = cmd.Wait()
			kill.Stop()
			require.Equal(t, want, cmd.ProcessState.ExitCode(), "%s: %s", program, cmd.ProcessState)
			for _, line := range before {
				assert.NotContains(t, costly, strings.Fields(line)[1],
					"%s: initialised before the signal is handled", program)
			}
		}
	}
}

// outcomes counts how a program ends when SIGTERM is sent at moments from 0 to 10 ms after exec.
func outcomes(t *testing.T, program string, times int, attributes *syscall.SysProcAttr) map[string]int {
	t.Helper()
	variables := environment(t)
	counts := map[string]int{}
	for i := range times {
		cmd := exec.Command(filepath.Join(binDir, program))
		cmd.Env, cmd.SysProcAttr = variables, attributes
		p := chaos.Start(t, cmd)
		delay := time.Duration(i) * 10 * time.Millisecond / time.Duration(times)
		for begun := time.Now(); time.Since(begun) < delay; {
		}
		require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
		// As process 1 it does not get a signal that nobody handles; what comes later counts.
		again := time.AfterFunc(500*time.Millisecond,
			func() { counts["lost, and handled later"]++; _ = cmd.Process.Signal(syscall.SIGTERM) })
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
// runtime, when it has a handler but nobody asked for the signal, ends with 2.
func TestSIGTERM_inTheFirst10ms_asProcess1_endsEveryProgram(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("only root makes process namespaces")
	}
	times := chaos.Amount(4, 40, 500)
	counts := outcomes(t, "certfetcher", times, &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID})
	assert.Equal(t, times, counts["exit status 99"]+counts["exit status 2"], "%v", counts)
	chaos.Record(t, "", times, counts["exit status 99"], counts["lost, and handled later"], counts["exit status 2"])
}
