package cmp

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
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

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return key
}

// dn returns a name as the client's side writes it.
func dn(t testing.TB, text string) []byte {
	t.Helper()
	der, err := ParseDN(text)
	require.NoError(t, err)
	return der
}

// issue makes a certificate for a key; a nil signer makes it self-signed.
func issue(t testing.TB, subject string, public crypto.PublicKey, signer *identity, key crypto.Signer, change func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		RawSubject:   dn(t, subject),
		NotBefore:    testNow.Add(-time.Hour),
		NotAfter:     testNow.Add(24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
	if change != nil {
		change(template)
	}
	parent := template
	if signer != nil {
		parent, key = signer.cert, signer.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return cert
}

func asCA(c *x509.Certificate) {
	c.IsCA, c.BasicConstraintsValid = true, true
	c.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
}

func newIdentity(t testing.TB, subject string, signer *identity, change func(*x509.Certificate)) *identity {
	t.Helper()
	key := newKey(t)
	return &identity{key, issue(t, subject, key.Public(), signer, key, change)}
}

// testPKI is a CA, its root, and what a client has.
type testPKI struct {
	root, ca *identity
	key      *ecdsa.PrivateKey // the client's new key
	csr      *x509.CertificateRequest
	old      *identity // the client's old certificate
}

func newPKI(t testing.TB) *testPKI {
	t.Helper()
	p := &testPKI{root: newIdentity(t, "CN=Test Root", nil, asCA), key: newKey(t)}
	p.ca = newIdentity(t, testRecipient, p.root, asCA)
	p.old = newIdentity(t, "CN=leaf,O=Example", p.ca, nil)
	p.csr = newCSR(t, p.key, nil)
	return p
}

func newCSR(t testing.TB, key crypto.Signer, change func(*x509.CertificateRequest)) *x509.CertificateRequest {
	t.Helper()
	template := &x509.CertificateRequest{RawSubject: dn(t, "CN=leaf,O=Example"), DNSNames: []string{"leaf.example"}, IPAddresses: []net.IP{{10, 0, 0, 1}}}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	require.NoError(t, err)
	csr, err := x509.ParseCertificateRequest(der)
	require.NoError(t, err)
	return csr
}

// leaf issues the certificate that the client asks for, but for what change does to it.
func (p *testPKI) leaf(t testing.TB, change func(*x509.Certificate)) *x509.Certificate {
	return p.leafBy(t, p.ca, change)
}

func (p *testPKI) leafBy(t testing.TB, signer *identity, change func(*x509.Certificate)) *x509.Certificate {
	return issue(t, "CN=leaf,O=Example", p.key.Public(), signer, nil, func(c *x509.Certificate) {
		c.DNSNames, c.IPAddresses = p.csr.DNSNames, p.csr.IPAddresses
		if change != nil {
			change(c)
		}
	})
}

// responder is a CMP server whose honest answers can be bent at every step.
type responder struct {
	t       testing.TB
	testPKI *testPKI
	signed  bool // answers are signed by the CA instead of protected by MAC
	grant   bool // grants implicit confirmation

	body    func(request *PKIMessage, honest PKIBody) PKIBody // before the header
	header  func(request *PKIMessage, h *PKIHeader)           // before protection
	protect func(request, m *PKIMessage)                      // instead of the honest protection
	message func(request, m *PKIMessage)                      // after protection
	der     func(der []byte) []byte                           // the whole message
	status  int                                               // HTTP status, 0: 200

	mu       sync.Mutex
	requests []*PKIMessage
	secret   *MACKeys
}

func (r *responder) ServeHTTP(w http.ResponseWriter, hr *http.Request) {
	assert.Equal(r.t, http.MethodPost, hr.Method)
	assert.Equal(r.t, MediaType, hr.Header.Get("Content-Type"))
	der, err := io.ReadAll(hr.Body)
	assert.NoError(r.t, err)
	request, err := ParsePKIMessage(der)
	if !assert.NoError(r.t, err) {
		return
	}
	r.mu.Lock()
	r.requests = append(r.requests, request)
	r.mu.Unlock()

	answer, err := r.answer(request).Marshal()
	assert.NoError(r.t, err)
	if r.der != nil {
		answer = r.der(answer)
	}
	w.Header().Set("Content-Type", MediaType)
	if r.status != 0 {
		w.WriteHeader(r.status)
	}
	_, _ = w.Write(answer)
}

func (r *responder) answer(request *PKIMessage) *PKIMessage {
	m := &PKIMessage{Header: request.Header.Answer(DirectoryName(r.testPKI.ca.cert.RawSubject), testNow), Body: r.honestBody(request)}
	if r.body != nil {
		m.Body = r.body(request, m.Body)
	}
	if r.grant && answersWithCertificate(request.Body.Type) {
		m.Header.AddImplicitConfirm()
	}
	m.ExtraCerts = [][]byte{r.testPKI.ca.cert.Raw}
	if r.header != nil {
		r.header(request, &m.Header)
	}
	switch {
	case r.protect != nil:
		r.protect(request, m)
	case r.signed:
		require.NoError(r.t, ProtectSignature(m, r.testPKI.ca.key))
	case request.MACProtected(): // with the parameters of the request, as RFC 9810, 5.1.3.1 recommends
		mac, err := r.keys().Verify(request)
		require.NoError(r.t, err)
		require.NoError(r.t, r.keys().Protect(m, mac))
	default:
		protectMAC(r.t, m, ProtectionPBMSHA256, testSecret)
	}
	if r.message != nil {
		r.message(request, m)
	}
	return m
}

func (r *responder) keys() *MACKeys {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.secret == nil {
		r.secret = NewMACKeys([]byte(testSecret))
	}
	return r.secret
}

func protectMAC(t testing.TB, m *PKIMessage, protection Protection, secret string) {
	mac, err := NewMAC(protection)
	require.NoError(t, err)
	require.NoError(t, NewMACKeys([]byte(secret)).Protect(m, mac))
}

func (r *responder) honestBody(request *PKIMessage) PKIBody {
	switch request.Body.Type {
	case BodyIR:
		return PKIBody{BodyIP, r.granted(r.testPKI.leaf(r.t, nil))}
	case BodyCR:
		return PKIBody{BodyCP, r.granted(r.testPKI.leaf(r.t, nil))}
	case BodyKUR:
		return PKIBody{BodyKUP, r.granted(r.testPKI.leaf(r.t, nil))}
	case BodyCertConf:
		return PKIBody{BodyPKIConf, PKIConfirmContent{}}
	case BodyRR:
		return PKIBody{BodyRP, &RevRepContent{Status: []PKIStatusInfo{{}}}}
	}
	return PKIBody{BodyError, &ErrorMsgContent{StatusInfo: Rejection("unexpected request", FailBadRequest)}}
}

// granted is an ip, cp or kup with a certificate; the root is in caPubs.
func (r *responder) granted(cert *x509.Certificate) *CertRepMessage {
	return &CertRepMessage{CAPubs: [][]byte{r.testPKI.root.cert.Raw}, Response: []CertResponse{{CertifiedKeyPair: &CertifiedKeyPair{Certificate: cert.Raw}}}}
}

// kinds lists what was asked, in order.
func (r *responder) kinds() []BodyType {
	r.mu.Lock()
	defer r.mu.Unlock()
	kinds := make([]BodyType, len(r.requests))
	for i, request := range r.requests {
		kinds[i] = request.Body.Type
	}
	return kinds
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

// testClient is a client of the responder, protected by MAC and without anchors, but for what change does.
func testClient(t testing.TB, handler http.Handler, change func(*Config)) (*Client, *bytes.Buffer) {
	t.Helper()
	var log bytes.Buffer
	cfg := Config{
		URL: "http://ca.example/pkix/", Recipient: testRecipient, Secret: []byte(testSecret), Reference: "reference",
		HTTPClient: &http.Client{Transport: inMemory{handler}},
		Now:        func() time.Time { return testNow },
		Log:        slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if change != nil {
		change(&cfg)
	}
	c, err := New(cfg)
	require.NoError(t, err)
	return c, &log
}

// outline is a CheckError by check and finding, and any other error by its text.
func outline(err error) string {
	var check *CheckError
	switch {
	case err == nil:
		return "no error"
	case errors.As(err, &check):
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

// warnings returns the warnings that a client logged for what it believed only by lax trust.
func warnings(t testing.TB, log *bytes.Buffer) []string {
	t.Helper()
	var found []string
	for line := range bytes.Lines(log.Bytes()) {
		var record struct{ Level, Warning string }
		require.NoError(t, json.Unmarshal(line, &record))
		if record.Level == "WARN" {
			found = append(found, record.Warning)
		}
	}
	return found
}

// hostile is one way in which an answer can be wrong.
type hostile struct {
	config  func(p *testPKI, c *Config)
	respond func(p *testPKI, r *responder)
	want    string // the outline of the error
}

// run sends an ir, which must fail as the row says without giving the secret away, and returns the
// responder for what it was asked.
func (h hostile) run(t *testing.T, p *testPKI) *responder {
	t.Helper()
	return h.runAs(t, p, BodyIR)
}

// runAs is run for ir or kur.
func (h hostile) runAs(t *testing.T, p *testPKI, kind BodyType) *responder {
	t.Helper()
	r := &responder{t: t, testPKI: p}
	h.respond(p, r)
	c, log := testClient(t, r, func(cfg *Config) {
		if h.config != nil {
			h.config(p, cfg)
		}
	})

	request := Request{CSR: p.csr, Key: p.key}
	var result Result
	var err error
	switch kind {
	case BodyKUR:
		result, err = c.UpdateKey(t.Context(), request, Signer{Key: p.old.key, Certificate: p.old.cert})
	default:
		result, err = c.Initialize(t.Context(), request)
	}

	assert.Equal(t, h.want, outline(err))
	if assert.Error(t, err) {
		assertNoSecret(t, err.Error(), log.String())
	}
	assert.Empty(t, result, "nothing may come of it")
	return r
}

// anchored gives the client the root as anchor for signed answers.
func anchored(p *testPKI, c *Config) { c.TrustAnchors = []*x509.Certificate{p.root.cert} }

// laxly has the client trust as ONAP did.
func laxly(_ *testPKI, c *Config) { c.ResponseTrust = ResponseTrustONAP }

var basicConstraintsCA = pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Critical: true, Value: []byte{0x30, 3, 1, 1, 0xff}}
