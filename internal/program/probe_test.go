package program

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

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
		`"8080" is no address of the form host:port`)
}
