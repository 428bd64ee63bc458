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

// ends runs a program by a shell that prepares its surroundings, and returns its exit code and what it wrote. Where
// signalled, it is ended by SIGTERM when it has begun to log.
func ends(t *testing.T, signalled bool, prepare, program string, variables []string) (int, string) {
	t.Helper()
	cmd := exec.Command("sh", "-c", prepare+"; exec "+filepath.Join(binDir, program))
	cmd.Env = append(variables, "LOG_LEVEL=debug")
	p := chaos.Start(t, cmd)
	if p.Await("\n") && signalled {
		_ = cmd.Process.Signal(interruption)
	}
	return p.Wait(chaos.Deadline), p.Printed()
}

// Go's runtime needs two files for its poller, and ends the process with 2 when it cannot have them: for certfetcher
// that would mean a wrong subject.
func TestFewFiles_areSaidByTheirOwnExitCode(t *testing.T) {
	t.Parallel()
	variables := environment(t)
	all := []int{3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 20, 24, 32}
	for program, interrupted := range interrupted {
		for _, limit := range chaos.Amount([]int{6, 7, 12, 13}, all, all) {
			code, said := ends(t, limit > 12, fmt.Sprintf("ulimit -n %d", limit), program, variables)
			if limit <= 12 {
				assert.Equal(t, 99, code, "%s with %d: %s", program, limit, said)
				assert.Contains(t, said, "RLIMIT_NOFILE", "%s with %d", program, limit)
			} else {
				assert.Contains(t, []int{interrupted, 1, 6, 99}, code, "%s with %d: %s", program, limit, said)
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
		code, said := ends(t, false, c.prepare, "certfetcher", append([]string{c.variable}, variables...))
		assert.Equal(t, 2, code, said)
		assert.Contains(t, said, c.says)
		assert.NotContains(t, said, `"exit_code"`)
	}
}

// A file that is opened must not become standard error: then the log would go into it. The runtime opens /dev/null for
// those that are closed.
func TestClosedStandardFiles_areNoOthers(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("sh", "-c", "exec 0<&- 1>&- 2>&-; exec "+binDir+"/devca")
	cmd.Env = environment(t)
	chaos.Start(t, cmd)
	files := filepath.Join("/proc", fmt.Sprint(cmd.Process.Pid), "fd")
	for until := time.Now().Add(chaos.Deadline); ; time.Sleep(10 * time.Millisecond) {
		require.True(t, time.Now().Before(until), "it opens nothing")
		if opened, err := os.Readlink(files + "/5"); err == nil {
			t.Log("one of its own files is", opened)
			break
		} else if os.IsPermission(err) {
			t.Skip("only root sees the files of a program that hides them")
		}
	}
	for _, number := range []string{"0", "1", "2"} {
		opened, err := os.Readlink(filepath.Join(files, number))
		require.NoError(t, err)
		assert.Equal(t, "/dev/null", opened, number)
	}
}

// The log's reader may go at any moment.
func TestNobodyReadsTheLog_isNoEnd(t *testing.T) {
	t.Parallel()
	for program, want := range interrupted {
		reader, writer, err := os.Pipe()
		require.NoError(t, err)
		cmd := exec.Command(filepath.Join(binDir, program))
		cmd.Env, cmd.Stderr = append(environment(t), "LOG_LEVEL=debug"), writer
		p := chaos.Start(t, cmd)
		writer.Close()
		_, _ = reader.Read(make([]byte, 1)) // it has begun to log
		reader.Close()
		time.AfterFunc(500*time.Millisecond, func() { _ = cmd.Process.Signal(interruption) })
		assert.Equal(t, want, p.Wait(chaos.Deadline), "%s: %s", program, cmd.ProcessState)
	}
}
