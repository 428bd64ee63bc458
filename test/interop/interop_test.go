// Package interop runs this repository's CMP client and its development CA against other people's: the
// openssl cmp program as server and as client, and Bouncy Castle as both. What passed is written to
// docs/interoperability.md by
//
//	go test ./test/interop -update
//
// and every other run fails when the document says something else than was run.
package interop

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"flag"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/keygen"
	"github.com/certfetcher/certfetcher/test/fixture"
)

// The shared secret of clients and servers, and its name.
const (
	secret    = fixture.BouncyCastleSecret
	reference = "interop-reference"
)

// The names of requests and confirmations, as the document has them.
const (
	explicit = "explicit"
	implicit = "implicit"
	polled   = "polled"
	done     = "done"
)

// Clients wait a second before they poll, whatever the number of processors.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// identity is a key and its certificate, with the chain up to and without the root.
type identity struct {
	key   crypto.Signer
	chain []*x509.Certificate
}

func (i identity) signer() *cmp.Signer {
	return &cmp.Signer{Key: i.key, Certificate: i.chain[0], Chain: i.chain[1:]}
}

// newIdentity makes a key and has the authority certify it under the name.
func newIdentity(authority *fixture.CA, algorithm, name string) identity {
	r := newRequestWith(keyOf(algorithm, "of "+name), name)
	return identity{r.Key, fixture.Must(authority.Issue(r.CSR))}
}

var keys sync.Map

// keyOf is the key of an algorithm for a purpose. RSA keys take long to make, so that all tests have the same.
func keyOf(algorithm, purpose string) crypto.Signer {
	generate := func() (crypto.Signer, error) { return keygen.GenerateKey(algorithm) }
	if !strings.HasPrefix(algorithm, "RSA") {
		return fixture.Must(generate())
	}
	of, _ := keys.LoadOrStore(algorithm+purpose, sync.OnceValues(generate))
	return fixture.Must(of.(func() (crypto.Signer, error))())
}

// newRequest makes a request for a certificate of a key, with two DNS names.
func newRequest(algorithm, name string) cmp.Request {
	return newRequestWith(keyOf(algorithm, "new"), name)
}

func newRequestWith(key crypto.Signer, name string) cmp.Request {
	der := fixture.Must(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject:  pkix.Name{CommonName: name, Organization: []string{"Interop"}},
		DNSNames: []string{"leaf.example.org", "alias.example.org"},
	}, key))
	return cmp.Request{CSR: fixture.Must(x509.ParseCertificateRequest(der)), Key: key}
}

// exchanges are the messages that a client sent, and the answers.
type exchanges struct {
	http.Transport
	requests, answers []*cmp.PKIMessage
}

func (e *exchanges) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := r.GetBody()
	if err != nil {
		return nil, err
	}
	e.requests = append(e.requests, parse(body))
	response, err := e.Transport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(response.Body)
	response.Body.Close()
	response.Body = io.NopCloser(bytes.NewReader(content))
	e.answers = append(e.answers, parse(bytes.NewReader(content)))
	return response, err
}

// parse returns an empty message for what is none.
func parse(r io.Reader) *cmp.PKIMessage {
	der, _ := io.ReadAll(r)
	if m, err := cmp.ParsePKIMessage(der); err == nil {
		return m
	}
	return &cmp.PKIMessage{}
}

// kinds lists the bodies of messages.
func kinds(messages []*cmp.PKIMessage) string {
	var list []string
	for _, m := range messages {
		list = append(list, m.Body.Type.String())
	}
	return strings.Join(list, " ")
}

// String lists requests and answers in order.
func (e *exchanges) String() string {
	var all []*cmp.PKIMessage
	for i, request := range e.requests {
		all = append(all, request)
		if i < len(e.answers) && e.answers[i].RawHeader != nil {
			all = append(all, e.answers[i])
		}
	}
	return kinds(all)
}

// assertProtected holds every message to one way of protection.
func assertProtected(t testing.TB, byMAC bool, messages []*cmp.PKIMessage) {
	t.Helper()
	for _, m := range messages {
		assert.NotNil(t, m.Protection, m.Body.Type)
		assert.Equal(t, byMAC, m.MACProtected(), m.Body.Type)
	}
}

// newClient makes a client with connections of its own, which end with the test. Servers that answer one
// connection at a time would otherwise wait for the next request on the last one.
func newClient(t testing.TB, config cmp.Config) (*cmp.Client, *exchanges) {
	t.Helper()
	seen := &exchanges{}
	t.Cleanup(seen.CloseIdleConnections)
	config.HTTPClient = &http.Client{Transport: seen}
	// what only lax trust let through
	config.Log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	client, err := cmp.New(config)
	require.NoError(t, err)
	return client, seen
}

// request sends one of the three requests for a certificate.
func request(t testing.TB, client *cmp.Client, operation string, r cmp.Request, old *cmp.Signer) (cmp.Result, error) {
	t.Helper()
	switch operation {
	case "ir":
		return client.Initialize(t.Context(), r)
	case "cr":
		return client.Certify(t.Context(), r)
	}
	require.Equal(t, "kur", operation)
	return client.UpdateKey(t.Context(), r, *old)
}

// assertIssued looks at a result once more with the standard library: the certificate has our key, and the
// chain leads to the root.
func assertIssued(t testing.TB, result cmp.Result, r cmp.Request, root *x509.Certificate) {
	t.Helper()
	require.NotEmpty(t, result.Chain)
	leaf := result.Chain[0]
	assert.Equal(t, r.Key.Public(), leaf.PublicKey)
	assert.Equal(t, r.CSR.DNSNames, leaf.DNSNames)
	options := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool()}
	options.Roots.AddCert(root)
	for _, certificate := range result.Chain[1:] {
		options.Intermediates.AddCert(certificate)
	}
	_, err := leaf.Verify(options)
	assert.NoError(t, err)
	assert.Equal(t, []*x509.Certificate{root}, result.Trusted)
}

// writePEM writes certificates to a file of the test's directory and returns its path.
func writePEM(t testing.TB, dir, name string, certificates ...*x509.Certificate) string {
	t.Helper()
	return writeFile(t, dir, name, fixture.CertificatesPEM(certificates...))
}

func writeKey(t testing.TB, dir, name string, key crypto.Signer) string {
	t.Helper()
	return writeFile(t, dir, name, fixture.Must(keygen.PrivateKeyPEM(key)))
}

func writeFile(t testing.TB, dir, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	require.NoError(t, os.WriteFile(path, content, 0o600))
	return path
}
