package network

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
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
		runs               = chaos.Amount(6, 60, 600)
		mu                 sync.Mutex
		codes              = map[int]int{}
		met                = map[string]int{}
		longest            time.Duration
		published          int          // the sets before included
		atOnce             atomic.Int64 // failures that were not tried again
		kept, fetched, non int
	)
	concurrent(runs, 8, func(i int) {
		r := source(i)
		toService := broken(t, host(s.URL), func() Fault { return Some(r, share, 4000) })
		defer toService.Close()
		volume := filepath.Join(t.TempDir(), "volume")
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
		list := types[0]
		for _, more := range types[1:] {
			list += "," + more
		}
		variables := []string{
			"OUTPUT_LAYOUT=" + layout, "OUTPUT_TYPE=" + list, "FORCE_ENROLL=true", "RETRY_INITIAL_INTERVAL=100ms",
			"RETRY_MAX_INTERVAL=1s",
		}
		old := ""
		if i%4 < 2 { // over a set
			e := run(t, patient, func(ctx context.Context) *exec.Cmd {
				return fetcher(ctx, host(s.URL), s.Dir, volume, variables...)
			})
			if e.code == 0 {
				var err error
				old, err = set.Read(volume, types)
				assert.NoError(t, err)
			}
		}
		bound := retry + requestTimeout
		e := run(t, bound, func(ctx context.Context) *exec.Cmd {
			return fetcher(ctx, toService.Address, s.Dir, volume, append(variables,
				"REQUEST_TIMEOUT="+requestTimeout.String(), "RETRY_MAX_ELAPSED="+retry.String())...)
		})
		where := fmt.Sprintf("run %d, faults %v, exit code %d after %s: %s", i, toService.Met(), e.code, e.took, e.log)
		assert.False(t, e.killed, "it hangs: %s", where)
		assert.Contains(t, []int{0, exitService, exitConnection}, e.code, where)
		serial, err := set.Read(volume, types)
		switch {
		case e.code == 0:
			assert.NoError(t, err, where)
			assert.NotEqual(t, old, serial, where)
			assert.Empty(t, set.LeftBehind(volume, layout, types), where)
		case old == "":
			assert.ErrorIs(t, err, set.ErrNothing, where)
		default:
			assert.NoError(t, err, where)
			assert.Equal(t, old, serial, where)
			assert.Empty(t, set.LeftBehind(volume, layout, types), where)
		}
		if e.code != 0 && e.took < retry/2 {
			atOnce.Add(1)
			t.Logf("given up at once: run %d, faults %v: exit code %d: %s", i, toService.Met(), e.code, lastLine(e.log))
		}
		mu.Lock()
		defer mu.Unlock()
		codes[e.code]++
		switch {
		case e.code == 0:
			fetched++
		case old != "":
			kept++
		default:
			non++
		}
		longest = max(longest, e.took)
		if old != "" {
			published++
		}
		if e.code == 0 {
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
	volume := filepath.Join(t.TempDir(), "volume")
	e := run(t, patient, func(ctx context.Context) *exec.Cmd { return fetcher(ctx, host(s.URL), s.Dir, volume) })
	require.Zero(t, e.code, e.log)

	connections, brokenOnes := tally(met)
	connectionsToCA, brokenToCA := tally(toCA.Met())
	chaos.Record(t, "",
		fmt.Sprintf("%d runs of certfetcher with %d of its %d connections broken, and %d of certservice's %d to "+
			"the CA: reset, closed, half-closed, stalled, with a flipped bit, or never answered; a fifth of them slow",
			runs, brokenOnes, connections, brokenToCA, connectionsToCA),
		fmt.Sprintf(
			"%d ended with a whole matching set, %d with exit code 5 and %d with 6: %d kept the set before, %d "+
				"had none; %d of those were not tried again; "+
				"the longest took %.1f s; the CA issued %d certificates for %d sets",
			codes[0], codes[exitService], codes[exitConnection], kept, non, atOnce.Load(),
			longest.Seconds(), certificates,
			published))
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
	var longest atomic.Int64
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
		volume := filepath.Join(t.TempDir(), "volume")
		e := run(t, patient, func(ctx context.Context) *exec.Cmd {
			return fetcher(ctx, b.Address, s.Dir, volume, "RETRY_INITIAL_INTERVAL=50ms", "REQUEST_TIMEOUT=10s")
		})
		assert.Zero(t, e.code, "after %d bytes: %s", at, e.log)
		assert.False(t, e.killed, "after %d bytes", at)
		longest.Store(max(longest.Load(), int64(e.took)))
	})
	chaos.Record(t, "",
		fmt.Sprintf("the first connection half-closed in what certfetcher sends, at %d different bytes", runs),
		fmt.Sprintf("each run got its certificate by the next try, within %.1f s",
			time.Duration(longest.Load()).Seconds()))
}
