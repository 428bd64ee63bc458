package startup

import (
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/chaos"
	"github.com/certfetcher/certfetcher/test/fixture"
)

// start starts a program by a shell that prepares its surroundings, and waits until it has begun to log or has ended.
func start(t *testing.T, prepare, program string, with []string, words ...string) *chaos.Process {
	t.Helper()
	cmd := chaos.Within(prepare, chaos.Program(program, with, append(words, "LOG_LEVEL=debug")...))
	cmd.Dir = t.TempDir()
	p := chaos.Start(t, cmd)
	p.Await("\n")
	return p
}

// Go's runtime needs two files for its poller, and ends the process with 2 when it cannot have them: for certfetcher
// that would mean a wrong subject.
func TestFewFiles_areSaidByTheirOwnExitCode(t *testing.T) {
	t.Parallel()
	variables := environment(t)
	all := []int{3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 20, 24, 32}
	for program, interrupted := range interrupted {
		for _, limit := range chaos.Amount([]int{6, 7, 12, 13}, all, all) {
			where := fmt.Sprintf("%s with %d", program, limit)
			p := start(t, fmt.Sprintf("ulimit -n %d", limit), program, variables)
			if limit > 12 {
				_ = p.Process.Signal(interruption)
			}
			code := p.Wait(chaos.Deadline)
			if limit > 12 {
				assert.Contains(t, []int{interrupted, 1, 6, 99}, code, "%s: %s", where, p.Printed())
			} else {
				assert.Equal(t, 99, code, where)
				assert.Contains(t, p.Printed(), "RLIMIT_NOFILE", where)
			}
		}
	}
}

// What Go's runtime does before any statement of ours, as docs/operations.md has it.
func TestRuntime_endsWith2_andSaysSo(t *testing.T) {
	t.Parallel()
	variables := environment(t)
	for prepare, says := range map[string]string{
		"export GOMEMLIMIT=much": "malformed GOMEMLIMIT", "ulimit -v 60000": "failed to reserve"} {
		p := start(t, prepare, "certfetcher", variables)
		assert.Equal(t, 2, p.Wait(chaos.Deadline), p.Printed())
		assert.Contains(t, p.Printed(), says)
		assert.NotContains(t, p.Printed(), `"exit_code"`)
	}
}

// A file that is opened must not become standard error: then the log would go into it. The runtime opens /dev/null for
// those that are closed.
func TestClosedStandardFiles_areNoOthers(t *testing.T) {
	t.Parallel()
	cmd := chaos.Within("exec 0<&- 1>&- 2>&-", chaos.Program("devca", environment(t)))
	files := fmt.Sprintf("/proc/%d/fd/", chaos.Start(t, cmd).Process.Pid)
	require.Eventually(t, func() bool { // one of its own files
		_, err := os.Readlink(files + "5")
		return err == nil || os.IsPermission(err)
	}, chaos.Deadline, 10*time.Millisecond)
	for _, number := range []string{"0", "1", "2"} {
		opened, err := os.Readlink(files + number)
		if os.IsPermission(err) {
			t.Skip("only root sees the files of a program that hides them")
		}
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
		cmd := chaos.Program(program, environment(t), "LOG_LEVEL=debug")
		cmd.Stderr = writer
		p := chaos.Start(t, cmd)
		writer.Close()
		_, _ = reader.Read(make([]byte, 1)) // it has begun to log
		reader.Close()
		time.AfterFunc(500*time.Millisecond, func() { _ = cmd.Process.Signal(interruption) })
		assert.Equal(t, want, p.Wait(chaos.Deadline), "%s: %s", program, cmd.ProcessState)
	}
}

func TestProcess_dumpsNoCore(t *testing.T) {
	t.Parallel()
	for program := range interrupted {
		p := start(t, "ulimit -c unlimited", program, environment(t), "GOTRACEBACK=crash")
		p.Signal(t, syscall.SIGABRT)
		p.Wait(chaos.Deadline)
		assert.False(t, p.ProcessState.Sys().(syscall.WaitStatus).CoreDump(), program)
		files := fixture.Must(os.ReadDir(p.Dir))
		assert.Empty(t, files, program)
	}
}
