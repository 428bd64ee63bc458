package program

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

// listen has the connections of a listener accepted, and returns them.
func listenTest(t *testing.T, most int, lost func(net.Addr)) (*FairListener, <-chan net.Conn) {
	t.Helper()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { inner.Close() })
	l := ListenFairly(inner, most, lost)
	accepted := make(chan net.Conn, 100)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- conn
		}
	}()
	return l, accepted
}

func dialTest(t *testing.T, l *FairListener, from string) net.Conn {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	conn, err := dialer.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

// closed waits a moment for the end of a connection.
func isClosed(t *testing.T, conn net.Conn, wait time.Duration) bool {
	t.Helper()
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(wait)))
	_, err := conn.Read(make([]byte, 1))
	return err == io.EOF
}

func TestListener_full_closesTheOldestOfTheAddressWithMost(t *testing.T) {
	lost := make(chan net.Addr, 10)
	l, accepted := listenTest(t, 3, func(remote net.Addr) { lost <- remote })
	other := dialTest(t, l, "127.0.0.1")
	<-accepted
	answered := dialTest(t, l, "127.0.0.2")
	l.ConnState(<-accepted, http.StateActive)
	idle := dialTest(t, l, "127.0.0.2")
	<-accepted
	third := dialTest(t, l, "127.0.0.3")
	<-accepted

	assert.True(t, isClosed(t, idle, 10*time.Second))
	assert.Equal(t, idle.LocalAddr().String(), (<-lost).String())
	for _, conn := range []net.Conn{other, answered, third} {
		assert.False(t, isClosed(t, conn, 20*time.Millisecond))
	}
	waiting, active := l.Count()
	assert.Equal(t, []int{2, 1}, []int{waiting, active})
}

func TestListener_closedConnections_makeRoom(t *testing.T) {
	l, accepted := listenTest(t, 2, func(net.Addr) { t.Error("there is room") })
	for range 5 {
		dialTest(t, l, "127.0.0.1")
		dialTest(t, l, "127.0.0.2")
		for range 2 {
			conn := <-accepted
			require.NoError(t, conn.Close())
			_ = conn.Close() // once more changes nothing
		}
	}
	idle, answered := l.Count()
	assert.Zero(t, idle+answered)
	assert.Empty(t, l.of)
}

func isReady(status int) bool { return status == http.StatusOK }

func TestHTTP_statusDecides(t *testing.T) {
	status := http.StatusOK
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		assert.Equal(t, "/readyz", r.URL.Path)
		w.WriteHeader(status)
	}))
	defer server.Close()
	address := server.Listener.Addr().String()
	_, port, err := net.SplitHostPort(address)
	require.NoError(t, err)
	for _, form := range []string{address, ":" + port, "0.0.0.0:" + port} {
		require.NoError(t, Probe(context.Background(), form, "/readyz", isReady), form)
	}
	status = http.StatusServiceUnavailable
	require.EqualError(t, Probe(context.Background(), ":"+port, "/readyz", isReady),
		"http://127.0.0.1:"+port+"/readyz answered 503 Service Unavailable")
}

func TestHTTP_nobodyListens_isAnError(t *testing.T) {
	require.ErrorContains(t, Probe(context.Background(), fixture.FreeAddress(t), "/", isReady), "connection refused")
	require.ErrorContains(t, Probe(context.Background(), "8080", "/", isReady),
		`"8080" is not an address of the form host:port`)
}
