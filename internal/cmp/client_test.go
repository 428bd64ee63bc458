package cmp

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/pki"
)

func TestClient_honestAnswer_isAccepted(t *testing.T) {
	p := newPKI(t)
	request := Request{CSR: p.csr, Key: p.key}
	signer := &Signer{Key: p.old.key, Certificate: p.old.cert, Chain: []*x509.Certificate{p.ca.cert}}
	operations := map[BodyType]func(*Client) (Result, error){
		BodyIR:  func(c *Client) (Result, error) { return c.Initialize(t.Context(), request) },
		BodyCR:  func(c *Client) (Result, error) { return c.Certify(t.Context(), request) },
		BodyKUR: func(c *Client) (Result, error) { return c.UpdateKey(t.Context(), request, *signer) },
	}
	configs := map[string]struct {
		signed bool
		change func(*Config)
	}{
		"answers by MAC":               {false, nil},
		"answers by MAC with SHA-1":    {false, func(c *Config) { c.Protection = ProtectionPBMSHA1 }},
		"signed answers to MAC":        {true, func(c *Config) { anchored(p, c) }},
		"signed answers to PBMAC1":     {true, func(c *Config) { anchored(p, c); c.Protection = ProtectionPBMAC1 }},
		"signed answers to signature":  {true, func(c *Config) { anchored(p, c); c.Protection, c.Signer, c.Secret = ProtectionSignature, signer, nil }},
		"recipient written in reverse": {true, func(c *Config) { anchored(p, c); c.Recipient = "C=SE, O=Example, CN=Test CA" }},
		"the CA itself is the anchor":  {true, func(c *Config) { c.TrustAnchors = []*x509.Certificate{p.ca.cert} }},
		"answers signed by an anchor of other name": {true, func(c *Config) {
			c.TrustAnchors, c.Recipient, c.IssuerDN = []*x509.Certificate{p.ca.cert}, "CN=RA", testRecipient
		}},
	}
	for name, config := range configs {
		for kind, operation := range operations {
			t.Run(name+" to "+kind.String(), func(t *testing.T) {
				r := &responder{t: t, testPKI: p, signed: config.signed}
				c, log := testClient(t, r, config.change)

				result, err := operation(c)

				require.NoError(t, err)
				require.NotEmpty(t, result.Chain)
				assert.True(t, p.key.PublicKey.Equal(result.Chain[0].PublicKey))
				for i, cert := range append(result.Chain[1:], result.Trusted[0]) {
					assert.NoError(t, result.Chain[i].CheckSignatureFrom(cert))
				}
				assert.Empty(t, warnings(t, log))
				assert.Equal(t, []BodyType{kind, BodyCertConf}, r.kinds())
				assertNoSecret(t, log.String())
				confirmed := r.requests[1].Body.Content.(CertConfirmContent)
				hash, _ := CertHash(result.Chain[0])
				assert.Equal(t, CertConfirmContent{{CertHash: hash}}, confirmed)
			})
		}
	}
}

func TestClient_request_isAsTheProfileWants(t *testing.T) {
	p := newPKI(t)
	r := &responder{t: t, testPKI: p}
	c, _ := testClient(t, r, nil)
	_, err := c.Initialize(t.Context(), Request{CSR: p.csr, Key: p.key})
	require.NoError(t, err)

	ir, conf := r.requests[0], r.requests[1]
	assert.Equal(t, PVNO2, ir.Header.PVNO)
	assert.Equal(t, "CN=leaf,O=Example", ir.Header.Sender.String())
	assert.Equal(t, testRecipient, ir.Header.Recipient.String())
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
	assert.Equal(t, dn(t, testRecipient), template.Issuer)
	assert.Equal(t, p.csr.RawSubject, template.Subject)
	assert.Equal(t, p.csr.RawSubjectPublicKeyInfo, template.PublicKey)
	assert.Empty(t, request.CertReq.Controls)
	issued := certificateWith(t, template.Extensions)
	assert.Equal(t, x509.KeyUsageDigitalSignature|x509.KeyUsageContentCommitment, issued.KeyUsage)
	assert.Equal(t, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}, issued.ExtKeyUsage)
	assert.Equal(t, []string{"leaf.example"}, issued.DNSNames)

	assert.Equal(t, ir.Header.TransactionID, conf.Header.TransactionID)
	assert.NotEqual(t, ir.Header.SenderNonce, conf.Header.SenderNonce)
	assert.Len(t, conf.Header.RecipNonce, 16)
}

// certificateWith reads extensions as x509 does.
func certificateWith(t *testing.T, extensions []pkix.Extension) *x509.Certificate {
	key := newKey(t)
	return issue(t, "CN=any", key.Public(), nil, key, func(c *x509.Certificate) { c.KeyUsage, c.ExtraExtensions = 0, extensions })
}

func TestClient_keyUsage_fitsTheKindOfKey(t *testing.T) {
	p := newPKI(t)
	for name, key := range testKeys(t) {
		r := &responder{t: t, testPKI: p}
		c, _ := testClient(t, r, nil)
		_, _ = c.Initialize(t.Context(), Request{CSR: newCSR(t, key, nil), Key: key}) // the answer is for another key

		template := r.requests[0].Body.Content.(CertReqMessages)[0].CertReq.CertTemplate
		want := x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment
		if strings.HasPrefix(name, "RSA") {
			want |= x509.KeyUsageKeyEncipherment
		}
		assert.Equal(t, want, certificateWith(t, template.Extensions).KeyUsage, name)
	}
}

func TestClient_usagesInCSR_areHonoured(t *testing.T) {
	p := newPKI(t)
	usage := pkix.Extension{Id: pki.OIDKeyUsage, Critical: true, Value: []byte{3, 2, 7, 0x80}}
	extended := pkix.Extension{Id: oidExtKeyUsage, Value: []byte{0x30, 10, 6, 8, 0x2b, 6, 1, 5, 5, 7, 3, 4}}
	p.csr = newCSR(t, p.key, func(c *x509.CertificateRequest) {
		c.ExtraExtensions = []pkix.Extension{usage, extended, basicConstraintsCA}
	})

	extensions := templateExtensions(p.csr)

	require.Len(t, extensions, 3, "basicConstraints is not passed on")
	assert.Equal(t, []pkix.Extension{usage, extended}, extensions[:2])
	assert.True(t, extensions[2].Id.Equal(oidSAN))
}

func TestClient_UpdateKey_namesAndSignsWithOldCertificate(t *testing.T) {
	p := newPKI(t)
	r := &responder{t: t, testPKI: p}
	c, _ := testClient(t, r, nil)
	_, err := c.UpdateKey(t.Context(), Request{CSR: p.csr, Key: p.key}, Signer{Key: p.old.key, Certificate: p.old.cert, Chain: []*x509.Certificate{p.ca.cert}})
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

func TestClient_requestThatCannotBeMade_isNotSent(t *testing.T) {
	p := newPKI(t)
	r := &responder{t: t, testPKI: p}
	c, _ := testClient(t, r, nil)
	other := newKey(t)
	for want, try := range map[string]func() error{
		"key does not belong to the certificate signing request":   func() error { _, err := c.Initialize(t.Context(), Request{p.csr, other}); return err },
		"request lacks its key":                                    func() error { _, err := c.Certify(t.Context(), Request{CSR: p.csr}); return err },
		"certificate signing request is missing or was not parsed": func() error { _, err := c.Certify(t.Context(), Request{CSR: &x509.CertificateRequest{}}); return err },
		"signer lacks its key or its certificate":                  func() error { _, err := c.UpdateKey(t.Context(), Request{p.csr, p.key}, Signer{}); return err },
		`key of the signer does not belong to its certificate "CN=leaf,O=Example"`: func() error {
			_, err := c.UpdateKey(t.Context(), Request{p.csr, p.key}, Signer{Key: other, Certificate: p.old.cert})
			return err
		},
	} {
		assert.EqualError(t, try(), want)
	}
	assert.Empty(t, r.kinds())
}

func TestNew_badConfiguration_isRefused(t *testing.T) {
	good := Config{URL: "http://ca.example/", Recipient: testRecipient, Secret: []byte(testSecret)}
	_, err := New(good)
	require.NoError(t, err)
	p := newPKI(t)
	for want, change := range map[string]func(*Config){
		`recipient: reading distinguished name "": is empty`:                                        func(c *Config) { c.Recipient = "" },
		`URL of the CMP server cannot be parsed`:                                                    func(c *Config) { c.URL = "http://user:" + testSecret + "@ca.example:x/" },
		`URL of the CMP server "ftp://user:xxxxx@ca.example/": want http:// or https:// and a host`: func(c *Config) { c.URL = "ftp://user:" + testSecret + "@ca.example/" },
		`URL of the CMP server "http:///path": want http:// or https:// and a host`:                 func(c *Config) { c.URL = "http:///path" },
		`protection "pbm-sha256" needs a secret`:                                                    func(c *Config) { c.Secret = nil },
		`protection "signature" needs a key and its certificate`:                                    func(c *Config) { c.Protection = ProtectionSignature },
		`protection is "none", want "pbm-sha256", "pbm-sha1", "pbmac1" or "signature"`:              func(c *Config) { c.Protection = "none" },
		`response trust is "all", want "anchored" or "onap"`:                                        func(c *Config) { c.ResponseTrust = "all" },
		`key of the signer does not belong to its certificate "CN=Test Root"`: func(c *Config) {
			c.Protection, c.Signer = ProtectionSignature, &Signer{Key: p.key, Certificate: p.root.cert}
		},
	} {
		cfg := good
		change(&cfg)
		_, err := New(cfg)
		assert.EqualError(t, err, want)
	}
}

func TestClient_implicitConfirm(t *testing.T) {
	p := newPKI(t)
	rows := map[string]struct {
		ask, grant bool
		want       []BodyType
	}{
		"asked and granted needs no certConf":          {true, true, []BodyType{BodyIR}},
		"asked and not granted is confirmed":           {true, false, []BodyType{BodyIR, BodyCertConf}},
		"granted without being asked for is confirmed": {false, true, []BodyType{BodyIR, BodyCertConf}},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			r := &responder{t: t, testPKI: p, grant: row.grant}
			c, _ := testClient(t, r, func(c *Config) { c.ImplicitConfirm = row.ask })

			_, err := c.Initialize(t.Context(), Request{CSR: p.csr, Key: p.key})

			require.NoError(t, err)
			assert.Equal(t, row.want, r.kinds())
			assert.Equal(t, row.ask, r.requests[0].Header.ImplicitConfirm())
			if len(r.requests) > 1 {
				assert.False(t, r.requests[1].Header.ImplicitConfirm())
			}
		})
	}
}

func TestClient_confirmationFails_failsTheRequest(t *testing.T) {
	p := newPKI(t)
	asked := func(_ *testPKI, c *Config) { c.ImplicitConfirm = true }
	confirmed := func(body PKIBody) func(*PKIMessage, PKIBody) PKIBody {
		return func(request *PKIMessage, honest PKIBody) PKIBody {
			if request.Body.Type == BodyCertConf {
				return body
			}
			return honest
		}
	}
	t.Run("with an error message", func(t *testing.T) {
		hostile{config: asked, respond: func(p *testPKI, r *responder) {
			r.body = confirmed(PKIBody{BodyError, &ErrorMsgContent{StatusInfo: Rejection("no such transaction", FailBadRequest)}})
		}, want: `confirming certificate: CA refused: rejection, badRequest: "no such transaction"`}.run(t, p)
	})
	t.Run("with another body", func(t *testing.T) {
		hostile{config: asked, respond: func(p *testPKI, r *responder) {
			r.body = confirmed(PKIBody{BodyCP, &CertRepMessage{}})
		}, want: "body type: cp"}.run(t, p)
	})
	t.Run("with an empty body", func(t *testing.T) {
		answers := 0
		hostile{config: asked, respond: func(p *testPKI, r *responder) {
			r.der = func(der []byte) []byte {
				if answers++; answers == 2 {
					return nil
				}
				return der
			}
		}, want: "confirming certificate: sending CMP request: HTTP status 200: answer is empty"}.run(t, p)
	})
}

func TestClient_unknownSignatureHash_isConfirmedWithHashAlg(t *testing.T) {
	cert := &x509.Certificate{Raw: []byte("certificate"), SignatureAlgorithm: x509.UnknownSignatureAlgorithm}
	status := certStatus(cert, 0)
	require.NotNil(t, status.HashAlg)
	p := newPKI(t)
	c, _ := testClient(t, &responder{t: t, testPKI: p}, nil)

	m, err := c.begin(nil, nil).message(PKIBody{BodyCertConf, CertConfirmContent{status}})

	require.NoError(t, err)
	assert.Equal(t, PVNO3, m.Header.PVNO)
	hash, err := CertHashWith(cert, *status.HashAlg)
	require.NoError(t, err)
	assert.Equal(t, status.CertHash, hash)
}

func TestCertHash_followsSignature(t *testing.T) {
	for algorithm, size := range map[x509.SignatureAlgorithm]int{
		x509.SHA1WithRSA: 20, x509.SHA256WithRSA: 32, x509.ECDSAWithSHA256: 32, x509.SHA256WithRSAPSS: 32, x509.ECDSAWithSHA384: 48,
		x509.SHA384WithRSAPSS: 48, x509.ECDSAWithSHA512: 64, x509.SHA512WithRSA: 64, x509.PureEd25519: 64,
	} {
		hash, hashAlg := CertHash(&x509.Certificate{SignatureAlgorithm: algorithm})
		assert.Len(t, hash, size, algorithm)
		assert.Nil(t, hashAlg, algorithm)
	}
}

func TestClient_Revoke(t *testing.T) {
	p := newPKI(t)
	r := &responder{t: t, testPKI: p}
	c, _ := testClient(t, r, nil)

	require.NoError(t, c.Revoke(t.Context(), p.old.cert))

	_, err := NewMACKeys([]byte(testSecret)).Verify(r.requests[0])
	assert.NoError(t, err)
	details := r.requests[0].Body.Content.(RevReqContent)
	assert.Equal(t, p.old.cert.SerialNumber, details[0].CertDetails.SerialNumber)
	assert.Equal(t, p.old.cert.RawIssuer, details[0].CertDetails.Issuer)
	assert.Equal(t, []pkix.Extension{{Id: oidReasonCode, Value: []byte{10, 1, 5}}}, details[0].CRLEntryDetails)
}

func TestClient_Revoke_everyStatusOfARevocation_isAccepted(t *testing.T) {
	p := newPKI(t)
	for _, status := range []PKIStatus{StatusAccepted, StatusGrantedWithMods, StatusRevocationWarning, StatusRevocationNotification} {
		r := &responder{t: t, testPKI: p, body: func(*PKIMessage, PKIBody) PKIBody {
			return PKIBody{BodyRP, &RevRepContent{Status: []PKIStatusInfo{{Status: status}}}}
		}}
		c, _ := testClient(t, r, nil)
		assert.NoError(t, c.Revoke(t.Context(), p.old.cert), status)
	}
}

func TestClient_Revoke_notRevoked_isAnError(t *testing.T) {
	p := newPKI(t)
	for want, status := range map[string][]PKIStatusInfo{
		`CA refused: rejection, certRevoked: "already"`: {Rejection("already", FailCertRevoked)},
		"revocation status: waiting":                    {{Status: StatusWaiting}},
		"revocation status: keyUpdateWarning":           {{Status: StatusKeyUpdateWarning}},
		"revocation status: 2":                          {{}, {}},
	} {
		r := &responder{t: t, testPKI: p, body: func(*PKIMessage, PKIBody) PKIBody { return PKIBody{BodyRP, &RevRepContent{Status: status}} }}
		c, _ := testClient(t, r, nil)
		assert.Equal(t, want, outline(c.Revoke(t.Context(), p.old.cert)))
	}
}

func TestClient_cancelled_isATransportError(t *testing.T) {
	p := newPKI(t)
	c, _ := testClient(t, &responder{t: t, testPKI: p}, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()

	_, err := c.Initialize(ctx, Request{CSR: p.csr, Key: p.key})

	var transport *TransportError
	require.ErrorAs(t, err, &transport)
	assert.ErrorIs(t, err, context.Canceled)
	assert.False(t, transport.Timeout)
}

func TestClient_onapTrust_warnsOfEveryAnswer(t *testing.T) {
	p := newPKI(t)
	r := &responder{t: t, testPKI: p, signed: true}
	r.message = func(_, m *PKIMessage) { m.ExtraCerts = append(m.ExtraCerts, p.root.cert.Raw) }
	c, log := testClient(t, r, func(c *Config) { c.ResponseTrust = ResponseTrustONAP })

	result, err := c.Initialize(t.Context(), Request{CSR: p.csr, Key: p.key})

	require.NoError(t, err)
	assert.Equal(t, []*x509.Certificate{p.root.cert}, result.Trusted)
	reason := `checking signer's chain of the CMP answer: has "CN=Test CA,O=Example,C=SE", which does not verify (no trust anchors are configured for signed answers), want a chain to a trust anchor`
	assert.Equal(t, []string{
		`ip is signed by "CN=Test CA,O=Example,C=SE", which is trusted only because response trust is "onap": ` + reason,
		`root "CN=Test Root" is trusted only because response trust is "onap": it came with the answer and nothing vouches for it`,
		`pkiconf is signed by "CN=Test CA,O=Example,C=SE", which is trusted only because response trust is "onap": ` + reason,
	}, warnings(t, log))
}

func TestClient_onapTrust_anchoredAnswer_warnsOfNothing(t *testing.T) {
	p := newPKI(t)
	c, log := testClient(t, &responder{t: t, testPKI: p, signed: true}, func(c *Config) { anchored(p, c); c.ResponseTrust = ResponseTrustONAP })

	_, err := c.Initialize(t.Context(), Request{CSR: p.csr, Key: p.key})

	require.NoError(t, err)
	assert.Empty(t, warnings(t, log))
}

func TestClient_caPubsUnderMAC_areTrusted(t *testing.T) {
	p := newPKI(t)
	second := newIdentity(t, "CN=Second Root", nil, asCA)
	r := &responder{t: t, testPKI: p, body: func(_ *PKIMessage, honest PKIBody) PKIBody {
		if rep, ok := honest.Content.(*CertRepMessage); ok {
			rep.CAPubs = [][]byte{p.ca.cert.Raw, second.cert.Raw, p.root.cert.Raw}
		}
		return honest
	}}
	c, _ := testClient(t, r, nil)

	result, err := c.Initialize(t.Context(), Request{CSR: p.csr, Key: p.key})

	require.NoError(t, err)
	assert.Equal(t, []*x509.Certificate{p.root.cert, second.cert}, result.Trusted, "the signing root first")
	assert.Len(t, result.Chain, 2)
	assert.Equal(t, p.ca.cert, result.Chain[1])
}

func TestClient_AllowModified_takesOtherNames(t *testing.T) {
	p := newPKI(t)
	r := &responder{t: t, testPKI: p}
	r.body = func(_ *PKIMessage, honest PKIBody) PKIBody {
		if honest.Type == BodyIP {
			rep := r.granted(issue(t, "CN=other", p.key.Public(), p.ca, nil, func(c *x509.Certificate) { c.SerialNumber = big.NewInt(1) }))
			rep.Response[0].Status.Status = StatusGrantedWithMods
			honest.Content = rep
		}
		return honest
	}
	c, _ := testClient(t, r, func(c *Config) { c.AllowModified = true })

	result, err := c.Initialize(t.Context(), Request{CSR: p.csr, Key: p.key})

	require.NoError(t, err)
	assert.Equal(t, "CN=other", result.Chain[0].Subject.String())
}
