package e2e

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/service"
)

// startProxy serves CONNECT, whatever the name, to one address.
func startProxy(t *testing.T, to string) string {
	t.Helper()
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		server, err := net.Dial("tcp", to)
		if err != nil || r.Method != http.MethodConnect {
			panic(http.ErrAbortHandler)
		}
		defer server.Close()
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
		go func() {
			_, _ = io.Copy(server, conn)
			server.Close()
		}()
		_, _ = io.Copy(conn, server)
	}))
	t.Cleanup(proxy.Close)
	return proxy.Listener.Addr().String()
}

// The ONAP client used no proxy, so whoever migrates into an environment with one has to hear of it; and a proxy that
// ends TLS, with a certificate that is trusted, must not see the private key.
func TestProxyOfTheEnvironment(t *testing.T) {
	for name, row := range map[string]struct {
		auth     tls.ClientAuthType
		code     int
		requests int
		says     string
	}{
		"that passes TLS through": {tls.RequestClientCert, 0, 1, `"msg":"published"`},
		"that ends TLS": {tls.NoClientCert, 6, 0,
			"the server never asked for our client certificate, so nothing was sent to it"},
	} {
		t.Run(name, func(t *testing.T) {
			s := service.Run(t, service.Options{TLS: func(_ *service.Service,
				c *tls.Config) {
				c.ClientAuth = row.auth
			}})
			target := fixture.Must(url.Parse(s.URL))
			proxy := startProxy(t, target.Host)
			run := func(arguments ...string) (string, int) {
				code, out := runs(t, s, filepath.Join(t.TempDir(), "volume"), arguments,
					"HTTPS_PROXY=http://user:swordfish@"+proxy,
					"REQUEST_URL=https://oom-cert-service:8443/v1/certificate/")
				return out, code
			}
			out, code := run()
			assert.Equal(t, row.code, code, out)
			assert.Contains(t, out, row.says)
			assert.Contains(t, out,
				`"msg":"the request goes through the proxy of HTTPS_PROXY, as NO_PROXY does not `+
					`name the host","proxy":"http://`+proxy+`","host":"oom-cert-service:8443"`)
			assert.NotContains(t, out, "swordfish")
			assert.Equal(t, row.requests, s.Requests())
			out, code = run("doctor")
			assert.Equal(t, row.code, code, out)
		})
	}
}
