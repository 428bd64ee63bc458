package certservice

import (
	"context"
	"crypto/tls"
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
)

// serve runs Serve, or ServePlain where no TLS is configured, its missing durations filled in, and returns the address and
// what ends it.
func serve(t *testing.T, handler http.Handler, cfg ServerConfig) (address string, stop func() error) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	for _, d := range []*time.Duration{&cfg.ReadHeaderTimeout, &cfg.RequestTimeout, &cfg.IdleTimeout, &cfg.ShutdownTimeout} {
		if *d == 0 {
			*d = time.Minute
		}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	run := ServePlain
	if cfg.TLS != nil {
		run = Serve
	}
	go func() { done <- run(ctx, listener, handler, cfg) }()
	stopped := false
	stop = func() error {
		stopped = true
		cancel()
		return <-done
	}
	t.Cleanup(func() {
		if !stopped {
			_ = stop()
		}
	})
	return listener.Addr().String(), stop
}

func TestServe_shutdown_finishesWhatIsInFlight(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	address, stop := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(entered)
		<-leave
		assert.NoError(t, r.Context().Err())
		_, _ = io.WriteString(w, "done")
	}), ServerConfig{})
	answer := make(chan string)
	go func() {
		r, err := http.Get("http://" + address)
		if !assert.NoError(t, err) {
			close(answer)
			return
		}
		defer r.Body.Close()
		text, _ := io.ReadAll(r.Body)
		answer <- string(text)
	}()
	<-entered

	ended := make(chan error)
	go func() { ended <- stop() }()
	eventually(t, func() bool {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	close(leave)

	assert.Equal(t, "done", <-answer)
	assert.NoError(t, <-ended)
}

func TestServe_shutdown_cutsOffWhatTakesTooLong(t *testing.T) {
	entered := make(chan struct{})
	address, stop := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(entered)
		<-r.Context().Done()
	}), ServerConfig{ShutdownTimeout: time.Millisecond})
	go func() {
		r, err := http.Get("http://" + address)
		if err == nil {
			r.Body.Close()
		}
	}()
	<-entered

	assert.EqualError(t, stop(), "finishing the requests in flight: context deadline exceeded")
}

// dial connects and sends what is given. Whatever the server should do, it must do in ten seconds, where its other
// limits in these tests are a minute.
func dial(t *testing.T, address, request string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	_, err = io.WriteString(conn, request)
	require.NoError(t, err)
	return conn
}

func TestServe_readHeaderTimeout_endsASlowClient(t *testing.T) {
	address, _ := serve(t, http.NotFoundHandler(), ServerConfig{ReadHeaderTimeout: 20 * time.Millisecond})

	_, err := io.ReadAll(dial(t, address, "GET / HTTP/1.1\r\nCSR: "))

	assert.NoError(t, err, "the server closes the connection")
}

func TestServe_idleTimeout_endsAnIdleConnection(t *testing.T) {
	address, _ := serve(t, http.NotFoundHandler(), ServerConfig{IdleTimeout: 20 * time.Millisecond})

	text, err := io.ReadAll(dial(t, address, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"))

	assert.NoError(t, err)
	assert.Contains(t, string(text), "404 Not Found")
}

func TestServe_requestTimeout_endsASlowBodyAndASlowReader(t *testing.T) {
	limits := ServerConfig{ReadHeaderTimeout: 500 * time.Millisecond, RequestTimeout: 10 * time.Millisecond}
	for name, row := range map[string]struct {
		request string
		serve   func(w http.ResponseWriter, r *http.Request) error
	}{
		"a body that does not come": {"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n", func(_ http.ResponseWriter, r *http.Request) error {
			_, err := io.ReadAll(r.Body)
			return err
		}},
		"an answer that nobody reads": {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", func(w http.ResponseWriter, _ *http.Request) error {
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
			address, _ := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { ended <- row.serve(w, r) }), limits)
			dial(t, address, row.request)

			select {
			case err := <-ended:
				assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
			case <-time.After(10 * time.Second):
				t.Fatal("the handler still waits for the client")
			}
		})
	}
}

func TestServe_headers_beyondTheHardLimitDoNotReachTheHandler(t *testing.T) {
	address, _ := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the handler was called") }), ServerConfig{})

	conn := dial(t, address, "GET / HTTP/1.1\r\nHost: x\r\nX-Filler: "+strings.Repeat("x", hardHeaderBytes+(8<<10)))
	text, _ := io.ReadAll(conn) // it ends in a reset, as the server reads no further

	assert.Contains(t, string(text), "HTTP/1.1 431 ")
}

func TestServe_tls_speaksNoHTTP2(t *testing.T) {
	tlsCA := newCA(t, "TLS")
	address, _ := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) }),
		ServerConfig{TLS: &tls.Config{Certificates: []tls.Certificate{identity(t, tlsCA)}, NextProtos: []string{"h2"}}})
	dialTLS := func(protocols ...string) (*tls.Conn, error) {
		return tls.Dial("tcp", address, &tls.Config{RootCAs: poolOf(tlsCA.Root), NextProtos: protocols})
	}

	_, err := dialTLS("h2")
	assert.EqualError(t, err, "remote error: tls: no application protocol")
	for _, offered := range [][]string{{"h2", "http/1.1"}, {"http/1.1"}, nil} {
		conn, err := dialTLS(offered...)
		require.NoError(t, err)
		defer conn.Close()
		if offered != nil {
			assert.Equal(t, "http/1.1", conn.ConnectionState().NegotiatedProtocol)
		}
		require.NoError(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
		_, err = io.WriteString(conn, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
		require.NoError(t, err)
		text, _ := io.ReadAll(conn)
		assert.Regexp(t, "^HTTP/1.1 505 ", string(text), "prior knowledge helps nobody")
	}

	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: poolOf(tlsCA.Root)}, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	r, err := (&http.Client{Transport: transport}).Get("https://" + address)
	require.NoError(t, err)
	text, err := io.ReadAll(r.Body)
	r.Body.Close()
	require.NoError(t, err)
	assert.Equal(t, "HTTP/1.1", string(text))
}

func TestServe_clientAuthHandshake_refusesAsTheONAPServerDoes(t *testing.T) {
	tlsCA := newCA(t, "TLS")
	pool := poolOf(tlsCA.Root)
	address, _ := serve(t, http.NotFoundHandler(), ServerConfig{TLS: &tls.Config{
		Certificates: []tls.Certificate{identity(t, tlsCA)}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool,
	}})
	handshake := func(certificates ...tls.Certificate) error {
		conn, err := tls.Dial("tcp", address, &tls.Config{RootCAs: pool, Certificates: certificates})
		require.NoError(t, err, "TLS 1.3: the client learns of it after its own side of the handshake")
		defer conn.Close()
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(50*time.Millisecond)))
		_, err = conn.Read(make([]byte, 1))
		return err
	}

	assert.EqualError(t, handshake(), "remote error: tls: certificate required")
	assert.EqualError(t, handshake(identity(t, newCA(t, "Stranger"))), "remote error: tls: certificate required",
		"a client does not show a certificate that the server's list of CAs excludes")
	assert.ErrorIs(t, handshake(identity(t, tlsCA)), os.ErrDeadlineExceeded, "the server waits for a request")
}

func TestServe_listener_closedIsAnError(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	listener.Close()

	err = Serve(t.Context(), listener, http.NotFoundHandler(),
		ServerConfig{TLS: &tls.Config{}, ShutdownTimeout: time.Minute, Log: slog.New(slog.DiscardHandler)})

	assert.ErrorContains(t, err, "serving "+listener.Addr().String()+": ")
}
