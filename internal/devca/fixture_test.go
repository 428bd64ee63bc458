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
	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/golden"
)

// clock is a time that tests can move.
type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

func newClock() *clock { return &clock{time.Now().Truncate(time.Second)} }

func newCA(config devca.Config) *devca.CA { return fixture.Must(devca.New(config)) }

// start makes a CA and serves it on a loopback port.
func start(t testing.TB, config devca.Config) (*devca.CA, string) {
	t.Helper()
	ca := newCA(config)
	server := httptest.NewServer(ca)
	t.Cleanup(server.Close)
	return ca, server.URL
}

func newKey() crypto.Signer { return fixture.Must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) }

// leaf is the name that is asked for.
const leaf = "leaf.example.org"

func csr(t testing.TB, key crypto.Signer) *x509.CertificateRequest {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject:  pkix.Name{CommonName: leaf, Organization: []string{"Example"}},
		DNSNames: []string{leaf, "alias.example.org"},
	}, key)
	require.NoError(t, err)
	return fixture.Must(x509.ParseCertificateRequest(der))
}

// template makes a CertReqMsg without its proof of possession.
func template(t testing.TB, key crypto.Signer) cmp.CertReqMsg {
	t.Helper()
	parsed := csr(t, key)
	m := cmp.CertReqMsg{CertReq: cmp.CertRequest{CertTemplate: cmp.CertTemplate{
		Subject: parsed.RawSubject, PublicKey: parsed.RawSubjectPublicKeyInfo, Extensions: parsed.Extensions,
	}}}
	return m
}

// crmf asks for a certificate by ir, cr or kur, from a template that is spoilt before the proof of possession.
func crmf(t testing.TB, kind cmp.BodyType, key crypto.Signer, spoil func(*cmp.CertReqMsg)) *cmp.PKIMessage {
	t.Helper()
	m := template(t, key)
	if spoil != nil {
		spoil(&m)
	}
	require.NoError(t, m.SignPOPO(key))
	return message(kind, cmp.CertReqMessages{m})
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
func ir(t testing.TB) *cmp.PKIMessage { return crmf(t, cmp.BodyIR, newKey(), nil) }

func p10cr(der []byte) *cmp.PKIMessage { return message(cmp.BodyP10CR, cmp.CertificationRequest(der)) }

// follow makes a message that carries a transaction on after an answer.
func follow(answer *cmp.PKIMessage, kind cmp.BodyType, content cmp.BodyContent) *cmp.PKIMessage {
	m := message(kind, content)
	m.Header.TransactionID, m.Header.RecipNonce = answer.Header.TransactionID, answer.Header.SenderNonce
	return m
}

// confirmation accepts the certificate in an answer.
func confirmation(t testing.TB, answer *cmp.PKIMessage) cmp.CertStatus {
	hash, _ := cmp.CertHash(granted(t, answer))
	return cmp.CertStatus{CertHash: hash, CertReqID: answer.Body.Content.(*cmp.CertRepMessage).Response[0].CertReqID}
}

func confirming(answer *cmp.PKIMessage, statuses ...cmp.CertStatus) *cmp.PKIMessage {
	return follow(answer, cmp.BodyCertConf, cmp.CertConfirmContent(statuses))
}

func polling(answer *cmp.PKIMessage, id int64) *cmp.PKIMessage {
	return follow(answer, cmp.BodyPollReq, cmp.PollReqContent{id})
}

// withMAC protects a message with the default shared secret.
func withMAC(t testing.TB, m *cmp.PKIMessage) *cmp.PKIMessage {
	return withSecret(t, m, cmp.ProtectionPBMSHA256, devca.DefaultSecret)
}

func withSecret(t testing.TB, m *cmp.PKIMessage, protection cmp.Protection, secret string) *cmp.PKIMessage {
	t.Helper()
	mac := fixture.Must(cmp.NewMAC(protection))
	require.NoError(t, cmp.NewMACKeys([]byte(secret)).Protect(m, mac))
	return m
}

// ask sends a message under the default shared secret.
func ask(t testing.TB, ca http.Handler, m *cmp.PKIMessage) *cmp.PKIMessage {
	t.Helper()
	return send(t, ca, withMAC(t, m))
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
	der := fixture.Must(m.Marshal())
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
	return fixture.Must(x509.ParseCertificate(content.Response[0].CertifiedKeyPair.Certificate))
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
	key := newKey()
	m := crmf(t, cmp.BodyIR, key, nil)
	m.Header.AddImplicitConfirm()
	return &cmp.Signer{Key: key, Certificate: granted(t, ask(t, ca, m))}
}

// checkText compares an outcome with the one for this test in testdata/texts.txt.
func checkText(t *testing.T, got string) {
	t.Helper()
	golden.Check(t, "testdata/texts.txt", got)
}
