package client

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

// testProxy tunnels every CONNECT to the address in its target field, or answers with its status.
type testProxy struct {
	mu     sync.Mutex
	target string
	status int
	asked  []string
}

func (p *testProxy) set(target string, status int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target, p.status, p.asked = target, status, nil
}

func (p *testProxy) serve(conn net.Conn) {
	defer conn.Close()
	r, err := http.ReadRequest(bufio.NewReader(conn))
	if err != nil {
		return
	}
	p.mu.Lock()
	target, status := p.target, p.status
	p.asked = append(p.asked, r.Method+" "+r.RequestURI)
	p.mu.Unlock()
	if status != http.StatusOK {
		(&http.Response{StatusCode: status, ProtoMajor: 1, ProtoMinor: 1}).Write(conn)
		return
	}
	to, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer to.Close()
	io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
	go func() {
		io.Copy(to, conn)
		to.Close()
	}()
	io.Copy(conn, to)
}

var environmentProxy testProxy

// The standard library reads the proxy variables once in a process, so they are set before any test. They do
// not apply to loopback addresses, which is what all other tests use.
func TestMain(m *testing.M) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go environmentProxy.serve(conn)
		}
	}()
	for _, name := range []string{"http_proxy", "HTTP_PROXY", "https_proxy", "no_proxy"} {
		os.Unsetenv(name)
	}
	os.Setenv("HTTPS_PROXY", "http://"+l.Addr().String())
	os.Setenv("NO_PROXY", ".invalid,192.0.2.1")
	os.Exit(m.Run())
}

func TestClient_proxy_of_the_environment(t *testing.T) {
	m := newGood(t)
	m.through(m.Listener.Addr().String())
	c := m.client(t)
	c.Connect(t.Context())
	assert.Nil(t, c.ahead.dial, "nothing is set up ahead through a proxy")
	require.NoError(t, enroll(t, c))
	assert.Equal(t, []string{"CONNECT certservice.test:8443"}, environmentProxy.asked)

	// It does not change what is trusted.
	m.cfg.URL = "https://certservice-of-others.test:8443/v1/certificate/"
	assert.ErrorContains(t, enroll(t, m.client(t)), `want "certservice-of-others.test"`)
}

func TestNew_proxy_variable_that_is_no_URL(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://user:p%ss@proxy:3128")
	_, err := New(Config{URL: "https://certservice.test/v1/certificate/", CAName: "RA", TLS: &tls.Config{}})
	assert.EqualError(t, err, "HTTPS_PROXY is not a URL, want http://host:port")
}

func TestClient_proxy_with_TLS_sees_no_client_certificate(t *testing.T) {
	m := newGood(t)
	seen := make(chan int, 1)
	l := fixture.Must(tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: m.TLS.Certificates,
		ClientAuth: tls.RequestClientCert}))
	defer l.Close()
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		tlsConn := conn.(*tls.Conn)
		tlsConn.Handshake()
		seen <- len(tlsConn.ConnectionState().PeerCertificates)
		(&testProxy{target: m.Listener.Addr().String(), status: 200}).serve(conn)
	}()
	c := m.client(t)
	c.proxy = http.ProxyURL(&url.URL{Scheme: "https", Host: l.Addr().String()})
	require.NoError(t, enroll(t, c))
	assert.Zero(t, <-seen)
}

func TestConnect_connectionSetUpAhead(t *testing.T) {
	for is, row := range map[string]struct {
		meanwhile   func(m *mutual, c *Client, d *dialAhead)
		connections int32 // with that of the request
	}{
		"is used":              {func(*mutual, *Client, *dialAhead) {}, 1},
		"was closed meanwhile": {func(m *mutual, _ *Client, _ *dialAhead) { m.CloseClientConnections() }, 2},
		"is too old": {func(_ *mutual, _ *Client,
			d *dialAhead) {
			d.at = d.at.Add(-aheadLife - time.Second)
		}, 2},
		"was set up again": {func(_ *mutual, c *Client, d *dialAhead) {
			c.Connect(t.Context())
			requireClosed(t, d.conn)
		}, 2},
		"was not taken": {func(_ *mutual, c *Client, d *dialAhead) {
			c.ahead.drop(d) // as its timer does
			requireClosed(t, d.conn)
			assert.True(t, taken(c))
		}, 2},
		"failed": {func(_ *mutual, c *Client, d *dialAhead) {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			c.Connect(ctx)
			<-c.ahead.dial.done
			require.Error(t, c.ahead.dial.err)
		}, 2},
	} {
		t.Run(is, func(t *testing.T) {
			m := newGood(t)
			c := m.client(t)
			c.Connect(t.Context())
			d := c.ahead.dial
			<-d.done
			row.meanwhile(m, c, d)
			require.NoError(t, enroll(t, c))
			assert.Equal(t, row.connections, m.connections.Load())
			require.NoError(t, enroll(t, c))
			assert.Equal(t, row.connections+1, m.connections.Load(), "each is used once")
		})
	}
}

// requireClosed fails on a connection that is still open.
func requireClosed(t *testing.T, conn net.Conn) {
	t.Helper()
	require.Eventually(t, func() bool {
		return errors.Is(conn.SetReadDeadline(time.Now()), net.ErrClosed)
	}, 10*time.Second, time.Millisecond)
}

func TestConnect_request_waits_for_one_under_way(t *testing.T) {
	release := make(chan struct{})
	m := newMutual(t, answering(200, "answer-200.json"), func(c *tls.Config) {
		c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
			<-release
			return nil, nil
		}
	})
	c := m.client(t)
	c.Connect(t.Context())
	result := make(chan error)
	go func() { result <- enroll(t, c) }()
	require.Eventually(t, func() bool { return c.ahead.take("") == nil && taken(c) }, 5*time.Second, time.Millisecond)
	close(release)
	require.NoError(t, <-result)
	assert.EqualValues(t, 1, m.connections.Load())
}

func taken(c *Client) bool {
	c.ahead.mu.Lock()
	defer c.ahead.mu.Unlock()
	return c.ahead.dial == nil
}

func TestConnect_goes_to_the_port_of_https_by_default(t *testing.T) {
	c := clientOf("192.0.2.1", 0)
	var dialled string
	c.dialer.ControlContext = func(_ context.Context, _, address string, _ syscall.RawConn) error {
		dialled = address
		return syscall.ECONNREFUSED
	}
	c.Connect(t.Context())
	<-c.ahead.dial.done
	assert.Equal(t, "192.0.2.1:443", dialled)
}

func TestConnect_request_that_ends_does_not_wait_for_one_under_way(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	c := clientOf(listen(t, func(net.Conn) { <-release }), 0)
	c.Connect(t.Context())
	d := c.ahead.dial
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	conn, err := c.dialTLS(ctx, "tcp", hostPort(c.enrollURL))
	assert.ErrorIs(t, err, context.Canceled)
	assert.Nil(t, conn)
	<-d.done // given up with the request
}
