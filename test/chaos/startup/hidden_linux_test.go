package startup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/chaos"
)

// spy is another process of the same user: 0 when it can read the process's environment or memory, 3 when it may not.
func spy(pid string) int {
	for _, name := range []string{"environ", "mem", "fd", "maps"} {
		var err error
		if name == "fd" {
			_, err = os.ReadDir("/proc/" + pid + "/fd")
		} else if file, openErr := os.Open("/proc/" + pid + "/" + name); openErr == nil {
			defer file.Close()
			at := make([]byte, 1)
			if _, err = file.ReadAt(at, 0); name == "mem" { // nothing is mapped at 0: that it may be opened is enough
				err = nil
			}
		} else {
			err = openErr
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

var nobody = &syscall.Credential{Uid: 65534, Gid: 65534}

// look runs a spy on a process, and returns its exit code and what it said.
func look(t *testing.T, pid int) (int, string) {
	t.Helper()
	cmd := exec.Command(spyPath, "spy", fmt.Sprint(pid))
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: nobody}
	return chaos.Run(t, cmd)
}

// startAsNobody runs a program until the test ends.
func startAsNobody(t *testing.T, path string, variables []string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(path, args...)
	cmd.Env, cmd.SysProcAttr = variables, &syscall.SysProcAttr{Credential: nobody}
	chaos.Start(t, cmd)
	return cmd
}

// hiddenAfter waits until a process's environment is root's, and returns how long that took.
func hiddenAfter(t *testing.T, pid int) time.Duration {
	t.Helper()
	begun := time.Now()
	// In the middle of exec, before there is an environment, it is root's as well.
	for environment := []byte(nil); len(environment) == 0; {
		var err error
		environment, err = os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		require.NoError(t, err)
		require.Less(t, time.Since(begun), chaos.Deadline, "it has no environment")
	}
	for {
		info, err := os.Stat(fmt.Sprintf("/proc/%d/environ", pid))
		require.NoError(t, err)
		if info.Sys().(*syscall.Stat_t).Uid == 0 {
			return time.Since(begun)
		}
		require.Less(t, time.Since(begun), chaos.Deadline, "others may still read the environment")
	}
}

func TestProcess_isNotReadByOthersOfItsUser(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("only root runs programs as another user")
	}
	sleep, err := exec.LookPath("sleep")
	require.NoError(t, err)
	control := startAsNobody(t, sleep, nil, "1000")
	code, said := look(t, control.Process.Pid)
	require.Zero(t, code, "the spy cannot even look at an ordinary process: %s", said)

	for program := range interrupted {
		variables := append(environment(t), "OUTPUT_KEYSTORE_PASSWORD=hush-hush")
		var windows []time.Duration
		var running *exec.Cmd
		for range chaos.Amount(3, 20, 100) {
			if running != nil { // a hundred at a time would be more than the kernel lets one user watch files with
				_ = running.Process.Kill()
			}
			running = startAsNobody(t, filepath.Join(binDir, program), variables)
			windows = append(windows, hiddenAfter(t, running.Process.Pid))
		}
		code, said := look(t, running.Process.Pid)
		assert.Equal(t, 3, code, "%s: %s", program, said)
		slices.Sort(windows)
		chaos.Record(t, program, len(windows), program, windows[len(windows)/2].Round(time.Microsecond),
			windows[len(windows)-1].Round(time.Microsecond))
	}
}

func TestProcess_dumpsNoCore(t *testing.T) {
	t.Parallel()
	for program := range interrupted {
		cmd := exec.Command("sh", "-c", "ulimit -c unlimited; exec "+filepath.Join(binDir, program))
		cmd.Dir = t.TempDir()
		cmd.Env = append(environment(t), "GOTRACEBACK=crash", "LOG_LEVEL=debug")
		p := chaos.Start(t, cmd)
		require.True(t, p.Await("\n"), "it has begun to log")
		p.Signal(t, syscall.SIGABRT)
		p.Wait(chaos.Deadline)
		status := cmd.ProcessState.Sys().(syscall.WaitStatus)
		assert.False(t, status.CoreDump(), program)
		files, err := os.ReadDir(cmd.Dir)
		require.NoError(t, err)
		assert.Empty(t, files, program)
	}
}
