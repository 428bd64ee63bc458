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

	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/internal/devca"
	"github.com/certfetcher/certfetcher/test/fixture"
)

func newCA(config devca.Config) *devca.CA { return fixture.Must(devca.New(config)) }

func newKey() crypto.Signer { return fixture.Must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) }

func csr(key crypto.Signer) *x509.CertificateRequest {
	const leaf = "leaf.example.org"
	der := fixture.Must(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject:  pkix.Name{CommonName: leaf, Organization: []string{"Example"}},
		DNSNames: []string{leaf, "alias.example.org"},
	}, key))
	return fixture.Must(x509.ParseCertificateRequest(der))
}

// template makes a CertReqMsg without its proof of possession.
func template(key crypto.Signer) cmp.CertReqMsg {
	parsed := csr(key)
	return cmp.CertReqMsg{CertReq: cmp.CertRequest{CertTemplate: cmp.CertTemplate{
		Subject: parsed.RawSubject, PublicKey: parsed.RawSubjectPublicKeyInfo, Extensions: parsed.Extensions,
	}}}
}

// message makes a message that begins a transaction.
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
	key := newKey()
	m := template(key)
	require.NoError(t, m.SignPOPO(key))
	return message(cmp.BodyIR, cmp.CertReqMessages{m})
}

// protect protects a message with the default shared secret.
func protect(t testing.TB, m *cmp.PKIMessage) *cmp.PKIMessage {
	t.Helper()
	mac := fixture.Must(cmp.NewMAC(cmp.ProtectionPBMSHA256))
	require.NoError(t, cmp.NewMACKeys([]byte(devca.DefaultSecret)).Protect(m, mac))
	return m
}

// send posts a message to the handler and returns the answer.
func send(t testing.TB, ca http.Handler, m *cmp.PKIMessage) *cmp.PKIMessage {
	t.Helper()
	recorder := post(ca, "/", cmp.MediaType, fixture.Must(m.Marshal()))
	require.Equal(t, http.StatusOK, recorder.Code)
	return fixture.Must(cmp.ParsePKIMessage(recorder.Body.Bytes()))
}

func post(ca http.Handler, path, contentType string, body []byte) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, path, io.NopCloser(bytes.NewReader(body)))
	r.Header.Set("Content-Type", contentType)
	recorder := httptest.NewRecorder()
	ca.ServeHTTP(recorder, r)
	return recorder
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
