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
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/golden"
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
func issue(t testing.TB, subject string, public crypto.PublicKey, signer *identity, key crypto.Signer,
	change change) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		RawSubject:   dn(subject),
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
	der := fixture.Must(x509.CreateCertificate(rand.Reader, template, parent, public, key))
	return fixture.Must(x509.ParseCertificate(der))
}

func asCA(c *x509.Certificate) {
	c.IsCA, c.BasicConstraintsValid = true, true
	c.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
}

func newIdentity(t testing.TB, subject string, signer *identity, change change) *identity {
	t.Helper()
	key := newKey()
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
	p := &testPKI{root: newIdentity(t, "CN=Test Root", nil, asCA), key: newKey()}
	p.ca = newIdentity(t, testRecipient, p.root, asCA)
	p.old = newIdentity(t, "CN=leaf,O=Example", p.ca, nil)
	p.csr = newCSR(t, p.key)
	return p
}

func newCSR(t testing.TB, key crypto.Signer, extensions ...pkix.Extension) *x509.CertificateRequest {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		RawSubject: dn("CN=leaf,O=Example"), DNSNames: []string{"leaf.example"},
		IPAddresses: []net.IP{{10, 0, 0, 1}}, ExtraExtensions: extensions,
	}, key)
	require.NoError(t, err)
	return fixture.Must(x509.ParseCertificateRequest(der))
}

func (p *testPKI) request() Request { return Request{CSR: p.csr, Key: p.key} }

// leaf issues the certificate that the client asks for, but for what change does to it.
func (p *testPKI) leaf(t testing.TB, change change) *x509.Certificate {
	return p.leafBy(t, p.ca, change)
}

func (p *testPKI) leafBy(t testing.TB, signer *identity, change change) *x509.Certificate {
	return issue(t, "CN=leaf,O=Example", p.key.Public(), signer, p.key, func(c *x509.Certificate) {
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
	ca := r.testPKI.ca
	m := &PKIMessage{Header: request.Header.Answer(DirectoryName(ca.cert.RawSubject), testNow)}
	m.Body = r.honestBody(request)
	if r.body != nil {
		m.Body = r.body(request, m.Body)
	}
	if r.grant && answersWithCertificate(request.Body.Type) {
		m.Header.AddImplicitConfirm()
	}
	m.ExtraCerts = [][]byte{ca.cert.Raw}
	if r.header != nil {
		r.header(request, &m.Header)
	}
	switch {
	case r.protect != nil:
		r.protect(request, m)
	case r.signed:
		require.NoError(r.t, ProtectSignature(m, ca.key))
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
	mac := fixture.Must(NewMAC(protection))
	require.NoError(t, NewMACKeys([]byte(secret)).Protect(m, mac))
}

func (r *responder) honestBody(request *PKIMessage) PKIBody {
	switch kind := request.Body.Type; kind {
	case BodyIR, BodyCR, BodyKUR:
		return PKIBody{answerTypes[kind][0], r.granted(r.testPKI.leaf(r.t, nil))}
	case BodyCertConf:
		return PKIBody{BodyPKIConf, PKIConfirmContent{}}
	case BodyRR:
		return PKIBody{BodyRP, &RevRepContent{Status: []PKIStatusInfo{{}}}}
	}
	return refusal("unexpected request", FailBadRequest)
}

// granted is an ip, cp or kup with a certificate; the root is in caPubs.
func (r *responder) granted(cert *x509.Certificate) *CertRepMessage {
	pair := &CertifiedKeyPair{Certificate: cert.Raw}
	return &CertRepMessage{CAPubs: [][]byte{r.testPKI.root.cert.Raw},
		Response: []CertResponse{{CertifiedKeyPair: pair}}}
}

func refusal(text string, bits ...FailureBit) PKIBody {
	return PKIBody{BodyError, &ErrorMsgContent{StatusInfo: Rejection(text, bits...)}}
}

func waitingError(text ...string) PKIBody {
	return PKIBody{BodyError, &ErrorMsgContent{StatusInfo: PKIStatusInfo{Status: StatusWaiting, StatusString: text}}}
}

// kinds lists what was asked, in order.
func (r *responder) kinds() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	kinds := make([]string, len(r.requests))
	for i, request := range r.requests {
		kinds[i] = request.Body.Type.String()
	}
	return strings.Join(kinds, " ")
}

// bend makes a responder answer in another way.
type bend func(p *testPKI, r *responder)

func bent(bends ...bend) bend {
	return func(p *testPKI, r *responder) {
		for _, bend := range bends {
			if bend != nil {
				bend(p, r)
			}
		}
	}
}

// withBody bends bodies, after what is bent already.
func withBody(change func(request *PKIMessage, body PKIBody) PKIBody) bend {
	return func(_ *testPKI, r *responder) {
		before := r.body
		r.body = func(request *PKIMessage, body PKIBody) PKIBody {
			if before != nil {
				body = before(request, body)
			}
			return change(request, body)
		}
	}
}

// answering has every request, or those of some kinds, answered by a body.
func answering(body PKIBody, kinds ...BodyType) bend {
	return withBody(func(request *PKIMessage, honest PKIBody) PKIBody {
		for _, kind := range kinds {
			if request.Body.Type == kind {
				return body
			}
		}
		if len(kinds) == 0 {
			return body
		}
		return honest
	})
}

// withRep bends ip, cp and kup.
func withRep(change func(rep *CertRepMessage)) bend {
	return withBody(func(_ *PKIMessage, body PKIBody) PKIBody {
		if rep, ok := body.Content.(*CertRepMessage); ok {
			change(rep)
		}
		return body
	})
}

// withResponse bends the one response in ip, cp and kup.
func withResponse(change func(response *CertResponse)) bend {
	return withRep(func(rep *CertRepMessage) { change(&rep.Response[0]) })
}

// withCAPubs adds certificates before those in caPubs.
func withCAPubs(certs ...*x509.Certificate) bend {
	return withRep(func(rep *CertRepMessage) { rep.CAPubs = append(raw(certs), rep.CAPubs...) })
}

func raw(certs []*x509.Certificate) (ders [][]byte) {
	for _, cert := range certs {
		ders = append(ders, cert.Raw)
	}
	return ders
}

func withHeader(change func(request *PKIMessage, h *PKIHeader)) bend {
	return func(_ *testPKI, r *responder) { r.header = change }
}

// afterwards bends messages when they are protected already, those that answer some kinds or all.
func afterwards(change func(m *PKIMessage), kinds ...BodyType) bend {
	return func(_ *testPKI, r *responder) {
		before := r.message
		r.message = func(request, m *PKIMessage) {
			if before != nil {
				before(request, m)
			}
			if len(kinds) == 0 || kinds[0] == request.Body.Type {
				change(m)
			}
		}
	}
}

func unprotected(m *PKIMessage)  { m.Protection, m.Header.ProtectionAlg = nil, nil }
func noExtraCerts(m *PKIMessage) { m.ExtraCerts = nil }

func withDER(change func(der []byte) []byte) bend {
	return func(_ *testPKI, r *responder) { r.der = change }
}

func signed(_ *testPKI, r *responder)   { r.signed = true }
func granting(_ *testPKI, r *responder) { r.grant = true }

// with has the responder grant a certificate of its own choice, with more certificates in extraCerts.
func with(cert *x509.Certificate, more ...*x509.Certificate) bend {
	return bent(withResponse(func(r *CertResponse) { r.CertifiedKeyPair = &CertifiedKeyPair{Certificate: cert.Raw} }),
		afterwards(func(m *PKIMessage) { m.ExtraCerts = append(m.ExtraCerts, raw(more)...) }))
}

// signedBy has the answer signed by an identity, sent along with more certificates.
func signedBy(signer *identity, more ...*x509.Certificate) bend {
	return func(_ *testPKI, r *responder) {
		r.protect = func(_, m *PKIMessage) {
			m.SetSigner(signer.cert, more)
			require.NoError(r.t, ProtectSignature(m, signer.key))
		}
	}
}

// configure changes a client's configuration.
type configure func(p *testPKI, c *Config)

// anchored gives the client the root as anchor for signed answers.
func anchored(p *testPKI, c *Config) { c.TrustAnchors = []*x509.Certificate{p.root.cert} }

func anchoredIn(certs ...*x509.Certificate) configure {
	return func(_ *testPKI, c *Config) { c.TrustAnchors = certs }
}

// laxly has the client trust as ONAP did.
func laxly(_ *testPKI, c *Config) { c.ResponseTrust = ResponseTrustONAP }

func implicitly(_ *testPKI, c *Config) { c.ImplicitConfirm = true }

func signing(p *testPKI, c *Config) {
	signer := p.old.signer()
	c.Protection, c.Signer = ProtectionSignature, &signer
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
	c := fixture.Must(New(cfg))
	return c, &log
}

// outcome is what came of a request.
type outcome struct {
	*responder
	Result
	err    error
	logged *bytes.Buffer
}

// initialize sends an ir to a bent responder.
func (p *testPKI) initialize(t testing.TB, config configure, bends ...bend) outcome {
	t.Helper()
	return p.send(t, BodyIR, config, bends...)
}

// send sends ir, cr, kur or rr.
func (p *testPKI) send(t testing.TB, kind BodyType, config configure, bends ...bend) outcome {
	t.Helper()
	r := &responder{t: t, testPKI: p}
	bent(bends...)(p, r)
	c, log := testClient(t, r, func(cfg *Config) {
		if config != nil {
			config(p, cfg)
		}
	})
	result, err := p.sendBy(t, c, kind)
	return outcome{r, result, err, log}
}

func (p *testPKI) sendBy(t testing.TB, c *Client, kind BodyType) (Result, error) {
	switch kind {
	case BodyCR:
		return c.Certify(t.Context(), p.request())
	case BodyKUR:
		return c.UpdateKey(t.Context(), p.request(), p.old.signer())
	case BodyRR:
		return Result{}, c.Revoke(t.Context(), p.old.cert)
	}
	return c.Initialize(t.Context(), p.request())
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

// checkText compares a text with the one for this test in testdata/texts.txt.
func checkText(t *testing.T, got string) {
	t.Helper()
	golden.Check(t, "testdata/texts.txt", got)
}

// warnings returns the warnings that a client logged.
func warnings(log *bytes.Buffer) []string {
	var found []string
	for line := range strings.Lines(log.String()) {
		if strings.Contains(line, `"level":"WARN"`) {
			found = append(found, line)
		}
	}
	return found
}

// hostile is one way in which an answer can be wrong.
type hostile struct {
	name   string
	config configure
	bend   bend
}

// hostiles sends requests of some kinds to responders that are bent as the rows say. Each must fail with the text in
// testdata, without giving the secret away, and after the requests.
func hostiles(t *testing.T, p *testPKI, rows []hostile, requests ...string) []outcome {
	t.Helper()
	var outcomes []outcome
	for _, row := range rows {
		for _, kinds := range requests {
			first, _, _ := strings.Cut(kinds, " ")
			t.Run(row.name+", to "+first, func(t *testing.T) {
				kind := map[string]BodyType{"ir": BodyIR, "cr": BodyCR, "kur": BodyKUR, "rr": BodyRR}[first]
				got := p.send(t, kind, row.config, row.bend)
				checkText(t, outline(got.err))
				if assert.Error(t, got.err) {
					assertNoSecret(t, got.err.Error(), got.logged.String())
				}
				assert.Empty(t, got.Result, "nothing may come of it")
				assert.Equal(t, kinds, got.kinds())
				outcomes = append(outcomes, got)
			})
		}
	}
	return outcomes
}
