package notify

import (
	"context"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// beInit makes orphans children of this process, as they are of process 1 in a container, and has them
// reaped as there.
func beInit(t *testing.T) {
	t.Helper()
	require.NoError(t, unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
	ctx, cancel := context.WithCancel(t.Context())
	var reaper sync.WaitGroup
	reaper.Go(func() { ReapOrphans(ctx) })
	t.Cleanup(func() {
		cancel()
		reaper.Wait()
		_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
	})
}

// awaitReaped waits until there is no such process, not even a zombie, which could still be signalled.
func awaitReaped(t *testing.T, pid int) {
	t.Helper()
	assert.Eventually(t, func() bool { return syscall.Kill(pid, 0) == syscall.ESRCH }, patience, time.Millisecond)
}

// childIn reads the process ID in a line of a role's.
func childIn(t *testing.T, line string) int {
	t.Helper()
	match := regexp.MustCompile(`line="child (\d+)"`).FindStringSubmatch(line)
	require.NotNil(t, match, line)
	pid, err := strconv.Atoi(match[1])
	require.NoError(t, err)
	return pid
}

func TestExec_kills_the_whole_group_and_leaves_no_zombie(t *testing.T) {
	beInit(t)
	out := newLines()
	e := NewExec(ExecConfig{Command: []string{testBinary(t), "family"}, Timeout: patience, Log: out.logger()})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	failed := make(chan error, 1)
	go func() { failed <- e.Notify(ctx, testEvent) }()
	child := childIn(t, out.next(t))
	require.NoError(t, syscall.Kill(child, 0), "the command's child must be running")
	cancel()
	require.Error(t, <-failed)
	awaitReaped(t, child)
}

func TestExec_lets_a_process_live_that_the_command_leaves_behind(t *testing.T) {
	beInit(t)
	out := newLines()
	e := NewExec(ExecConfig{Command: []string{testBinary(t), "abandon"}, Timeout: patience, Log: out.logger()})
	e.grace = 50 * time.Millisecond
	require.NoError(t, e.Notify(t.Context(), testEvent))
	// Which of the two comes first is the machine's affair.
	said := []string{out.next(t), out.next(t)}
	slices.Sort(said)
	child := childIn(t, said[0])
	assert.Equal(t, `level=WARN msg="the command left a process behind that holds its output, which goes on to be read" program=`+testBinary(t), said[1])

	for range 2 { // the second line would end it if nobody held the other end of the pipe
		require.NoError(t, syscall.Kill(child, syscall.SIGHUP))
		assert.Equal(t, `level=INFO msg="output of the command" program=`+testBinary(t)+` stream=stdout line="got hangup"`, out.next(t))
	}
	require.NoError(t, syscall.Kill(child, syscall.SIGKILL))
	awaitReaped(t, child)
}

// A command's own end must reach whoever waits for it, also when orphans are reaped at the same moment.
func TestReapOrphans_leaves_the_command_to_Notify(t *testing.T) {
	beInit(t)
	for range 20 {
		_, err := runExec(t, patience, "orphan")
		require.EqualError(t, err, "running "+strconv.Quote(testBinary(t))+": has exit code 3, want exit code 0")
	}
	assert.Eventually(t, func() bool {
		all, err := processes("/proc")
		return err == nil && !slices.ContainsFunc(all, func(p process) bool { return p.parent == syscall.Getpid() })
	}, patience, time.Millisecond)
}
