package certservice

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
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
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/ca"
)

// service is a Handler behind real TLS, and the client identities to call it with.
type service struct {
	url     string
	handler *Handler
	log     *lockedBuffer
	tlsCA   *ca.CA
	client  *http.Client // with a trusted certificate
}

// newService starts a service whose only authority, "RA", is the given one. change may adjust the configuration.
func newService(t *testing.T, authority Authority, change func(*HandlerConfig)) *service {
	t.Helper()
	tlsCA := newCA(t, "TLS")
	s := &service{log: &lockedBuffer{}, tlsCA: tlsCA}
	roots := poolOf(tlsCA.Root)
	cfg := HandlerConfig{
		Directory:   Static{"RA": authority},
		ClientRoots: func() *x509.CertPool { return roots },
		Log:         slog.New(slog.NewJSONHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if change != nil {
		change(&cfg)
	}
	s.handler = NewHandler(cfg)
	server := httptest.NewUnstartedServer(s.handler)
	server.Config.MaxHeaderBytes = hardHeaderBytes
	server.TLS = &tls.Config{Certificates: []tls.Certificate{identity(t, tlsCA)}, ClientAuth: tls.RequestClientCert}
	server.StartTLS()
	t.Cleanup(server.Close)
	s.url = server.URL
	s.client = s.clientWith(t, identity(t, tlsCA))
	return s
}

// clientWith returns an HTTP client that trusts the service and shows the certificates; none is fine.
func (s *service) clientWith(t *testing.T, certificates ...tls.Certificate) *http.Client {
	t.Helper()
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: poolOf(s.tlsCA.Root), Certificates: certificates},
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// response is what came back, the body read.
type response struct {
	*http.Response
	text string
}

func (s *service) get(t *testing.T, path string, header http.Header) response {
	t.Helper()
	return s.do(t, s.client, http.MethodGet, path, header, nil)
}

func (s *service) do(t *testing.T, client *http.Client, method, path string, header http.Header, body io.Reader) response {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, s.url+path, body)
	require.NoError(t, err)
	if header != nil {
		request.Header = header
	}
	r, err := client.Do(request)
	require.NoError(t, err)
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	require.NoError(t, err)
	return response{r, string(text)}
}

// lines returns the log's lines of the message.
func (s *service) lines(t *testing.T, message string) []map[string]any {
	t.Helper()
	var found []map[string]any
	for line := range bytes.Lines(s.log.bytes()) {
		var fields map[string]any
		require.NoError(t, json.Unmarshal(line, &fields))
		if fields["msg"] == message {
			found = append(found, fields)
		}
	}
	return found
}

// audit returns the audit line of the last request; the handler writes it after the answer.
func (s *service) audit(t *testing.T) map[string]any {
	t.Helper()
	var last map[string]any
	require.Eventually(t, func() bool {
		lines := s.lines(t, "request")
		if len(lines) == 0 {
			return false
		}
		last = lines[len(lines)-1]
		return true
	}, 5*time.Second, time.Millisecond)
	return last
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) bytes() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return bytes.Clone(b.buf.Bytes())
}

// funcAuthority answers both operations with one function.
type funcAuthority func(ctx context.Context, r Request) (Issued, error)

func (f funcAuthority) Enroll(ctx context.Context, r Request) (Issued, error) { return f(ctx, r) }
func (f funcAuthority) Update(ctx context.Context, r Request) (Issued, error) { return f(ctx, r) }

// signing is an authority that signs everything.
func signing(c *ca.CA) Authority {
	return funcAuthority(func(_ context.Context, r Request) (Issued, error) {
		chain, err := c.Issue(r.CSR)
		return Issued{Chain: chain, Trusted: []*x509.Certificate{c.Root}}, err
	})
}

func newCA(t testing.TB, name string) *ca.CA {
	t.Helper()
	c, err := ca.New(name)
	require.NoError(t, err)
	return c
}

func identity(t testing.TB, c *ca.CA) tls.Certificate {
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

// golden returns a file of the golden wire files.
func golden(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", "test", "testdata", filepath.FromSlash(name)))
	require.NoError(t, err)
	return data
}

// goldenRequest returns the path and the headers of a golden request.
func goldenRequest(t testing.TB, name string) (path string, header http.Header) {
	t.Helper()
	var file struct {
		Path    string
		Headers map[string]string
	}
	require.NoError(t, json.Unmarshal(golden(t, "wire/"+name), &file))
	header = http.Header{}
	for key, value := range file.Headers {
		header.Set(key, value)
	}
	return file.Path, header
}

func goldenCert(t testing.TB, name string) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(golden(t, "pem/"+name))
	cert, err := x509.ParseCertificate(block.Bytes)
	require.NoError(t, err)
	return cert
}

// goldenAuthority answers what the golden answer holds.
func goldenAuthority(t testing.TB) Authority {
	issued := Issued{
		Chain:   []*x509.Certificate{goldenCert(t, "certificate.pem"), goldenCert(t, "issuing-ca.pem")},
		Trusted: []*x509.Certificate{goldenCert(t, "root-ca.pem"), goldenCert(t, "other-root-ca.pem")},
	}
	return funcAuthority(func(context.Context, Request) (Issued, error) { return issued, nil })
}

func newKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return key
}

func newCSR(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "app"}, DNSNames: []string{"app.example"},
	}, key)
	require.NoError(t, err)
	return der
}

func pkcs8(t testing.TB, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	return der
}

// headerValue is the Base64 of a PEM text with one block.
func headerValue(label string, der []byte) string {
	return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: label, Bytes: der}))
}

// enrollHeader is a good enrolment with a new key.
func enrollHeader(t testing.TB) http.Header {
	t.Helper()
	key := newKey(t)
	return headerOf(t, newCSR(t, key), key)
}

// headerOf is an enrolment with the CSR.
func headerOf(t testing.TB, csr []byte, key any) http.Header {
	t.Helper()
	return http.Header{"Csr": {headerValue("CERTIFICATE REQUEST", csr)}, "Pk": {headerValue("PRIVATE KEY", pkcs8(t, key))}}
}
