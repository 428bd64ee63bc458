package sidecar

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

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
	s := startService(t, time.Hour, nil)
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
	p := start(t, startService(t, 24*time.Hour, nil), "OUTPUT_TYPE=P12,JKS,PEM",
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
