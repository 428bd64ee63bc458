package network

import (
	"errors"
	"regexp"
	"strconv"
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
	*chaos.Volume
	address string // of its probes and metrics
}

func startSidecar(t testing.TB, s *fixture.Stack, address string, words ...string) *sidecar {
	t.Helper()
	p := &sidecar{Volume: on(t, address, s.Dir, "symlink"), address: fixture.FreeAddress(t)}
	p.Process = p.Volume.Start(append(words, "MODE=sidecar", "HEALTH_ADDR="+p.address,
		"RETRY_INITIAL_INTERVAL=50ms", "RETRY_MAX_INTERVAL=200ms")...)
	return p
}

func (p *sidecar) ask(method, path string) (status int, body string) {
	return chaos.Send(method, "http://"+p.address+path)
}

// metric adds up the values of the series whose names match.
func (p *sidecar) metric(name string) (sum int64) {
	_, body := p.ask("GET", "/metrics")
	series := regexp.MustCompile(`(?m)^` + name + `.* (\d+)$`)
	for _, found := range series.FindAllStringSubmatch(body, -1) {
		sum += fixture.Must(strconv.ParseInt(found[1], 10, 64))
	}
	return sum
}

// TestSidecar_throughBrokenNetworks lets sidecars renew all the time through networks of which a third is broken.
func TestSidecar_throughBrokenNetworks(t *testing.T) {
	source := random(t)
	forCA := source(-1)
	s, _ := startWithBroken(t, func() Fault { return Some(forCA, share, 3000).Brief() })
	sidecars, lasts := chaos.Amount(1, 4, 12), chaos.Amount(time.Second, 15*time.Second, 2*time.Minute)
	var renewals, failures, read atomic.Int64
	chaos.Together(sidecars, sidecars, func(i int) {
		r := source(i)
		toService := broken(t, host(s.URL), func() Fault { return Some(r, share, 4000) })
		p := startSidecar(t, s, toService.Address, "RENEW_AT=1%", "REQUEST_TIMEOUT=1s",
			"RETRY_MAX_ELAPSED=1m", "POD_UID="+strconv.Itoa(i))
		// A careful application reads meanwhile, and the sidecar is ready as long as there is a valid certificate.
		endReading := chaos.Repeat(5*time.Millisecond, func() {
			leaf, err := set.ReadCarefully(p.Path, "symlink")
			if errors.Is(err, set.ErrNothing) || !assert.NoError(t, err, "it does not fit together") {
				return
			}
			if read.Add(1)%20 == 0 && time.Until(leaf.NotAfter) > time.Second {
				status, body := p.ask("GET", "/readyz")
				assert.True(t, status == 200 || time.Now().After(leaf.NotAfter), "%d %s", status, body)
			}
		})
		// Each request is a renewal; without them it renews every 36 s.
		endAsking := chaos.Repeat(200*time.Millisecond, func() { p.ask("POST", "/renew") })
		assert.True(t, p.Await("the next renewal is planned"), p.Printed()) // until then SIGTERM ends it with 99
		time.Sleep(lasts)
		endAsking()
		endReading()
		renewals.Add(p.metric(`certfetcher_renewals_total\{outcome="(?:updated|enrolled)`))
		failures.Add(p.metric("certfetcher_renewal_failures_total"))
		p.End(t)
		assert.Empty(t, set.LeftBehind(p.Path, "symlink", []string{"PEM"}))
	})
	if lasts > 10*time.Second {
		assert.Positive(t, renewals.Load())
		assert.Positive(t, failures.Load())
	}
	chaos.Record(t, "", sidecars, lasts, renewals.Load(), failures.Load(), read.Load())
}

// TestSidecar_inAHole has a sidecar renew where nothing ever comes back. It stays ready, takes requests to renew, and
// ends when it is told to.
func TestSidecar_inAHole(t *testing.T) {
	s := startStack(t, nil)
	var seen chaos.Seen
	ways := holes[:chaos.Amount(1, 4, 4)]
	for _, fault := range ways {
		var hole atomic.Bool
		b := broken(t, host(s.URL), func() Fault {
			if hole.Load() {
				return fault
			}
			return None()
		})
		p := startSidecar(t, s, b.Address, "REQUEST_TIMEOUT=10m")
		require.True(t, p.Await("the next renewal is planned"), p.Printed())
		before := p.Set()
		hole.Store(true)
		for range 3 {
			begin := time.Now()
			status, body := p.ask("POST", "/renew")
			assert.Equal(t, 202, status, body)
			seen.Add(status, time.Since(begin), 0)
			for _, path := range []string{"/readyz", "/livez", "/metrics"} {
				status, body = p.ask("GET", path)
				assert.Equal(t, 200, status, "%s: %s", path, body)
			}
		}
		asks := func() bool { return b.Met.Count(fault.Kind) > 0 }
		require.Eventually(t, asks, slack, 10*time.Millisecond)
		begin := time.Now()
		p.End(t)
		seen.Add("ended", time.Since(begin), 0)
		assert.Equal(t, before, p.Set())
	}
	chaos.Record(t, "", len(ways), seen.Longest.Seconds())
}
