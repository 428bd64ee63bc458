package network

import (
	"crypto/tls"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/chaos"
	"github.com/certfetcher/certfetcher/test/fixture"
)

// initLimit is the memory limit of the init container in the examples, in KiB.
const initLimit = 64 << 10

// TestHostileService_floods runs certfetcher against a server with a trusted certificate that hangs, drips or floods.
// It ends in time with the exit code for that, in little memory, and with nothing on the volume.
func TestHostileService_floods(t *testing.T) {
	const timeout, retry = time.Second, 2 * time.Second // REQUEST_TIMEOUT and RETRY_MAX_ELAPSED
	transport, err := fixture.NewCA("Transport")
	require.NoError(t, err)
	dir := t.TempDir()
	identity := chaos.WriteIdentity(t, transport, dir)
	all := floods(t, "application/json", `{"certificateChain":["`, strings.Repeat("x", 100)+`","`)
	var mu sync.Mutex
	highest, longest, codes := 0, time.Duration(0), map[int]int{}
	concurrent(len(all), 4, func(i int) {
		if !chaos.Amount(i%9 == 6, true, true) {
			return
		}
		f := all[i]
		listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{identity},
			ClientAuth: tls.RequestClientCert})
		if !assert.NoError(t, err) {
			return
		}
		defer listener.Close()
		go answerWith(listener, func() flood { return f })
		volume := t.TempDir() + "/volume"
		e := run(t, retry+timeout, fetcher(listener.Addr().String(), dir, volume, "GOMEMLIMIT=48MiB",
			"REQUEST_TIMEOUT="+timeout.String(), "RETRY_MAX_ELAPSED="+retry.String(), "RETRY_INITIAL_INTERVAL=100ms"))
		log := e.Printed()
		t.Logf("%s: exit code %d, %d MiB, %.1f s: %s", f.kind, e.Code, e.Peak>>10, e.Took.Seconds(), log)
		assert.Contains(t, []int{exitService, exitConnection}, e.Code, "%s: %s", f.kind, log)
		assert.Less(t, e.Peak, initLimit, "%s: KiB of resident memory", f.kind)
		assert.Less(t, len(log), 64<<10, "%s: bytes of log", f.kind)
		entries, err := os.ReadDir(volume)
		assert.NoError(t, err)
		for _, entry := range entries {
			assert.Equal(t, "..lock", entry.Name(), f.kind)
		}
		mu.Lock()
		defer mu.Unlock()
		codes[e.Code]++
		highest, longest = max(highest, e.Peak), max(longest, e.Took)
	})
	chaos.Record(t, "", len(all), highest>>10, longest.Seconds(), timeout, retry,
		codes[exitConnection], exitConnection, codes[exitService], exitService)
}
