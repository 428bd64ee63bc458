package certservice

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/admission"
	"github.com/certfetcher/certfetcher/test/fixture"
)

const (
	enrollPath = "/v1/certificate/RA"
	updatePath = "/v1/certificate-update/RA"
)

// service is a Handler behind real TLS, and the client identities to call it with.
type service struct {
	t       testing.TB
	url     string
	handler *Handler
	metrics *Metrics
	log     *lockedBuffer
	tlsCA   *fixture.CA
	client  *http.Client // with a trusted certificate
	asked   int          // requests by do
}

// newService starts a service whose only authority, "RA", is the given one.
func newService(t testing.TB, authority Authority, change func(*HandlerConfig)) *service {
	t.Helper()
	s := &service{t: t, log: &lockedBuffer{}, tlsCA: newCA(t, "TLS"), metrics: NewMetrics("")}
	roots := poolOf(s.tlsCA.Root)
	log := jsonLog(s.log)
	own := identity(t, s.tlsCA)
	cfg := HandlerConfig{
		Directory: static{"RA": authority}, ClientRoots: func() *x509.CertPool { return roots },
		Identity: func() *tls.Certificate { return &own }, Admins: [][]byte{own.Leaf.RawSubject},
		MaxRSABits: 4096, CPU: NewCPU(), Metrics: s.metrics, Strangers: NewStrangers(log), Log: log,
	}
	if change != nil {
		change(&cfg)
	}
	s.metrics, s.handler = cfg.Metrics, NewHandler(cfg)
	server := httptest.NewUnstartedServer(s.handler)
	server.Config.MaxHeaderBytes = hardHeaderBytes
	server.TLS = &tls.Config{
		Certificates: []tls.Certificate{own}, ClientAuth: tls.RequestClientCert,
	}
	server.StartTLS()
	t.Cleanup(server.Close)
	s.url = server.URL
	s.client = s.clientWith(identity(t, s.tlsCA))
	return s
}

// serviceOf is a service for a configuration.
func serviceOf(t testing.TB, c *Configuration) *service {
	return newService(t, nil, func(cfg *HandlerConfig) { cfg.Directory, cfg.Metrics = c, c.metrics })
}

// clientWith returns an HTTP client that trusts the service and shows the certificates, if any.
func (s *service) clientWith(certificates ...tls.Certificate) *http.Client {
	config := &tls.Config{RootCAs: poolOf(s.tlsCA.Root), Certificates: certificates}
	transport := &http.Transport{TLSClientConfig: config}
	s.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// response is an answer, the body read.
type response struct {
	*http.Response
	t    testing.TB
	text string
}

// is checks the status, and the message of an error.
func (r response) is(status int, message ...string) {
	r.t.Helper()
	assert.Equal(r.t, status, r.StatusCode, r.text)
	if len(message) > 0 {
		assert.Equal(r.t, "application/json", r.Header.Get("Content-Type"))
		assert.JSONEq(r.t, jsonText(r.t, errorBody{ErrorMessage: message[0]}), r.text)
	}
}

// issued returns the certificates of a good answer.
func (r response) issued() (body issuedBody) {
	r.t.Helper()
	require.Equal(r.t, http.StatusOK, r.StatusCode, r.text)
	require.NoError(r.t, json.Unmarshal([]byte(r.text), &body))
	require.NotEmpty(r.t, body.CertificateChain)
	return body
}

func (s *service) get(path string, header http.Header) response {
	s.t.Helper()
	return s.do(s.client, http.MethodGet, path, header, "")
}

// enroll asks for a certificate with a new key.
func (s *service) enroll() response {
	s.t.Helper()
	return s.get(enrollPath, enrollHeader(s.t))
}

func (s *service) do(client *http.Client, method, path string, header http.Header, body string) response {
	s.t.Helper()
	s.asked++
	request := must(http.NewRequest(method, s.url+path, strings.NewReader(body)))
	if header != nil {
		request.Header = header
	}
	r := must(client.Do(request))
	defer r.Body.Close()
	text := must(io.ReadAll(r.Body))
	return response{r, s.t, withoutID(s.t, r, text)}
}

// withoutID is the body of an answer without the request's id, which an error has in body and header.
func withoutID(t testing.TB, r *http.Response, body []byte) string {
	t.Helper()
	id := r.Header.Get("X-Request-Id")
	assert.NotEmpty(t, id)
	text := strings.Replace(string(body), `,"requestId":"`+id+`"`, "", 1)
	assert.Equal(t, strings.Contains(text, `{"errorMessage"`), len(text) < len(body), "%s", body)
	return text
}

// lines returns the log's lines of the message.
func (s *service) lines(message string) (found []map[string]any) {
	for _, fields := range s.log.lines(s.t) {
		if fields["msg"] == message {
			found = append(found, fields)
		}
	}
	return found
}

// audit returns the audit line of the last request; the handler writes it after the answer.
func (s *service) audit() (last map[string]any) {
	s.t.Helper()
	eventually(s.t, func() bool {
		lines := s.lines("request")
		if len(lines) > 0 {
			last = lines[len(lines)-1]
		}
		return len(lines) > 0 && len(lines) >= s.asked
	})
	return last
}

func eventually(t testing.TB, condition func() bool) {
	t.Helper()
	require.Eventually(t, condition, 20*time.Second, 2*time.Millisecond)
}

// lockedBuffer is a log.
type lockedBuffer struct{ fixture.Buffer }

func (b *lockedBuffer) has(text string) bool { return strings.Contains(b.String(), text) }

func (b *lockedBuffer) lines(t testing.TB) (all []map[string]any) {
	for line := range strings.Lines(b.String()) {
		var fields map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &fields))
		all = append(all, fields)
	}
	return all
}

// static is a Directory that never changes.
type static map[string]Authority

func (s static) Lookup(caName string) (Authority, admission.Share, bool) {
	a, ok := s[caName]
	return a, admission.Share{Authorities: len(s)}, ok
}
func (s static) Ready() bool         { return true }
func (s static) Reload(string) error { return nil }

// funcAuthority answers both operations with one function.
type funcAuthority func(ctx context.Context, r Request) (Issued, error)

func (f funcAuthority) Enroll(ctx context.Context, r Request) (Issued, error) { return f(ctx, r) }
func (f funcAuthority) Update(ctx context.Context, r Request) (Issued, error) { return f(ctx, r) }

// failing is an authority with an error.
func failing(err error) Authority {
	return funcAuthority(func(context.Context, Request) (Issued, error) { return Issued{}, err })
}

func newCA(t testing.TB, name string) *fixture.CA {
	return must(fixture.NewCA(name))
}

func identity(t testing.TB, c *fixture.CA) tls.Certificate {
	t.Helper()
	key, chain, err := c.Identity("peer")
	require.NoError(t, err)
	certificate := tls.Certificate{PrivateKey: key, Leaf: chain[0]}
	for _, cert := range chain {
		certificate.Certificate = append(certificate.Certificate, cert.Raw)
	}
	return certificate
}

func poolOf(certs ...*x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, cert := range certs {
		pool.AddCert(cert)
	}
	return pool
}

// golden returns a file of test/testdata.
func testFile(t testing.TB, name string) []byte {
	return must(os.ReadFile(filepath.Join("..", "..", "test", "testdata", name)))
}

// goldenRequest returns the path and the headers of a golden request.
func goldenRequest(t testing.TB, name string) (path string, header http.Header) {
	t.Helper()
	var file struct {
		Path    string
		Headers map[string]string
	}
	require.NoError(t, json.Unmarshal(testFile(t, "wire/"+name+".request.json"), &file))
	header = http.Header{}
	for key, value := range file.Headers {
		header.Set(key, value)
	}
	return file.Path, header
}

func parseCert(t testing.TB, text []byte) *x509.Certificate {
	block, _ := pem.Decode(text)
	return must(x509.ParseCertificate(block.Bytes))
}

func goldenCert(t testing.TB, name string) *x509.Certificate {
	return parseCert(t, testFile(t, "pem/"+name))
}

// goldenAuthority answers what the golden answer holds.
func goldenAuthority(t testing.TB) Authority {
	issued := Issued{
		Chain:   []*x509.Certificate{goldenCert(t, "certificate.pem"), goldenCert(t, "issuing-ca.pem")},
		Trusted: []*x509.Certificate{goldenCert(t, "root-ca.pem"), goldenCert(t, "other-root-ca.pem")},
	}
	return funcAuthority(func(context.Context, Request) (Issued, error) { return issued, nil })
}

func jsonText(t testing.TB, value any) string {
	text := must(json.Marshal(value))
	return string(text)
}

func newKey(t testing.TB) crypto.Signer {
	return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
}

func rsaKey(t testing.TB, bits int) *rsa.PrivateKey {
	return must(rsa.GenerateKey(rand.Reader, bits))
}

func edKey(t testing.TB) crypto.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	return key
}

func appCSR() *x509.CertificateRequest {
	return &x509.CertificateRequest{Subject: pkix.Name{CommonName: "app"}, DNSNames: []string{"app.example"}}
}

func newCSR(t testing.TB, key any) []byte {
	return must(x509.CreateCertificateRequest(rand.Reader, appCSR(), key))
}

func pkcs8(t testing.TB, key any) []byte {
	return must(x509.MarshalPKCS8PrivateKey(key))
}

func pemOf(label string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: label, Bytes: der})
}

// b64 is the value of a header.
func b64(text []byte) string { return base64.StdEncoding.EncodeToString(text) }

// headerValue is the Base64 of a PEM text with one block.
func headerValue(label string, der []byte) string { return b64(pemOf(label, der)) }

// enrollHeader is a good enrolment with a new key.
func enrollHeader(t testing.TB) http.Header {
	t.Helper()
	key := newKey(t)
	return headerOf(t, newCSR(t, key), key)
}

// headerOf is an enrolment with the CSR.
func headerOf(t testing.TB, csr []byte, key any) http.Header {
	t.Helper()
	return http.Header{
		"Csr": {headerValue("CERTIFICATE REQUEST", csr)}, "Pk": {headerValue("PRIVATE KEY", pkcs8(t, key))},
	}
}

func writeFile(t testing.TB, path string, text []byte) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, text, 0o600))
}

// written is the result of a scrape.
func written(m *Metrics) string { return string(m.text()) }

func jsonLog(w io.Writer) *slog.Logger {
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}
