package load

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

// cgroup is a control group with a limit on memory, of version 2 or 1.
type cgroup struct{ dir, events string }

func newCgroup(t *testing.T, limit string) cgroup {
	t.Helper()
	name := fmt.Sprintf("/certservice-load-%d", os.Getpid())
	c := cgroup{"/sys/fs/cgroup/memory" + name, "memory.oom_control"}
	memory, swap, mostSwap := "/memory.limit_in_bytes", "/memory.memsw.limit_in_bytes", limit
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		c = cgroup{"/sys/fs/cgroup" + name, "memory.events"}
		memory, swap, mostSwap = "/memory.max", "/memory.swap.max", "0"
	}
	err := os.Mkdir(c.dir, 0o755)
	if err == nil {
		t.Cleanup(func() { // when the processes in it are gone
			assert.Eventually(t, func() bool { return os.Remove(c.dir) == nil }, 10*time.Second, 10*time.Millisecond)
		})
		err = os.WriteFile(c.dir+memory, []byte(limit), 0o600)
	}
	if err == nil {
		err = os.WriteFile(c.dir+swap, []byte(mostSwap), 0o600)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // a kernel without swap has no such file
		fixture.SkipWithout(t, "the right to limit memory by a cgroup ("+err.Error()+")")
	}
	return c
}

// enter is a program of the shell that runs another inside.
func (c cgroup) enter(t *testing.T, path, program string) {
	t.Helper()
	script := fmt.Sprintf("#!/bin/sh\necho $$ >%q && exec %q \"$@\"\n", c.dir+"/cgroup.procs", program)
	require.NoError(t, os.WriteFile(path, []byte(script), 0o755))
}

var oomKill = regexp.MustCompile(`(?m)^oom_kill (\d+)$`)

// oomKills is how often the kernel has ended a process for want of memory.
func (c cgroup) oomKills(t *testing.T) int {
	t.Helper()
	text := fixture.Must(os.ReadFile(c.dir + "/" + c.events))
	found := oomKill.FindSubmatch(text)
	require.NotNil(t, found, string(text))
	return fixture.Must(strconv.Atoi(string(found[1])))
}
