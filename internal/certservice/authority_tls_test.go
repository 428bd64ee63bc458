package certservice

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
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

	"github.com/certfetcher/certfetcher/test/ca"
)

// tlsFiles writes a CA's root as ca.pem, and an identity of it as tls.crt and tls.key.
func tlsFiles(t *testing.T, dir string, authority *ca.CA) {
	t.Helper()
	key, chain, err := authority.Identity("certservice")
	require.NoError(t, err)
	certificates := []byte{}
	for _, cert := range chain {
		certificates = append(certificates, pemOf(cert.Raw)...)
	}
	writeFile(t, filepath.Join(dir, "ca.pem"), string(pemOf(authority.Root.Raw)))
	writeFile(t, filepath.Join(dir, "tls.crt"), string(certificates))
	writeFile(t, filepath.Join(dir, "tls.key"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8(t, key)})))
}

// tlsConfiguration has a CMP server that asks for a client certificate behind it, and cmpServers.json with the fields.
func tlsConfiguration(t *testing.T, authority *ca.CA, fields string) (*Configuration, string, *lockedBuffer) {
	t.Helper()
	server := httptest.NewUnstartedServer(newCMPServer(t))
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{identity(t, authority)}, ClientCAs: poolOf(authority.Root),
		ClientAuth: tls.RequireAndVerifyClientCert}
	server.StartTLS()
	t.Cleanup(server.Close)
	dir := t.TempDir()
	tlsFiles(t, dir, authority)
	path := filepath.Join(dir, "cmpServers.json")
	writeFile(t, path, fileOf(`{"caName": "RA", "url": "`+server.URL+`", "issuerDN": "CN=peer",
		"authentication": {"iak": "`+testIAK+`", "rv": "`+testRV+`"}`+fields+`}`))
	log := &lockedBuffer{}
	logger := slog.New(slog.NewJSONHandler(log, nil))
	return NewConfiguration(path, CMPBuilder(CMPOptions{Log: logger}), nil, logger), dir, log
}

const tlsFields = `, "tlsTrust": "ca.pem", "tlsIdentity": {"certificate": "tls.crt", "key": "tls.key"}`

func TestCMPAuthority_https_trustsAndShowsWhatIsConfigured(t *testing.T) {
	c, _, _ := tlsConfiguration(t, newCA(t, "CMP TLS"), tlsFields)
	require.NoError(t, c.Reload("start"))
	s := newService(t, nil, func(cfg *HandlerConfig) { cfg.Directory = c })

	r := s.get(t, "/v1/certificate/RA", enrollHeader(t))

	assert.Equal(t, http.StatusOK, r.StatusCode, r.text)
}

// Editors, YAML and shells leave PEM files in other forms than openssl writes.
func TestCMPAuthority_https_readsFilesAsTheyAreFound(t *testing.T) {
	c, dir, _ := tlsConfiguration(t, newCA(t, "CMP TLS"), tlsFields+`, "trustAnchors": "ca.pem", "additionalRoots": "ca.pem"`)
	for _, name := range []string{"ca.pem", "tls.crt", "tls.key"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		writeFile(t, filepath.Join(dir, name), "\ufeff  "+strings.ReplaceAll(string(text), "\n", `\n`))
	}
	require.NoError(t, c.Reload("start"))
	s := newService(t, nil, func(cfg *HandlerConfig) { cfg.Directory = c })

	r := s.get(t, "/v1/certificate/RA", enrollHeader(t))

	assert.Equal(t, http.StatusOK, r.StatusCode, r.text)
}

func TestCMPAuthority_https_failureNamesTheField(t *testing.T) {
	const prefix = "Exception occurred during call to cmp client: the CMP server could not be asked: "
	const suffix = "; the log of the CertService has more"
	for name, row := range map[string]struct{ fields, want string }{
		"another CA":  {strings.Replace(tlsFields, "ca.pem", "other.pem", 1), "its TLS certificate is not trusted: check tlsTrust of this CA in cmpServers.json"},
		"no identity": {`, "tlsTrust": "ca.pem"`, "it refuses our TLS client certificate (certificate required): check tlsIdentity of this CA in cmpServers.json"},
	} {
		t.Run(name, func(t *testing.T) {
			c, dir, _ := tlsConfiguration(t, newCA(t, "CMP TLS"), row.fields)
			writeFile(t, filepath.Join(dir, "other.pem"), string(pemOf(newCA(t, "Other").Root.Raw)))
			require.NoError(t, c.Reload("start"))
			s := newService(t, nil, func(cfg *HandlerConfig) { cfg.Directory = c })

			r := s.get(t, "/v1/certificate/RA", enrollHeader(t))

			assert.JSONEq(t, jsonText(t, errorBody{ErrorMessage: prefix + row.want + suffix}), r.text)
			assert.NotContains(t, r.text, "127.0.0.1")
		})
	}
}

// What cert-manager renews must be used without a restart.
func TestConfiguration_watch_seesTLSFilesChange(t *testing.T) {
	authority := newCA(t, "CMP TLS")
	c, dir, _ := tlsConfiguration(t, authority, tlsFields)
	tlsFiles(t, dir, newCA(t, "Other"))
	require.NoError(t, c.Reload("start"))
	a, _ := c.Lookup("RA")
	_, err := a.Enroll(t.Context(), enrollRequest(t))
	require.ErrorContains(t, err, "TLS certificate is not trusted")
	watch(t, c)

	tlsFiles(t, dir, authority)

	eventually(t, func() bool {
		a, _ := c.Lookup("RA")
		_, err := a.Enroll(t.Context(), enrollRequest(t))
		return err == nil
	})
}

func TestHTTPClients_sameSettings_shareConnectionsOverReloads(t *testing.T) {
	clients := newHTTPClients(1)
	one, two := newCA(t, "One").Root, newCA(t, "Two").Root

	of := func(url string, trust ...*x509.Certificate) *http.Client {
		return clients.of(Server{URL: url, TLS: TLS{Trust: trust}})
	}
	first := of("https://ca/a", one)

	assert.Same(t, first, of("https://ca/b", one))
	assert.NotSame(t, first, of("https://ca/a", two))
	assert.NotSame(t, first, of("https://ca/a"))
	assert.NotSame(t, first, of("https://other/a", one))
}

func TestParseServers_expiredTLSIdentity_isWarnedOf(t *testing.T) {
	authority := newCA(t, "CMP TLS")
	authority.Validity = time.Nanosecond
	c, _, log := tlsConfiguration(t, authority, tlsFields)

	require.NoError(t, c.Reload("start"))

	assert.True(t, containsText(log, `cmpv2Servers[0].tlsIdentity: has the certificate \"CN=certservice\", which expired at `))
}

func TestServer_tlsKey_isEncodedNowhere(t *testing.T) {
	dir := t.TempDir()
	tlsFiles(t, dir, newCA(t, "CMP TLS"))
	path := filepath.Join(dir, "cmpServers.json")
	writeFile(t, path, fileOf(`{"caName": "RA", "url": "https://ca", "issuerDN": "CN=peer", "authentication": {"iak": "i", "rv": "r"}`+tlsFields+`}`))

	file, err := LoadServers(path)

	require.NoError(t, err)
	require.NotNil(t, file.Servers[0].TLS.identity)
	encoded := jsonText(t, file.Servers[0])
	assert.Contains(t, encoded, `"Trust"`)
	assert.NotContains(t, encoded, "PrivateKey")
	assert.NotContains(t, encoded, "identity")
}

// The images hold no roots. SSL_CERT_FILE is read once per process, so the test needs one of its own.
func TestParseServers_httpsWithoutTrust_needsTheSystemsRoots(t *testing.T) {
	roots := filepath.Join(t.TempDir(), "roots.pem")
	writeFile(t, roots, string(golden(t, "pem/root-ca.pem")))
	if want, child := os.LookupEnv("CERTSERVICE_TEST_ROOTS"); child {
		file, err := parseServers([]byte(fileOf(entryText("RA", "http://", "https://"))), noFiles)
		if want == "none" {
			assert.EqualError(t, err, "cmpv2Servers[0].tlsTrust: is missing, and this system has no roots to verify the CMP server's "+
				"certificate by, want the path of a PEM file with its CA")
			return
		}
		require.NoError(t, err)
		assert.Empty(t, file.Faults)
		return
	}
	for want, path := range map[string]string{"none": "/nowhere.pem", "some": roots} {
		command := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.count=1")
		command.Env = append(os.Environ(), "CERTSERVICE_TEST_ROOTS="+want, "SSL_CERT_FILE="+path, "SSL_CERT_DIR=/nowhere")
		out, err := command.CombinedOutput()
		assert.NoError(t, err, string(out))
	}
}
