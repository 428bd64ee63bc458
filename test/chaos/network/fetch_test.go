package network

import (
	"fmt"
	"net"
	"os"
	"slices"
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

// What a run through a broken network is configured with.
const (
	requestTimeout = 4 * time.Second
	patient        = 20 * time.Second // RETRY_MAX_ELAPSED
	impatient      = time.Second
	share          = 0.3 // of the connections are broken
)

// TestFetch_throughBrokenNetworks runs certfetcher with a third of its connections broken, and as many of certservice's
// to the CA.
func TestFetch_throughBrokenNetworks(t *testing.T) {
	source := random(t)
	forCA := source(-1)
	var mended atomic.Bool
	s, toCA := startWithBroken(t, func() Fault {
		if mended.Load() {
			return None()
		}
		return Some(forCA, share, 3000).Brief()
	})
	runs := chaos.Amount(6, 60, 600)
	var seen, met chaos.Seen // published: the sets before included; at once: failures that were not tried again
	chaos.Together(runs, 8, func(i int) {
		r := source(i)
		toService := broken(t, host(s.URL), func() Fault { return Some(r, share, 4000) })
		defer toService.Close()
		retry, types := patient, []string{"PEM"}
		if i%3 == 2 {
			retry = impatient
		}
		if i%8 == 0 {
			types = []string{"PEM", "P12", "JKS"}
		}
		v := on(t, toService.Address, s.Dir, chaos.Layouts[i%2], types...)
		words := []string{chaos.Force, "RETRY_INITIAL_INTERVAL=100ms", "RETRY_MAX_INTERVAL=1s"}
		old := ""
		if i%4 < 2 { // over a set
			p := v.Start(append(words, "REQUEST_URL="+s.URL)...)
			if p.Wait(patient+slack) == 0 {
				old = v.Set()
				seen.Add("published", 0, 0)
			}
		}
		words = append(words, "REQUEST_TIMEOUT="+requestTimeout.String(), "RETRY_MAX_ELAPSED="+retry.String())
		e := v.Start(words...)
		code := e.Wait(retry + requestTimeout + slack)
		where := fmt.Sprintf("run %d, faults %v, exit code %d after %s: %s",
			i, &toService.Met, code, e.Took, e.Printed())
		assert.Contains(t, []int{0, exitService, exitConnection}, code, where)
		seen.Add(code, e.Took, 0)
		switch {
		case code == 0:
			assert.NotEqual(t, old, v.Set(where), where)
			seen.Add("published", 0, 0)
		case old != "":
			assert.Equal(t, old, v.Set(where), where)
			seen.Add("kept", 0, 0)
		default:
			_, err := set.Read(v.Path, types)
			assert.ErrorIs(t, err, set.ErrNothing, where)
			seen.Add("none", 0, 0)
		}
		if code != 0 && e.Took < retry/2 {
			seen.Add("at once", 0, 0)
			t.Logf("given up at once: %s", where)
		}
		met.Join(&toService.Met)
	})
	require.False(t, t.Failed())
	t.Log(&met, &toCA.Met)

	// The service is as before: with a whole network, the next fetch succeeds.
	certificates := issued(s.DevCA)
	mended.Store(true)
	on(t, host(s.URL), s.Dir, "symlink").Publish()

	connections, brokenOnes := tally(&met)
	connectionsToCA, brokenToCA := tally(&toCA.Met)
	n := seen.Counts
	chaos.Record(t, "", runs, brokenOnes, connections, brokenToCA, connectionsToCA,
		n[0], n[exitService], n[exitConnection], n["kept"], n["none"], n["at once"],
		seen.Longest.Seconds(), certificates, n["published"])
}

// tally counts connections and, of those, the ones that were broken and not only slow.
func tally(met *chaos.Seen) (all, brokenOnes int) {
	met.Lock()
	defer met.Unlock()
	for kind, n := range met.Counts {
		all += n
		if !slices.Contains([]any{"none", "latency", "bandwidth", "slicer"}, kind) {
			brokenOnes += n
		}
	}
	return all, brokenOnes
}

// TestFetch_cutShortOnce half-closes the first connection after each so many bytes of what certfetcher sends, as
// gateways do that give up one side. certservice's HTTP answers what it got of the request; certfetcher has to try
// again.
func TestFetch_cutShortOnce(t *testing.T) {
	s := startStack(t, nil)
	runs := chaos.Amount(4, 30, 120)
	var seen chaos.Seen
	chaos.Together(runs, 4, func(i int) {
		first := true
		at := map[string]any{"bytes": 4400 * i / runs} // with its certificate and the request, it sends a little more
		b := broken(t, host(s.URL), func() Fault {
			if !first {
				return None()
			}
			first = false
			return Fault{Kind: "half-closed", half: true, toxics: []toxic{{"limit_data", "upstream", at}}}
		})
		defer b.Close()
		v := on(t, b.Address, s.Dir, "symlink")
		e := v.Start("RETRY_INITIAL_INTERVAL=50ms", "REQUEST_TIMEOUT=10s")
		assert.Zero(t, e.Wait(patient+slack), "%v: %s", at, e.Printed())
		seen.Add(0, e.Took, 0)
	})
	chaos.Record(t, "", runs, seen.Longest.Seconds())
}

// deaf returns an address on loopback where no connection is ever made: the queue of its socket is full.
func deaf(t testing.TB) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { listener.Close() })
	socket := fixture.Must(listener.(*net.TCPListener).SyscallConn())
	require.NoError(t, socket.Control(func(fd uintptr) { err = syscall.Listen(int(fd), 0) }))
	require.NoError(t, err)
	for {
		conn, err := net.DialTimeout("tcp", listener.Addr().String(), 500*time.Millisecond)
		if os.IsTimeout(err) {
			return listener.Addr().String()
		}
		require.NoError(t, err)
		t.Cleanup(func() { conn.Close() })
	}
}

// holes are connections to a server from which nothing ever comes back.
var holes = []Fault{
	Hole(),                      // accepted and never read
	stalled("downstream", 0),    // nothing comes back
	stalled("upstream", 0),      // nothing gets there
	stalled("downstream", 2500), // after the handshake: the answer never ends
}

// TestHole_isGivenUpInTime runs certfetcher where nothing ever comes back: it ends when it was configured to, with exit
// code 6 and nothing on the volume. SIGTERM ends it at once, whatever it waits for.
func TestHole_isGivenUpInTime(t *testing.T) {
	s := startStack(t, nil)
	var seen, told chaos.Seen
	addresses := []string{deaf(t), "certservice.invalid:8443"} // no answer to SYN, and a name that does not exist
	for _, hole := range holes {
		addresses = append(addresses, broken(t, host(s.URL), func() Fault { return hole }).Address)
	}
	chaos.Together(len(addresses), len(addresses), func(i int) {
		const timeout, retry = 500 * time.Millisecond, 900 * time.Millisecond
		v := on(t, addresses[i], s.Dir, "symlink")
		e := v.Start("REQUEST_TIMEOUT="+timeout.String(), "RETRY_MAX_ELAPSED="+retry.String(),
			"RETRY_INITIAL_INTERVAL=100ms")
		assert.Equal(t, exitConnection, e.Wait(timeout+retry+slack), "way %d: %s", i, e.Printed())
		seen.Add(exitConnection, e.Took, 0)
		e = v.Start("REQUEST_TIMEOUT=1m", "LOG_LEVEL=debug")
		time.Sleep(time.Second)
		asked := time.Now()
		e.Signal(t, syscall.SIGTERM)
		assert.Equal(t, 99, e.Wait(slack), "way %d: %s", i, e.Printed())
		told.Add(99, time.Since(asked), 0)
	})
	chaos.Record(t, "", len(addresses), seen.Longest.Seconds(), told.Longest.Seconds())
}
