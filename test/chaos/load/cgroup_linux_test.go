package load

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

// cgroup is a control group with a limit on memory, of version 2 or 1.
type cgroup struct {
	dir string
	v2  bool
}

func newCgroup(t *testing.T, limit int64) *cgroup {
	t.Helper()
	c := &cgroup{dir: filepath.Join("/sys/fs/cgroup/memory", fmt.Sprintf("certservice-load-%d", os.Getpid()))}
	settings := []string{"memory.limit_in_bytes", "memory.memsw.limit_in_bytes"}
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		c = &cgroup{dir: filepath.Join("/sys/fs/cgroup", filepath.Base(c.dir)), v2: true}
		settings = []string{"memory.max", "memory.swap.max"}
	}
	if err := os.Mkdir(c.dir, 0o755); err != nil {
		fixture.SkipWithout(t, "the right to make a cgroup ("+err.Error()+")")
	}
	t.Cleanup(c.remove)
	for _, name := range settings {
		value := strconv.FormatInt(limit, 10)
		if name == "memory.swap.max" {
			value = "0"
		}
		err := os.WriteFile(filepath.Join(c.dir, name), []byte(value), 0o600)
		swap := name != settings[0] // a kernel without swap has no such file
		if err != nil && !(swap && errors.Is(err, fs.ErrNotExist)) {
			fixture.SkipWithout(t, "a cgroup that limits memory ("+err.Error()+")")
		}
	}
	return c
}

// remove waits for the processes in it to be gone.
func (c *cgroup) remove() {
	for range 500 {
		if err := os.Remove(c.dir); !errors.Is(err, syscall.EBUSY) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// enter is a program of the shell that runs another inside.
func (c *cgroup) enter(t *testing.T, path, program string) {
	t.Helper()
	script := fmt.Sprintf("#!/bin/sh\necho $$ >%q && exec %q \"$@\"\n", c.dir+"/cgroup.procs", program)
	require.NoError(t, os.WriteFile(path, []byte(script), 0o755))
}

// oomKills is how often the kernel has ended a process for want of memory.
func (c *cgroup) oomKills(t *testing.T) int {
	t.Helper()
	name := "memory.oom_control"
	if c.v2 {
		name = "memory.events"
	}
	text, err := os.ReadFile(filepath.Join(c.dir, name))
	require.NoError(t, err)
	for line := range strings.Lines(string(text)) {
		if count, ok := strings.CutPrefix(line, "oom_kill "); ok {
			n, err := strconv.Atoi(strings.TrimSpace(count))
			require.NoError(t, err)
			return n
		}
	}
	return 0
}
