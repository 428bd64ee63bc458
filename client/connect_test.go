package client

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

var environmentProxy = fixture.StartProxy("http", "", http.StatusOK)

// The standard library reads the proxy variables once in a process, so they are set before any test. They do
// not apply to loopback addresses, which is what all other tests use.
func TestMain(m *testing.M) {
	for _, name := range []string{"http_proxy", "HTTP_PROXY", "https_proxy", "no_proxy"} {
		os.Unsetenv(name)
	}
	os.Setenv("HTTPS_PROXY", "http://"+environmentProxy.Addr().String())
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
