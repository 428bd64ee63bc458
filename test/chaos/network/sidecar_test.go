package network

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/chaos"
	"github.com/certfetcher/certfetcher/test/chaos/set"
	"github.com/certfetcher/certfetcher/test/fixture"
)

// sidecar is one that runs.
type sidecar struct {
	cmd             *exec.Cmd
	volume, address string
	log             bytes.Buffer
	ended           chan error
}

func startSidecar(t testing.TB, s *fixture.Stack, address string, variables ...string) *sidecar {
	t.Helper()
	p := &sidecar{volume: filepath.Join(t.TempDir(), "volume"), address: fixture.FreeAddress(t),
		ended: make(chan error, 1)}
	p.cmd = fetcher(context.Background(), address, s.Dir, p.volume, append([]string{"MODE=sidecar",
		"HEALTH_ADDR=" + p.address,
		"RETRY_INITIAL_INTERVAL=50ms", "RETRY_MAX_INTERVAL=200ms"}, variables...)...)
	p.cmd.Stderr = &p.log
	require.NoError(t, p.cmd.Start())
	go func() { p.ended <- p.cmd.Wait() }()
	t.Cleanup(func() { _ = p.cmd.Process.Kill() })
	return p
}

// ask returns the status and the body for a path of HEALTH_ADDR; 0 when nobody answers.
func (p *sidecar) ask(method, path string) (int, string) {
	request, err := http.NewRequest(method, "http://"+p.address+path, nil)
	if err != nil {
		return 0, err.Error()
	}
	response, err := (&http.Client{Timeout: slack}).Do(request)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err.Error()
	}
	return response.StatusCode, string(body)
}

// metric adds up the values of the series whose names begin so.
func (p *sidecar) metric(prefix string) (sum float64) {
	_, body := p.ask(http.MethodGet, "/metrics")
	series := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(prefix) + `.* (\S+)$`)
	for _, found := range series.FindAllStringSubmatch(body, -1) {
		value, _ := strconv.ParseFloat(found[1], 64)
		sum += value
	}
	return sum
}

func (p *sidecar) awaitReady(t testing.TB) {
	t.Helper()
	require.Eventually(t, func() bool { status, _ := p.ask(http.MethodGet, "/readyz"); return status == http.StatusOK },
		3*slack, 20*time.Millisecond)
}

// end ends it by SIGTERM and returns how long that took.
func (p *sidecar) end(t testing.TB) time.Duration {
	t.Helper()
	begin := time.Now()
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGTERM))
	select {
	case err := <-p.ended:
		assert.NoError(t, err, "%s", &p.log)
	case <-time.After(slack):
		t.Error("a sidecar does not end")
	}
	return time.Since(begin)
}

// readings reads the set as a careful application does, until done is closed.
func (p *sidecar) readings(t testing.TB, done <-chan struct{}) (n int) {
	for {
		select {
		case <-done:
			return n
		case <-time.After(5 * time.Millisecond):
		}
		target, err := os.Readlink(filepath.Join(p.volume, "..data"))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		leaf, err := set.ReadPEM(filepath.Join(p.volume, target))
		if !assert.NoError(t, err, "what is published does not fit together") {
			return n
		}
		n++
		if n%20 != 0 || time.Until(leaf.NotAfter) < time.Second {
			continue
		}
		if status, body := p.ask(http.MethodGet, "/readyz"); status != http.StatusOK && time.Until(leaf.NotAfter) > 0 {
			t.Errorf("it has a valid certificate until %s and is not ready: %d %s", leaf.NotAfter, status, body)
		}
	}
}

// TestSidecar_throughBrokenNetworks lets sidecars renew all the time through networks of which a third is broken.
func TestSidecar_throughBrokenNetworks(t *testing.T) {
	const share = 0.3
	source := random(t)
	forCA := source(-1)
	s := startStack(t, "", func(address string) string {
		return broken(t, address, func() Fault { return Some(forCA, share, 3000).Brief() }).Address
	})
	sidecars, lasts := chaos.Amount(1, 4, 12), chaos.Amount(time.Second, 15*time.Second, 2*time.Minute)
	var all sync.WaitGroup
	var renewals, failures, read atomic.Int64
	for i := range sidecars {
		r := rand.New(rand.NewPCG(source(i).Uint64(), 0))
		toService := broken(t, host(s.URL), func() Fault { return Some(r, share, 4000) })
		p := startSidecar(t, s, toService.Address, "RENEW_AT=1%", "REQUEST_TIMEOUT=1s", "RETRY_MAX_ELAPSED=1m",
			"POD_UID="+strconv.Itoa(i))
		all.Go(func() {
			done := make(chan struct{})
			var reading sync.WaitGroup
			reading.Go(func() { read.Add(int64(p.readings(t, done))) })
			asks := time.NewTicker(200 * time.Millisecond) // each is a renewal; without them it renews every 36 s
			defer asks.Stop()
			for end := time.Now().Add(lasts); time.Now().Before(end); <-asks.C {
				p.ask(http.MethodPost, "/renew")
			}
			close(done)
			reading.Wait()
			for _, outcome := range []string{"updated", "enrolled"} {
				renewals.Add(int64(p.metric(`certfetcher_renewals_total{outcome="` + outcome)))
			}
			failures.Add(int64(p.metric("certfetcher_renewal_failures_total")))
			p.end(t)
			assert.Empty(t, set.LeftBehind(p.volume, "symlink", []string{"PEM"}))
		})
	}
	all.Wait()
	if lasts > 10*time.Second {
		assert.Positive(t, renewals.Load())
		assert.Positive(t, failures.Load())
	}
	chaos.Record(t, "", fmt.Sprintf("%d sidecars that are asked to renew five times a second for %s through networks "+
		"of which 30 %% is broken", sidecars, lasts),
		fmt.Sprintf("%d renewals, %d failed tries, %d reads: each a whole set, and ready at each", renewals.Load(),
			failures.Load(), read.Load()))
}

// TestSidecar_inAHole has a sidecar renew where nothing ever comes back. It stays ready, takes requests to renew, and
// ends when it is told to.
func TestSidecar_inAHole(t *testing.T) {
	s := startStack(t, "", nil)
	var hole atomic.Bool
	longest := time.Duration(0)
	faults := []func() Fault{Hole, stalled("downstream", 0), stalled("upstream", 0),
		stalled("downstream", 2500)}[:chaos.Amount(1, 4, 4)]
	for _, fault := range faults {
		hole.Store(false)
		b := broken(t, host(s.URL), func() Fault {
			if hole.Load() {
				return fault()
			}
			return None()
		})
		p := startSidecar(t, s, b.Address, "REQUEST_TIMEOUT=10m")
		p.awaitReady(t)
		before, err := set.Read(p.volume, []string{"PEM"})
		require.NoError(t, err)
		hole.Store(true)
		for range 3 {
			begin := time.Now()
			status, body := p.ask(http.MethodPost, "/renew")
			assert.Equal(t, http.StatusAccepted, status, body)
			longest = max(longest, time.Since(begin))
			for path := range map[string]bool{"/readyz": true, "/livez": true, "/metrics": true} {
				status, body = p.ask(http.MethodGet, path)
				assert.Equal(t, http.StatusOK, status, "%s: %s", path, body)
			}
		}
		require.Eventually(t, func() bool { return b.Met()[fault().Kind] > 0 }, slack, 10*time.Millisecond, "it asks")
		longest = max(longest, p.end(t))
		after, err := set.Read(p.volume, []string{"PEM"})
		assert.NoError(t, err)
		assert.Equal(t, before, after)
	}
	chaos.Record(t, "", fmt.Sprintf("a sidecar that renews where nothing ever comes back (%d ways), with "+
		"REQUEST_TIMEOUT=10m", len(faults)),
		fmt.Sprintf("ready all the time; POST /renew was answered and SIGTERM obeyed within %.2f s; the set stayed",
			longest.Seconds()))
}
