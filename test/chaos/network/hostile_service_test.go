package network

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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
	key, chain, err := transport.Identity("hostile")
	require.NoError(t, err)
	require.NoError(t, fixture.WriteIdentity(dir, key, chain, transport.Root))
	identity, err := tls.LoadX509KeyPair(filepath.Join(dir, "client.pem"), filepath.Join(dir, "client.pem"))
	require.NoError(t, err)
	all := floods("application/json", `{"certificateChain":["`, strings.Repeat("x", 100)+`","`)
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
		volume := filepath.Join(t.TempDir(), "volume")
		e := run(t, retry+timeout, func(ctx context.Context) *exec.Cmd {
			return fetcher(ctx, listener.Addr().String(), dir, volume, "GOMEMLIMIT=48MiB",
				"REQUEST_TIMEOUT="+timeout.String(), "RETRY_MAX_ELAPSED="+retry.String(),
				"RETRY_INITIAL_INTERVAL=100ms")
		})
		t.Logf("%s: exit code %d, %d MiB, %.1f s: %.300s", f.kind, e.code, e.peak>>10,
			e.took.Seconds(), reasonOf(e.log))
		assert.False(t, e.killed, "%s: it hangs", f.kind)
		assert.Contains(t, []int{exitService, exitConnection}, e.code, "%s: %s", f.kind, e.log)
		assert.Less(t, e.peak, initLimit, "%s: KiB of resident memory", f.kind)
		assert.Less(t, len(e.log), 64<<10, "%s: bytes of log", f.kind)
		entries, err := os.ReadDir(volume)
		assert.NoError(t, err)
		for _, entry := range entries {
			assert.Equal(t, "..lock", entry.Name(), f.kind)
		}
		mu.Lock()
		defer mu.Unlock()
		codes[e.code]++
		highest, longest = max(highest, e.peak), max(longest, e.took)
	})
	chaos.Record(t, "", fmt.Sprintf("a trusted server in CertService's place that hangs, drips, redirects, asks for "+
		"absurd waits or floods: %d ways", len(all)),
		fmt.Sprintf("certfetcher held %d MiB at the most and ended within %.1f s, with REQUEST_TIMEOUT=%s and "+
			"RETRY_MAX_ELAPSED=%s; %d times with exit code %d and %d times with %d",
			highest>>10, longest.Seconds(), timeout, retry, codes[exitConnection], exitConnection, codes[exitService],
			exitService))
}

// reasonOf is the reason in the last line of a log.
func reasonOf(log string) string {
	_, reason, _ := strings.Cut(lastLine(log), `"error":`)
	return reason
}
