package certservice

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

// tlsFiles writes a CA's root as ca.pem, and an identity of it as tls.crt and tls.key.
func tlsFiles(t *testing.T, dir string, authority *fixture.CA) {
	t.Helper()
	own := identity(t, authority)
	writeFile(t, filepath.Join(dir, "ca.pem"), pemOf("CERTIFICATE", authority.Root.Raw))
	chain := append(pemOf("CERTIFICATE", own.Certificate[0]), pemOf("CERTIFICATE", own.Certificate[1])...)
	writeFile(t, filepath.Join(dir, "tls.crt"), chain)
	writeFile(t, filepath.Join(dir, "tls.key"), pemOf("PRIVATE KEY", pkcs8(t, own.PrivateKey)))
}

// tlsConfiguration has a CMP server that requires a client certificate, and cmpServers.json with the fields.
func tlsConfiguration(t *testing.T, authority *fixture.CA,
	fields string) (c *Configuration, dir string, log *lockedBuffer) {
	t.Helper()
	server := httptest.NewUnstartedServer(newCMPServer(t))
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{identity(t, authority)}, ClientCAs: poolOf(authority.Root),
		ClientAuth: tls.RequireAndVerifyClientCert}
	server.StartTLS()
	t.Cleanup(server.Close)
	text := strings.NewReplacer("http://ca", server.URL, "CN=ca", "CN=peer", "very-secret-iak",
		testIAK, "very-secret-rv", testRV).
		Replace(entryText("RA"))
	c, path, log := newConfiguration(t, fileOf(strings.TrimSuffix(text, "}")+fields+"}"))
	c.build = CMPBuilder(CMPOptions{Log: c.log})
	dir = filepath.Dir(path)
	tlsFiles(t, dir, authority)
	return c, dir, log
}

const tlsFields = `, "tlsTrust": "ca.pem", "tlsIdentity": {"certificate": "tls.crt", "key": "tls.key"}`

// Editors, YAML and shells leave PEM files in other forms than openssl writes.
func TestCMPAuthority_https_readsFilesAsTheyAreFound(t *testing.T) {
	c, dir, log := tlsConfiguration(t, newCA(t, "CMP TLS"),
		tlsFields+`, "trustAnchors": "ca.pem", "additionalRoots": "ca.pem"`)
	for range 2 {
		require.NoError(t, c.Reload("start"))
		serviceOf(t, c).enroll().is(200)
		for _, name := range []string{"ca.pem", "tls.crt", "tls.key"} {
			text, err := os.ReadFile(filepath.Join(dir, name))
			require.NoError(t, err)
			writeFile(t, filepath.Join(dir, name), []byte("\ufeff  "+strings.ReplaceAll(string(text), "\n", `\n`)))
		}
	}
	assert.False(t, log.has("needs attention"))
}

func TestCMPAuthority_https_failureNamesTheField(t *testing.T) {
	for want, fields := range map[string]string{
		"its TLS certificate is not trusted: check tlsTrust": strings.Replace(tlsFields,
			"ca.pem", "other.pem", 1),
		"it refuses our TLS client certificate (certificate required): check tlsIdentity": `, "tlsTrust": "ca.pem"`,
	} {
		c, dir, _ := tlsConfiguration(t, newCA(t, "CMP TLS"), fields)
		writeFile(t, filepath.Join(dir, "other.pem"), pemOf("CERTIFICATE", newCA(t, "Other").Root.Raw))
		require.NoError(t, c.Reload("start"))
		serviceOf(t, c).enroll().is(500, callFailed+"the CMP server could not be reached: "+want+
			" of this CA in cmpServers.json; the log of the CertService has more")
	}
}

// A certificate that cert-manager renews must be used without a restart.
func TestConfiguration_watch_seesTLSFilesChange(t *testing.T) {
	authority := newCA(t, "CMP TLS")
	c, dir, _ := tlsConfiguration(t, authority, tlsFields)
	tlsFiles(t, dir, newCA(t, "Other"))
	require.NoError(t, c.Reload("start"))
	enroll := func() error {
		a, _, _ := c.Lookup("RA")
		_, err := a.Enroll(t.Context(), enrollRequest(t))
		return err
	}
	require.ErrorContains(t, enroll(), "TLS certificate is not trusted")
	watch(t, c)
	tlsFiles(t, dir, authority)
	eventually(t, func() bool { return enroll() == nil })
}

func TestParseServers_expiredTLSIdentity_isWarnedOf(t *testing.T) {
	authority := newCA(t, "CMP TLS")
	authority.Validity = time.Nanosecond
	c, _, log := tlsConfiguration(t, authority, tlsFields)
	require.NoError(t, c.Reload("start"))
	assert.True(t, log.has(`cmpv2Servers[0].tlsIdentity: has the certificate \"CN=peer\", which expired at `))
}

func TestServer_secrets_areShownNowhere(t *testing.T) {
	c, _, _ := tlsConfiguration(t, newCA(t, "CMP TLS"), tlsFields)
	var server Server
	c.build = func(s Server) (Authority, error) { server = s; return nil, nil }
	require.Empty(t, c.Check())
	require.NotNil(t, server.TLS.identity)

	var log lockedBuffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("text", "server", server, "secret", server.IAK)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("JSON", "server", server, "secret", server.IAK)
	encoded := jsonText(t, server)
	assert.Contains(t, encoded, `"Trust"`)
	assert.NotContains(t, encoded, "PrivateKey")
	assert.NotContains(t, encoded, "identity")
	for _, text := range []string{encoded, log.String()} {
		assert.NotContains(t, text, testIAK)
		assert.Contains(t, text, "*****")
	}
}

// The images hold no roots. SSL_CERT_FILE is read once per process, so the test needs its own.
func TestParseServers_httpsWithoutTrust_needsTheSystemsRoots(t *testing.T) {
	if want, child := os.LookupEnv("CERTSERVICE_TEST_ROOTS"); child {
		text := strings.Replace(entryText("RA"), "http://", "https://", 1)
		_, err := parseServers([]byte(fileOf(text)), noFiles)
		if want == "none" {
			assert.EqualError(t, err,
				"cmpv2Servers[0].tlsTrust: is missing, and this system has no roots to verify the CMP server's "+
					"certificate with, want the path of a PEM file with its CA")
		} else {
			assert.NoError(t, err)
		}
		return
	}
	roots := filepath.Join(t.TempDir(), "roots.pem")
	writeFile(t, roots, golden(t, "pem/root-ca.pem"))
	for want, path := range map[string]string{"none": "/nowhere.pem", "some": roots} {
		command := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.count=1")
		command.Env = append(os.Environ(), "CERTSERVICE_TEST_ROOTS="+want, "SSL_CERT_FILE="+path,
			"SSL_CERT_DIR=/nowhere")
		out, err := command.CombinedOutput()
		assert.NoError(t, err, string(out))
	}
}

func TestHTTPClients_sameSettings_shareConnectionsAcrossReloads(t *testing.T) {
	clients, one, two := newHTTPClients(1), newCA(t, "One").Root, newCA(t, "Two").Root
	of := func(url string, trust ...*x509.Certificate) *http.Client {
		return clients.of(Server{URL: url, TLS: TLS{Trust: trust}})
	}
	first := of("https://ca/a", one)
	assert.Same(t, first, of("https://ca/b", one))
	assert.NotSame(t, first, of("https://ca/a", two))
	assert.NotSame(t, first, of("https://ca/a"))
	assert.NotSame(t, first, of("https://other/a", one))
}

// An answer of one CA may hold little, as there are many requests at the same time; HTTP/2 would hold more.
func TestHTTPClients_areBounded(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/large" {
			w.Header().Set("X", strings.Repeat("y", 100<<10))
		}
		_, _ = io.WriteString(w, r.Proto)
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	client := newHTTPClients(1).of(Server{URL: server.URL, TLS: TLS{Trust: []*x509.Certificate{server.Certificate()}}})
	response, err := client.Get(server.URL)
	require.NoError(t, err)
	defer response.Body.Close()
	proto, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	assert.Equal(t, "HTTP/1.1", string(proto))
	_, err = client.Get(server.URL + "/large")
	assert.ErrorContains(t, err, "server response headers exceeded 65536 bytes")
}
