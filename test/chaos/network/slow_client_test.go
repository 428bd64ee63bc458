package network

import (
	"crypto/tls"
	"encoding/base64"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/chaos"
	"github.com/certfetcher/certfetcher/test/fixture"
)

// TestSlowClients_holdNothing has many such clients at the same time. Each is got rid of in time, certservice stays
// within the chart's memory, and the others are served.
func TestSlowClients_holdNothing(t *testing.T) {
	const headers, request, idle = time.Second, 2 * time.Second, 2 * time.Second
	s := startStack(t, "", nil, "GOMEMLIMIT=110MiB", "READ_HEADER_TIMEOUT="+headers.String(),
		"REQUEST_TIMEOUT="+request.String(), "IDLE_TIMEOUT="+idle.String())
	askers := newAskers(t, s, 5)
	head := "GET /v1/certificate/" + fixture.CAName + " HTTP/1.1\r\nHost: certservice\r\n" +
		"CSR: " + base64.StdEncoding.EncodeToString(askers[0].request.CSR) + "\r\n" +
		"PK: " + base64.StdEncoding.EncodeToString(askers[0].request.Key) + "\r\n"
	all := readFloods(t, "slow.txt", map[string]string{"HEAD": head, "HALF": head[:len(head)/2],
		"CHUNK":   strings.Repeat("x", 1024),
		"UNKNOWN": strings.Replace(head, fixture.CAName, "UNKNOWN", 1) + "\r\n"})
	each := chaos.Amount(2, 12, 24)
	var clients sync.WaitGroup
	var mu sync.Mutex
	var refused atomic.Int64
	longest := map[string]time.Duration{}
	for _, f := range all {
		for n := range each {
			clients.Go(func() {
				conn, err := tls.Dial("tcp", host(s.URL),
					&tls.Config{Certificates: []tls.Certificate{askers[n%4].identity},
						RootCAs: askers[0].roots})
				if err != nil {
					refused.Add(1) // all of them come at the same time
					return
				}
				defer conn.Close()
				begin := time.Now()
				timeout := time.AfterFunc(3*slack, func() {
					t.Errorf("%s: its connection is still open", f.kind)
					conn.Close()
				})
				_ = f.write(conn)
				timeout.Stop()
				mu.Lock()
				defer mu.Unlock()
				longest[f.kind] = max(longest[f.kind], time.Since(begin))
			})
		}
	}
	served := 0
	var gone atomic.Bool
	go func() { clients.Wait(); gone.Store(true) }()
	for ; served < 10 || !gone.Load(); served++ {
		require.NoError(t, askers[4].enroll(t.Context(), host(s.URL), fixture.CAName, slack, stubborn, nil))
	}
	peak := chaos.Memory(s.CertService.Process.Pid, "VmHWM")
	assert.Less(t, peak, chartLimit, "KiB of resident memory")
	require.Len(t, longest, len(all), "%d of the slow clients were not let in", refused.Load())
	t.Log(longest)
	most := slices.Max(slices.Collect(maps.Values(longest)))
	chaos.Record(t, "", len(all)*each-int(refused.Load()), len(all), headers, request,
		most.Seconds(), served, peak>>10)
}
