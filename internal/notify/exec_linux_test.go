package notify

import (
	"context"
	"regexp"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// beInit makes orphans children of this process, as they are of process 1 in a container.
func beInit(t *testing.T) {
	t.Helper()
	require.NoError(t, unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
	t.Cleanup(func() { _ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) })
}

func childOf(t *testing.T, out lines) int {
	t.Helper()
	match := regexp.MustCompile(`line="child (\d+)"`).FindStringSubmatch(out.next(t))
	require.NotNil(t, match)
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
	child := childOf(t, out)
	require.NoError(t, syscall.Kill(child, 0), "the command's child must be running")
	cancel()
	require.Error(t, <-failed)
	// A zombie could still be signalled.
	assert.Eventually(t, func() bool { return syscall.Kill(child, 0) == syscall.ESRCH }, patience, time.Millisecond)
}

func TestExec_lets_a_process_live_that_the_command_leaves_behind(t *testing.T) {
	beInit(t)
	out := newLines()
	e := NewExec(ExecConfig{Command: []string{testBinary(t), "abandon"}, Timeout: patience, Log: out.logger()})
	require.NoError(t, e.Notify(t.Context(), testEvent))
	child := childOf(t, out)
	assert.Equal(t, `level=WARN msg="the command left a process behind that holds its output, which is no longer read" program=`+testBinary(t), out.next(t))
	require.NoError(t, syscall.Kill(child, syscall.SIGKILL))
	_, err := syscall.Wait4(child, nil, 0, nil)
	require.NoError(t, err)
}
