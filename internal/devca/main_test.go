package devca_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/internal/devca"
)

// clock is a time that tests can move.
type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

func newClock() *clock { return &clock{time.Now().Truncate(time.Second)} }

// start makes a CA and serves it on a loopback port.
func start(t testing.TB, config devca.Config) (*devca.CA, string) {
	t.Helper()
	ca, err := devca.New(config)
	require.NoError(t, err)
	server := httptest.NewServer(ca)
	t.Cleanup(server.Close)
	return ca, server.URL
}

// client makes a CMP client of the CA with the default shared secret.
func client(t testing.TB, ca *devca.CA, url string, change func(*cmp.Config)) *cmp.Client {
	t.Helper()
	config := cmp.Config{
		URL: url, Recipient: "CN=DEVELOPMENT ONLY Issuing CA,O=DEVELOPMENT ONLY",
		Secret: []byte(devca.DefaultSecret), Reference: devca.DefaultReference, TrustAnchors: []*x509.Certificate{ca.Root()},
	}
	if change != nil {
		change(&config)
	}
	c, err := cmp.New(config)
	require.NoError(t, err)
	return c
}

func newKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return key
}

// request makes a CSR with a new key.
func request(t testing.TB) cmp.Request {
	t.Helper()
	key := newKey(t)
	return cmp.Request{CSR: csr(t, key, "leaf.example.org"), Key: key}
}

func csr(t testing.TB, key crypto.Signer, name string) *x509.CertificateRequest {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: name, Organization: []string{"Example"}}, DNSNames: []string{name, "alias.example.org"},
	}, key)
	require.NoError(t, err)
	parsed, err := x509.ParseCertificateRequest(der)
	require.NoError(t, err)
	return parsed
}

// template makes a CertReqMsg without its proof of possession.
func template(t testing.TB, key crypto.Signer, name string) cmp.CertReqMsg {
	t.Helper()
	parsed := csr(t, key, name)
	m := cmp.CertReqMsg{CertReq: cmp.CertRequest{CertTemplate: cmp.CertTemplate{Subject: parsed.RawSubject, Extensions: parsed.Extensions}}}
	require.NoError(t, m.CertReq.CertTemplate.SetKey(key.Public()))
	return m
}

// signed proves possession of the key.
func signed(t testing.TB, m cmp.CertReqMsg, key crypto.Signer) cmp.CertReqMsg {
	t.Helper()
	require.NoError(t, m.SignPOPO(key))
	return m
}

// message makes a message that begins a transaction, for the test to spoil before it is protected.
func message(kind cmp.BodyType, content cmp.BodyContent) *cmp.PKIMessage {
	return &cmp.PKIMessage{
		Header: cmp.PKIHeader{
			PVNO: cmp.PVNO2, Sender: cmp.DirectoryName(nil), Recipient: cmp.DirectoryName(nil),
			TransactionID: cmp.NewNonce(), SenderNonce: cmp.NewNonce(), SenderKID: []byte(devca.DefaultReference),
		},
		Body: cmp.PKIBody{Type: kind, Content: content},
	}
}

// ir makes a message with a request for a certificate.
func ir(t testing.TB) *cmp.PKIMessage {
	key := newKey(t)
	return message(cmp.BodyIR, cmp.CertReqMessages{signed(t, template(t, key, "leaf.example.org"), key)})
}

// follow makes a message that carries a transaction on after an answer.
func follow(answer *cmp.PKIMessage, kind cmp.BodyType, content cmp.BodyContent) *cmp.PKIMessage {
	m := message(kind, content)
	m.Header.TransactionID, m.Header.RecipNonce = answer.Header.TransactionID, answer.Header.SenderNonce
	return m
}

// withMAC protects a message with the default shared secret.
func withMAC(t testing.TB, m *cmp.PKIMessage) *cmp.PKIMessage {
	t.Helper()
	mac, err := cmp.NewMAC(cmp.ProtectionPBMSHA256)
	require.NoError(t, err)
	require.NoError(t, cmp.NewMACKeys([]byte(devca.DefaultSecret)).Protect(m, mac))
	return m
}

// withSignature protects a message by a certificate's key.
func withSignature(t testing.TB, m *cmp.PKIMessage, signer *cmp.Signer) *cmp.PKIMessage {
	t.Helper()
	m.SetSigner(signer.Certificate, nil)
	require.NoError(t, cmp.ProtectSignature(m, signer.Key))
	return m
}

// send posts a message to the handler and returns the answer.
func send(t testing.TB, ca http.Handler, m *cmp.PKIMessage) *cmp.PKIMessage {
	t.Helper()
	der, err := m.Marshal()
	require.NoError(t, err)
	recorder := post(ca, "/", cmp.MediaType, der)
	require.Equal(t, http.StatusOK, recorder.Code)
	answer, err := cmp.ParsePKIMessage(recorder.Body.Bytes())
	require.NoError(t, err)
	return answer
}

func post(ca http.Handler, path, contentType string, body []byte) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, path, io.NopCloser(bytes.NewReader(body)))
	r.Header.Set("Content-Type", contentType)
	recorder := httptest.NewRecorder()
	ca.ServeHTTP(recorder, r)
	return recorder
}

// granted returns the certificate in an answer.
func granted(t testing.TB, answer *cmp.PKIMessage) *x509.Certificate {
	t.Helper()
	content, ok := answer.Body.Content.(*cmp.CertRepMessage)
	require.True(t, ok, "answered with %s: %s", answer.Body.Type, outcome(answer))
	require.Len(t, content.Response, 1)
	require.NotNil(t, content.Response[0].CertifiedKeyPair, outcome(answer))
	certificate, err := x509.ParseCertificate(content.Response[0].CertifiedKeyPair.Certificate)
	require.NoError(t, err)
	return certificate
}

// outcome writes an answer's kind, status, failInfo and text in one line.
func outcome(answer *cmp.PKIMessage) string {
	var info cmp.PKIStatusInfo
	switch content := answer.Body.Content.(type) {
	case *cmp.CertRepMessage:
		info = content.Response[0].Status
	case *cmp.RevRepContent:
		info = content.Status[0]
	case *cmp.ErrorMsgContent:
		info = content.StatusInfo
	default:
		return answer.Body.Type.String()
	}
	text := answer.Body.Type.String() + " " + info.Status.String()
	for _, name := range info.FailInfo.Names() {
		text += " " + name
	}
	if len(info.StatusString) > 0 {
		text += ": " + info.StatusString.String()
	}
	return text
}

// enrolled gets a certificate and its key.
func enrolled(t testing.TB, ca *devca.CA) *cmp.Signer {
	t.Helper()
	key := newKey(t)
	m := message(cmp.BodyIR, cmp.CertReqMessages{signed(t, template(t, key, "leaf.example.org"), key)})
	m.Header.AddImplicitConfirm()
	return &cmp.Signer{Key: key, Certificate: granted(t, send(t, ca, withMAC(t, m)))}
}
