package certservice

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/ca"
)

// api is the handler behind Serve.
type api struct {
	address string
	metrics *Metrics
	log     *lockedBuffer
	tlsCA   *ca.CA
}

func newAPI(t *testing.T, capacity Capacity) *api {
	t.Helper()
	a := &api{metrics: NewMetrics(""), log: &lockedBuffer{}, tlsCA: newCA(t, "TLS")}
	log := slog.New(slog.NewJSONHandler(a.log, nil))
	roots := poolOf(a.tlsCA.Root)
	handler := NewHandler(HandlerConfig{
		Directory: Static{"RA": goldenAuthority(t)}, ClientRoots: func() *x509.CertPool { return roots }, Metrics: a.metrics, Log: log,
	})
	a.address, _ = serve(t, handler, ServerConfig{
		TLS:    &tls.Config{Certificates: []tls.Certificate{identity(t, a.tlsCA)}, ClientAuth: tls.RequestClientCert},
		Verify: handler.Verify, Capacity: capacity, Metrics: a.metrics, Log: log,
	})
	return a
}

// connect makes a handshake and sends text. Whatever the service does, it must do in ten seconds.
func (a *api) connect(t *testing.T, text string, certificates ...tls.Certificate) *tls.Conn {
	t.Helper()
	conn, err := tls.Dial("tcp", a.address, &tls.Config{RootCAs: poolOf(a.tlsCA.Root), Certificates: certificates})
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	_, _ = io.WriteString(conn, text)
	return conn
}

// status reads one answer and returns its status.
func status(t *testing.T, conn net.Conn) int {
	t.Helper()
	r, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	_, err = io.Copy(io.Discard, r.Body)
	require.NoError(t, err)
	return r.StatusCode
}

const getReady = "GET /ready HTTP/1.1\r\nHost: x\r\n\r\n"

func TestServe_withoutACertificate_getsOneAnswer(t *testing.T) {
	a := newAPI(t, Capacity{})
	filler := func(n int) string { return strings.Repeat("X-Filler: "+strings.Repeat("x", 90)+"\r\n", n/102) }
	for name, row := range map[string]struct {
		request string
		want    int
		body    string
	}{
		"a request":                {getReady, 401, `{"errorMessage":"Client certificate is missing or not trusted"}`},
		"one after an empty line":  {"\r\n" + getReady, 401, `{"errorMessage":"Client certificate is missing or not trusted"}`},
		"HEAD":                     {"HEAD /ready HTTP/1.1\r\nHost: x\r\n\r\n", 401, ""},
		"two at once":              {getReady + getReady, 401, `{"errorMessage":"Client certificate is missing or not trusted"}`},
		"HTTP/1.0":                 {"GET /ready HTTP/1.0\r\n\r\n", 401, `{"errorMessage":"Client certificate is missing or not trusted"}`},
		"lines without CR":         {"GET /ready HTTP/1.1\nHost: x\n\n", 401, `{"errorMessage":"Client certificate is missing or not trusted"}`},
		"with a body":              {"POST /ready HTTP/1.1\r\nHost: x\r\nContent-Length: 90000\r\n\r\n" + strings.Repeat("x", 90000), 401, `{"errorMessage":"Client certificate is missing or not trusted"}`},
		"60 KiB of headers":        {"GET /ready HTTP/1.1\r\nHost: x\r\n" + filler(60<<10) + "\r\n", 401, `{"errorMessage":"Client certificate is missing or not trusted"}`},
		"66 KiB of headers":        {"GET /ready HTTP/1.1\r\nHost: x\r\n" + filler(66<<10) + "\r\n", 431, "Request Header Fields Too Large"},
		"200 KiB of headers":       {"GET /ready HTTP/1.1\r\nHost: x\r\n" + filler(200<<10) + "\r\n", 431, "Request Header Fields Too Large"},
		"a long line":              {"GET /" + strings.Repeat("x", 5000) + " HTTP/1.1\r\nHost: x\r\n\r\n", 414, "Request URI Too Long"},
		"nonsense":                 {"nonsense\r\n\r\n", 400, "Bad Request"},
		"the beginning of HTTP/2":  {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "HTTP Version Not Supported"},
		"a line that ends another": {"GET /ready HTTP/1.1\r X: y\r\n\r\n", 400, "Bad Request"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := a.connect(t, row.request)
			buffered := bufio.NewReader(conn)
			method, _, _ := strings.Cut(row.request, " ")
			r, err := http.ReadResponse(buffered, &http.Request{Method: method})
			require.NoError(t, err)
			body, err := io.ReadAll(r.Body)
			require.NoError(t, err)

			assert.Equal(t, row.want, r.StatusCode)
			assert.Equal(t, row.body, string(body))
			assert.True(t, r.Close)
			rest, err := io.ReadAll(buffered)
			assert.NoError(t, err, "closed in order")
			assert.Empty(t, string(rest))
		})
	}
}

func TestServe_withAnUntrustedCertificate_isAnsweredAndNamedInTheLog(t *testing.T) {
	a := newAPI(t, Capacity{})

	conn := a.connect(t, getReady, identity(t, newCA(t, "Stranger")))

	assert.Equal(t, 401, status(t, conn))
	eventually(t, func() bool { return strings.Contains(string(a.log.bytes()), `"client":{"subject":`) })
	assert.Contains(t, string(a.log.bytes()), "client certificate is not trusted: ")
}

func TestServe_handshake_thatIsTooLargeEnds(t *testing.T) {
	a := newAPI(t, Capacity{})
	conn := dial(t, a.address, "")

	for range 8 { // records of one ClientHello of 16 MB
		_, _ = conn.Write(append([]byte("\x16\x03\x01\x40\x00\x01\xff\xff\xff"), make([]byte, 16<<10-4)...))
	}
	_, err := io.ReadAll(conn)

	assert.False(t, err != nil && strings.Contains(err.Error(), "timeout"), err)
	eventually(t, func() bool {
		return strings.Contains(written(a.metrics), `certservice_handshake_failures_total{reason="`)
	})
}

func TestServe_http_onTheTLSPortIsToldSo(t *testing.T) {
	a := newAPI(t, Capacity{})

	text, err := io.ReadAll(dial(t, a.address, getReady))

	require.NoError(t, err)
	assert.Equal(t, "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n", string(text))
	eventually(t, func() bool {
		return strings.Contains(written(a.metrics), `certservice_handshake_failures_total{reason="not_tls"} 1`)
	})
}

// The share of clients without a certificate is full of connections that do nothing.
func TestServe_unverified_makesRoomAndLeavesTheOthersAlone(t *testing.T) {
	a := newAPI(t, Capacity{verified: 4, unverified: 4, verifiedBytes: 1 << 20, waiting: 1 << 20})
	kept := a.connect(t, getReady, identity(t, a.tlsCA))
	require.Equal(t, 200, status(t, kept))
	for range 20 {
		dial(t, a.address, "")
		a.connect(t, "GET / HTTP/1.1\r\nHost: x\r\n")
	}

	assert.Equal(t, 401, status(t, a.connect(t, getReady)))
	assert.Equal(t, 200, status(t, a.connect(t, getReady, identity(t, a.tlsCA))))
	_, err := io.WriteString(kept, getReady)
	require.NoError(t, err)
	assert.Equal(t, 200, status(t, kept))
	assert.Contains(t, written(a.metrics), `certservice_connections_closed_total{clients="unverified",reason="connections"}`)
	assert.Contains(t, written(a.metrics), `certservice_connections_closed_total{clients="verified",reason="connections"} 0`)
}

func TestServe_verified_closesIdleConnectionsFirst(t *testing.T) {
	a := newAPI(t, Capacity{verified: 2, unverified: 4, verifiedBytes: 1 << 20, waiting: 1 << 20})
	certificate := identity(t, a.tlsCA)
	sending := a.connect(t, "GET /ready HTTP/1.1\r\n", certificate)
	eventually(t, func() bool { return strings.Contains(written(a.metrics), `{clients="verified",state="busy"} 1`) })
	idle := a.connect(t, getReady, certificate)
	require.Equal(t, 200, status(t, idle))
	eventually(t, func() bool { return strings.Contains(written(a.metrics), `{clients="verified",state="idle"} 1`) })

	assert.Equal(t, 200, status(t, a.connect(t, getReady, certificate)))

	_, err := io.ReadAll(idle)
	assert.NotErrorIs(t, err, os.ErrDeadlineExceeded)
	_, err = io.WriteString(sending, "Host: x\r\n\r\n")
	require.NoError(t, err)
	assert.Equal(t, 200, status(t, sending))
}

// Many short headers take several times their length.
func TestServe_verified_requestsThatWaitTakeBoundedMemory(t *testing.T) {
	a := newAPI(t, Capacity{verified: 64, unverified: 16, verifiedBytes: 2 << 20, waiting: 1 << 20})
	certificate := identity(t, a.tlsCA)
	var headers strings.Builder
	for i := 0; headers.Len() < 60<<10; i++ {
		fmt.Fprintf(&headers, "%x:\r\n", i)
	}
	for range 6 {
		a.connect(t, "GET /ready HTTP/1.1\r\n"+headers.String(), certificate)
	}
	eventually(t, func() bool {
		return !strings.Contains(written(a.metrics), `certservice_connections_closed_total{clients="verified",reason="bytes"} 0`)
	})

	assert.Equal(t, 200, status(t, a.connect(t, getReady, identity(t, a.tlsCA))))
}

func TestServePlain_isNotFilledByConnectionsThatDoNothing(t *testing.T) {
	m := NewMetrics("")
	address, _ := serve(t, http.NotFoundHandler(), ServerConfig{Metrics: m})
	for range 3 * plainConnections {
		dial(t, address, "GET / HTTP/1.1\r\n")
	}

	assert.Equal(t, 404, status(t, dial(t, address, getReady)))
	assert.NotContains(t, written(m), `certservice_connections_closed_total{clients="plain",reason="connections"} 0`)
	text, _ := io.ReadAll(dial(t, address, "GET / HTTP/1.1\r\nHost: x\r\nX: "+strings.Repeat("x", 3*plainHeaderBytes)))
	assert.Contains(t, string(text), "HTTP/1.1 431 ")
}

func TestStrangers_logsAFewLinesAMinuteAndTheNumbersOfTheRest(t *testing.T) {
	var log lockedBuffer
	s := NewStrangers(slog.New(slog.NewJSONHandler(&log, nil)))
	lines := func() (all []map[string]any) {
		for line := range strings.Lines(string(log.bytes())) {
			var fields map[string]any
			require.NoError(t, json.Unmarshal([]byte(line), &fields))
			all = append(all, fields)
		}
		return all
	}

	for i := range 20 {
		s.info(strangerHandshake, fmt.Sprintf("192.0.2.%d:1000", i%10), "TLS handshake failed")
	}
	s.info(strangerOther, "", "other")
	assert.Len(t, lines(), linesPerMinute+1)
	s.Summarise()

	got := lines()
	require.Len(t, got, linesPerMinute+2)
	delete(got[linesPerMinute+1], "time")
	assert.Equal(t, map[string]any{
		"level": "INFO", "msg": "not logged one by one: clients without a trusted certificate",
		"requests": 0.0, "handshakes": 15.0, "connections": 0.0, "others": 0.0, "addresses": 10.0,
	}, got[linesPerMinute+1])
	s.Summarise()
	assert.Len(t, lines(), linesPerMinute+2, "nothing new, no summary")

	s.minute = 20 * time.Millisecond
	for range 7 {
		s.info(strangerHandshake, "192.0.2.1:1000", "TLS handshake failed")
	}
	eventually(t, func() bool { return len(lines()) == 2*linesPerMinute+3 })
}

// A hostile certificate that makes the verification panic ends its own connection.
func TestServe_panicInTheHandshake_isThatConnectionsOwn(t *testing.T) {
	tlsCA, log, calls := newCA(t, "TLS"), &lockedBuffer{}, 0
	address, _ := serve(t, http.NotFoundHandler(), ServerConfig{
		TLS: &tls.Config{Certificates: []tls.Certificate{identity(t, tlsCA)}},
		Log: slog.New(slog.NewJSONHandler(log, nil)),
		Verify: func(*tls.ConnectionState) string {
			if calls++; calls == 1 {
				panic("hostile")
			}
			return ""
		},
	})
	a := &api{address: address, tlsCA: tlsCA}

	_, err := io.ReadAll(a.connect(t, getReady))
	assert.NotErrorIs(t, err, os.ErrDeadlineExceeded)

	assert.Equal(t, 404, status(t, a.connect(t, getReady)))
	// The connection is closed before the line is written.
	eventually(t, func() bool { return strings.Contains(string(log.bytes()), "panic while serving a connection") })
}
