package cmp

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/golden"
)

// TestClient_requests plays testdata/requests.txt, and describes what the client sends.
func TestClient_requests(t *testing.T) {
	golden.Play(t, "requests.txt", func(t *testing.T, title, commands string) (text string) {
		kind, _, _ := strings.Cut(title, " ")
		p := newPlay(t, commands)
		_, err := p.send(fixture.ByName[BodyType](kind))
		require.NoError(t, err)
		for i, request := range p.requests {
			text += p.describe(request)
			first, h := p.requests[0].Header, request.Header
			assert.Equal(t, testNow, h.MessageTime)
			assert.Equal(t, first.TransactionID, h.TransactionID)
			assert.Equal(t, first.ProtectionAlg, h.ProtectionAlg, "the same parameters throughout")
			assert.Equal(t, i > 0, len(h.RecipNonce) == NonceSize)
			assert.Equal(t, i > 0, !bytes.Equal(first.SenderNonce, h.SenderNonce))
			assert.Len(t, h.SenderNonce, NonceSize)
			assert.Len(t, h.TransactionID, NonceSize)
		}
		return text
	})
}

// describe says what a request has that is not random.
func (p *play) describe(m *PKIMessage) string {
	h := m.Header
	text := fmt.Sprintf("%s of version %d, from %q to %q",
		m.Body.Type, h.PVNO, h.Sender, h.Recipient)
	if h.ImplicitConfirm() {
		text += ", with implicitConfirm"
	}
	if mac, err := p.secret.Verify(m); m.Protection == nil && h.ProtectionAlg == nil {
		text += ", unprotected\n"
	} else if err == nil {
		text += fmt.Sprintf(", protected by %s as %q\n", mac.Protection, h.SenderKID)
	} else if old := p.named["old"]; assert.NoError(p.t, VerifySignature(m, old.key.Public())) {
		chain := [][]byte{old.cert.Raw, p.named["ca"].cert.Raw}
		assert.Equal(p.t, chain[:len(m.ExtraCerts)], m.ExtraCerts)
		text += fmt.Sprintf(", signed by %q, senderKID %q, %d extraCerts\n",
			old.cert.Subject, h.SenderKID, len(m.ExtraCerts))
	}
	requests, isRequest := m.Body.Content.(CertReqMessages)
	if !isRequest {
		return text
	}
	request, template := requests[0].CertReq, requests[0].CertReq.CertTemplate
	assert.NoError(p.t, requests[0].VerifyPOPO())
	assert.Equal(p.t, p.csr.RawSubjectPublicKeyInfo, template.PublicKey)
	text += fmt.Sprintf("certReqId %d: %q by %q\n",
		request.CertReqID, pki.DN(template.Subject), pki.DN(template.Issuer))
	for _, e := range template.Extensions {
		text += fmt.Sprintf("extension %s, critical: %t, %x\n", e.Id, e.Critical, e.Value)
	}
	if len(request.Controls) > 0 {
		id, old := fixture.Must(request.OldCertID()), p.named["old"].cert
		assert.Equal(p.t, &CertID{DirectoryName(old.RawIssuer), old.SerialNumber}, id)
		text += "oldCertID\n"
	}
	return text
}

// emailOnly is an extended key usage.
var emailOnly = pkix.Extension{Id: oidExtKeyUsage, Value: []byte{0x30, 10, 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 4}}

func TestClient_usagesInCSR_areHonoured(t *testing.T) {
	usage := pkix.Extension{Id: pki.OIDKeyUsage, Critical: true, Value: []byte{3, 2, 7, 0x80}}
	isCA := pkix.Extension{Id: []int{2, 5, 29, 19}, Critical: true, Value: []byte{0x30, 3, 1, 1, 0xff}}

	extensions := templateExtensions(newCSR(newKey(), usage, emailOnly, isCA))

	require.Len(t, extensions, 3, "basicConstraints is not passed on")
	assert.Equal(t, []pkix.Extension{usage, emailOnly}, extensions[:2])
	assert.True(t, extensions[2].Id.Equal(oidSAN))
}

func TestClient_requestThatCannotBeMade_isNotSent(t *testing.T) {
	p := newPlay(t, "")
	c, other, old := fixture.Must(New(p.config)), newKey(), p.named["old"]
	refuse := func(want string, request Request, signer Signer) {
		_, err := c.UpdateKey(t.Context(), request, signer)
		assert.EqualError(t, err, want)
	}
	refuse("key does not belong to the certificate signing request", Request{p.csr, other}, old.signer())
	refuse("request lacks its key", Request{CSR: p.csr}, old.signer())
	refuse("certificate signing request is missing or was not parsed", Request{Key: old.key}, old.signer())
	refuse("signer lacks its key or its certificate", p.request(), Signer{})
	refuse(`key of the signer does not belong to its certificate "O=Example,CN=leaf"`, p.request(),
		Signer{Key: other, Certificate: old.cert})
	assert.Empty(t, p.requests)
}

func TestNew_badConfiguration_isRefused(t *testing.T) {
	golden.Play(t, "configurations.txt", func(t *testing.T, title, commands string) string {
		p := newPlay(t, commands)
		p.config.Now, p.config.Log = nil, nil // have defaults
		if title == "key of another certificate" {
			p.config.Signer.Key = newKey()
		}
		_, err := New(p.config)
		require.Error(t, err)
		assertNoSecret(t, err.Error())
		return err.Error()
	})
}

func TestClient_unknownSignatureHash_isConfirmedWithHashAlg(t *testing.T) {
	cert := &x509.Certificate{Raw: []byte("by an algorithm that is not known")}
	status := certStatus(cert, 0)
	require.NotNil(t, status.HashAlg)
	c, _ := testClient(nil, nil)
	m, der, err := c.begin(nil, nil).message(PKIBody{BodyCertConf, CertConfirmContent{status}})

	require.NoError(t, err)
	assert.Equal(t, fixture.Must(m.Marshal()), der)
	assert.Equal(t, PVNO3, m.Header.PVNO)
	hash, err := CertHashWith(cert, *status.HashAlg)
	require.NoError(t, err)
	assert.Equal(t, status.CertHash, hash)
}

func TestCertHash_followsSignature(t *testing.T) {
	for size, algorithms := range map[int][]x509.SignatureAlgorithm{
		20: {x509.SHA1WithRSA}, 32: {x509.SHA256WithRSA, x509.ECDSAWithSHA256, x509.SHA256WithRSAPSS},
		48: {x509.ECDSAWithSHA384, x509.SHA384WithRSAPSS},
		64: {x509.ECDSAWithSHA512, x509.SHA512WithRSA, x509.PureEd25519},
	} {
		for _, algorithm := range algorithms {
			hash, hashAlg := CertHash(&x509.Certificate{SignatureAlgorithm: algorithm})
			assert.Len(t, hash, size, algorithm)
			assert.Nil(t, hashAlg, algorithm)
		}
	}
}

func BenchmarkClient_Initialize(b *testing.B) {
	p := newPlay(b, "")
	c := fixture.Must(New(p.config))
	for b.Loop() {
		p.requests = nil
		_, err := c.Initialize(b.Context(), p.request())
		require.NoError(b, err)
	}
}
