package certservice

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
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

	"github.com/certfetcher/certfetcher/test/fixture"
)

// complete fills in what a test does not set: its limits are a minute.
func (cfg ServerConfig) complete() ServerConfig {
	for _, d := range []*time.Duration{&cfg.ReadHeaderTimeout, &cfg.RequestTimeout,
		&cfg.IdleTimeout, &cfg.ShutdownTimeout} {
		*d = cmp.Or(*d, time.Minute)
	}
	cfg.Capacity = cmp.Or(cfg.Capacity, NewCapacity(0))
	cfg.Metrics = cmp.Or(cfg.Metrics, NewMetrics(""))
	cfg.Log = cmp.Or(cfg.Log, slog.New(slog.DiscardHandler))
	if cfg.Authenticate == nil {
		cfg.Authenticate = func(*tls.ConnectionState, http.Header) Authentication { return Authentication{} }
	}
	cfg.Strangers = NewStrangers(cfg.Log)
	return cfg
}

// serve runs Serve, or servePlain where no TLS is configured, and returns the address and what ends it.
func serve(t *testing.T, handler http.Handler, cfg ServerConfig) (address string, stop func() error) {
	t.Helper()
	listener := must(net.Listen("tcp", "127.0.0.1:0"))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 2)
	run := servePlain
	if cfg.TLS != nil {
		run = Serve
	}
	go func() { done <- run(ctx, listener, handler, cfg.complete()) }()
	stop = func() error {
		cancel()
		err := <-done
		done <- nil // for the next call
		return err
	}
	t.Cleanup(func() { _ = stop() })
	return listener.Addr().String(), stop
}

// dial connects and sends what is given. Whatever the server does, it must do in ten seconds.
func dial(t *testing.T, address, request string) net.Conn {
	t.Helper()
	conn := must(net.Dial("tcp", address))
	t.Cleanup(func() { conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	_, err := io.WriteString(conn, request)
	require.NoError(t, err)
	return conn
}

const getReady = "GET /ready HTTP/1.1\r\nHost: x\r\n\r\n"

func TestServe_shutdown_finishesRequestsInProgress(t *testing.T) {
	for name, limit := range map[string]time.Duration{"in time": time.Minute, "cut off": time.Millisecond} {
		entered, leave := make(chan struct{}), make(chan struct{})
		address, stop := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			close(entered)
			select {
			case <-leave:
				assert.NoError(t, r.Context().Err())
				_, _ = io.WriteString(w, "done")
			case <-r.Context().Done():
			}
		}), ServerConfig{ShutdownTimeout: limit})
		conn := dial(t, address, getReady)
		<-entered
		ended := make(chan error)
		go func() { ended <- stop() }()
		if name == "cut off" {
			assert.EqualError(t, <-ended, "finishing the requests in progress: context deadline exceeded")
			continue
		}
		eventually(t, func() bool {
			conn, err := net.Dial("tcp", address)
			if err == nil {
				conn.Close()
			}
			return err != nil
		})
		close(leave)
		text, _ := io.ReadAll(conn)
		assert.Contains(t, string(text), "done")
		assert.NoError(t, <-ended)
	}
}

func TestServe_limits_endAConnection(t *testing.T) {
	for name, row := range map[string]struct {
		cfg           ServerConfig
		request, want string
	}{
		"a client that sends no headers": {ServerConfig{ReadHeaderTimeout: 20 * time.Millisecond},
			"GET / HTTP/1.1\r\nCSR: ", ""},
		"an idle connection": {ServerConfig{IdleTimeout: 20 * time.Millisecond}, getReady, "404 Not Found"},
		"headers that are too large": {ServerConfig{},
			"GET / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 3*plainHeaderBytes), "HTTP/1.1 431 "},
	} {
		address, _ := serve(t, http.NotFoundHandler(), row.cfg)
		text, err := io.ReadAll(dial(t, address, row.request))
		assert.NotErrorIs(t, err, os.ErrDeadlineExceeded, name)
		assert.Contains(t, string(text), row.want, name)
	}
}

func TestServe_requestTimeout_endsASlowBodyAndASlowReader(t *testing.T) {
	limits := ServerConfig{ReadHeaderTimeout: 500 * time.Millisecond, RequestTimeout: 10 * time.Millisecond}
	for name, row := range map[string]struct {
		header string
		serve  func(w http.ResponseWriter, r *http.Request) error
	}{
		"a body that does not come": {"Content-Length: 100", func(_ http.ResponseWriter, r *http.Request) error {
			_, err := io.ReadAll(r.Body)
			return err
		}},
		"an answer that is not read": {"X: y", func(w http.ResponseWriter, _ *http.Request) error {
			for {
				if _, err := w.Write(make([]byte, 1<<20)); err != nil {
					return err
				}
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ended := make(chan error, 1)
			handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { ended <- row.serve(w, r) })
			address, _ := serve(t, handler, limits)
			dial(t, address, "GET / HTTP/1.1\r\nHost: x\r\n"+row.header+"\r\n\r\n")
			select {
			case err := <-ended:
				assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
			case <-time.After(10 * time.Second):
				t.Fatal("the handler still waits for the client")
			}
		})
	}
}

func TestServe_listener_closedIsAnError(t *testing.T) {
	listener := must(net.Listen("tcp", "127.0.0.1:0"))
	listener.Close()
	err := Serve(t.Context(), listener, http.NotFoundHandler(), ServerConfig{TLS: &tls.Config{}}.complete())
	assert.ErrorContains(t, err, "serving "+listener.Addr().String()+": ")
}

// api is the handler behind Serve.
type api struct {
	t       *testing.T
	address string
	metrics *Metrics
	log     *lockedBuffer
	tlsCA   *fixture.CA
}

func newAPI(t *testing.T, capacity Capacity) *api {
	t.Helper()
	a := &api{t: t, metrics: NewMetrics(""), log: &lockedBuffer{}, tlsCA: newCA(t, "TLS")}
	log, roots := slog.New(slog.NewJSONHandler(a.log, nil)), poolOf(a.tlsCA.Root)
	handler := NewHandler(HandlerConfig{
		Directory: static{"RA": goldenAuthority(t)}, ClientRoots: func() *x509.CertPool { return roots },
		Metrics: a.metrics, Strangers: NewStrangers(log), Log: log,
	})
	a.address, _ = serve(t, handler, ServerConfig{
		TLS: &tls.Config{Certificates: []tls.Certificate{identity(t, a.tlsCA)},
			ClientAuth: tls.RequestClientCert},
		Authenticate: handler.Authenticate, Capacity: capacity, Metrics: a.metrics, Log: log,
	})
	return a
}

// connect makes a handshake and sends text. Whatever the service does, it must do in ten seconds.
func (a *api) connect(text string, certificates ...tls.Certificate) *tls.Conn {
	a.t.Helper()
	conn := must(tls.Dial("tcp", a.address, &tls.Config{RootCAs: poolOf(a.tlsCA.Root), Certificates: certificates}))
	a.t.Cleanup(func() { conn.Close() })
	require.NoError(a.t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	_, _ = io.WriteString(conn, text)
	return conn
}

// shows waits until a scrape has the text.
func (a *api) shows(text string) {
	a.t.Helper()
	eventually(a.t, func() bool { return strings.Contains(written(a.metrics), text) })
}

// status reads one answer and returns its status.
func status(t *testing.T, conn net.Conn) int {
	t.Helper()
	r := must(http.ReadResponse(bufio.NewReader(conn), nil))
	_, err := io.Copy(io.Discard, r.Body)
	require.NoError(t, err)
	return r.StatusCode
}

func TestServe_withoutACertificate_getsOneAnswer(t *testing.T) {
	a := newAPI(t, Capacity{})
	headers := func(kib int) string {
		line := "X-Filler: " + strings.Repeat("x", 90) + "\r\n"
		return "GET /ready HTTP/1.1\r\nHost: x\r\n" + strings.Repeat(line, kib<<10/len(line)) + "\r\n"
	}
	post := "POST /ready HTTP/1.1\r\nHost: x\r\nContent-Length: 90000\r\n\r\n"
	const unauthorized = `{"errorMessage":"Client certificate is missing or not trusted"}`
	for name, row := range map[string]struct {
		request string
		want    int
		body    string
	}{
		"a request":               {getReady, 401, unauthorized},
		"one after an empty line": {"\r\n" + getReady, 401, unauthorized},
		"HEAD":                    {"HEAD /ready HTTP/1.1\r\nHost: x\r\n\r\n", 401, ""},
		"two at once":             {getReady + getReady, 401, unauthorized},
		"HTTP/1.0":                {"GET /ready HTTP/1.0\r\n\r\n", 401, unauthorized},
		"lines without CR":        {"GET /ready HTTP/1.1\nHost: x\n\n", 401, unauthorized},
		"with a body":             {post + strings.Repeat("x", 90000), 401, unauthorized},
		"60 KiB of headers":       {headers(60), 401, unauthorized},
		"66 KiB of headers":       {headers(66), 431, "Request Header Fields Too Large"},
		"200 KiB of headers":      {headers(200), 431, "Request Header Fields Too Large"},
		"a long line": {"GET /" + strings.Repeat("x", 5000) + " HTTP/1.1\r\n\r\n", 414,
			"Request URI Too Long"},
		"nonsense":                 {"nonsense\r\n\r\n", 400, "Bad Request"},
		"the beginning of HTTP/2":  {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "HTTP Version Not Supported"},
		"a line that ends another": {"GET /ready HTTP/1.1\r X: y\r\n\r\n", 400, "Bad Request"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			buffered := bufio.NewReader(a.connect(row.request))
			method, _, _ := strings.Cut(row.request, " ")
			r := must(http.ReadResponse(buffered, &http.Request{Method: method}))
			body := must(io.ReadAll(r.Body))

			assert.Equal(t, row.want, r.StatusCode)
			text := string(body)
			if row.body == unauthorized {
				text = withoutID(t, r, body)
			}
			assert.Equal(t, row.body, text)
			assert.True(t, r.Close)
			rest, err := io.ReadAll(buffered)
			assert.NoError(t, err, "closed in order")
			assert.Empty(t, string(rest))
		})
	}
}

func TestServe_withAnUntrustedCertificate_isAnsweredAndNamedInTheLog(t *testing.T) {
	a := newAPI(t, Capacity{})
	assert.Equal(t, 401, status(t, a.connect(getReady, identity(t, newCA(t, "Stranger")))))
	eventually(t, func() bool { return a.log.has(`"client":{"subject":`) })
	assert.True(t, a.log.has("client certificate is not trusted: "))
}

func TestServe_handshakesThatFail_areCountedByReason(t *testing.T) {
	a := newAPI(t, Capacity{})
	conn := dial(t, a.address, "")
	for range 8 { // records of one ClientHello of 16 MB
		_, _ = conn.Write(append([]byte("\x16\x03\x01\x40\x00\x01\xff\xff\xff"), make([]byte, 16<<10-4)...))
	}
	_, err := io.ReadAll(conn)
	assert.NotErrorIs(t, err, os.ErrDeadlineExceeded)
	a.shows(`certservice_handshake_failures_total{reason="`)

	text := must(io.ReadAll(dial(t, a.address, getReady)))
	assert.Equal(t, "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n", string(text))
	a.shows(`certservice_handshake_failures_total{reason="not_tls"} 1`)
}

// The share of clients without a certificate is full of connections that do nothing.
func TestServe_unverified_makesRoomAndLeavesTheOthersAlone(t *testing.T) {
	a := newAPI(t, Capacity{verified: 4, unverified: 4, verifiedBytes: 1 << 20, waiting: 1 << 20})
	kept := a.connect(getReady, identity(t, a.tlsCA))
	require.Equal(t, 200, status(t, kept))
	for range 20 {
		dial(t, a.address, "")
		a.connect("GET / HTTP/1.1\r\nHost: x\r\n")
	}
	assert.Equal(t, 401, status(t, a.connect(getReady)))
	assert.Equal(t, 200, status(t, a.connect(getReady, identity(t, a.tlsCA))))
	_, err := io.WriteString(kept, getReady)
	require.NoError(t, err)
	assert.Equal(t, 200, status(t, kept))
	assert.NotContains(t, written(a.metrics),
		`certservice_connections_closed_total{clients="unverified",reason="connections"} 0`)
	a.shows(`certservice_connections_closed_total{clients="verified",reason="connections"} 0`)
}

func TestServe_verified_closesIdleConnectionsFirst(t *testing.T) {
	a := newAPI(t, Capacity{verified: 2, unverified: 4, verifiedBytes: 1 << 20, waiting: 1 << 20})
	certificate := identity(t, a.tlsCA)
	sending := a.connect("GET /ready HTTP/1.1\r\n", certificate)
	a.shows(`{clients="verified",state="busy"} 1`)
	idle := a.connect(getReady, certificate)
	require.Equal(t, 200, status(t, idle))
	a.shows(`{clients="verified",state="idle"} 1`)

	assert.Equal(t, 200, status(t, a.connect(getReady, certificate)))
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
		a.connect("GET /ready HTTP/1.1\r\n"+headers.String(), certificate)
	}
	const none = `certservice_connections_closed_total{clients="verified",reason="bytes"} 0`
	eventually(t, func() bool { return !strings.Contains(written(a.metrics), none) })
	assert.Equal(t, 200, status(t, a.connect(getReady, identity(t, a.tlsCA))))
}

func TestServePlain_isNotFilledByConnectionsThatDoNothing(t *testing.T) {
	m := NewMetrics("")
	address, _ := serve(t, http.NotFoundHandler(), ServerConfig{Metrics: m})
	for range 3 * plainConnections {
		dial(t, address, "GET / HTTP/1.1\r\n")
	}
	assert.Equal(t, 404, status(t, dial(t, address, getReady)))
	assert.NotContains(t, written(m), `certservice_connections_closed_total{clients="plain",reason="connections"} 0`)
}

func TestStrangers_logsAFewLinesAMinuteAndTheNumbersOfTheRest(t *testing.T) {
	var log lockedBuffer
	s := NewStrangers(slog.New(slog.NewJSONHandler(&log, nil)))
	for i := range 20 {
		s.info(strangerHandshake, fmt.Sprintf("192.0.2.%d:1000", i%10), "TLS handshake failed")
	}
	s.info(strangerOther, "", "other")
	assert.Len(t, log.lines(t), linesPerMinute+1)
	s.Summarise()
	s.Summarise() // nothing new, no summary
	got := log.lines(t)
	require.Len(t, got, linesPerMinute+2)
	delete(got[linesPerMinute+1], "time")
	assert.Equal(t, map[string]any{
		"level": "INFO", "msg": "further events of clients without a trusted certificate, not logged one by one",
		"requests": 0.0, "handshakes": 15.0, "connections": 0.0, "others": 0.0, "addresses": 10.0,
	}, got[linesPerMinute+1])

	s.minute = 20 * time.Millisecond
	for range 7 {
		s.info(strangerHandshake, "192.0.2.1:1000", "TLS handshake failed")
	}
	eventually(t, func() bool { return len(log.lines(t)) == 2*linesPerMinute+3 })
}

// A hostile certificate that makes the verification panic ends its own connection.
func TestServe_panicInTheHandshake_isThatConnectionsOwn(t *testing.T) {
	a, calls := &api{t: t, tlsCA: newCA(t, "TLS"), log: &lockedBuffer{}}, 0
	a.address, _ = serve(t, http.NotFoundHandler(), ServerConfig{
		TLS: &tls.Config{Certificates: []tls.Certificate{identity(t, a.tlsCA)}},
		Log: slog.New(slog.NewJSONHandler(a.log, nil)),
		Authenticate: func(*tls.ConnectionState, http.Header) Authentication {
			if calls++; calls == 1 {
				panic("hostile")
			}
			return Authentication{}
		},
	})
	_, err := io.ReadAll(a.connect(getReady))
	assert.NotErrorIs(t, err, os.ErrDeadlineExceeded)
	assert.Equal(t, 404, status(t, a.connect(getReady)))
	// The connection is closed before the line is written.
	eventually(t, func() bool { return a.log.has("panic while serving a connection") })

	// HTTP/2 is refused also without negotiation, and so are headers beyond the hard limit.
	text, _ := io.ReadAll(a.connect("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"))
	assert.Regexp(t, "^HTTP/1.1 505 ", string(text))
	text, _ = io.ReadAll(a.connect("GET / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", hardHeaderBytes+(8<<10))))
	assert.Contains(t, string(text), "HTTP/1.1 431 ")
}
