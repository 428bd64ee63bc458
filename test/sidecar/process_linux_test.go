package sidecar

import (
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
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
	"github.com/certfetcher/certfetcher/test/service"
)

func init() {
	// adopting becomes another program that gets the orphans among its descendants, as process 1 of a
	// container does.
	roles["adopting"] = func(program string) int {
		err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
		if err == nil {
			err = syscall.Exec(program, []string{program}, os.Environ())
		}
		fmt.Fprintln(os.Stderr, "adopting:", err)
		return 1
	}
}

// resident is a ready sidecar that is looked at from outside.
type resident struct {
	*chaos.Process
	t       *testing.T
	service *service.Service
	address string // of its probes
}

func startResident(t *testing.T, variables ...string) *resident {
	t.Helper()
	s := service.Run(t, service.Options{})
	p := &resident{t: t, service: s, address: fixture.FreeAddress(t)}
	volume := chaos.NewVolume(t, s.Environment(""), "symlink")
	p.Process = volume.Sidecar(append(variables, "HEALTH_ADDR="+p.address)...)
	return p
}

// files are those that match a pattern in the process's directory below /proc.
func (p *resident) files(pattern string) []string {
	return fixture.Must(filepath.Glob(fmt.Sprintf("/proc/%d/%s", p.Process.Process.Pid, pattern)))
}

// memory is what is resident, in KiB.
func (p *resident) memory() int { return chaos.Memory(p.Process.Process.Pid, "VmRSS") }

// cpu is the time for which the process has had a processor, which schedstat has in nanoseconds.
func (p *resident) cpu() (sum time.Duration) {
	for _, task := range p.files("task/*/schedstat") {
		nanoseconds, _, _ := strings.Cut(string(fixture.Must(os.ReadFile(task))), " ")
		sum += time.Duration(fixture.Must(strconv.Atoi(nanoseconds)))
	}
	return sum
}

// metric is the value of a series, which must be there.
func (p *resident) metric(series string) int {
	p.t.Helper()
	_, body := chaos.Send("GET", "http://"+p.address+"/metrics")
	found := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(series) + ` (\d+)$`).FindStringSubmatch(body)
	require.NotNil(p.t, found, series)
	return fixture.Must(strconv.Atoi(found[1]))
}

// renew asks for renewals, one after the other.
func (p *resident) renew(count int) {
	p.t.Helper()
	const updated = `certfetcher_renewals_total{outcome="updated"}`
	for range count {
		before := p.metric(updated)
		status, body := chaos.Send("POST", "http://"+p.address+"/renew")
		require.Equal(p.t, http.StatusAccepted, status, body)
		eventually(p.t, "a renewal", func() bool { return p.metric(updated) > before })
	}
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	require.Eventually(t, condition, chaos.Deadline, 2*time.Millisecond, what)
}

const residentLimit = 16 << 10 // KiB

func TestSidecar_manyRenewals_leakNothing(t *testing.T) {
	t.Parallel()
	p := startResident(t)
	p.renew(30)
	measure := func() [4]int {
		return [4]int{len(p.files("fd/*")), p.metric("go_goroutines"), len(p.files("task/*")), p.memory()}
	}
	before := measure()
	p.renew(chaos.Amount(200, 1000, 1000))
	// Connections that the service or this test closes may take a moment to end, and so does what a renewal
	// needs of memory.
	var after [4]int
	eventually(t, "descriptors, goroutines and memory come back to what they were", func() bool {
		after = measure()
		return after[0] <= before[0] && after[1] <= before[1] && after[3] < before[3]+2<<10
	})
	t.Logf("descriptors, goroutines, threads, KiB resident: before %v, after %v", before, after)
	assert.Less(t, after[3], residentLimit)
	assert.Zero(t, p.metric(`certfetcher_renewals_total{outcome="failed"}`))
	p.End(t)
}

// A user has few of them on a host, in all containers together.
func TestSidecar_oneInotifyInstance(t *testing.T) {
	t.Parallel()
	p := startResident(t, "RENEW_TRIGGER_FILE="+filepath.Join(t.TempDir(), "renew"))
	p.renew(1)
	instances := slices.DeleteFunc(p.files("fd/*"), func(name string) bool {
		target, _ := os.Readlink(name) // one may be closed by now
		return target != "anon_inode:inotify"
	})
	assert.Len(t, instances, 1)
	p.End(t)
}

// idle is for how long a sidecar with nothing to do is watched; for figures, take some minutes.
var idle = flag.Duration("idle", 5*time.Second, "how long to watch an idle sidecar")

// In a minute there is one look at the clock to do.
func TestSidecar_idle_needsNearlyNothing(t *testing.T) {
	t.Parallel()
	p := startResident(t, "OUTPUT_TYPE=P12,JKS,PEM", "KEY_ALGORITHM=RSA-2048",
		"RENEW_TRIGGER_FILE="+filepath.Join(t.TempDir(), "renew"))
	p.renew(5)
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
	t.Logf("%v of CPU in %v, %d KiB resident", used, *idle, p.memory())
	assert.Less(t, used, max(time.Minute, *idle)/time.Minute*5*time.Millisecond)
	assert.Less(t, p.memory(), residentLimit)
	p.End(t)
}

// Everything in the cluster can reach the port of the probes, and the examples give a sidecar 64 MiB.
func TestSidecar_strangersAtThePortOfTheProbes_takeNoMemoryAndNoProbe(t *testing.T) {
	t.Parallel()
	p := startResident(t)
	before := p.memory()

	// Half of them say nothing, and half begin a request and do not finish it.
	stranger := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9)}, Timeout: chaos.Deadline}
	unfinished := []byte("GET /readyz HTTP/1.1\r\nHost: x\r\nX-Long: " + strings.Repeat("a", 12<<10))
	for i := range 2000 {
		conn := fixture.Must(stranger.Dial("tcp", p.address))
		defer conn.Close()
		if i%2 == 1 {
			_, _ = conn.Write(unfinished) // it may be closed already
		}
		if i%100 == 0 {
			status, _ := chaos.Send("GET", "http://"+p.address+"/readyz")
			assert.Equal(t, http.StatusOK, status, "a probe has its answer meanwhile")
		}
	}
	after := p.memory()
	t.Logf("resident before %d KiB, with 2,000 connections %d KiB", before, after)
	assert.Less(t, after-before, 8<<10)
	assert.Less(t, len(p.files("fd/*")), 200)
	p.End(t)
}
