package certservice

import (
	"context"
	"crypto"
	"crypto/rand"
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
	"go.yaml.in/yaml/v4"

	"github.com/certfetcher/certfetcher/internal/devca"
	"github.com/certfetcher/certfetcher/internal/pki"
)

func enrollRequest(t *testing.T) Request {
	t.Helper()
	r, fault := parseRequest(enrollHeader(t), false, 4096)
	require.Nil(t, fault)
	return r
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

// stalling answers nothing until the request is cancelled.
type stalling struct{}

func (stalling) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

var exampleEntry = Server{CAName: "RA", URL: "http://ca", IssuerDN: "CN=ca", IAK: "iak", RV: "rv",
	Protection: ProtectionPBMSHA256}

// A timeout beyond the client's own default for one message must extend that, too.
func TestCMPAuthority_timeout_isAlsoThatOfOneMessage(t *testing.T) {
	authority := func(server Server) Authority {
		client, noLog := &http.Client{Transport: stalling{}}, slog.New(slog.DiscardHandler)
		return must(newCMPAuthority(server, client, newLearnedStore(), nil, noLog))
	}
	for timeout, want := range map[time.Duration]string{0: "30s", 5 * time.Second: "5s", 45 * time.Second: "45s"} {
		synctest.Test(t, func(t *testing.T) {
			server := exampleEntry
			server.Timeout = timeout
			start := time.Now()
			_, err := authority(server).Enroll(t.Context(), enrollRequest(t))
			assert.EqualError(t, err, "no answer from the CMP server within "+want+
				"; raise the timeout of this CA in cmpServers.json")
			assert.Equal(t, want, time.Since(start).String())
		})
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := authority(exampleEntry).Enroll(gone, enrollRequest(t))
	assert.EqualError(t, err, "the client disconnected before the CMP server answered")
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

func TestServer_secrets_areShownNowhere(t *testing.T) {
	text := strings.Replace(entryWith(`"tlsTrust": "pem/root-ca.pem", "tlsIdentity":
		{"certificate": "pem/old-certificate.pem", "key": "pem/old-key.pem"}`), "http:", "https:", 1)
	server := must(parseServers([]byte(fileOf(text)), testFiles(t))).Servers[0]
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
