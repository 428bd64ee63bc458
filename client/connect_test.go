package client

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

// testProxy tunnels to its target whatever it is asked for, or answers with another status.
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

func (p *testProxy) seen() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked
}

// listen serves a kind of proxy until the test ends, with TLS the one with certificates.
func (p *testProxy) listen(scheme string, certificates []tls.Certificate) net.Listener {
	l := fixture.Must(net.Listen("tcp", "127.0.0.1:0"))
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			switch scheme {
			case "https": // it asks for a certificate itself, which says nothing about the server behind it
				go p.serve(tls.Server(conn, &tls.Config{Certificates: certificates, ClientAuth: tls.RequestClientCert}))
			case "socks5":
				go p.serveSOCKS(conn)
			default:
				go p.serve(conn)
			}
		}
	}()
	return l
}

func (p *testProxy) serve(conn net.Conn) {
	defer conn.Close()
	r, err := http.ReadRequest(bufio.NewReader(conn))
	if err != nil {
		return
	}
	asked := r.Method + " " + r.RequestURI
	if c, ok := conn.(*tls.Conn); ok {
		asked += fmt.Sprintf(", client certificates %d", len(c.ConnectionState().PeerCertificates))
	}
	p.mu.Lock()
	status := p.status
	p.asked = append(p.asked, asked)
	p.mu.Unlock()
	if status != http.StatusOK {
		(&http.Response{StatusCode: status, ProtoMajor: 1, ProtoMinor: 1}).Write(conn)
		return
	}
	p.tunnel(conn, "HTTP/1.1 200 OK\r\n\r\n")
}

// serveSOCKS takes any request (RFC 1928).
func (p *testProxy) serveSOCKS(conn net.Conn) {
	defer conn.Close()
	head := make([]byte, 2)
	io.ReadFull(conn, head)
	io.CopyN(io.Discard, conn, int64(head[1]))
	conn.Write([]byte{5, 0})
	request := make([]byte, 5)
	io.ReadFull(conn, request)
	io.CopyN(io.Discard, conn, int64(request[4])+2) // a name, and the port
	p.tunnel(conn, "\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
}

func (p *testProxy) tunnel(conn net.Conn, greeting string) {
	p.mu.Lock()
	target := p.target
	p.mu.Unlock()
	to, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer to.Close()
	io.WriteString(conn, greeting)
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
	for _, name := range []string{"http_proxy", "HTTP_PROXY", "https_proxy", "no_proxy"} {
		os.Unsetenv(name)
	}
	os.Setenv("HTTPS_PROXY", "http://"+environmentProxy.listen("http", nil).Addr().String())
	os.Setenv("NO_PROXY", ".invalid,192.0.2.1")
	os.Exit(m.Run())
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
	m := newMutual(t)
	m.TLS.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		<-release
		return nil, nil
	}
	c := m.client()
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
