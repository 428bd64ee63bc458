package cmp

import (
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"math/big"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// pbmWith encodes PBM parameters that need not make sense.
func pbmWith(t *testing.T, owf, mac AlgorithmIdentifier, iterations int64) *AlgorithmIdentifier {
	parameters, err := encode((&pbmParameters{make([]byte, saltSize), owf, mac, big.NewInt(iterations)}).code)
	require.NoError(t, err)
	return &AlgorithmIdentifier{Algorithm: oidPasswordBasedMAC, Parameters: parameters}
}

func TestHostile_MAC(t *testing.T) {
	p := newPKI(t)
	// after bends the message when it is protected already.
	after := func(change func(m *PKIMessage)) func(*testPKI, *responder) {
		return func(_ *testPKI, r *responder) { r.message = func(_, m *PKIMessage) { change(m) } }
	}
	protect := func(protection Protection, secret string) func(*testPKI, *responder) {
		return func(_ *testPKI, r *responder) {
			r.protect = func(_, m *PKIMessage) { protectMAC(t, m, protection, secret) }
		}
	}
	parameters := func(algorithm *AlgorithmIdentifier) func(*testPKI, *responder) {
		return after(func(m *PKIMessage) { m.Header.ProtectionAlg = algorithm })
	}
	unknown := AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 3}}
	sha256, hmac256 := hashIdentifier(crypto.SHA256), hmacIdentifier(crypto.SHA256)
	const mismatch = "MAC: one that does not verify (MAC does not match: the shared secrets differ or the message was changed)"
	for name, row := range map[string]hostile{
		"no protection":             {respond: after(func(m *PKIMessage) { m.Protection, m.Header.ProtectionAlg = nil, nil }), want: "protection: none"},
		"no protection bits":        {respond: after(func(m *PKIMessage) { m.Protection = nil }), want: "protection: none"},
		"no protectionAlg":          {respond: after(func(m *PKIMessage) { m.Header.ProtectionAlg = nil }), want: "protection: none"},
		"parameters absent":         {respond: after(func(m *PKIMessage) { m.Header.ProtectionAlg.Parameters = nil }), want: "MAC: one that does not verify (PBMParameter is absent)"},
		"parameters NULL":           {respond: after(func(m *PKIMessage) { m.Header.ProtectionAlg.Parameters = derNull }), want: "MAC: one that does not verify (PBMParameter: PBMParameter is missing or malformed)"},
		"0 iterations":              {respond: parameters(pbmWith(t, sha256, hmac256, 0)), want: "MAC: one that does not verify (PBMParameter: iterationCount is 0, want 100 to 100000)"},
		"-1 iterations":             {respond: parameters(pbmWith(t, sha256, hmac256, -1)), want: "MAC: one that does not verify (PBMParameter: iterationCount is -1, want 100 to 100000)"},
		"2³¹ iterations":            {respond: parameters(pbmWith(t, sha256, hmac256, 1<<31)), want: "MAC: one that does not verify (PBMParameter: iterationCount is 2147483648, want 100 to 100000)"},
		"unknown owf":               {respond: parameters(pbmWith(t, unknown, hmac256, 1000)), want: "MAC: one that does not verify (PBMParameter: owf: hash algorithm 1.2.3 is not supported)"},
		"unknown mac":               {respond: parameters(pbmWith(t, sha256, unknown, 1000)), want: "MAC: one that does not verify (PBMParameter: mac: MAC algorithm 1.2.3 is not supported)"},
		"short MAC":                 {respond: after(func(m *PKIMessage) { m.Protection = m.Protection[:4] }), want: "MAC: one that does not verify (MAC has 4 bytes, want 32)"},
		"empty MAC":                 {respond: after(func(m *PKIMessage) { m.Protection = []byte{} }), want: "MAC: one that does not verify (MAC has 0 bytes, want 32)"},
		"wrong secret":              {respond: protect(ProtectionPBMSHA256, "another secret"), want: mismatch},
		"header changed afterwards": {respond: after(func(m *PKIMessage) { m.Header.AddImplicitConfirm() }), want: mismatch},
		"body changed afterwards":   {respond: after(func(m *PKIMessage) { m.Body.Content.(*CertRepMessage).CAPubs = nil }), want: mismatch},
		"weaker than configured":    {respond: protect(ProtectionPBMSHA1, testSecret), want: `protection: "pbm-sha1"`},
		"PBM where PBMAC1 is configured": {config: func(_ *testPKI, c *Config) { c.Protection = ProtectionPBMAC1 },
			respond: protect(ProtectionPBMSHA256, testSecret), want: `protection: "pbm-sha256"`},
		"MAC where signatures are configured": {config: func(p *testPKI, c *Config) {
			c.Protection, c.Signer = ProtectionSignature, &Signer{Key: p.old.key, Certificate: p.old.cert}
		}, respond: protect(ProtectionPBMAC1, testSecret), want: "protection: a MAC"},
		"MAC where there is no secret": {config: func(p *testPKI, c *Config) {
			c.Secret, c.Protection, c.Signer = nil, ProtectionSignature, &Signer{Key: p.old.key, Certificate: p.old.cert}
		}, respond: protect(ProtectionPBMSHA256, ""), want: "protection: a MAC"},
	} {
		t.Run(name, func(t *testing.T) {
			r := row.run(t, p)
			assert.Equal(t, []BodyType{BodyIR}, r.kinds(), "nothing is confirmed")
		})
	}
}

// HMAC-SHA1 over the message with a key derived by SHA-256 is OpenSSL's default, and no weaker than PBM with
// SHA-256 for all anybody knows.
func TestClient_MACOfOpenSSL_isAccepted(t *testing.T) {
	p := newPKI(t)
	r := &responder{t: t, testPKI: p, protect: func(_, m *PKIMessage) {
		mac := newPBM(ProtectionPBMSHA256, crypto.SHA256)
		mac.Hash = crypto.SHA1
		require.NoError(t, NewMACKeys([]byte(testSecret)).Protect(m, mac))
	}}
	c, _ := testClient(t, r, nil)

	_, err := c.Initialize(t.Context(), Request{CSR: p.csr, Key: p.key})

	assert.NoError(t, err)
}

// signedBy has the answer signed by an identity, sent along with more certificates.
func signedBy(t *testing.T, signer *identity, more ...*x509.Certificate) func(*testPKI, *responder) {
	return func(_ *testPKI, r *responder) {
		r.protect = func(_, m *PKIMessage) {
			m.SetSigner(signer.cert, more)
			require.NoError(t, ProtectSignature(m, signer.key))
		}
	}
}

func TestHostile_signature(t *testing.T) {
	p := newPKI(t)
	leaf := newIdentity(t, "CN=some server", p.ca, nil)
	namesake := newIdentity(t, testRecipient, nil, asCA)
	expired := newIdentity(t, testRecipient, p.root, func(c *x509.Certificate) { asCA(c); c.NotAfter = testNow.Add(-1) })
	future := newIdentity(t, testRecipient, p.root, func(c *x509.Certificate) { asCA(c); c.NotBefore = testNow.Add(1e9) })
	unfit := newIdentity(t, testRecipient, p.root, func(c *x509.Certificate) { asCA(c); c.KeyUsage = x509.KeyUsageCertSign })
	crls := newIdentity(t, testRecipient, nil, func(c *x509.Certificate) { asCA(c); c.KeyUsage = x509.KeyUsageCRLSign })
	ours := &identity{p.key, issue(t, testRecipient, p.key.Public(), p.ca, nil, nil)}
	after := func(change func(m *PKIMessage)) func(*testPKI, *responder) {
		return func(_ *testPKI, r *responder) {
			r.signed, r.message = true, func(_, m *PKIMessage) { change(m) }
		}
	}
	algorithm := func(a AlgorithmIdentifier) func(m *PKIMessage) {
		return func(m *PKIMessage) { m.Header.ProtectionAlg = &a }
	}
	const none = `signature: one by "CN=Test CA,O=Example,C=SE" that no certificate verifies`
	chain := func(reason string) string {
		return `signer's chain: "CN=Test CA,O=Example,C=SE", which does not verify (` + reason + `)`
	}
	for name, row := range map[string]hostile{
		"by another leaf of the trusted CA": {anchored, signedBy(t, leaf, p.ca.cert), `signer: "CN=some server"`},
		"by another leaf under the CA's name": {anchored, func(_ *testPKI, r *responder) {
			r.protect = func(_, m *PKIMessage) {
				m.SetSigner(leaf.cert, nil)
				m.Header.Sender = DirectoryName(p.ca.cert.RawSubject)
				require.NoError(t, ProtectSignature(m, leaf.key))
			}
		}, `sender: "CN=Test CA,O=Example,C=SE"`},
		"self-signed under the CA's name": {anchored, signedBy(t, namesake),
			chain(`x509: certificate signed by unknown authority`)},
		"by an expired certificate": {anchored, signedBy(t, expired),
			chain("x509: certificate has expired or is not yet valid: current time 2026-05-04T03:02:01Z is after 2026-05-04T03:02:00Z")},
		"by a certificate that is not valid yet": {anchored, signedBy(t, future),
			chain("x509: certificate has expired or is not yet valid: current time 2026-05-04T03:02:01Z is before 2026-05-04T03:02:02Z")},
		"by a certificate not for signatures":    {anchored, signedBy(t, unfit), "signer's key usage: no digitalSignature"},
		"by an anchor for CRLs only":             {func(p *testPKI, c *Config) { c.TrustAnchors = []*x509.Certificate{crls.cert} }, signedBy(t, crls), "signer's key usage: no digitalSignature"},
		"by our own key, certified by the CA":    {anchored, signedBy(t, ours, p.ca.cert), "signer: our own key"},
		"where there are no anchors":             {nil, signedBy(t, p.ca), `protection: a signature by "CN=Test CA,O=Example,C=SE", and no trust anchors are configured for signed answers`},
		"by our own key, even with lax trust":    {laxly, signedBy(t, ours, p.ca.cert), "signer: our own key"},
		"without a certificate that verifies it": {anchored, after(func(m *PKIMessage) { m.ExtraCerts = nil }), none},
		"by nobody, even with lax trust":         {laxly, after(func(m *PKIMessage) { m.ExtraCerts = nil }), none},
		"and its header changed afterwards":      {anchored, after(func(m *PKIMessage) { m.Header.AddImplicitConfirm() }), none},
		"and its body changed afterwards":        {anchored, after(func(m *PKIMessage) { m.Body.Content.(*CertRepMessage).CAPubs = nil }), none},
		"and sent with a sender that is no DN": {anchored, func(_ *testPKI, r *responder) {
			r.signed, r.header = true, func(_ *PKIMessage, h *PKIHeader) { h.Sender = GeneralName{0x82, 1, 'x'} }
		}, `sender: "GeneralName 820178"`},
		"with SHA-1": {anchored, after(algorithm(AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 1}})),
			"protection algorithm: a signature by ECDSA with SHA-1 (1.2.840.10045.4.1)"},
		"with SHA-1, even with lax trust": {laxly, after(algorithm(AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 5}, Parameters: derNull})),
			"protection algorithm: a signature by SHA-1 with RSA (1.2.840.113549.1.1.5)"},
		"with SHA3-256": {anchored, after(algorithm(AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 3, 10}})),
			"protection algorithm: a signature by ECDSA with SHA3-256 (2.16.840.1.101.3.4.3.10)"},
		"with an algorithm nobody knows": {anchored, after(algorithm(AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 3}})),
			"protection algorithm: a signature by OID 1.2.3"},
		"with other parameters of PSS": {anchored, after(algorithm(AlgorithmIdentifier{Algorithm: oidRSAPSS})),
			"protection algorithm: a signature by RSASSA-PSS with other parameters than one hash throughout and a salt of its length"},
		"with a MAC by Diffie-Hellman": {nil, after(algorithm(AlgorithmIdentifier{Algorithm: oidDHBasedMAC})),
			"protection algorithm: a MAC based on Diffie-Hellman (1.2.840.113533.7.66.30)"},
		"with the attacker's root among extraCerts": {anchored, signedBy(t, namesake, namesake.cert), chain("x509: certificate signed by unknown authority")},
		"with the signer behind 10 of the same name": {anchored, func(_ *testPKI, r *responder) {
			r.signed = true
			r.message = func(_, m *PKIMessage) { crowd(m, namesake.cert.Raw) }
		}, none},
	} {
		for _, kind := range []BodyType{BodyIR, BodyKUR} {
			t.Run(name+", to "+kind.String(), func(t *testing.T) {
				r := row.runAs(t, p, kind)
				assert.Equal(t, []BodyType{kind}, r.kinds(), "nothing is confirmed")
			})
		}
	}
}

// An answer signed with a key that we prove possession of, or sign with, is our own message come back, or that of
// somebody who has stolen the key.
func TestHostile_signedByOurOwnKey(t *testing.T) {
	p := newPKI(t)
	certified := func(key crypto.Signer) *identity {
		return &identity{key, issue(t, testRecipient, key.Public(), p.ca, nil, nil)}
	}
	request := Request{CSR: p.csr, Key: p.key}
	old := Signer{Key: p.old.key, Certificate: p.old.cert}
	for name, row := range map[string]struct {
		signer *identity
		call   func(*Client) error
	}{
		"kur by the new key": {certified(p.key), func(c *Client) error { _, err := c.UpdateKey(t.Context(), request, old); return err }},
		"kur by the old key": {certified(p.old.key), func(c *Client) error { _, err := c.UpdateKey(t.Context(), request, old); return err }},
		"cr by the new key":  {certified(p.key), func(c *Client) error { _, err := c.Certify(t.Context(), request); return err }},
		"rr by the key of the certificate to revoke": {certified(p.old.key), func(c *Client) error {
			return c.Revoke(t.Context(), p.old.cert)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			r := &responder{t: t, testPKI: p}
			signedBy(t, row.signer)(p, r)
			c, _ := testClient(t, r, func(c *Config) { anchored(p, c) })

			err := row.call(c)

			assert.Equal(t, "signer: our own key", outline(err))
			assert.Len(t, r.kinds(), 1)
		})
	}
}

func TestHostile_signatureUnderAlgorithmOfMAC(t *testing.T) {
	p := newPKI(t)
	r := &responder{t: t, testPKI: p, signed: true, message: func(_, m *PKIMessage) {
		m.Header.ProtectionAlg = pbmWith(t, hashIdentifier(crypto.SHA256), hmacIdentifier(crypto.SHA256), 1000)
	}}
	c, _ := testClient(t, r, func(c *Config) { anchored(p, c) })

	_, err := c.Initialize(t.Context(), Request{CSR: p.csr, Key: p.key})

	var check *CheckError
	require.ErrorAs(t, err, &check)
	assert.Equal(t, "MAC", check.Check)
}

// crowd puts ten certificates before those of the message.
func crowd(m *PKIMessage, der []byte) {
	for range 10 {
		m.ExtraCerts = append([][]byte{der}, m.ExtraCerts...)
	}
}

func TestHostile_protectionChangesMidway(t *testing.T) {
	p := newPKI(t)
	twin := newIdentity(t, testRecipient, p.root, asCA)
	confirmation := func(protect func(m *PKIMessage)) func(request, m *PKIMessage) {
		return func(request, m *PKIMessage) {
			if request.Body.Type == BodyCertConf {
				protect(m)
			}
		}
	}
	bySignature := func(signer *identity) func(m *PKIMessage) {
		return func(m *PKIMessage) {
			m.SetSigner(signer.cert, nil)
			require.NoError(t, ProtectSignature(m, signer.key))
		}
	}
	for name, row := range map[string]hostile{
		"MAC turned into signature": {anchored, func(_ *testPKI, r *responder) { r.message = confirmation(bySignature(p.ca)) },
			"protection: a signature"},
		"signature turned into MAC": {anchored, func(_ *testPKI, r *responder) {
			r.signed, r.message = true, confirmation(func(m *PKIMessage) { protectMAC(t, m, ProtectionPBMSHA256, testSecret) })
		}, "protection: a MAC"},
		"pkiConf by another signer of the same name": {anchored, func(_ *testPKI, r *responder) {
			r.signed, r.message = true, confirmation(bySignature(twin))
		}, "signer: a signature that does not verify (x509: ECDSA verification failure)"},
		"pkiConf by another signer, with lax trust": {laxly, func(_ *testPKI, r *responder) {
			r.signed, r.message = true, func(request, m *PKIMessage) {
				m.ExtraCerts = append(m.ExtraCerts, p.root.cert.Raw)
				confirmation(bySignature(twin))(request, m)
			}
		}, "signer: a signature that does not verify (x509: ECDSA verification failure)"},
		"pkiConf without protection": {nil, func(_ *testPKI, r *responder) {
			r.message = confirmation(func(m *PKIMessage) { m.Protection, m.Header.ProtectionAlg = nil, nil })
		}, "protection: none"},
	} {
		t.Run(name, func(t *testing.T) {
			r := row.run(t, p)
			assert.Equal(t, []BodyType{BodyIR, BodyCertConf}, r.kinds())
		})
	}
}

// EJBCA sends pkiConf without extraCerts, echoes the client's senderKID, and gives names back in reverse.
func TestClient_mannersOfEJBCA_areAccepted(t *testing.T) {
	p := newPKI(t)
	r := &responder{t: t, testPKI: p, signed: true}
	r.header = func(request *PKIMessage, h *PKIHeader) {
		h.SenderKID = request.Header.SenderKID
		h.Sender = DirectoryName(dn(t, "C=SE,O=Example,CN=Test CA"))
	}
	r.message = func(request, m *PKIMessage) {
		if request.Body.Type == BodyCertConf {
			m.ExtraCerts = nil
		}
	}
	c, _ := testClient(t, r, func(c *Config) { anchored(p, c) })

	_, err := c.Initialize(t.Context(), Request{CSR: p.csr, Key: p.key})

	assert.NoError(t, err)
}

func TestClient_signerBehindManyOthers_isFound(t *testing.T) {
	p := newPKI(t)
	r := &responder{t: t, testPKI: p, signed: true, message: func(_, m *PKIMessage) { crowd(m, p.root.cert.Raw) }}
	c, _ := testClient(t, r, func(c *Config) { anchored(p, c) })

	_, err := c.Initialize(t.Context(), Request{CSR: p.csr, Key: p.key})

	assert.NoError(t, err)
}

func TestClient_senderUnderMAC_mayBeAnything(t *testing.T) {
	p := newPKI(t)
	for _, sender := range []GeneralName{DirectoryName(nil), DirectoryName(p.csr.RawSubject)} {
		r := &responder{t: t, testPKI: p, header: func(_ *PKIMessage, h *PKIHeader) { h.Sender = sender }}
		c, _ := testClient(t, r, nil)
		_, err := c.Initialize(t.Context(), Request{CSR: p.csr, Key: p.key})
		assert.NoError(t, err)
	}
}
