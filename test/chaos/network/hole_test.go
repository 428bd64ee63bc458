package network

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/chaos"
)

// deaf returns an address on loopback where no connection is ever made: the queue of its socket is full.
func deaf(t testing.TB) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	t.Cleanup(func() { syscall.Close(fd) })
	require.NoError(t, syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	require.NoError(t, syscall.Listen(fd, 0))
	name, err := syscall.Getsockname(fd)
	require.NoError(t, err)
	address := fmt.Sprintf("127.0.0.1:%d", name.(*syscall.SockaddrInet4).Port)
	for range 100 {
		conn, err := net.DialTimeout("tcp", address, 500*time.Millisecond)
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			return address
		}
		require.NoError(t, err)
		t.Cleanup(func() { conn.Close() })
	}
	t.Fatal("the queue never fills")
	return ""
}

// holes are the ways in which nothing ever comes back.
func holes(t testing.TB, upstream string) map[string]string {
	return map[string]string{
		"no answer to SYN":           deaf(t),
		"accepted and never read":    broken(t, upstream, Hole).Address,
		"nothing comes back":         broken(t, upstream, stalled("downstream", 0)).Address,
		"nothing gets there":         broken(t, upstream, stalled("upstream", 0)).Address,
		"the answer never ends":      broken(t, upstream, stalled("downstream", 2500)).Address, // after the handshake
		"a name that does not exist": "certservice.invalid:8443",
	}
}

func stalled(direction string, after int) func() Fault {
	return func() Fault {
		return Fault{Kind: "stalled", toxics: []toxic{{"stall", direction, map[string]any{"bytes": after}}}}
	}
}

// TestHole_isGivenUpInTime runs certfetcher where nothing ever comes back: it ends when it was configured to, with exit
// code 6 and nothing on the volume. SIGTERM ends it at once, whatever it waits for.
func TestHole_isGivenUpInTime(t *testing.T) {
	s := startStack(t, "", nil)
	var most, mostEnd longest
	all := holes(t, host(s.URL))
	kinds := slices.Sorted(maps.Keys(all))
	concurrent(len(kinds), len(kinds), func(i int) {
		kind, address := kinds[i], all[kinds[i]]
		const timeout, retry = 500 * time.Millisecond, 900 * time.Millisecond
		volume := t.TempDir() + "/volume"
		e := run(t, timeout+retry, fetcher(address, s.Dir, volume, "REQUEST_TIMEOUT="+timeout.String(),
			"RETRY_MAX_ELAPSED="+retry.String(), "RETRY_INITIAL_INTERVAL=100ms"))
		assert.Equal(t, exitConnection, e.Code, "%s: %s", kind, e.Printed())
		most.Add(e.Took)
		e = chaos.Start(t, fetcher(address, s.Dir, volume, "REQUEST_TIMEOUT=1m", "LOG_LEVEL=debug"))
		time.Sleep(time.Second)
		asked := time.Now()
		e.Signal(t, syscall.SIGTERM)
		assert.Equal(t, 99, e.Wait(slack), "%s: %s", kind, e.Printed())
		mostEnd.Add(time.Since(asked))
	})
	chaos.Record(t, "", len(all), most.d.Seconds(), mostEnd.d.Seconds())
}
