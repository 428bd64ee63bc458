package main

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

// memory returns a line of /proc/PID/status in KiB, such as VmHWM, the most that was resident.
func (p *process) memory(name string) int {
	p.t.Helper()
	status := must(os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid)))
	_, rest, ok := strings.Cut(string(status), name+":")
	require.True(p.t, ok, name)
	return must(strconv.Atoi(strings.Fields(rest)[0]))
}

// attacker connects from an address of its own.
type attacker struct {
	address string
	dialer  net.Dialer
	config  *tls.Config
	mu      sync.Mutex
	held    []net.Conn
	wait    sync.WaitGroup
}

func newAttacker(t *testing.T, p *process, authority *fixture.CA) *attacker {
	t.Helper()
	a := &attacker{
		address: strings.TrimPrefix(p.https, "https://"),
		config:  clientOf(t, authority, false).Transport.(*http.Transport).TLSClientConfig.Clone(),
		dialer:  net.Dialer{Timeout: 10 * time.Second, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 66)}},
	}
	a.config.ServerName = "127.0.0.1"
	t.Cleanup(func() {
		a.wait.Wait()
		for _, conn := range a.held {
			conn.Close()
		}
	})
	return a
}

// hold makes so many connections at once and sends text over each, over TLS and then beside it. They stay open; where
// the service ends one, that is its right.
func (a *attacker) hold(connections int, overTLS, plain []byte) {
	for range connections {
		a.wait.Go(func() {
			conn, err := a.dialer.Dial("tcp", a.address)
			if err != nil {
				return
			}
			_ = conn.SetDeadline(time.Now().Add(3 * time.Second))
			if overTLS != nil {
				_, _ = tls.Client(conn, a.config).Write(overTLS)
			}
			_, _ = conn.Write(plain)
			a.mu.Lock()
			defer a.mu.Unlock()
			a.held = append(a.held, conn)
		})
	}
}

// latency returns the median and the longest of so many requests, each on a connection of its own.
func latency(t *testing.T, p *process, authority *fixture.CA, certificate bool,
	requests, want int) (median, longest time.Duration) {
	t.Helper()
	client := clientOf(t, authority, certificate)
	client.Timeout = 10 * time.Second
	var took []time.Duration
	for range requests {
		start := time.Now()
		r, err := client.Get(p.https + "/ready")
		// The service may end a handshake whose client stalls for 3 seconds: on a slow machine, ours does.
		for tries := 0; err != nil && time.Since(start) > 3*time.Second && tries < 5; tries++ {
			start = time.Now()
			r, err = client.Get(p.https + "/ready")
		}
		took = append(took, time.Since(start))
		require.NoError(t, err)
		r.Body.Close()
		require.Equal(t, want, r.StatusCode)
		client.CloseIdleConnections()
	}
	slices.Sort(took)
	return took[len(took)/2], took[len(took)-1]
}

// series returns the value of a series.
func series(t *testing.T, metrics, name string) int {
	t.Helper()
	_, rest, ok := strings.Cut(metrics, "\n"+name+" ")
	require.True(t, ok, name)
	value := must(strconv.ParseFloat(strings.Fields(rest)[0], 64))
	return int(value)
}

// manyHeaders is the beginning of a request whose headers take most memory for their bytes.
func manyHeaders(size int) []byte {
	text := bytes.NewBufferString("GET / HTTP/1.1\r\nHost: x\r\n")
	for i := 0; text.Len() < size; i++ {
		fmt.Fprintf(text, "%x:\r\n", i)
	}
	return text.Bytes()
}

func TestCertservice_attack_withoutACertificateTakesNeitherMemoryNorPlaces(t *testing.T) {
	authority := newCA(t)
	env := files(t, authority, goodServers)
	env["GOMEMLIMIT"] = "110MiB" // as in the chart
	p := start(t, env)
	calm, calmest := latency(t, p, authority, true, 20, http.StatusOK)
	a := newAttacker(t, p, authority)

	zeros := make([]byte, 100<<10)
	a.hold(150, manyHeaders(60<<10), nil)                              // big headers that never end
	a.hold(50, append([]byte("GET / HTTP/1.1\r\nX: "), zeros...), nil) // and bigger ones
	a.hold(200, []byte("G"), nil)                                      // nearly idle TLS
	record := append([]byte("\x17\x03\x03\x40\xff"), zeros[:16<<10]...)
	a.hold(100, []byte("G"), record) // all but the end of a record
	clientHello := []byte("\x16\x03\x01\x3f\xff\x01\x00\xff\xfb")
	a.hold(100, nil, append(clientHello, zeros[:16<<10-5]...))       // a quarter of a ClientHello
	a.hold(300, nil, []byte("\x16\x03\x01\x3f\xff\x01\x00\x3f\xfb")) // less of one
	a.hold(400, nil, nil)
	median, longest := latency(t, p, authority, true, 20, http.StatusOK)
	stranger, _ := latency(t, p, authority, false, 20, http.StatusUnauthorized)
	a.wait.Wait()
	after, afterLongest := latency(t, p, authority, true, 20, http.StatusOK)
	strangerAfter, _ := latency(t, p, authority, false, 10, http.StatusUnauthorized)

	_, metrics := p.get(http.DefaultClient, p.url+"/metrics")
	t.Logf("1,300 hostile connections: at most %d KiB resident, %d KiB of them taken by Go; a "+
		"verified client's request took %v (at most %v) before, "+
		"%v (%v) during, %v (%v) after; one without a certificate %v during, %v after",
		p.memory("VmHWM"), series(t, metrics, "go_memstats_sys_bytes")>>10,
		calm, calmest, median, longest, after, afterLongest, stranger, strangerAfter)
	// What Go takes, and seldom gives back, as the race detector has several times of it beside.
	assert.Less(t, series(t, metrics, "go_memstats_sys_bytes"), 80<<20)
	assert.Positive(t, series(t, metrics,
		`certservice_connections_closed_total{clients="unverified",reason="connections"}`))
	assert.NoError(t, p.terminate())
}

func TestCertservice_attack_withoutACertificateDoesNotFillTheLog(t *testing.T) {
	authority := newCA(t)
	p := start(t, files(t, authority, goodServers))
	trusted, stranger := clientOf(t, authority, true), clientOf(t, authority, false)
	const requests = 200
	send := func(url, text string) {
		_, address, _ := strings.Cut(url, "://")
		conn := must(net.Dial("tcp", address))
		_, _ = io.WriteString(conn, text)
		conn.Close()
	}
	for range requests {
		status, _ := p.get(stranger, p.https+"/v1/certificate/RA")
		require.Equal(t, http.StatusUnauthorized, status)
		send(p.https, "")
		send(p.https, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		send(p.url, "nonsense\r\n\r\n")
		send(p.url, "GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n")
		send(p.url, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	}
	for range 50 {
		status, _ := p.get(trusted, p.https+"/nowhere")
		require.Equal(t, http.StatusNotFound, status)
	}
	assert.NoError(t, p.terminate())

	p.mu.Lock()
	defer p.mu.Unlock()
	lines, summaries := map[string]int{}, []map[string]any{}
	for _, line := range p.log {
		key := fmt.Sprint(line["msg"], " ", line["outcome"])
		if lines[key]++; line["addresses"] != nil {
			summaries = append(summaries, line)
		}
	}
	t.Log(lines)
	assert.Equal(t, 5, lines["request unauthorized"])
	assert.Equal(t, 50, lines["request not_found"], "a trusted client's are all there")
	require.Len(t, summaries, 1, "at the end, if no minute was over: %v", lines)
	assert.EqualValues(t, requests-5, summaries[0]["requests"])
	assert.EqualValues(t, 2*requests-5, summaries[0]["handshakes"])
	assert.EqualValues(t, 1, summaries[0]["addresses"])
	assert.Equal(t, "WARN", summaries[0]["level"])
	assert.Less(t, len(p.log), 90)
}
