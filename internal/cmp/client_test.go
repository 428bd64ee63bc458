package cmp

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/golden"
)

func TestClient_request_isAsTheProfileWants(t *testing.T) {
	p := newPlay(t, "")
	_, err := p.send(BodyIR)
	require.NoError(t, err)

	ir, conf := p.requests[0], p.requests[1]
	assert.Equal(t, PVNO2, ir.Header.PVNO)
	assert.Equal(t, DirectoryName(p.csr.RawSubject), ir.Header.Sender)
	assert.Equal(t, DirectoryName(dn(testRecipient)), ir.Header.Recipient)
	assert.Equal(t, testNow, ir.Header.MessageTime)
	assert.Equal(t, []byte("reference"), ir.Header.SenderKID)
	assert.Len(t, ir.Header.TransactionID, 16)
	assert.Len(t, ir.Header.SenderNonce, 16)
	assert.Nil(t, ir.Header.RecipNonce)
	assert.False(t, ir.Header.ImplicitConfirm())
	mac, err := NewMACKeys([]byte(testSecret)).Verify(ir)
	require.NoError(t, err)
	assert.Equal(t, ProtectionPBMSHA256, mac.Protection)
	assert.Equal(t, ir.Header.ProtectionAlg, conf.Header.ProtectionAlg)

	request := ir.Body.Content.(CertReqMessages)[0]
	assert.NoError(t, request.VerifyPOPO())
	template := request.CertReq.CertTemplate
	assert.Zero(t, request.CertReq.CertReqID)
	assert.Equal(t, dn(testRecipient), template.Issuer)
	assert.Equal(t, p.csr.RawSubject, template.Subject)
	assert.Equal(t, p.csr.RawSubjectPublicKeyInfo, template.PublicKey)
	assert.Empty(t, request.CertReq.Controls)
	issued := certificateWith(template.Extensions)
	assert.Equal(t, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}, issued.ExtKeyUsage)
	assert.Equal(t, []string{"leaf.example"}, issued.DNSNames)

	assert.Equal(t, ir.Header.TransactionID, conf.Header.TransactionID)
	assert.NotEqual(t, ir.Header.SenderNonce, conf.Header.SenderNonce)
	assert.Len(t, conf.Header.RecipNonce, 16)
}

// certificateWith reads extensions as x509 does.
func certificateWith(extensions []pkix.Extension) *x509.Certificate {
	key := newKey()
	return issue("CN=any", key.Public(), nil, key, func(c *x509.Certificate) {
		c.KeyUsage, c.ExtraExtensions = 0, extensions
	})
}

func TestClient_keyUsage_fitsTheKindOfKey(t *testing.T) {
	for name, key := range testKeys() {
		want := x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment
		if strings.HasPrefix(name, "RSA") {
			want |= x509.KeyUsageKeyEncipherment
		}
		assert.Equal(t, want, certificateWith(templateExtensions(newCSR(key))).KeyUsage, name)
	}
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

func TestClient_UpdateKey_namesAndSignsWithOldCertificate(t *testing.T) {
	p := newPlay(t, "")
	old, ca := p.named["old"], p.named["ca"].cert
	signer := Signer{Key: old.key, Certificate: old.cert, Chain: []*x509.Certificate{ca}}
	_, err := fixture.Must(New(p.config)).UpdateKey(t.Context(), p.request(), signer)
	require.NoError(t, err)

	for _, m := range p.requests {
		assert.NoError(t, VerifySignature(m, old.key.Public()))
		assert.Equal(t, [][]byte{old.cert.Raw, ca.Raw}, m.ExtraCerts)
		assert.Equal(t, DirectoryName(old.cert.RawSubject), m.Header.Sender)
		assert.NotEqual(t, []byte("reference"), m.Header.SenderKID)
	}
	request := p.requests[0].Body.Content.(CertReqMessages)[0]
	id, err := request.CertReq.OldCertID()
	require.NoError(t, err)
	assert.Equal(t, &CertID{DirectoryName(old.cert.RawIssuer), old.cert.SerialNumber}, id)
	assert.Equal(t, old.cert.RawIssuer, request.CertReq.CertTemplate.Issuer)
}

func TestClient_SenderReference_isTheSenderUnderAMAC(t *testing.T) {
	for kind, want := range map[BodyType]string{BodyIR: "CN=reference", BodyKUR: "CN=leaf,O=Example"} {
		p := newPlay(t, "> client SenderReference = true")
		_, err := p.send(kind)
		require.NoError(t, err)
		for _, request := range p.requests {
			assert.Equal(t, DirectoryName(dn(want)), request.Header.Sender)
		}
		template := p.requests[0].Body.Content.(CertReqMessages)[0].CertReq.CertTemplate
		assert.Equal(t, p.csr.RawSubject, template.Subject)
		if kind == BodyIR {
			assert.Equal(t, []byte("reference"), p.requests[0].Header.SenderKID, "all the same")
		}
	}
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
	m, err := c.begin(nil, nil).message(PKIBody{BodyCertConf, CertConfirmContent{status}})

	require.NoError(t, err)
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
