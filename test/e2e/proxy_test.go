package e2e

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/service"
)

// startProxy serves CONNECT, whatever the name, to one address.
func startProxy(t *testing.T, to string) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				if request, err := http.ReadRequest(bufio.NewReader(conn)); err != nil || request.Method != http.MethodConnect {
					return
				}
				server, err := net.Dial("tcp", to)
				if err != nil {
					return
				}
				defer server.Close()
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
				go func() {
					_, _ = io.Copy(server, conn)
					server.Close()
				}()
				_, _ = io.Copy(conn, server)
			}()
		}
	}()
	return listener.Addr().String()
}

// The ONAP client used no proxy, so whoever migrates into an environment with one has to hear of it; and a proxy that ends
// TLS, with a certificate that is trusted, must not see the private key.
func TestProxyOfTheEnvironment(t *testing.T) {
	for name, row := range map[string]struct {
		auth     tls.ClientAuthType
		code     int
		requests int
		says     string
	}{
		"that passes TLS through": {tls.RequestClientCert, 0, 1, `"msg":"published"`},
		"that ends TLS":           {tls.NoClientCert, 6, 0, "the server never asked for our client certificate, so nothing was sent to it"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := service.Start(t.TempDir(), service.Options{TLS: func(_ *service.Service, c *tls.Config) { c.ClientAuth = row.auth }})
			require.NoError(t, err)
			t.Cleanup(s.Stop)
			target, err := url.Parse(s.URL)
			require.NoError(t, err)
			proxy := startProxy(t, target.Host)
			run := func(arguments ...string) (string, int) {
				command := exec.Command(filepath.Join(binDir, "certfetcher"), arguments...)
				command.Env = []string{
					"HTTPS_PROXY=http://user:swordfish@" + proxy, "REQUEST_URL=https://oom-cert-service:8443/v1/certificate/", "CA_NAME=" + service.CAName,
					"OUTPUT_PATH=" + filepath.Join(t.TempDir(), "volume"), "COMMON_NAME=app.example.org", "ORGANIZATION=Example", "STATE=Skane", "COUNTRY=SE",
					"KEYSTORE_PATH=" + filepath.Join(s.Dir, "client.pem"), "TRUSTSTORE_PATH=" + filepath.Join(s.Dir, "truststore.pem"), "KEY_ALGORITHM=ECDSA-P256",
				}
				out, _ := command.CombinedOutput()
				return string(out), command.ProcessState.ExitCode()
			}
			out, code := run()
			assert.Equal(t, row.code, code, out)
			assert.Contains(t, out, row.says)
			assert.Contains(t, out, `"msg":"the request goes through the proxy of HTTPS_PROXY, as NO_PROXY does not name the host","proxy":"http://`+proxy+`","host":"oom-cert-service:8443"`)
			assert.NotContains(t, out, "swordfish")
			assert.Equal(t, row.requests, s.Requests())
			out, code = run("doctor")
			assert.Equal(t, row.code, code, out)
		})
	}
}
