package startup

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/chaos"
)

// ends runs a program by a shell that prepares its surroundings, and returns its exit code and what it wrote to standard
// error. A program that is still running after a while is ended by SIGTERM.
func ends(t *testing.T, prepare, program string, variables []string) (int, string) {
	t.Helper()
	cmd := exec.Command("sh", "-c", prepare+"; exec "+filepath.Join(binDir, program))
	cmd.Env = variables
	term := time.AfterFunc(500*time.Millisecond, func() { _ = cmd.Process.Signal(interruption) })
	kill := time.AfterFunc(deadline, func() { _ = cmd.Process.Kill() })
	defer func() { term.Stop(); kill.Stop() }()
	out, _ := cmd.CombinedOutput()
	return cmd.ProcessState.ExitCode(), string(out)
}

// Go's runtime needs two files for its poller, and ends the process with 2 when it cannot have them: for certfetcher that
// would mean a wrong subject.
func TestFewFiles_areSaidByTheirOwnExitCode(t *testing.T) {
	t.Parallel()
	variables := environment(t)
	all := []int{3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 20, 24, 32}
	for program, interrupted := range interrupted {
		for _, limit := range chaos.Amount([]int{6, 7, 12, 13}, all, all) {
			code, said := ends(t, fmt.Sprintf("ulimit -n %d", limit), program, variables)
			if limit <= 12 {
				assert.Equal(t, 99, code, "%s with %d: %s", program, limit, said)
				assert.Contains(t, said, "RLIMIT_NOFILE", "%s with %d", program, limit)
			} else {
				assert.Contains(t, []int{interrupted, 1, 99}, code, "%s with %d: %s", program, limit, said)
			}
		}
	}
}

// What Go's runtime does before any statement of ours, as docs/operations.md has it.
func TestRuntime_endsWith2_andSaysSo(t *testing.T) {
	t.Parallel()
	variables := environment(t)
	for _, c := range []struct{ prepare, variable, says string }{
		{prepare: ":", variable: "GOMEMLIMIT=much", says: "malformed GOMEMLIMIT"},
		{prepare: "ulimit -v 60000", says: "failed to reserve"},
	} {
		code, said := ends(t, c.prepare, "certfetcher", append([]string{c.variable}, variables...))
		assert.Equal(t, 2, code, said)
		assert.Contains(t, said, c.says)
		assert.NotContains(t, said, `"exit_code"`)
	}
}

// A file that is opened must not become standard error: then the log would go into it.
func TestClosedStandardFiles_areNoOthers(t *testing.T) {
	t.Parallel()
	code, _ := ends(t, "exec 0<&- 1>&- 2>&-", "certfetcher", environment(t))
	assert.Equal(t, 99, code)
}

// The log's reader may go at any moment.
func TestNobodyReadsTheLog_isNoEnd(t *testing.T) {
	t.Parallel()
	for program, want := range interrupted {
		reader, writer, err := os.Pipe()
		require.NoError(t, err)
		cmd := exec.Command(filepath.Join(binDir, program))
		cmd.Env, cmd.Stderr = append(environment(t), "LOG_LEVEL=debug"), writer
		require.NoError(t, cmd.Start())
		writer.Close()
		_, _ = reader.Read(make([]byte, 1)) // it has begun to log
		reader.Close()
		kill := time.AfterFunc(deadline, func() { _ = cmd.Process.Kill() })
		time.AfterFunc(500*time.Millisecond, func() { _ = cmd.Process.Signal(interruption) })
		_ = cmd.Wait()
		kill.Stop()
		assert.Equal(t, want, cmd.ProcessState.ExitCode(), "%s: %s", program, cmd.ProcessState)
	}
}
