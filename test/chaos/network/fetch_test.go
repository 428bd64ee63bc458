package network

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/chaos"
	"github.com/certfetcher/certfetcher/test/chaos/set"
)

// Exit codes of the README that a broken network may lead to.
const (
	exitService    = 5 // it answered with an error
	exitConnection = 6
)

// What a run through a broken network is configured with.
const (
	requestTimeout = 4 * time.Second
	patient        = 20 * time.Second // RETRY_MAX_ELAPSED
	impatient      = time.Second
)

// concurrent calls do with 0 to n-1, several at a time: broken networks are waited for more than they are worked on.
func concurrent(n, atATime int, do func(i int)) {
	var group sync.WaitGroup
	slots := make(chan struct{}, atATime)
	for i := range n {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			do(i)
		})
	}
	group.Wait()
}

// TestFetch_throughBrokenNetworks runs certfetcher with a third of its connections broken, and as many of certservice's
// to the CA.
func TestFetch_throughBrokenNetworks(t *testing.T) {
	const share = 0.3
	source := random(t)
	forCA := source(-1)
	var mended atomic.Bool
	var toCA *Broken
	s := startStack(t, "", func(address string) string {
		toCA = broken(t, address, func() Fault {
			if mended.Load() {
				return None()
			}
			return Some(forCA, share, 3000).Brief()
		})
		return toCA.Address
	})
	var (
		runs                  = chaos.Amount(6, 60, 600)
		mu                    sync.Mutex
		codes                 = map[int]int{}
		met                   = map[string]int{}
		longest               longest
		published, kept, none int          // published: the sets before included
		atOnce                atomic.Int64 // failures that were not tried again
	)
	concurrent(runs, 8, func(i int) {
		r := source(i)
		toService := broken(t, host(s.URL), func() Fault { return Some(r, share, 4000) })
		defer toService.Close()
		volume := t.TempDir() + "/volume"
		layout, retry, types := "symlink", patient, []string{"PEM"}
		if i%2 == 1 {
			layout = "inplace"
		}
		if i%3 == 2 {
			retry = impatient
		}
		if i%8 == 0 {
			types = []string{"PEM", "P12", "JKS"}
		}
		variables := []string{"OUTPUT_LAYOUT=" + layout, "OUTPUT_TYPE=" + strings.Join(types, ","),
			"FORCE_ENROLL=true", "RETRY_INITIAL_INTERVAL=100ms", "RETRY_MAX_INTERVAL=1s"}
		old := ""
		if i%4 < 2 { // over a set
			if run(t, patient, fetcher(host(s.URL), s.Dir, volume, variables...)).Code == 0 {
				var err error
				old, err = set.Read(volume, types)
				assert.NoError(t, err)
			}
		}
		bound := retry + requestTimeout
		e := run(t, bound, fetcher(toService.Address, s.Dir, volume, append(variables,
			"REQUEST_TIMEOUT="+requestTimeout.String(), "RETRY_MAX_ELAPSED="+retry.String())...))
		where := fmt.Sprintf("run %d, faults %v, exit code %d after %s: %s",
			i, toService.Met(), e.Code, e.Took, e.Printed())
		assert.Contains(t, []int{0, exitService, exitConnection}, e.Code, where)
		serial, err := set.Read(volume, types)
		switch {
		case e.Code != 0 && old == "":
			assert.ErrorIs(t, err, set.ErrNothing, where)
		default:
			assert.NoError(t, err, where)
			assert.Equal(t, e.Code != 0, old == serial, where)
			assert.Empty(t, set.LeftBehind(volume, layout, types), where)
		}
		if e.Code != 0 && e.Took < retry/2 {
			atOnce.Add(1)
			t.Logf("given up at once: %s", where)
		}
		mu.Lock()
		defer mu.Unlock()
		codes[e.Code]++
		if e.Code != 0 && old != "" {
			kept++
		} else if e.Code != 0 {
			none++
		}
		longest.Add(e.Took)
		if old != "" {
			published++
		}
		if e.Code == 0 {
			published++
		}
		for kind, n := range toService.Met() {
			met[kind] += n
		}
	})
	require.False(t, t.Failed())
	t.Log(met, toCA.Met())

	// The service is as before: with a whole network, the next fetch succeeds.
	certificates := issued(s)
	mended.Store(true)
	volume := t.TempDir() + "/volume"
	e := run(t, patient, fetcher(host(s.URL), s.Dir, volume))
	require.Zero(t, e.Code, e.Printed())

	connections, brokenOnes := tally(met)
	connectionsToCA, brokenToCA := tally(toCA.Met())
	chaos.Record(t, "", runs, brokenOnes, connections, brokenToCA, connectionsToCA,
		codes[0], codes[exitService], codes[exitConnection], kept, none, atOnce.Load(),
		longest.d.Seconds(), certificates, published)
}

// tally counts connections and, of those, the ones that were broken and not only slow.
func tally(met map[string]int) (all, brokenOnes int) {
	for kind, n := range met {
		all += n
		if !slices.Contains([]string{"none", "latency", "bandwidth", "slicer"}, kind) {
			brokenOnes += n
		}
	}
	return all, brokenOnes
}

// TestFetch_cutShortOnce half-closes the first connection after each so many bytes of what certfetcher sends, as
// gateways do that give up one side. certservice's HTTP answers what it got of the request; certfetcher has to try
// again.
func TestFetch_cutShortOnce(t *testing.T) {
	s := startStack(t, "", nil)
	runs := chaos.Amount(4, 30, 120)
	var longest longest
	concurrent(runs, 4, func(i int) {
		var first atomic.Bool
		at := 4400 * i / runs // with its certificate and the request, it sends a little more
		b := broken(t, host(s.URL), func() Fault {
			if first.Swap(true) {
				return None()
			}
			return Fault{Kind: "half-closed", half: true,
				toxics: []toxic{{"limit_data", "upstream", map[string]any{"bytes": at}}}}
		})
		defer b.Close()
		volume := t.TempDir() + "/volume"
		e := run(t, patient, fetcher(b.Address, s.Dir, volume, "RETRY_INITIAL_INTERVAL=50ms", "REQUEST_TIMEOUT=10s"))
		assert.Zero(t, e.Code, "after %d bytes: %s", at, e.Printed())
		longest.Add(e.Took)
	})
	chaos.Record(t, "", runs, longest.d.Seconds())
}
