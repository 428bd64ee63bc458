package sidecar

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/certfetcher/certfetcher/test/fixture"
)

func init() {
	// adopting becomes another program that gets the orphans among its descendants, as process 1 of a
	// container does.
	roles["adopting"] = func(args []string) {
		err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
		if err == nil {
			err = syscall.Exec(args[0], args, os.Environ())
		}
		fmt.Fprintln(os.Stderr, "adopting:", err)
		os.Exit(1)
	}
}

func TestSidecar_asProcess1_leavesNoZombieOfWhatItsCommandLeavesBehind(t *testing.T) {
	t.Parallel()
	self := fixture.Must(os.Executable())
	s := startService(t, time.Hour, nil)
	volume := filepath.Join(t.TempDir(), "volume")
	p := run(t, volume, append(environment(s.URL, s.Dir, volume),
		`NOTIFY_EXEC=/bin/sh -c 'sleep 0.3 >/dev/null 2>&1 & echo child $!'`), self, "adopting")
	p.await(1, told)
	text, found := strings.CutPrefix(p.await(1, "output of the command").text("line"), "child ")
	require.True(t, found)
	child := fixture.Must(strconv.Atoi(text))
	// A zombie could still be signalled.
	eventually(t, "the process that was left behind ends and is gone",
		func() bool { return syscall.Kill(child, 0) == syscall.ESRCH })
	p.end()
}
