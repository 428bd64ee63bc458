package sidecar

import (
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Everything in the cluster can reach the port of the probes, and the examples give a sidecar 64 MiB.
func TestSidecar_strangersAtThePortOfTheProbes_takeNoMemoryAndNoProbe(t *testing.T) {
	t.Parallel()
	s := startService(t, time.Hour, nil)
	volume := filepath.Join(t.TempDir(), "volume")
	p := run(t, volume, environment(s.URL, s.Dir, volume))
	p.awaitReady()
	address := strings.TrimPrefix(p.url(""), "http://")
	before := p.status("VmRSS")

	// Half of them say nothing, and half begin a request and do not finish it.
	stranger := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9)}, Timeout: patience}
	unfinished := []byte("GET /readyz HTTP/1.1\r\nHost: x\r\nX-Long: " + strings.Repeat("a", 12<<10))
	for i := range 2000 {
		conn, err := stranger.Dial("tcp", address)
		require.NoError(t, err)
		defer conn.Close()
		if i%2 == 1 {
			_, _ = conn.Write(unfinished) // it may be closed already
		}
		if i%100 == 0 {
			status, _ := p.get("/readyz")
			assert.Equal(t, http.StatusOK, status, "a probe has its answer meanwhile")
		}
	}
	after := p.status("VmRSS")
	t.Logf("resident before %d KiB, with 2,000 connections %d KiB", before, after)
	assert.Less(t, after-before, 8<<10)
	assert.Less(t, p.descriptors(), 200)
	p.end()
}
