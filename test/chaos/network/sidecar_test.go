package network

import (
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
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
	*chaos.Process
	volume, address string
}

func startSidecar(t testing.TB, s *fixture.Stack, address string, variables ...string) *sidecar {
	t.Helper()
	p := &sidecar{volume: t.TempDir() + "/volume", address: fixture.FreeAddress(t)}
	p.Process = chaos.Start(t, fetcher(address, s.Dir, p.volume, append([]string{"MODE=sidecar",
		"HEALTH_ADDR=" + p.address, "RETRY_INITIAL_INTERVAL=50ms", "RETRY_MAX_INTERVAL=200ms"}, variables...)...))
	return p
}

// ask returns the status and the body for a path of HEALTH_ADDR; 0 when nobody answers.
func (p *sidecar) ask(method, path string) (int, string) {
	var body []byte
	request, err := http.NewRequest(method, "http://"+p.address+path, nil)
	if err == nil {
		var response *http.Response
		if response, err = (&http.Client{Timeout: slack}).Do(request); err == nil {
			defer response.Body.Close()
			if body, err = io.ReadAll(response.Body); err == nil {
				return response.StatusCode, string(body)
			}
		}
	}
	return 0, err.Error()
}

// metric adds up the values of the series whose names begin so.
func (p *sidecar) metric(prefix string) (sum float64) {
	_, body := p.ask("GET", "/metrics")
	series := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(prefix) + `.* (\S+)$`)
	for _, found := range series.FindAllStringSubmatch(body, -1) {
		value, _ := strconv.ParseFloat(found[1], 64)
		sum += value
	}
	return sum
}

func (p *sidecar) awaitReady(t testing.TB) {
	t.Helper()
	require.Eventually(t, func() bool { status, _ := p.ask("GET", "/readyz"); return status == 200 },
		3*slack, 20*time.Millisecond)
}

// end ends it by SIGTERM and returns how long that took.
func (p *sidecar) end(t testing.TB) time.Duration {
	t.Helper()
	begin := time.Now()
	p.End(t)
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
		leaf, err := set.ReadCarefully(p.volume, "symlink")
		if errors.Is(err, set.ErrNothing) {
			continue
		}
		if !assert.NoError(t, err, "what is published does not fit together") {
			return n
		}
		n++
		if n%20 != 0 || time.Until(leaf.NotAfter) < time.Second {
			continue
		}
		if status, body := p.ask("GET", "/readyz"); status != 200 && time.Until(leaf.NotAfter) > 0 {
			t.Errorf("not ready with a certificate until %s: %d %s", leaf.NotAfter, status, body)
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
				p.ask("POST", "/renew")
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
	chaos.Record(t, "", sidecars, lasts, renewals.Load(), failures.Load(), read.Load())
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
			status, body := p.ask("POST", "/renew")
			assert.Equal(t, 202, status, body)
			longest = max(longest, time.Since(begin))
			for path := range map[string]bool{"/readyz": true, "/livez": true, "/metrics": true} {
				status, body = p.ask("GET", path)
				assert.Equal(t, 200, status, "%s: %s", path, body)
			}
		}
		require.Eventually(t, func() bool { return b.Met()[fault().Kind] > 0 }, slack, 10*time.Millisecond, "it asks")
		longest = max(longest, p.end(t))
		after, err := set.Read(p.volume, []string{"PEM"})
		assert.NoError(t, err)
		assert.Equal(t, before, after)
	}
	chaos.Record(t, "", len(faults), longest.Seconds())
}
