package cmp

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/pki"
)

func TestClient_honestAnswer_isAccepted(t *testing.T) {
	p := newPKI(t)
	for name, config := range map[string]struct {
		bend   bend
		config configure
	}{
		"answers by MAC":            {nil, nil},
		"answers by MAC with SHA-1": {nil, func(_ *testPKI, c *Config) { c.Protection = ProtectionPBMSHA1 }},
		"signed answers to MAC":     {signed, anchored},
		"signed answers to PBMAC1": {signed,
			func(p *testPKI, c *Config) { anchored(p, c); c.Protection = ProtectionPBMAC1 }},
		"signed answers to signature": {signed,
			func(p *testPKI, c *Config) { anchored(p, c); signing(p, c); c.Secret = nil }},
		"recipient written in reverse": {signed,
			func(p *testPKI, c *Config) { anchored(p, c); c.Recipient = "C=SE, O=Example, CN=Test CA" }},
		"the CA itself is the anchor": {signed, anchoredIn(p.ca.cert)},
		"answers signed by an anchor of other name": {signed, func(p *testPKI, c *Config) {
			c.TrustAnchors, c.Recipient, c.IssuerDN = []*x509.Certificate{p.ca.cert}, "CN=RA", testRecipient
		}},
		"answers that ONAP's trust need not help": {signed,
			func(p *testPKI, c *Config) { anchored(p, c); laxly(p, c) }},
	} {
		for _, kind := range []BodyType{BodyIR, BodyCR, BodyKUR} {
			t.Run(name+" to "+kind.String(), func(t *testing.T) {
				got := p.send(t, kind, config.config, config.bend)

				require.NoError(t, got.err)
				require.NotEmpty(t, got.Chain)
				assert.True(t, p.key.PublicKey.Equal(got.Chain[0].PublicKey))
				for i, cert := range append(got.Chain[1:], got.Trusted[0]) {
					assert.NoError(t, got.Chain[i].CheckSignatureFrom(cert))
				}
				assert.Empty(t, warnings(got.logged))
				assert.Equal(t, kind.String()+" certConf", got.kinds())
				assertNoSecret(t, got.logged.String())
				hash, _ := CertHash(got.Chain[0])
				assert.Equal(t, CertConfirmContent{{CertHash: hash}}, got.requests[1].Body.Content)
			})
		}
	}
}

func TestClient_request_isAsTheProfileWants(t *testing.T) {
	p := newPKI(t)
	got := p.initialize(t, nil)
	require.NoError(t, got.err)

	ir, conf := got.requests[0], got.requests[1]
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
	assert.Equal(t, ir.Header.ProtectionAlg, conf.Header.ProtectionAlg, "the same parameters throughout")

	request := ir.Body.Content.(CertReqMessages)[0]
	assert.NoError(t, request.VerifyPOPO())
	template := request.CertReq.CertTemplate
	assert.Zero(t, request.CertReq.CertReqID)
	assert.Equal(t, dn(testRecipient), template.Issuer)
	assert.Equal(t, p.csr.RawSubject, template.Subject)
	assert.Equal(t, p.csr.RawSubjectPublicKeyInfo, template.PublicKey)
	assert.Empty(t, request.CertReq.Controls)
	issued := certificateWith(t, template.Extensions)
	assert.Equal(t, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}, issued.ExtKeyUsage)
	assert.Equal(t, []string{"leaf.example"}, issued.DNSNames)

	assert.Equal(t, ir.Header.TransactionID, conf.Header.TransactionID)
	assert.NotEqual(t, ir.Header.SenderNonce, conf.Header.SenderNonce)
	assert.Len(t, conf.Header.RecipNonce, 16)
}

// certificateWith reads extensions as x509 does.
func certificateWith(t *testing.T, extensions []pkix.Extension) *x509.Certificate {
	key := newKey()
	return issue(t, "CN=any", key.Public(), nil, key, func(c *x509.Certificate) {
		c.KeyUsage, c.ExtraExtensions = 0, extensions
	})
}

func TestClient_keyUsage_fitsTheKindOfKey(t *testing.T) {
	for name, key := range testKeys(t) {
		want := x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment
		if strings.HasPrefix(name, "RSA") {
			want |= x509.KeyUsageKeyEncipherment
		}
		assert.Equal(t, want, certificateWith(t, templateExtensions(newCSR(t, key))).KeyUsage, name)
	}
}

// emailOnly is an extended key usage.
var emailOnly = pkix.Extension{Id: oidExtKeyUsage, Value: []byte{0x30, 10, 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 4}}

func TestClient_usagesInCSR_areHonoured(t *testing.T) {
	usage := pkix.Extension{Id: pki.OIDKeyUsage, Critical: true, Value: []byte{3, 2, 7, 0x80}}
	isCA := pkix.Extension{Id: []int{2, 5, 29, 19}, Critical: true, Value: []byte{0x30, 3, 1, 1, 0xff}}

	extensions := templateExtensions(newCSR(t, newKey(), usage, emailOnly, isCA))

	require.Len(t, extensions, 3, "basicConstraints is not passed on")
	assert.Equal(t, []pkix.Extension{usage, emailOnly}, extensions[:2])
	assert.True(t, extensions[2].Id.Equal(oidSAN))
}

func TestClient_UpdateKey_namesAndSignsWithOldCertificate(t *testing.T) {
	p := newPKI(t)
	r := &responder{t: t, testPKI: p}
	c, _ := testClient(t, r, nil)
	signer := Signer{Key: p.old.key, Certificate: p.old.cert, Chain: []*x509.Certificate{p.ca.cert}}
	_, err := c.UpdateKey(t.Context(), p.request(), signer)
	require.NoError(t, err)

	for _, m := range r.requests {
		assert.NoError(t, VerifySignature(m, p.old.key.Public()))
		assert.Equal(t, [][]byte{p.old.cert.Raw, p.ca.cert.Raw}, m.ExtraCerts)
		assert.Equal(t, DirectoryName(p.old.cert.RawSubject), m.Header.Sender)
		assert.NotEqual(t, []byte("reference"), m.Header.SenderKID)
	}
	request := r.requests[0].Body.Content.(CertReqMessages)[0]
	id, err := request.CertReq.OldCertID()
	require.NoError(t, err)
	assert.Equal(t, &CertID{DirectoryName(p.old.cert.RawIssuer), p.old.cert.SerialNumber}, id)
	assert.Equal(t, p.old.cert.RawIssuer, request.CertReq.CertTemplate.Issuer)
}

func TestClient_SenderReference_isTheSenderUnderAMAC(t *testing.T) {
	p := newPKI(t)
	byReference := func(_ *testPKI, c *Config) { c.SenderReference = true }
	for kind, want := range map[BodyType]string{BodyIR: "CN=reference", BodyKUR: "CN=leaf,O=Example"} {
		got := p.send(t, kind, byReference)
		require.NoError(t, got.err)
		for _, request := range got.requests {
			assert.Equal(t, DirectoryName(dn(want)), request.Header.Sender)
		}
		template := got.requests[0].Body.Content.(CertReqMessages)[0].CertReq.CertTemplate
		assert.Equal(t, p.csr.RawSubject, template.Subject)
		if kind == BodyIR {
			assert.Equal(t, []byte("reference"), got.requests[0].Header.SenderKID, "is sent all the same")
		}
	}
}

func TestClient_requestThatCannotBeMade_isNotSent(t *testing.T) {
	p := newPKI(t)
	r := &responder{t: t, testPKI: p}
	c, _ := testClient(t, r, nil)
	other := newKey()
	for want, row := range map[string]struct {
		request Request
		old     Signer
	}{
		"key does not belong to the certificate signing request":   {Request{p.csr, other}, p.old.signer()},
		"request lacks its key":                                    {Request{CSR: p.csr}, p.old.signer()},
		"certificate signing request is missing or was not parsed": {Request{Key: p.key}, p.old.signer()},
		"signer lacks its key or its certificate":                  {p.request(), Signer{}},
		`key of the signer does not belong to its certificate "O=Example,CN=leaf"`: {p.request(),
			Signer{Key: other, Certificate: p.old.cert}},
	} {
		_, err := c.UpdateKey(t.Context(), row.request, row.old)
		assert.EqualError(t, err, want)
	}
	assert.Empty(t, r.kinds())
}

func TestNew_badConfiguration_isRefused(t *testing.T) {
	p := newPKI(t)
	for name, change := range map[string]func(*Config){
		"no recipient":              func(c *Config) { c.Recipient = "" },
		"issuer":                    func(c *Config) { c.IssuerDN = "CN" },
		"signer":                    func(c *Config) { c.SignerDN = "CN" },
		"reference":                 func(c *Config) { c.SenderReference = true },
		"port that is not a number": func(c *Config) { c.URL = "http://user:" + testSecret + "@ca.example:x/" },
		"scheme":                    func(c *Config) { c.URL = "ftp://user:" + testSecret + "@ca.example/" },
		"no host":                   func(c *Config) { c.URL = "http:///path" },
		"no secret":                 func(c *Config) { c.Secret = nil },
		"no signer":                 func(c *Config) { c.Protection = ProtectionSignature },
		"protection":                func(c *Config) { c.Protection = "none" },
		"response trust":            func(c *Config) { c.ResponseTrust = "all" },
		"key of another certificate": func(c *Config) {
			c.Protection, c.Signer = ProtectionSignature, &Signer{Key: p.key, Certificate: p.root.cert}
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := Config{URL: "http://ca.example/", Recipient: testRecipient, Secret: []byte(testSecret)}
			_, err := New(cfg)
			require.NoError(t, err)
			change(&cfg)
			_, err = New(cfg)
			require.Error(t, err)
			checkText(t, err.Error())
			assertNoSecret(t, err.Error())
		})
	}
}

func TestClient_implicitConfirm(t *testing.T) {
	p := newPKI(t)
	for name, row := range map[string]struct {
		ask, grant bool
		want       string
	}{
		"asked and granted needs no certConf":          {true, true, "ir"},
		"asked and not granted is confirmed":           {true, false, "ir certConf"},
		"granted without being asked for is confirmed": {false, true, "ir certConf"},
	} {
		got := p.initialize(t, func(_ *testPKI, c *Config) { c.ImplicitConfirm = row.ask },
			func(_ *testPKI, r *responder) { r.grant = row.grant })
		require.NoError(t, got.err, name)
		assert.Equal(t, row.want, got.kinds(), name)
		assert.Equal(t, row.ask, got.requests[0].Header.ImplicitConfirm(), name)
		assert.False(t, len(got.requests) > 1 && got.requests[1].Header.ImplicitConfirm(), name)
	}
}

func TestClient_unknownSignatureHash_isConfirmedWithHashAlg(t *testing.T) {
	cert := &x509.Certificate{Raw: []byte("certificate"), SignatureAlgorithm: x509.UnknownSignatureAlgorithm}
	status := certStatus(cert, 0)
	require.NotNil(t, status.HashAlg)
	c, _ := testClient(t, nil, nil)

	m, err := c.begin(nil, nil).message(PKIBody{BodyCertConf, CertConfirmContent{status}})

	require.NoError(t, err)
	assert.Equal(t, PVNO3, m.Header.PVNO)
	hash, err := CertHashWith(cert, *status.HashAlg)
	require.NoError(t, err)
	assert.Equal(t, status.CertHash, hash)
}

func TestCertHash_followsSignature(t *testing.T) {
	for algorithm, size := range map[x509.SignatureAlgorithm]int{
		x509.SHA1WithRSA: 20, x509.SHA256WithRSA: 32, x509.ECDSAWithSHA256: 32, x509.SHA256WithRSAPSS: 32,
		x509.ECDSAWithSHA384: 48, x509.SHA384WithRSAPSS: 48, x509.ECDSAWithSHA512: 64, x509.SHA512WithRSA: 64,
		x509.PureEd25519: 64,
	} {
		hash, hashAlg := CertHash(&x509.Certificate{SignatureAlgorithm: algorithm})
		assert.Len(t, hash, size, algorithm)
		assert.Nil(t, hashAlg, algorithm)
	}
}

func TestClient_Revoke(t *testing.T) {
	p := newPKI(t)
	revoked := func(statuses ...PKIStatusInfo) bend {
		return answering(PKIBody{BodyRP, &RevRepContent{Status: statuses}})
	}
	for _, status := range []PKIStatus{StatusAccepted, StatusGrantedWithMods, StatusRevocationWarning,
		StatusRevocationNotification} {
		got := p.send(t, BodyRR, nil, revoked(PKIStatusInfo{Status: status}))
		require.NoError(t, got.err, status)
		_, err := NewMACKeys([]byte(testSecret)).Verify(got.requests[0])
		assert.NoError(t, err)
		details := got.requests[0].Body.Content.(RevReqContent)[0]
		assert.Equal(t, p.old.cert.SerialNumber, details.CertDetails.SerialNumber)
		assert.Equal(t, p.old.cert.RawIssuer, details.CertDetails.Issuer)
		assert.Equal(t, []pkix.Extension{{Id: oidReasonCode, Value: []byte{10, 1, 5}}}, details.CRLEntryDetails)
	}
	hostiles(t, p, []hostile{
		{"rejected", nil, revoked(Rejection("already", FailCertRevoked))},
		{"waiting", nil, revoked(PKIStatusInfo{Status: StatusWaiting})},
		{"another status", nil, revoked(PKIStatusInfo{Status: StatusKeyUpdateWarning})},
		{"status of two", nil, revoked(PKIStatusInfo{}, PKIStatusInfo{})},
		{"by a certification", nil, answering(PKIBody{BodyCP, &CertRepMessage{}})},
	}, "rr")
}

func TestClient_cancelled_isATransportError(t *testing.T) {
	p := newPKI(t)
	c, _ := testClient(t, &responder{t: t, testPKI: p}, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()

	_, err := c.Initialize(ctx, p.request())

	var transport *TransportError
	require.ErrorAs(t, err, &transport)
	assert.ErrorIs(t, err, context.Canceled)
	assert.False(t, transport.Timeout)
}

func BenchmarkClient_Initialize(b *testing.B) {
	p := newPKI(b)
	r := &responder{t: b, testPKI: p}
	with(p.leaf(b, nil))(p, r)
	c, _ := testClient(b, r, nil)
	for b.Loop() {
		_, err := c.Initialize(b.Context(), p.request())
		require.NoError(b, err)
	}
}
