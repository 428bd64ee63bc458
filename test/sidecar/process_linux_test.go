package sidecar

import (
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/certfetcher/certfetcher/test/chaos"
	"github.com/certfetcher/certfetcher/test/fixture"
)

// proc reads a file of the process under /proc.
func (p *sidecar) proc(name string) string {
	p.t.Helper()
	content := fixture.Must(os.ReadFile(fmt.Sprintf("/proc/%d/%s", p.cmd.Process.Pid, name)))
	return string(content)
}

// status is a value in /proc/PID/status, in kibibytes where it is a size.
func (p *sidecar) status(name string) int {
	p.t.Helper()
	for line := range strings.Lines(p.proc("status")) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			number := fixture.Must(strconv.Atoi(strings.Fields(value)[0]))
			return number
		}
	}
	require.Fail(p.t, "there is no "+name)
	return 0
}

// cpu is the time for which the process has had a processor, which schedstat has in nanoseconds.
func (p *sidecar) cpu() time.Duration {
	p.t.Helper()
	tasks := fixture.Must(filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.cmd.Process.Pid)))
	var sum time.Duration
	for _, task := range tasks {
		content := fixture.Must(os.ReadFile(task))
		nanoseconds := fixture.Must(strconv.ParseInt(strings.Fields(string(content))[0], 10, 64))
		sum += time.Duration(nanoseconds)
	}
	return sum
}

func (p *sidecar) descriptors() int {
	p.t.Helper()
	entries := fixture.Must(os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid)))
	return len(entries)
}

// memoryDir is a directory in memory where there is one: many renewals sync ten times as many files.
func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "certfetcher-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

const residentLimit = 16 << 10 // KiB

func TestSidecar_manyRenewals_leakNothing(t *testing.T) {
	t.Parallel()
	s := startService(t, time.Hour)
	volume := filepath.Join(memoryDir(t), "volume")
	address := fixture.FreeAddress(t) // a log of so many renewals would be long, and not even say this
	p := run(t, volume, append(environment(s.URL, s.Dir, volume), "OUTPUT_TYPE=PEM",
		"LOG_LEVEL=warn", "HEALTH_ADDR="+address))
	p.address = address
	p.awaitReady()
	renew := func(count int) {
		t.Helper()
		for goal := s.Requests() + count; s.Requests() < goal; {
			before := s.Requests()
			p.renew()
			eventually(t, "a renewal", func() bool { return s.Requests() > before })
		}
		eventually(t, "the end of the last renewal", func() bool {
			return p.metric(`certfetcher_renewals_total{outcome="updated"}`) >= float64(s.Requests()-1)
		})
	}
	renew(30)
	type usage struct{ descriptors, goroutines, threads, resident int }
	measure := func() usage {
		return usage{p.descriptors(), int(p.metric("go_goroutines")), p.status("Threads"), p.status("VmRSS")}
	}
	before := measure()
	renew(chaos.Amount(200, 1000, 1000))
	// Connections that the service or this test closes may take a moment to end, and so does what a renewal
	// needs of memory.
	var after usage
	assert.Eventually(t, func() bool {
		after = measure()
		return after.descriptors <= before.descriptors && after.goroutines <= before.goroutines &&
			after.resident < before.resident+2<<10
	}, patience, 10*time.Millisecond, "descriptors, goroutines and memory come back to what they were")
	t.Logf("before %+v, after %+v", before, after)
	assert.Less(t, after.resident, residentLimit)
	assert.Zero(t, p.metric(`certfetcher_renewals_total{outcome="failed"}`))
	p.end()
}

// idle is for how long a sidecar with nothing to do is watched; for figures, take some minutes.
var idle = flag.Duration("idle", 5*time.Second, "how long to watch an idle sidecar")

// In a minute there is one look at the clock to do.
func TestSidecar_idle_needsNearlyNothing(t *testing.T) {
	t.Parallel()
	p := start(t, startService(t, 24*time.Hour), "OUTPUT_TYPE=P12,JKS,PEM",
		"KEY_ALGORITHM=RSA-2048", "RENEW_TRIGGER_FILE="+filepath.Join(t.TempDir(), "renew"))
	p.await(1, planned)
	for n := range 5 {
		p.renew()
		p.await(n+2, planned)
	}
	settled, since := p.cpu(), time.Now()
	eventually(t, "the start is over", func() bool {
		if now := p.cpu(); now != settled {
			settled, since = now, time.Now()
		}
		return time.Since(since) > time.Second // which is longer than files are left alone to settle
	})
	before := p.cpu()
	<-time.After(*idle)
	used := p.cpu() - before
	t.Logf("%v of CPU in %v, %d KiB resident, %d KiB at most", used, *idle, p.status("VmRSS"), p.status("VmHWM"))
	assert.Less(t, used, max(time.Minute, *idle)/time.Minute*5*time.Millisecond)
	assert.Less(t, p.status("VmRSS"), residentLimit)
	p.end()
}

// Everything in the cluster can reach the port of the probes, and the examples give a sidecar 64 MiB.
func TestSidecar_strangersAtThePortOfTheProbes_takeNoMemoryAndNoProbe(t *testing.T) {
	t.Parallel()
	s := startService(t, time.Hour)
	volume := filepath.Join(t.TempDir(), "volume")
	p := run(t, volume, environment(s.URL, s.Dir, volume))
	p.awaitReady()
	address := strings.TrimPrefix(p.url(""), "http://")
	before := p.status("VmRSS")

	// Half of them say nothing, and half begin a request and do not finish it.
	stranger := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9)}, Timeout: patience}
	unfinished := []byte("GET /readyz HTTP/1.1\r\nHost: x\r\nX-Long: " + strings.Repeat("a", 12<<10))
	for i := range 2000 {
		conn, err := stranger.Dial("tcp", address)
		require.NoError(t, err)
		defer conn.Close()
		if i%2 == 1 {
			_, _ = conn.Write(unfinished) // it may be closed already
		}
		if i%100 == 0 {
			status, _ := p.get("/readyz")
			assert.Equal(t, http.StatusOK, status, "a probe has its answer meanwhile")
		}
	}
	after := p.status("VmRSS")
	t.Logf("resident before %d KiB, with 2,000 connections %d KiB", before, after)
	assert.Less(t, after-before, 8<<10)
	assert.Less(t, p.descriptors(), 200)
	p.end()
}

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
	s := startService(t, time.Hour)
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

// SMB mounts and some FUSE file systems have no symbolic links. That must be known before a certificate is asked for,
// or each start of a pod that can never begin would cost one.
func TestVolumeWithoutLinks_isRefusedBeforeTheRequest(t *testing.T) {
	t.Parallel()
	strace := fixture.RequirePrograms(t, "strace")[0]
	s := startService(t, time.Hour)
	traced := func(t *testing.T, errno string, variables []string, args ...string) (int, string) {
		command := exec.Command(strace, append([]string{"-f", "-qq", "-o", "/dev/null", "-e", "trace=symlinkat",
			"-e", "inject=symlinkat:error=" + errno, filepath.Join(binDir, "certfetcher")}, args...)...)
		command.Env = variables
		output, err := command.CombinedOutput()
		if err != nil {
			require.IsType(t, &exec.ExitError{}, err)
		}
		return command.ProcessState.ExitCode(), strings.ReplaceAll(string(output), `\"`, `"`)
	}
	for _, errno := range []string{"EOPNOTSUPP", "EPERM", "ENOSYS"} {
		for _, mode := range []string{"init", "sidecar"} {
			t.Run(fmt.Sprintf("%s %s", mode, errno), func(t *testing.T) {
				volume := filepath.Join(t.TempDir(), "volume")
				variables := append(environment(s.URL, s.Dir, volume), "MODE="+mode)
				code, output := traced(t, errno, variables)
				assert.Equal(t, 10, code, output)
				assert.Contains(t, output, `creating link "`+volume)
				assert.Contains(t, output,
					"symbolic links do not work on this volume: set OUTPUT_LAYOUT=inplace, or use another volume")
				assert.Zero(t, s.Requests())
			})
		}
	}
	t.Run("doctor says the same", func(t *testing.T) {
		code, output := traced(t, "EOPNOTSUPP", environment(s.URL, s.Dir, filepath.Join(t.TempDir(), "volume")),
			"doctor")
		assert.Equal(t, 10, code, output)
		assert.Contains(t, output, "links do not work on this volume")
		assert.Contains(t, output, "set OUTPUT_LAYOUT=inplace, or use another volume")
	})
	t.Run("inplace needs none", func(t *testing.T) {
		asked := s.Requests()
		code, output := traced(t, "EOPNOTSUPP", append(environment(s.URL, s.Dir, filepath.Join(t.TempDir(), "volume")),
			"MODE=init", "OUTPUT_LAYOUT=inplace"))
		assert.Equal(t, 0, code, output)
		assert.Equal(t, asked+1, s.Requests())
	})
}
