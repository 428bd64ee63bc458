package startup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/chaos"
	"github.com/certfetcher/certfetcher/test/fixture"
)

// spy is another process of the same user: 0 when it can read the process's environment or memory, 3 when it may not.
func spy(pid string) int {
	for _, name := range []string{"environ", "mem", "fd", "maps"} {
		file, err := os.Open("/proc/" + pid + "/" + name)
		if err == nil && name != "mem" { // of mem, that it may be opened is enough: nothing is mapped at 0
			if name == "fd" {
				_, err = file.ReadDir(1)
			} else {
				_, err = file.Read(make([]byte, 1))
			}
		}
		if err == nil {
			fmt.Println("can read", name)
			return 0
		}
		if !errors.Is(err, fs.ErrPermission) {
			fmt.Println(err)
			return 1
		}
	}
	return 3
}

// look runs a spy on a process, and returns its exit code and what it said.
func look(t *testing.T, p *chaos.Process) (int, string) {
	t.Helper()
	return chaos.Run(t, asNobody(t, exec.Command(chaos.Self, "spy", fmt.Sprint(p.Process.Pid))))
}

func asNobody(t *testing.T, cmd *exec.Cmd) *exec.Cmd {
	t.Helper()
	return chaos.As(t, chaos.Nobody, chaos.Nobody, cmd)
}

// hiddenAfter waits until a process's environment is root's, and returns how long that took.
func hiddenAfter(t *testing.T, pid int) time.Duration {
	t.Helper()
	path := fmt.Sprintf("/proc/%d/environ", pid)
	begun := time.Now()
	for hasOne := false; ; { // in the middle of exec, before there is an environment, it is root's as well
		environment := fixture.Must(os.ReadFile(path))
		info := fixture.Must(os.Stat(path))
		if hasOne && info.Sys().(*syscall.Stat_t).Uid == 0 {
			return time.Since(begun)
		}
		hasOne = hasOne || len(environment) > 0
		require.Less(t, time.Since(begun), chaos.Deadline, "others may still read the environment")
	}
}

func TestProcess_isNotReadByOthersOfItsUser(t *testing.T) {
	t.Parallel()
	control := chaos.Start(t, asNobody(t, exec.Command("sleep", "1000")))
	code, said := look(t, control)
	require.Zero(t, code, "the spy cannot even look at an ordinary process: %s", said)

	for program := range interrupted {
		variables := append(environment(t), "OUTPUT_KEYSTORE_PASSWORD=hush-hush")
		var windows []time.Duration
		var running *chaos.Process
		for range chaos.Amount(3, 20, 100) {
			if running != nil { // a hundred at a time would be more than the kernel lets one user watch files with
				_ = running.Process.Kill()
			}
			running = chaos.Start(t, asNobody(t, chaos.Program(program, variables)))
			windows = append(windows, hiddenAfter(t, running.Process.Pid))
		}
		code, said := look(t, running)
		assert.Equal(t, 3, code, "%s: %s", program, said)
		slices.Sort(windows)
		median, most := windows[len(windows)/2], windows[len(windows)-1]
		chaos.Record(t, program, len(windows), program, median.Round(time.Microsecond), most.Round(time.Microsecond))
	}
}
