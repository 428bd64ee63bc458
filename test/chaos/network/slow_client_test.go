package network

import (
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
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

// slowly are what a client with a trusted certificate may do to keep certservice waiting. Each writes, and what ends it
// is that certservice closes the connection.
func slowly(head string) []flood {
	rest := func(conn io.Writer) error {
		_, err := io.Copy(io.Discard, conn.(io.Reader))
		return err
	}
	text := func(kind, text string) flood {
		return flood{kind, func(w io.Writer) error { return hang(w, text) }}
	}
	whole := head + "\r\n"
	return []flood{
		text("sends nothing", ""),
		text("sends half of its headers", head[:len(head)/2]),
		{"drips its headers", func(w io.Writer) error {
			for i := range len(whole) {
				if _, err := io.WriteString(w, whole[i:i+1]); err != nil {
					return err
				}
				time.Sleep(100 * time.Millisecond)
			}
			return rest(w)
		}},
		text("announces a body and never sends it", head+"Content-Length: 100000\r\n\r\n"),
		text("announces chunks and never sends them", head+"Transfer-Encoding: chunked\r\n\r\n"),
		text("awaits 100 Continue and sends nothing", head+"Content-Length: 100000\r\nExpect: 100-continue\r\n\r\n"),
		{"drips its body", func(w io.Writer) error {
			if _, err := io.WriteString(w, head+"Content-Length: 100000\r\n\r\n"); err != nil {
				return err
			}
			return drip(w, "x")
		}},
		{"sends an endless body", func(w io.Writer) error {
			if _, err := io.WriteString(w, head+"Transfer-Encoding: chunked\r\n\r\n"); err != nil {
				return err
			}
			return endless(w, "400\r\n"+strings.Repeat("x", 1024)+"\r\n")
		}},
		{"sends requests without an end and reads no answer", func(w io.Writer) error {
			return endless(w, strings.Replace(whole, fixture.CAName, "UNKNOWN", 1))
		}},
		{"reads its answer by the byte", func(w io.Writer) error {
			if _, err := io.WriteString(w, whole); err != nil {
				return err
			}
			for one := make([]byte, 1); ; time.Sleep(time.Millisecond) {
				if _, err := w.(io.Reader).Read(one); err != nil {
					return err
				}
			}
		}},
	}
}

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
	all := slowly(head)
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
				done := make(chan struct{})
				go func() {
					defer close(done)
					_ = f.write(conn)
				}()
				select {
				case <-done:
				case <-time.After(3 * slack):
					t.Errorf("%s: its connection is still open", f.kind)
				}
				mu.Lock()
				defer mu.Unlock()
				longest[f.kind] = max(longest[f.kind], time.Since(begin))
			})
		}
	}
	served := 0
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		clients.Wait()
	}()
	for served < 10 || !isClosed(gone) {
		served++
		require.NoError(t, askers[4].enroll(t.Context(), host(s.URL), fixture.CAName, slack, stubborn, nil))
	}
	peak := peakMemory(s.CertService.Process.Pid)
	assert.Less(t, peak, chartLimit, "KiB of resident memory")
	assert.Len(t, longest, len(all), "%d of the slow clients were not let in", refused.Load())
	t.Log(longest)
	most := time.Duration(0)
	for _, took := range longest {
		most = max(most, took)
	}
	chaos.Record(t, "", fmt.Sprintf("%d clients with a trusted certificate that send or read slowly, or never end (%d "+
		"ways), with READ_HEADER_TIMEOUT=%s and REQUEST_TIMEOUT=%s",
		len(all)*each-int(refused.Load()), len(all), headers, request),
		fmt.Sprintf(
			"each was gone after %.1f s; %d requests of another client meanwhile all succeeded; certservice held "+
				"%d MiB at the most",
			most.Seconds(), served, peak>>10))
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
