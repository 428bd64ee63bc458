package cmp

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// initialize sends an ir to a responder.
func initialize(t *testing.T, p *testPKI, r *responder, change func(*Config)) (Result, *bytes.Buffer, error) {
	t.Helper()
	c, log := testClient(t, r, change)
	result, err := c.Initialize(t.Context(), Request{CSR: p.csr, Key: p.key})
	return result, log, err
}

func asCertifier(c *x509.Certificate) {
	asCA(c)
	c.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
}

// Many CAs that sign their answers are certified for certificates and CRLs only.
func TestClient_signerForCertificatesOnly_isAcceptedWhenItIsAnAnchor(t *testing.T) {
	p := newPKI(t)
	p.ca = newIdentity(t, testRecipient, p.root, asCertifier)
	again := issue(t, testRecipient, p.ca.key.Public(), p.root, nil, asCertifier)
	for name, anchor := range map[string]*x509.Certificate{"itself": p.ca.cert, "its name and key in another certificate": again} {
		t.Run(name, func(t *testing.T) {
			r := &responder{t: t, testPKI: p, signed: true}

			_, log, err := initialize(t, p, r, func(c *Config) { c.TrustAnchors = []*x509.Certificate{anchor, p.root.cert} })

			require.NoError(t, err)
			assert.Equal(t, []BodyType{BodyIR, BodyCertConf}, r.kinds())
			assert.Equal(t, 1, bytes.Count(log.Bytes(), []byte("key usage of its signer lacks digitalSignature")), "once in a transaction")
			assert.Contains(t, log.String(), testRecipient)
		})
	}
	t.Run("no anchor", func(t *testing.T) {
		_, _, err := initialize(t, p, &responder{t: t, testPKI: p, signed: true}, func(c *Config) { anchored(p, c) })
		assert.EqualError(t, err, "checking signer's key usage of the CMP answer: has no digitalSignature, "+
			"want digitalSignature, no keyUsage at all, or a CA that is itself among the trust anchors")
	})
	t.Run("a leaf that is an anchor", func(t *testing.T) {
		leaf := newIdentity(t, testRecipient, p.root, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment })
		hostile{func(_ *testPKI, c *Config) { c.TrustAnchors = []*x509.Certificate{leaf.cert} }, signedBy(t, leaf), "signer's key usage: no digitalSignature"}.run(t, p)
	})
}

const raName = "CN=RA,O=Example"

func withUsages(usages ...asn1.ObjectIdentifier) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.UnknownExtKeyUsage = usages }
}

// An RA that signs answers gets a new certificate now and then; its name stays.
func TestClient_SignerDN_isBelievedAlsoWithARenewedCertificate(t *testing.T) {
	p := newPKI(t)
	configured := func(c *Config) { anchored(p, c); c.SignerDN = "O=Example, CN=RA" } // in either order
	for name, change := range map[string]func(*x509.Certificate){
		"cmcRA": withUsages(oidCMCRA),
		"cmcCA": withUsages(oidCMCCA),
		"cmcRA among others": func(c *x509.Certificate) {
			withUsages(oidCMCRA)(c)
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		},
		"anyExtendedKeyUsage":   func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} },
		"no extended key usage": nil,
	} {
		t.Run(name, func(t *testing.T) {
			for range 2 { // another key and certificate each time
				r := &responder{t: t, testPKI: p}
				signedBy(t, newIdentity(t, raName, p.ca, change), p.ca.cert)(p, r)

				result, log, err := initialize(t, p, r, configured)

				require.NoError(t, err)
				assert.Equal(t, []*x509.Certificate{p.root.cert}, result.Trusted)
				assert.Empty(t, warnings(t, log))
			}
		})
	}
	t.Run("the CA itself", func(t *testing.T) {
		_, _, err := initialize(t, p, &responder{t: t, testPKI: p, signed: true}, configured)
		assert.NoError(t, err)
	})
}

func TestHostile_SignerDN(t *testing.T) {
	p := newPKI(t)
	stranger := newIdentity(t, "CN=Stranger", nil, asCA)
	config := func(p *testPKI, c *Config) { anchored(p, c); c.SignerDN = raName }
	for name, row := range map[string]hostile{
		"an RA by its extended key usage only": {anchored, signedBy(t, newIdentity(t, raName, p.ca, withUsages(oidCMCRA)), p.ca.cert),
			`signer: "CN=RA,O=Example"`},
		"another RA of the same PKI": {config, signedBy(t, newIdentity(t, "CN=Other RA", p.ca, withUsages(oidCMCRA)), p.ca.cert), `signer: "CN=Other RA"`},
		"a server's certificate under the name": {config, signedBy(t, newIdentity(t, raName, p.ca, func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
		}), p.ca.cert), "signer's extended key usage: neither id-kp-cmcRA nor id-kp-cmcCA"},
		"the name under another CA": {config, signedBy(t, newIdentity(t, raName, stranger, withUsages(oidCMCRA)), stranger.cert),
			`signer's chain: "CN=RA,O=Example", which does not verify (x509: certificate signed by unknown authority)`},
		"a certificate for encryption": {config, signedBy(t, newIdentity(t, raName, p.ca, func(c *x509.Certificate) {
			c.KeyUsage = x509.KeyUsageKeyEncipherment
		}), p.ca.cert), "signer's key usage: no digitalSignature"},
	} {
		t.Run(name, func(t *testing.T) { row.run(t, p) })
	}
}

func TestNew_names_areChecked(t *testing.T) {
	good := Config{URL: "http://ca.example/", Recipient: testRecipient, Secret: []byte(testSecret)}
	for want, change := range map[string]func(*Config){
		`issuer: reading distinguished name "CN": "CN" has no equals sign`:                     func(c *Config) { c.IssuerDN = "CN" },
		`signer: reading distinguished name "CN": "CN" has no equals sign`:                     func(c *Config) { c.SignerDN = "CN" },
		`sender is to be the reference of the secret, and the reference is empty or not UTF-8`: func(c *Config) { c.SenderReference = true },
	} {
		cfg := good
		change(&cfg)
		_, err := New(cfg)
		assert.EqualError(t, err, want)
	}
}

func TestClient_SenderReference_isTheSenderUnderAMAC(t *testing.T) {
	p := newPKI(t)
	r := &responder{t: t, testPKI: p}
	c, _ := testClient(t, r, func(c *Config) { c.SenderReference = true })
	_, err := c.Initialize(t.Context(), Request{CSR: p.csr, Key: p.key})
	require.NoError(t, err)
	_, err = c.UpdateKey(t.Context(), Request{CSR: p.csr, Key: p.key}, Signer{Key: p.old.key, Certificate: p.old.cert})
	require.NoError(t, err)

	require.Equal(t, []BodyType{BodyIR, BodyCertConf, BodyKUR, BodyCertConf}, r.kinds())
	for i, want := range []string{"CN=reference", "CN=reference", "CN=leaf,O=Example", "CN=leaf,O=Example"} {
		assert.Equal(t, want, r.requests[i].Header.Sender.String())
	}
	assert.Equal(t, []byte("reference"), r.requests[0].Header.SenderKID, "is sent all the same")
	assert.Equal(t, p.csr.RawSubject, r.requests[0].Body.Content.(CertReqMessages)[0].CertReq.CertTemplate.Subject)
}

// A certificate that is signed with an algorithm that is not accepted is not called one of an unknown authority.
func TestClient_certificateSignedWithUnsupportedAlgorithm_namesIt(t *testing.T) {
	p := newPKI(t)
	for want, oid := range map[string]asn1.ObjectIdentifier{
		"ECDSA with SHA-1 (1.2.840.10045.4.1)":          {1, 2, 840, 10045, 4, 1},
		"ECDSA with SHA-224 (1.2.840.10045.4.3.1)":      {1, 2, 840, 10045, 4, 3, 1},
		"ECDSA with SHA3-256 (2.16.840.1.101.3.4.3.10)": {2, 16, 840, 1, 101, 3, 4, 3, 10},
		"ML-DSA-65 (2.16.840.1.101.3.4.3.18)":           {2, 16, 840, 1, 101, 3, 4, 3, 18},
	} {
		leaf := resigned(t, p.leaf(t, nil), oid)
		r := &responder{t: t, testPKI: p, body: func(_ *PKIMessage, honest PKIBody) PKIBody {
			if rep, ok := honest.Content.(*CertRepMessage); ok {
				rep.Response[0].CertifiedKeyPair.Certificate = leaf
			}
			return honest
		}}

		_, _, err := initialize(t, p, r, nil)

		assert.ErrorContains(t, err, `"O=Example,CN=leaf" is signed with `+want+", which is not accepted")
	}
}

// resigned names another signature algorithm in a certificate, of which nothing can verify the signature.
func resigned(t *testing.T, cert *x509.Certificate, algorithm asn1.ObjectIdentifier) []byte {
	from, err := asn1.Marshal(asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2})
	require.NoError(t, err)
	to, err := asn1.Marshal(algorithm)
	require.NoError(t, err)
	var parts struct {
		TBS       asn1.RawValue
		Algorithm asn1.RawValue
		Signature asn1.BitString
	}
	_, err = asn1.Unmarshal(cert.Raw, &parts)
	require.NoError(t, err)
	identifier := wrap(0x30, to)
	tbs := bytes.Replace(parts.TBS.Bytes, wrap(0x30, from), identifier, 1)
	parts.TBS = asn1.RawValue{FullBytes: wrap(0x30, tbs)}
	parts.Algorithm = asn1.RawValue{FullBytes: identifier}
	der, err := asn1.Marshal(parts)
	require.NoError(t, err)
	return der
}
