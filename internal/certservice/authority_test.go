package certservice

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/certfetcher/certfetcher/internal/devca"
	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/test/fixture"
)

const callFailed = "Exception occurred during call to cmp client: "

func enrollRequest(t *testing.T) Request {
	t.Helper()
	r, fault := parseRequest(enrollHeader(t), false, 4096)
	require.Nil(t, fault)
	return r
}

// enroll asks the CA of the configuration.
func enroll(ctx context.Context, t *testing.T, c *Configuration) error {
	t.Helper()
	a, _, ok := c.Lookup("RA")
	require.True(t, ok)
	_, err := a.Enroll(ctx, enrollRequest(t))
	return err
}

func loaded(t *testing.T, c *Configuration) *Configuration {
	t.Helper()
	require.NoError(t, c.Reload("start"))
	return c
}

// again runs the test in a process of its own, with the variables; it reports whether this is not that process.
func again(t *testing.T, variables ...string) bool {
	if os.Getenv("CERTSERVICE_TEST_AGAIN") != "" {
		return false
	}
	command := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.count=1")
	command.Env = append(append(os.Environ(), "CERTSERVICE_TEST_AGAIN=true"), variables...)
	out, err := command.CombinedOutput()
	assert.NoError(t, err, string(out))
	return true
}

// A proxy would see the proofs of possession and could answer instead of the CA; the ONAP server used none either.
func TestCMPBuilder_proxyOfTheEnvironment_isNotUsed(t *testing.T) {
	const proxy = "http://127.0.0.1:1"
	if again(t, "HTTP_PROXY="+proxy, "http_proxy="+proxy, "NO_PROXY=", "no_proxy=") {
		return
	}
	s := newCMPServer(t)
	// Go uses no proxy for a loopback address, and 0.0.0.0 is not one by its number.
	url := strings.Replace(s.url, "127.0.0.1", "0.0.0.0", 1)
	s.service(map[string]any{"url": url}).enroll().is(200)
}

// Addresses are for the log only.
func TestCMPAuthority_serverThatCannotBeReached_isExplained(t *testing.T) {
	url := "http://" + fixture.FreeAddress(t) + "/internal/path"
	s := newCMPServer(t).service(map[string]any{"url": url})
	s.enroll().is(500, callFailed+"the CMP server could not be reached: connection refused; "+
		"the log of the CertService has more")
	assert.Contains(t, s.audit()["error"], url)

	gone, cancel := context.WithCancel(t.Context())
	cancel()
	c, _ := newCMPServer(t).configuration(nil)
	assert.EqualError(t, enroll(gone, t, loaded(t, c)),
		"the client disconnected before the CMP server answered")
}

// stalling answers nothing until the request is cancelled.
type stalling struct{}

func (stalling) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

var exampleEntry = Server{CAName: "RA", URL: "http://ca.example", IssuerDN: "CN=peer", IAK: "iak", RV: "rv",
	Protection: ProtectionPBMSHA256}

// A timeout beyond the client's own default for one message must extend that, too.
func TestCMPAuthority_timeout_isAlsoThatOfOneMessage(t *testing.T) {
	for timeout, want := range map[time.Duration]string{0: "30s", 5 * time.Second: "5s", 45 * time.Second: "45s"} {
		synctest.Test(t, func(t *testing.T) {
			server := exampleEntry
			server.Timeout = timeout
			client := &http.Client{Transport: stalling{}}
			a := must(newCMPAuthority(server, client, newLearnedStore(), nil, slog.New(slog.DiscardHandler)))
			start := time.Now()
			_, err := a.Enroll(t.Context(), enrollRequest(t))
			assert.EqualError(t, err, "no answer from the CMP server within "+want+
				"; raise the timeout of this CA in cmpServers.json")
			assert.Equal(t, want, time.Since(start).String())
		})
	}
}

func TestLearned_isBoundedAndEndsWithTheRootsValidity(t *testing.T) {
	root, roots := newCA(t, "Root").Root, make([]*x509.Certificate, maxLearnedRoots+1)
	for i := range roots {
		roots[i] = root
	}
	store := newLearnedStore()
	for i := range 3 * maxLearned {
		store.of(Server{URL: time.Duration(i).String()}).learn(roots)
	}
	assert.LessOrEqual(t, len(store.byKey), maxLearned)
	last := store.of(Server{URL: time.Duration(3*maxLearned - 1).String()})
	assert.Len(t, last.trusted(time.Now()), maxLearnedRoots)
	assert.Empty(t, last.trusted(root.NotAfter.Add(time.Second)))
}

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
	fields map[string]any) (c *Configuration, dir string, log *lockedBuffer) {
	t.Helper()
	s := newCMPServer(t)
	server := httptest.NewUnstartedServer(s)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{identity(t, authority)},
		ClientCAs: poolOf(authority.Root), ClientAuth: tls.RequireAndVerifyClientCert}
	server.StartTLS()
	t.Cleanup(server.Close)
	s.url, log = server.URL, &lockedBuffer{}
	c, path := s.configuration(fields)
	c.log = jsonLog(log)
	tlsFiles(t, filepath.Dir(path), authority)
	return c, filepath.Dir(path), log
}

var (
	tlsIdentity = map[string]string{"certificate": "tls.crt", "key": "tls.key"}
	tlsFields   = map[string]any{"tlsTrust": "ca.pem", "tlsIdentity": tlsIdentity}
)

// Editors, YAML and shells leave PEM files in other forms than openssl writes.
func TestCMPAuthority_https_readsFilesAsTheyAreFound(t *testing.T) {
	c, dir, log := tlsConfiguration(t, newCA(t, "CMP TLS"),
		map[string]any{
			"tlsTrust": "ca.pem", "tlsIdentity": tlsIdentity, "additionalRoots": "ca.pem", "trustAnchors": "root.pem"})
	for range 2 {
		serviceOf(t, loaded(t, c)).enroll().is(200)
		for _, name := range []string{"ca.pem", "tls.crt", "tls.key"} {
			text := must(os.ReadFile(filepath.Join(dir, name)))
			writeFile(t, filepath.Join(dir, name), []byte("\ufeff  "+strings.ReplaceAll(string(text), "\n", `\n`)))
		}
	}
	assert.False(t, log.has("needs attention"))
}

func TestCMPAuthority_https_failureNamesTheField(t *testing.T) {
	for want, fields := range map[string]map[string]any{
		"its TLS certificate is not trusted: check tlsTrust": {"tlsTrust": "root.pem",
			"tlsIdentity": tlsIdentity},
		"it refuses our TLS client certificate (certificate required): check tlsIdentity": {
			"tlsTrust": "ca.pem"},
	} {
		c, _, _ := tlsConfiguration(t, newCA(t, "CMP TLS"), fields)
		serviceOf(t, loaded(t, c)).enroll().is(500, callFailed+"the CMP server could not be reached: "+
			want+" of this CA in cmpServers.json; the log of the CertService has more")
	}
}

// A certificate that cert-manager renews must be used without a restart.
func TestConfiguration_watch_seesTLSFilesChange(t *testing.T) {
	authority := newCA(t, "CMP TLS")
	c, dir, _ := tlsConfiguration(t, authority, tlsFields)
	tlsFiles(t, dir, newCA(t, "Other"))
	require.ErrorContains(t, enroll(t.Context(), t, loaded(t, c)), "TLS certificate is not trusted")
	watch(t, c)
	tlsFiles(t, dir, authority)
	eventually(t, func() bool { return enroll(t.Context(), t, c) == nil })
}

func TestParseServers_expiredTLSIdentity_isWarnedOf(t *testing.T) {
	authority := newCA(t, "CMP TLS")
	authority.Validity = time.Nanosecond
	c, _, log := tlsConfiguration(t, authority, tlsFields)
	loaded(t, c)
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
		assert.NotContains(t, text, "very-secret")
		assert.Contains(t, text, "*****")
	}
}

// The images hold no roots. SSL_CERT_FILE is read once per process.
func TestParseServers_httpsWithoutTrust_needsTheSystemsRoots(t *testing.T) {
	roots := filepath.Join(t.TempDir(), "roots.pem")
	writeFile(t, roots, testFile(t, "pem/root-ca.pem"))
	for _, file := range []string{"/nowhere.pem", roots} {
		if again(t, "SSL_CERT_FILE="+file, "SSL_CERT_DIR=/nowhere") {
			continue
		}
		text := strings.Replace(entryText("RA"), "http://", "https://", 1)
		_, err := parseServers([]byte(fileOf(text)), noFiles)
		if os.Getenv("SSL_CERT_FILE") != "/nowhere.pem" {
			require.NoError(t, err)
			continue
		}
		assert.EqualError(t, err, "cmpv2Servers[0].tlsTrust: is missing, and this system has no roots "+
			"to verify the CMP server's certificate with, want the path of a PEM file with its CA")
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
	response := must(client.Get(server.URL))
	defer response.Body.Close()
	proto := must(io.ReadAll(response.Body))
	assert.Equal(t, "HTTP/1.1", string(proto))
	_, err := client.Get(server.URL + "/large")
	assert.ErrorContains(t, err, "server response headers exceeded 65536 bytes")
}

// ONAP's external issuer for cert-manager makes requests with the paths of the CMPv2Issuer in the document.
func TestProvider_ofCertManager_enrolsAndUpdates(t *testing.T) {
	content := must(os.ReadFile("../../docs/cert-manager.md"))
	block := regexp.MustCompile("(?s)<!-- issuer: CMPv2Issuer -->\n```yaml\n(.*?)```\n").FindSubmatch(content)
	require.NotNil(t, block)
	var issuer struct{ Spec yaml.Node }
	require.NoError(t, yaml.Unmarshal(block[1], &issuer))
	var spec struct {
		HealthEndpoint string `yaml:"healthEndpoint"`
		CertEndpoint   string `yaml:"certEndpoint"`
		UpdateEndpoint string `yaml:"updateEndpoint"`
		CAName         string `yaml:"caName"`
	}
	require.NoError(t, issuer.Spec.Decode(&spec))
	template := &x509.CertificateRequest{ // every kind of name that cert-manager knows
		Subject: pkix.Name{
			CommonName: "app.example.org", Organization: []string{"Example"},
			Province: []string{"Skane"}, Country: []string{"SE"},
		},
		DNSNames:       []string{"app.example.org", "app.default.svc.cluster.local"},
		IPAddresses:    []net.IP{net.IPv4(192, 0, 2, 1).To4()},
		EmailAddresses: []string{"app@example.org"},
		URIs:           []*url.URL{{Scheme: "spiffe", Host: "example.org", Path: "/app"}},
	}
	request := func(key crypto.Signer) http.Header {
		der := must(x509.CreateCertificateRequest(rand.Reader, template, key))
		return headerOf(t, der, key)
	}
	for protection, fields := range map[devca.ResponseProtection]map[string]any{
		devca.RespondSignature: {"trustAnchors": "root.pem"}, devca.RespondMAC: {}, // as ONAP has it
	} {
		peer := newCMPServer(t)
		peer.replace(protection)
		s := peer.service(fields)
		get := func(endpoint, caName string, header http.Header) response {
			return s.get("/"+path.Join(endpoint, caName), header)
		}
		get(spec.HealthEndpoint, "", nil).is(200)
		key := rsaKey(t, 2048)
		first := get(spec.CertEndpoint, spec.CAName, request(key)).secret(key, template)
		// The second certificate of the same Certificate, with a new key (rotationPolicy Always) and with the same.
		for i, renewed := range []crypto.Signer{newKey(t), key} {
			header := request(renewed)
			header.Add("OLD_PK", headerValue("PRIVATE KEY", pkcs8(t, key)))
			header.Add("OLD_CERT", b64(first))
			get(spec.UpdateEndpoint, spec.CAName, header).secret(renewed, template)
			assert.Equal(t, uint64(i+1), peer.ca.Stats().Updated, "by a key update request")
		}
		get(spec.CertEndpoint, "other", request(key)).is(404, "Certification authority not found for given CAName")
	}
}

// secret returns what cert-manager stores as tls.crt.
func (r response) secret(key crypto.Signer, template *x509.CertificateRequest) []byte {
	r.t.Helper()
	issued := r.issued()
	leaf := parseCert(r.t, []byte(issued.CertificateChain[0]))
	assert.True(r.t, pki.SameKey(leaf.PublicKey, key.Public()))
	assert.Equal(r.t, pki.RequestNames(template), pki.Names(leaf))
	assert.Equal(r.t, template.Subject.CommonName, leaf.Subject.CommonName)
	return []byte(strings.Join(issued.CertificateChain, ""))
}
