package network

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/test/chaos"
	"github.com/certfetcher/certfetcher/test/fixture"
)

// What the chart gives certservice, and the examples the init container, in KiB.
const (
	chartLimit = 128 << 10
	initLimit  = 64 << 10
)

// head is the start of an answer of the media type.
func head(mediaType string) string { return "HTTP/1.1 200 OK\r\nContent-Type: " + mediaType + "\r\n" }

// floods are what a hostile server may do whose answers should have the media type. own is the start of a body of that
// type, at which a reader does not stop, and fill something that goes on in it.
func floods(t testing.TB, mediaType, own, fill string) []chaos.Flood {
	t.Helper()
	const megabyte = 1 << 20
	var bomb bytes.Buffer
	zip := gzip.NewWriter(&bomb)
	_, err := zip.Write(make([]byte, 64*megabyte))
	require.NoError(t, err)
	require.NoError(t, zip.Close())
	chunk := func(text string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(text), text) }
	header := func(size int) string { return "X: " + strings.Repeat("y", size) + "\r\n" }
	return chaos.Floods(t, "floods.txt", map[string]string{
		"HEAD": head(mediaType), "OWN": own, "FILL": fill, "OWNCHUNK": chunk(own), "FILLCHUNK": chunk(fill),
		"LARGE": (own + strings.Repeat(fill, megabyte/len(fill)+1))[:megabyte-1], // just what is read in all
		"BOMB":  bomb.String(), "BOMBSIZE": strconv.Itoa(bomb.Len()),
		"HEADER": header(1000), "HEADERS": strings.Repeat(header(1020), 9*1024),
		"BUSY": "HTTP/1.1 503 Service Unavailable\r\n", "EMPTY": "Connection: close\r\nContent-Length: 0\r\n\r\n",
	})
}

// answerWith takes connections, reads a request of each and writes the flood.
func answerWith(listener net.Listener, current func() chaos.Flood) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			if request, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
				_, _ = io.Copy(io.Discard, request.Body)
				_ = current().Write(conn)
			}
		}()
	}
}

// tinyTexts is a whole message just below the largest size, of many small parts: what is read of it takes several times
// as much memory.
func tinyTexts(t testing.TB) chaos.Flood {
	t.Helper()
	texts := make(cmp.PKIFreeText, 340_000)
	for i := range texts {
		texts[i] = "x"
	}
	nobody := cmp.DirectoryName(nil)
	message := cmp.PKIMessage{
		Header: cmp.PKIHeader{PVNO: cmp.PVNO2, Sender: nobody, Recipient: nobody},
		Body: cmp.PKIBody{Type: cmp.BodyError,
			Content: &cmp.ErrorMsgContent{StatusInfo: cmp.Rejection("no"), ErrorDetails: texts}}}
	der := fixture.Must(message.Marshal())
	require.InDelta(t, cmp.MaxMessageSize*95/100, len(der), cmp.MaxMessageSize*5/100)
	return chaos.Flood{Kind: "answers with many tiny texts", How: "close", First: fmt.Sprintf(
		"%sConnection: close\r\nContent-Length: %d\r\n\r\n%s", head(cmp.MediaType), len(der), der)}
}

// TestHostileCA_floods has as many requests at a hostile CA as certservice allows. Each ends in time, certservice stays
// within the chart's memory, and the other CA's requests succeed.
func TestHostileCA_floods(t *testing.T) {
	const timeout = 3 * time.Second // REQUEST_TIMEOUT
	listener := fixture.Must(net.Listen("tcp", "127.0.0.1:0"))
	t.Cleanup(func() { listener.Close() })
	var current atomic.Pointer[chaos.Flood]
	go answerWith(listener, func() chaos.Flood { return *current.Load() })
	s := startStack(t, func(entry chaos.Server) []chaos.Server {
		hostile := maps.Clone(entry)
		hostile["caName"], hostile["url"] = "HOSTILE", "http://"+listener.Addr().String()+"/pkix/"
		return []chaos.Server{entry, hostile}
	}, "REQUEST_TIMEOUT="+timeout.String())
	// A PKIMessage whose outer SEQUENCE claims 2 GiB, and OCTET STRINGs in it.
	all := floods(t, "application/pkixcmp", "\x30\x84\x7f\xff\xff\xff", "\x04\x81\xff"+strings.Repeat("x", 255))
	all = append([]chaos.Flood{tinyTexts(t)}, all...)
	askers := newAskers(t, s, 4, host(s.URL), "HOSTILE", nil, nil)
	other := newAskers(t, s, 1, host(s.URL), fixture.CAName, stubborn, nil)[0]
	pid := s.CertService.Process.Pid
	var sum chaos.Seen
	kinds, asked := 0, 0
	for i, f := range all {
		if !chaos.Amount(i%9 == 7, i%3 == 1 || i == 0, true) {
			continue
		}
		kinds++
		current.Store(&f)
		chaos.Shell(t, "", `echo 5 >"$0"`, fmt.Sprintf("/proc/%d/clear_refs", pid)) // resets the peak
		var seen chaos.Seen
		n := chaos.Amount(128, 160, 160)
		asked += n
		// The other CA has to answer meanwhile.
		endOther := chaos.Repeat(0, func() { assert.NoError(t, other(), f.Kind) })
		chaos.Together(n, n, func(i int) {
			begin := time.Now()
			err := askers[i%len(askers)]()
			if assert.Error(t, err, f.Kind) {
				seen.Add(err.Error(), time.Since(begin), 0)
			}
		})
		endOther()
		peak := chaos.Memory(pid, "VmHWM")
		t.Logf("%s: %d MiB, %v", f.Kind, peak>>10, &seen)
		require.NotZero(t, peak, "certservice has ended: %s", s.CertService.Logged())
		assert.Less(t, peak, chartLimit, "%s: KiB of resident memory", f.Kind)
		assert.Less(t, seen.Longest, timeout+slack, f.Kind)
		sum.Add("", seen.Longest, peak)
	}
	on(t, host(s.URL), s.Dir, "symlink").Publish()
	chaos.Record(t, "", kinds, asked, sum.Peak>>10, timeout, sum.Longest.Seconds())
}

// TestHostileService_floods runs certfetcher against a server with a trusted certificate that hangs, drips or floods.
// It ends in time with the exit code for that, in little memory, and with nothing on the volume.
func TestHostileService_floods(t *testing.T) {
	const timeout, retry = time.Second, 2 * time.Second // REQUEST_TIMEOUT and RETRY_MAX_ELAPSED
	dir := t.TempDir()
	config := chaos.WriteIdentity(t, fixture.Must(fixture.NewCA("Transport")), dir)
	config.ClientAuth = tls.RequestClientCert
	all := floods(t, "application/json", `{"certificateChain":["`, strings.Repeat("x", 100)+`","`)
	var seen chaos.Seen
	chaos.Together(len(all), 4, func(i int) {
		if !chaos.Amount(i%9 == 6, true, true) {
			return
		}
		f := all[i]
		listener, err := tls.Listen("tcp", "127.0.0.1:0", config)
		if !assert.NoError(t, err) {
			return
		}
		defer listener.Close()
		go answerWith(listener, func() chaos.Flood { return f })
		v := on(t, listener.Addr().String(), dir, "symlink")
		e := v.Start("GOMEMLIMIT=48MiB", "RETRY_INITIAL_INTERVAL=100ms",
			"REQUEST_TIMEOUT="+timeout.String(), "RETRY_MAX_ELAPSED="+retry.String())
		code := e.Wait(retry + timeout + slack)
		log := e.Printed()
		t.Logf("%s: exit code %d, %d MiB, %.1f s: %s", f.Kind, code, e.Peak>>10, e.Took.Seconds(), log)
		assert.Contains(t, []int{exitService, exitConnection}, code, "%s: %s", f.Kind, log)
		assert.Less(t, e.Peak, initLimit, "%s: KiB of resident memory", f.Kind)
		assert.Less(t, len(log), 64<<10, "%s: bytes of log", f.Kind)
		entries, err := os.ReadDir(v.Path)
		assert.NoError(t, err)
		for _, entry := range entries {
			assert.Equal(t, "..lock", entry.Name(), f.Kind)
		}
		seen.Add(code, e.Took, e.Peak)
	})
	chaos.Record(t, "", len(all), seen.Peak>>10, seen.Longest.Seconds(), timeout, retry,
		seen.Counts[exitConnection], exitConnection, seen.Counts[exitService], exitService)
}

// TestSlowClients_holdNothing has many such clients at the same time. Each is got rid of in time, certservice stays
// within the chart's memory, and the others are served.
func TestSlowClients_holdNothing(t *testing.T) {
	const headers, request, idle = time.Second, 2 * time.Second, 2 * time.Second
	s := startStack(t, nil, "READ_HEADER_TIMEOUT="+headers.String(),
		"REQUEST_TIMEOUT="+request.String(), "IDLE_TIMEOUT="+idle.String())
	enrolment := chaos.Enrolment(s.URL, "ECDSA-P256").Header
	head := "GET /v1/certificate/" + fixture.CAName + " HTTP/1.1\r\nHost: certservice\r\n" +
		"CSR: " + enrolment["CSR"][0] + "\r\nPK: " + enrolment["PK"][0] + "\r\n"
	all := chaos.Floods(t, "slow.txt", map[string]string{"HEAD": head, "HALF": head[:len(head)/2],
		"CHUNK":   strings.Repeat("x", 1024),
		"UNKNOWN": strings.Replace(head, fixture.CAName, "UNKNOWN", 1) + "\r\n"})
	var clients []*tls.Config
	for range 4 {
		clients = append(clients, chaos.WriteIdentity(t, s.Transport, t.TempDir()))
	}
	each := chaos.Amount(2, 12, 24)
	var seen chaos.Seen // by the kind
	var refused atomic.Int64
	var gone sync.WaitGroup
	for i := range len(all) * each {
		gone.Go(func() {
			f := all[i/each]
			conn, err := tls.Dial("tcp", host(s.URL), clients[i%4])
			if err != nil {
				refused.Add(1) // all of them come at the same time
				return
			}
			defer conn.Close()
			begin := time.Now()
			timeout := time.AfterFunc(3*slack, func() {
				t.Errorf("%s: its connection is still open", f.Kind)
				conn.Close()
			})
			_ = f.Write(conn)
			timeout.Stop()
			seen.Add(f.Kind, time.Since(begin), 0)
		})
	}
	served, other := 0, newAskers(t, s, 1, host(s.URL), fixture.CAName, stubborn, nil)[0]
	end := chaos.Repeat(0, func() { assert.NoError(t, other()); served++ })
	gone.Wait()
	end()
	peak := chaos.Memory(s.CertService.Process.Pid, "VmHWM")
	assert.Less(t, peak, chartLimit, "KiB of resident memory")
	require.Len(t, seen.Counts, len(all), "%d of the slow clients were not let in", refused.Load())
	t.Log(&seen)
	chaos.Record(t, "", len(all)*each-int(refused.Load()), len(all), headers, request,
		seen.Longest.Seconds(), served, peak>>10)
}
