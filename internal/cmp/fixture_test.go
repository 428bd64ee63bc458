package cmp

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/certfetcher/certfetcher/test/fixture"
)

// testNow is when everything in these tests happens.
var testNow = time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)

const (
	testSecret    = "the-shared-secret-of-the-tests"
	testRecipient = "CN=Test CA,O=Example,C=SE"
)

// identity is a certificate with its key.
type identity struct {
	key  crypto.Signer
	cert *x509.Certificate
}

func (i *identity) signer() Signer { return Signer{Key: i.key, Certificate: i.cert} }

func newKey() *ecdsa.PrivateKey {
	return fixture.Must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
}

// dn returns a name as the client's side writes it.
func dn(text string) []byte { return fixture.Must(ParseDN(text)) }

// change changes a certificate before it is signed.
type change = func(*x509.Certificate)

// issue makes a certificate for a key; a nil signer makes it self-signed.
func issue(subject string, public crypto.PublicKey, signer *identity, key crypto.Signer,
	changes ...change) *x509.Certificate {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		RawSubject:   dn(subject),
		NotBefore:    testNow.Add(-time.Hour),
		NotAfter:     testNow.Add(24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
	for _, change := range changes {
		change(template)
	}
	parent := template
	if signer != nil {
		parent, key = signer.cert, signer.key
	}
	der := fixture.Must(x509.CreateCertificate(rand.Reader, template, parent, public, key))
	return fixture.Must(x509.ParseCertificate(der))
}

func asCA(c *x509.Certificate) {
	c.IsCA, c.BasicConstraintsValid = true, true
	c.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
}

func newIdentity(subject string, signer *identity, changes ...change) *identity {
	key := newKey()
	return &identity{key, issue(subject, key.Public(), signer, key, changes...)}
}

func newCSR(key crypto.Signer, extensions ...pkix.Extension) *x509.CertificateRequest {
	der := fixture.Must(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		RawSubject: dn("CN=leaf,O=Example"), DNSNames: []string{"leaf.example"},
		IPAddresses: []net.IP{{10, 0, 0, 1}}, ExtraExtensions: extensions,
	}, key))
	return fixture.Must(x509.ParseCertificateRequest(der))
}

// inMemory carries requests to a handler without a network, so that time can be faked.
type inMemory struct{ handler http.Handler }

func (m inMemory) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	w := httptest.NewRecorder()
	m.handler.ServeHTTP(w, r)
	return w.Result(), nil
}

// testConfig is that of a client of a handler, protected by MAC and without anchors.
func testConfig(handler http.Handler, log *bytes.Buffer) Config {
	return Config{
		URL: "http://ca.example/pkix/", Recipient: testRecipient, Secret: []byte(testSecret), Reference: "reference",
		HTTPClient: &http.Client{Transport: inMemory{handler}},
		Now:        func() time.Time { return testNow },
		Log:        slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
}

// testClient is a client with that configuration, but for what change does.
func testClient(handler http.Handler, change func(*Config)) (*Client, *bytes.Buffer) {
	var log bytes.Buffer
	config := testConfig(handler, &log)
	if change != nil {
		change(&config)
	}
	return fixture.Must(New(config)), &log
}

// outline is a CheckError by check and finding, and any other error by its text.
func outline(err error) string {
	if check, ok := errors.AsType[*CheckError](err); ok {
		return check.Check + ": " + check.Got
	}
	return err.Error()
}

func assertNoSecret(t testing.TB, texts ...string) {
	t.Helper()
	for _, text := range texts {
		assert.NotContains(t, text, testSecret)
		assert.NotContains(t, text, hex.EncodeToString([]byte(testSecret)))
	}
}
