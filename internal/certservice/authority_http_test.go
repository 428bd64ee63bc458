package certservice

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// What one CA's answers may hold is little, as there are many requests at it at the same time.
func TestHTTPClients_readFewHeaders(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X", strings.Repeat("y", 100<<10))
	}))
	t.Cleanup(server.Close)
	_, err := newHTTPClients(1).of(Server{URL: server.URL}).Get(server.URL)
	assert.ErrorContains(t, err, "server response headers exceeded 65536 bytes")
}

func TestHTTPClients_speakNoHTTP2(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) }))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	client := newHTTPClients(1).of(Server{URL: server.URL})
	client.Transport.(*http.Transport).TLSClientConfig.RootCAs = poolOf(server.Certificate())
	response, err := client.Get(server.URL)
	require.NoError(t, err)
	defer response.Body.Close()
	proto, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	assert.Equal(t, "HTTP/1.1", string(proto))
}
