package cmp

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

// The hostile answers, by what is wrong with them. transport_test.go and poll_test.go have the others.

func TestHostile_encoding(t *testing.T) {
	hostiles(t, newPKI(t), []hostile{
		{"cut off", nil, withDER(func(der []byte) []byte { return der[:len(der)-1] })},
		{"cut off after the first byte", nil, withDER(func(der []byte) []byte { return der[:1] })},
		{"that is not DER at all, under an error status", nil, func(_ *testPKI, r *responder) {
			r.status, r.der = 500, func([]byte) []byte { return []byte("out of memory") }
		}},
		{"good, under an error status", nil, func(_ *testPKI, r *responder) { r.status = 500 }},
		{"the request echoed back", nil, func(_ *testPKI, r *responder) {
			r.der = func([]byte) []byte {
				der, err := r.requests[0].Marshal()
				require.NoError(t, err)
				return der
			}
		}},
	}, "ir")
}

func nested(depth int) []byte {
	der := []byte{0x30, 0}
	for range depth {
		der = wrap(0x30, der)
	}
	return der
}

func crowd(size int, der []byte) (ders [][]byte) {
	for range size {
		ders = append(ders, der)
	}
	return ders
}

func TestHostile_binding(t *testing.T) {
	header := func(change func(h *PKIHeader)) bend {
		return withHeader(func(_ *PKIMessage, h *PKIHeader) { change(h) })
	}
	retyped := func(kind BodyType) bend {
		return withBody(func(_ *PKIMessage, body PKIBody) PKIBody { body.Type = kind; return body })
	}
	status := func(status PKIStatus) bend { return withResponse(func(r *CertResponse) { r.Status.Status = status }) }
	ones := bytes.Repeat([]byte{1}, NonceSize)
	p := newPKI(t)
	hostiles(t, p, []hostile{
		{"other transactionID", nil, header(func(h *PKIHeader) { h.TransactionID = ones })},
		{"no transactionID", nil, header(func(h *PKIHeader) { h.TransactionID = nil })},
		{"other recipNonce", nil, header(func(h *PKIHeader) { h.RecipNonce = ones })},
		{"no recipNonce", nil, header(func(h *PKIHeader) { h.RecipNonce = nil })},
		{"no senderNonce", nil, header(func(h *PKIHeader) { h.SenderNonce = nil })},
		{"empty senderNonce", nil, header(func(h *PKIHeader) { h.SenderNonce = []byte{} })},
		{"our nonce reflected", nil, header(func(h *PKIHeader) { h.SenderNonce = h.RecipNonce })},
		{"version 1", nil, header(func(h *PKIHeader) { h.PVNO = 1 })},
		{"version 4", nil, header(func(h *PKIHeader) { h.PVNO = 4 })},
		{"made long ago", nil, header(func(h *PKIHeader) { h.MessageTime = testNow.Add(-16 * time.Minute) })},
		{"made in the future", nil, header(func(h *PKIHeader) { h.MessageTime = testNow.Add(16 * time.Minute) })},
		{"with an offset from the time", nil, header(func(h *PKIHeader) {
			h.MessageTime, _ = time.Parse(offsetTimeLayout, "20260504030201+0200")
			h.messageTimeText = "20260504030201+0200"
		})},
		{"cp", nil, retyped(BodyCP)},
		{"pkiconf", nil, answering(PKIBody{BodyPKIConf, PKIConfirmContent{}})},
		{"pollRep", nil, answering(PKIBody{BodyPollRep, PollRepContent{{}}})},
		{"certReqId 1", nil, withResponse(func(r *CertResponse) { r.CertReqID = 1 })},
		{"certReqId -1", nil, withResponse(func(r *CertResponse) { r.CertReqID = -1 })},
		{"no CertResponse", nil, withRep(func(rep *CertRepMessage) { rep.Response = nil })},
		{"two CertResponses", nil,
			withRep(func(rep *CertRepMessage) { rep.Response = append(rep.Response, rep.Response[0]) })},
		{"accepted with nothing", nil, withResponse(func(r *CertResponse) { r.CertifiedKeyPair = nil })},
		{"rejected with a certificate", nil, withResponse(func(r *CertResponse) {
			r.Status = Rejection("no", FailBadPOP)
		})},
		{"waiting with a certificate", nil, status(StatusWaiting)},
		{"keyUpdateWarning", nil, status(StatusKeyUpdateWarning)},
		{"status 99", nil, status(99)},
		{"a refusal of another transaction", nil,
			bent(answering(refusal("no")), header(func(h *PKIHeader) { h.TransactionID = ones }))},
		{"a refusal with another nonce", nil, bent(answering(refusal("no")),
			header(func(h *PKIHeader) { h.RecipNonce = ones }))},
	}, "ir", "kur")
	hostiles(t, p, []hostile{{"kup", nil, retyped(BodyKUP)}}, "ir")
	hostiles(t, p, []hostile{{"ip", nil, retyped(BodyIP)}}, "kur")
}

func TestHostile_signatureUnderAlgorithmOfMAC(t *testing.T) {
	relabelled := afterwards(func(m *PKIMessage) { m.Header.ProtectionAlg = pbmWith(nil) })
	assert.ErrorContains(t, newPKI(t).initialize(t, anchored, signed, relabelled).err, "checking MAC of the CMP answer")
}

func TestHostile_answerReplayed(t *testing.T) {
	p := newPKI(t)
	var recorded []byte
	r := &responder{t: t, testPKI: p, grant: true, der: func(der []byte) []byte {
		if recorded == nil {
			recorded = der
		}
		return recorded
	}}
	c, _ := testClient(t, r, func(c *Config) { c.ImplicitConfirm = true })
	_, err := c.Initialize(t.Context(), p.request())
	require.NoError(t, err, "the first time the answer is good")

	_, err = c.Initialize(t.Context(), p.request())

	assert.ErrorContains(t, err, "checking transactionID of the CMP answer")
}

// pbmWith encodes PBM parameters that need not make sense.
func pbmWith(change func(*pbmParameters)) *AlgorithmIdentifier {
	p := &pbmParameters{make([]byte, saltSize), hashIdentifier(crypto.SHA256),
		hmacIdentifier(crypto.SHA256), big.NewInt(1000)}
	if change != nil {
		change(p)
	}
	parameters := fixture.Must(encode(p.code))
	return &AlgorithmIdentifier{Algorithm: oidPasswordBasedMAC, Parameters: parameters}
}

func TestHostile_MAC(t *testing.T) {
	protect := func(protection Protection, secret string) bend {
		return func(_ *testPKI, r *responder) {
			r.protect = func(_, m *PKIMessage) { protectMAC(t, m, protection, secret) }
		}
	}
	parameters := func(change func(*pbmParameters)) bend {
		return afterwards(func(m *PKIMessage) { m.Header.ProtectionAlg = pbmWith(change) })
	}
	iterations := func(n int64) bend { return parameters(func(p *pbmParameters) { p.iterations = big.NewInt(n) }) }
	unknown := AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 3}}
	hostiles(t, newPKI(t), []hostile{
		{"no protection", nil, afterwards(unprotected)},
		{"no protection bits", nil, afterwards(func(m *PKIMessage) { m.Protection = nil })},
		{"no protectionAlg", nil, afterwards(func(m *PKIMessage) { m.Header.ProtectionAlg = nil })},
		{"parameters absent", nil, afterwards(func(m *PKIMessage) { m.Header.ProtectionAlg.Parameters = nil })},
		{"parameters NULL", nil, afterwards(func(m *PKIMessage) { m.Header.ProtectionAlg.Parameters = derNull })},
		{"2³¹ iterations", nil, iterations(1 << 31)},
		{"unknown owf", nil, parameters(func(p *pbmParameters) { p.owf = unknown })},
		{"unknown mac", nil, parameters(func(p *pbmParameters) { p.mac = unknown })},
		{"short MAC", nil, afterwards(func(m *PKIMessage) { m.Protection = m.Protection[:4] })},
		{"empty MAC", nil, afterwards(func(m *PKIMessage) { m.Protection = []byte{} })},
		{"wrong secret", nil, protect(ProtectionPBMSHA256, "another secret")},
		{"header changed afterwards", nil, afterwards(func(m *PKIMessage) { m.Header.AddImplicitConfirm() })},
		{"body changed afterwards", nil,
			afterwards(func(m *PKIMessage) { m.Body.Content.(*CertRepMessage).CAPubs = nil })},
		{"weaker than configured", nil, protect(ProtectionPBMSHA1, testSecret)},
		{"PBM where PBMAC1 is configured", func(_ *testPKI, c *Config) { c.Protection = ProtectionPBMAC1 },
			protect(ProtectionPBMSHA256, testSecret)},
		{"MAC where signatures are configured", signing, protect(ProtectionPBMAC1, testSecret)},
		{"MAC where there is no secret", func(p *testPKI, c *Config) { signing(p, c); c.Secret = nil },
			protect(ProtectionPBMSHA256, "")},
	}, "ir")
}

func TestHostile_signature(t *testing.T) {
	p := newPKI(t)
	root := p.root
	leaf := newIdentity(t, "CN=some server", p.ca, nil)
	namesake := newIdentity(t, testRecipient, nil, asCA)
	expired := newIdentity(t, testRecipient, root, func(c *x509.Certificate) { asCA(c); c.NotAfter = testNow.Add(-1) })
	future := newIdentity(t, testRecipient, root, func(c *x509.Certificate) { asCA(c); c.NotBefore = testNow.Add(1e9) })
	unfit := newIdentity(t, testRecipient, root,
		func(c *x509.Certificate) { asCA(c); c.KeyUsage = x509.KeyUsageCertSign })
	crls := newIdentity(t, testRecipient, nil, func(c *x509.Certificate) { asCA(c); c.KeyUsage = x509.KeyUsageCRLSign })
	cipher := newIdentity(t, testRecipient, root,
		func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment })
	ours := &identity{p.key, issue(t, testRecipient, p.key.Public(), p.ca, nil, nil)}
	large := fixture.OversizedRSA()
	signer := &identity{large, issue(t, testRecipient, large.Public(), root, nil, asCA)}
	underName := func(name []byte, signer *identity) bend {
		return func(_ *testPKI, r *responder) {
			r.protect = func(_, m *PKIMessage) {
				m.SetSigner(signer.cert, nil)
				m.Header.Sender = DirectoryName(name)
				require.NoError(t, ProtectSignature(m, signer.key))
			}
		}
	}
	algorithm := func(parameters []byte, oid ...int) bend {
		return bent(signed, afterwards(func(m *PKIMessage) {
			m.Header.ProtectionAlg = &AlgorithmIdentifier{Algorithm: oid, Parameters: parameters}
		}))
	}
	sent := func(change func(m *PKIMessage)) bend { return bent(signed, afterwards(change)) }
	hostiles(t, p, []hostile{
		{"by another leaf of the trusted CA", anchored, signedBy(leaf, p.ca.cert)},
		{"by another leaf under the CA's name", anchored, underName(p.ca.cert.RawSubject, leaf)},
		{"self-signed under the CA's name", anchored, signedBy(namesake)},
		{"by an expired certificate", anchored, signedBy(expired)},
		{"by a certificate that is not valid yet", anchored, signedBy(future)},
		{"by a certificate not for signatures", anchored, signedBy(unfit)},
		{"by an anchor for CRLs only", anchoredIn(crls.cert), signedBy(crls)},
		{"by an anchor for encryption only", anchoredIn(cipher.cert), signedBy(cipher)},
		{"by our own key, certified by the CA", anchored, signedBy(ours, p.ca.cert)},
		{"where there are no anchors", nil, signedBy(p.ca)},
		{"by our own key, even with lax trust", laxly, signedBy(ours, p.ca.cert)},
		{"without a certificate that verifies it", anchored, sent(noExtraCerts)},
		{"by no one, even with lax trust", laxly, sent(noExtraCerts)},
		{"and its header changed afterwards", anchored, sent(func(m *PKIMessage) { m.Header.AddImplicitConfirm() })},
		{"and its body changed afterwards", anchored, sent(func(m *PKIMessage) {
			m.Body.Content.(*CertRepMessage).CAPubs = nil
		})},
		{"and sent with a sender that is not a DN", anchored,
			bent(signed, withHeader(func(_ *PKIMessage, h *PKIHeader) { h.Sender = GeneralName{0x82, 1, 'x'} }))},
		{"with SHA-1", anchored, algorithm(nil, 1, 2, 840, 10045, 4, 1)},
		{"with SHA-1, even with lax trust", laxly, algorithm(derNull, 1, 2, 840, 113549, 1, 1, 5)},
		{"with SHA3-256", anchored, algorithm(nil, 2, 16, 840, 1, 101, 3, 4, 3, 10)},
		{"with an algorithm that is not known", anchored, algorithm(nil, 1, 2, 3)},
		{"with other parameters of PSS", anchored, algorithm(nil, oidRSAPSS...)},
		{"with a MAC by Diffie-Hellman", nil, algorithm(nil, oidDHBasedMAC...)},
		{"with the attacker's root among extraCerts", anchored, signedBy(namesake, namesake.cert)},
		{"with the signer behind 10 of the same name", anchored, sent(behind(10, namesake.cert))},
		{"by a key that is too large", anchored, signedBy(signer, signer.cert)},
		{"by a key that is too large, with lax trust", laxly, signedBy(signer)},
		{"by a key that is too large, as a refusal", anchored, bent(answering(refusal("no")), signedBy(signer))},
	}, "ir", "kur")
}

// behind puts a certificate before the others, n times.
func behind(n int, cert *x509.Certificate) func(*PKIMessage) {
	return func(m *PKIMessage) { m.ExtraCerts = append(crowd(n, cert.Raw), m.ExtraCerts...) }
}

// An answer signed with a key that we prove possession of, or sign with, is our own message come back, or that of
// a thief of the key.
func TestHostile_signedByOurOwnKey(t *testing.T) {
	p := newPKI(t)
	by := func(name string, key crypto.Signer) hostile {
		return hostile{name, anchored, signedBy(&identity{key, issue(t, testRecipient, key.Public(), p.ca, nil, nil)})}
	}
	hostiles(t, p, []hostile{by("the new key", p.key)}, "kur", "cr")
	hostiles(t, p, []hostile{by("the old key", p.old.key)}, "kur", "rr")
}

const raName = "CN=RA,O=Example"

func withUsages(usages ...asn1.ObjectIdentifier) change {
	return func(c *x509.Certificate) { c.UnknownExtKeyUsage = usages }
}

func TestHostile_SignerDN(t *testing.T) {
	p := newPKI(t)
	stranger := newIdentity(t, "CN=Stranger", nil, asCA)
	config := func(p *testPKI, c *Config) { anchored(p, c); c.SignerDN = raName }
	by := func(name string, change change) bend { return signedBy(newIdentity(t, name, p.ca, change), p.ca.cert) }
	hostiles(t, p, []hostile{
		{"an RA by its extended key usage only", anchored, by(raName, withUsages(oidCMCRA))},
		{"another RA of the same PKI", config, by("CN=Other RA", withUsages(oidCMCRA))},
		{"a server's certificate under the name", config, by(raName, func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
		})},
		{"the name under another CA", config,
			signedBy(newIdentity(t, raName, stranger, withUsages(oidCMCRA)), stranger.cert)},
		{"a certificate for encryption", config, by(raName, func(c *x509.Certificate) {
			c.KeyUsage = x509.KeyUsageKeyEncipherment
		})},
	}, "ir")
}

func TestHostile_protectionChangesMidway(t *testing.T) {
	p := newPKI(t)
	twin := newIdentity(t, testRecipient, p.root, asCA)
	confirmedBy := func(signer *identity) bend {
		return afterwards(func(m *PKIMessage) {
			m.SetSigner(signer.cert, nil)
			require.NoError(t, ProtectSignature(m, signer.key))
		}, BodyCertConf)
	}
	byMAC := afterwards(func(m *PKIMessage) { protectMAC(t, m, ProtectionPBMSHA256, testSecret) }, BodyCertConf)
	withRoot := afterwards(func(m *PKIMessage) { m.ExtraCerts = append(m.ExtraCerts, p.root.cert.Raw) })
	hostiles(t, p, []hostile{
		{"MAC turned into signature", anchored, confirmedBy(p.ca)},
		{"signature turned into MAC", anchored, bent(signed, byMAC)},
		{"pkiConf by another signer of the same name", anchored, bent(signed, confirmedBy(twin))},
		{"pkiConf by another signer, with lax trust", laxly, bent(signed, withRoot, confirmedBy(twin))},
		{"pkiConf without protection", nil, afterwards(unprotected, BodyCertConf)},
	}, "ir certConf")
}

func TestHostile_certificate(t *testing.T) {
	p := newPKI(t)
	leaf := func(name string, change change) hostile { return hostile{name, nil, with(p.leaf(t, change))} }
	named := func(name, subject string) hostile {
		return leaf(name, func(c *x509.Certificate) { c.RawSubject = dn(subject) })
	}
	dnsNames := func(name string, names ...string) hostile {
		return leaf(name, func(c *x509.Certificate) { c.DNSNames = names })
	}
	valid := func(name string, from, to time.Duration) hostile {
		return leaf(name, func(c *x509.Certificate) { c.NotBefore, c.NotAfter = testNow.Add(from), testNow.Add(to) })
	}
	impostor := newIdentity(t, testRecipient, nil, asCA)
	impostorOfRoot := newIdentity(t, "CN=Test Root", nil, asCA)
	hidden := newIdentity(t, "CN=Hidden CA", p.ca, asCA)
	// a certifies b and b certifies a: a chain that never ends
	a, b := newIdentity(t, "CN=A", nil, asCA), newIdentity(t, "CN=B", nil, asCA)
	aByB := issue(t, "CN=A", a.key.Public(), b, nil, asCA)
	bByA := issue(t, "CN=B", b.key.Public(), a, nil, asCA)
	attacker := newIdentity(t, "CN=Attacker Root", nil, asCA)
	itself := p.leafBy(t, nil, nil)
	pinned := p.leaf(t, nil)
	large := fixture.OversizedRSA()
	largeCA := &identity{large, issue(t, testRecipient, large.Public(), p.root, nil, asCA)}
	largeRoot := &identity{large, issue(t, "CN=Large Root", large.Public(), nil, large, asCA)}
	underLargeRoot := bent(with(p.leafBy(t, largeRoot, nil), largeRoot.cert), onlyCAPubs(largeRoot.cert))
	unknown := newIdentity(t, "CN=Unknown Root", nil, asCA)
	byUnknown := &identity{p.ca.key, issue(t, testRecipient, p.ca.key.Public(), unknown, nil, asCA)}
	old := fixture.Must(fixture.Version1(byUnknown.cert, unknown.key))
	rows := []hostile{
		{"for another key", nil, with(issue(t, "CN=leaf,O=Example", newKey().Public(), p.ca, nil, nil))},
		named("with another subject", "CN=other,O=Example"),
		named("with more in its subject", "CN=leaf,O=Example,OU=Admins"),
		named("with an RDN twice", "CN=leaf,O=Example,CN=leaf"),
		named("with two RDNs made one", "CN=leaf+O=Example"),
		leaf("with an empty subject", func(c *x509.Certificate) { c.RawSubject = []byte{0x30, 0} }),
		dnsNames("with an extra DNS name", "admin.example", "leaf.example"),
		dnsNames("with a wildcard", "*.example"),
		dnsNames("with a name missing"),
		leaf("without alternative names", func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = nil, nil }),
		leaf("with an extra IP address", func(c *x509.Certificate) {
			c.IPAddresses = append(c.IPAddresses, net.IP{127, 0, 0, 1})
		}),
		leaf("with an extra e-mail address", func(c *x509.Certificate) { c.EmailAddresses = []string{"root@example"} }),
		leaf("with an extra URI", func(c *x509.Certificate) {
			c.URIs = []*url.URL{{Scheme: "spiffe", Host: "example"}}
		}),
		leaf("with CA:TRUE", asCA),
		leaf("that may sign certificates", func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign }),
		leaf("that may sign CRLs", func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCRLSign }),
		valid("that has expired", -time.Hour, 0),
		valid("that is not valid yet", clockSkew+time.Second, time.Hour),
		valid("that ends before it begins", 2*time.Minute, time.Minute),
		{"with a key that is too large", nil, with(issue(t, "CN=leaf,O=Example", large.Public(), p.ca, nil, nil))},
		leaf("with an unknown critical extension", func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: []int{1, 2, 3, 4}, Critical: true, Value: derNull}}
		}),
		{"by an impostor of the CA", nil, with(p.leafBy(t, impostor, nil), impostor.cert)},
		{"by an impostor of the root, in extraCerts", nil, with(p.leafBy(t, impostorOfRoot, nil), impostorOfRoot.cert)},
		{"with a link of its chain missing", nil, with(p.leafBy(t, hidden, nil))},
		{"in a loop", nil, with(p.leafBy(t, a, nil), aByB, bByA)},
		{"under the attacker's root, in extraCerts", nil, with(p.leafBy(t, attacker, nil), attacker.cert)},
		{"under the attacker's root, in caPubs of a signed answer", anchored,
			bent(signed, with(p.leafBy(t, attacker, nil)), onlyCAPubs(attacker.cert))},
		{"that is all there is in caPubs", nil, bent(with(pinned), onlyCAPubs(pinned))},
		{"that signed itself, with lax trust", laxly, bent(signed, with(itself, itself))},
		{"that is a trust anchor itself", anchoredIn(pinned), with(pinned)},
		{"under a large root, in caPubs under a MAC", nil, underLargeRoot},
		{"under a large root, with lax trust", laxly, bent(signed, underLargeRoot)},
		{"by an issuer with a large key, in extraCerts", anchored, with(p.leafBy(t, largeCA, nil), largeCA.cert)},
		// Of version 1, only a signature by itself tells a root from any other certificate.
		{"by a CA of version 1 that another signed, in caPubs", nil,
			bent(onlyCAPubs(old), afterwards(func(m *PKIMessage) { m.ExtraCerts = [][]byte{byUnknown.cert.Raw} }))},
	}
	for want, oid := range map[string]asn1.ObjectIdentifier{
		"ECDSA with SHA-1":    {1, 2, 840, 10045, 4, 1},
		"ECDSA with SHA-224":  {1, 2, 840, 10045, 4, 3, 1},
		"ECDSA with SHA3-256": {2, 16, 840, 1, 101, 3, 4, 3, 10},
		"ML-DSA-65":           {2, 16, 840, 1, 101, 3, 4, 3, 18},
	} {
		rows = append(rows, hostile{"signed with " + want, nil, with(&x509.Certificate{Raw: resigned(pinned, oid)})})
	}
	for _, got := range hostiles(t, p, rows, "ir certConf") {
		status := got.requests[1].Body.Content.(CertConfirmContent)
		if strings.HasPrefix(outline(got.err), "certificate: ") {
			assert.Empty(t, status, "no status rejects all")
			continue
		}
		require.Len(t, status, 1, "the CA is told")
		require.NotNil(t, status[0].StatusInfo)
		assert.Equal(t, StatusRejection, status[0].StatusInfo.Status)
		failInfo := []string{"badCertTemplate"}
		if strings.HasPrefix(outline(got.err), "chain: ") {
			failInfo = []string{"signerNotTrusted"}
		}
		assert.Equal(t, failInfo, status[0].StatusInfo.FailInfo.Names(), outline(got.err))
		assert.NotEmpty(t, status[0].StatusInfo.StatusString)
		assert.NotEmpty(t, status[0].CertHash)
	}
}

func onlyCAPubs(certs ...*x509.Certificate) bend {
	return withRep(func(rep *CertRepMessage) { rep.CAPubs = raw(certs) })
}

// resigned names another signature algorithm in a certificate, of which nothing can verify the signature.
func resigned(cert *x509.Certificate, algorithm asn1.ObjectIdentifier) []byte {
	from := fixture.Must(asn1.Marshal(asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}))
	to := fixture.Must(asn1.Marshal(algorithm))
	var parts struct {
		TBS       asn1.RawValue
		Algorithm asn1.RawValue
		Signature asn1.BitString
	}
	fixture.Must(asn1.Unmarshal(cert.Raw, &parts))
	identifier := wrap(0x30, to)
	tbs := bytes.Replace(parts.TBS.Bytes, wrap(0x30, from), identifier, 1)
	parts.TBS = asn1.RawValue{FullBytes: wrap(0x30, tbs)}
	parts.Algorithm = asn1.RawValue{FullBytes: identifier}
	return fixture.Must(asn1.Marshal(parts))
}

func TestHostile_certificateUnreadable_allAreRejected(t *testing.T) {
	pair := func(name string, change func(*CertifiedKeyPair)) hostile {
		return hostile{name, nil, withResponse(func(r *CertResponse) { change(r.CertifiedKeyPair) })}
	}
	for _, got := range hostiles(t, newPKI(t), []hostile{
		pair("encryptedCert", func(c *CertifiedKeyPair) { c.Certificate, c.EncryptedCert = nil, anyCertificate }),
		pair("private key", func(c *CertifiedKeyPair) { c.PrivateKey = anyCertificate }),
		pair("no certificate", func(c *CertifiedKeyPair) { c.Certificate = anyCertificate }),
	}, "ir certConf") {
		assert.Empty(t, got.requests[1].Body.Content, "no status rejects all")
	}
}

func TestHostile_certificate_rejectionNotConfirmed_reasonIsKept(t *testing.T) {
	p := newPKI(t)
	got := p.initialize(t, nil, with(p.leaf(t, asCA)),
		afterwards(func(m *PKIMessage) { m.Protection = []byte{} }, BodyCertConf))

	assert.Equal(t, "basicConstraints: CA:TRUE", outline(got.err))
	assert.Contains(t, got.logged.String(), "rejection of the certificate not confirmed by the CA")
}

func TestHostile_confirmationFails_failsTheRequest(t *testing.T) {
	answers := 0
	hostiles(t, newPKI(t), []hostile{
		{"with an error message", implicitly, answering(refusal("no such transaction", FailBadRequest), BodyCertConf)},
		{"with another body", implicitly, answering(PKIBody{BodyCP, &CertRepMessage{}}, BodyCertConf)},
		{"with an empty body", implicitly, withDER(func(der []byte) []byte {
			if answers++; answers == 2 {
				return nil
			}
			return der
		})},
	}, "ir certConf")
}

// A name is compared with each certificate that comes along, and a key tried on each signature: both cost little,
// however large they are.
func TestHostile_hugeKeysAndNames_costLittle(t *testing.T) {
	p := newPKI(t)
	huge := hugeRSA()
	cert := issue(t, testRecipient, huge, p.ca, nil, asCA)
	small := issue(t, "CN=s", p.key.Public(), p.ca, nil, nil)
	verified := bent(signed, afterwards(func(m *PKIMessage) {
		m.Header.ProtectionAlg = &AlgorithmIdentifier{Algorithm: signatureAlgorithms[0].oid, Parameters: derNull}
		m.Protection = make([]byte, huge.Size())
		m.Protection[1] = 1 // less than the modulus, or it would be refused for that
		m.ExtraCerts = crowd(maxSignerCandidates, cert.Raw)
	}))
	name := DirectoryName(hugeName(t, 800_000))
	compared := bent(signed, withHeader(func(_ *PKIMessage, h *PKIHeader) { h.Sender = name }),
		afterwards(func(m *PKIMessage) { m.ExtraCerts = crowd(maxElements, small.Raw) }))
	for _, row := range []hostile{
		{"key, anchored", anchored, verified}, {"key, without anchors", nil, verified},
		{"key, as ONAP did", laxly, verified}, {"name", anchored, compared},
	} {
		start := time.Now()
		assert.Error(t, p.initialize(t, row.config, row.bend).err, row.name)
		assert.Less(t, time.Since(start), 20*time.Second, "%s: minutes, if they were tried", row.name)
	}
}

// hugeRSA is a public key that one verification takes half a minute with.
func hugeRSA() *rsa.PublicKey {
	const bits = 131_072
	n := new(big.Int).Lsh(big.NewInt(3), bits-2)
	return &rsa.PublicKey{N: n.Add(n, big.NewInt(12345)), E: 1<<31 - 1}
}

// hugeName is a DER Name with a value of that many bytes, each of which takes four when it is quoted.
func hugeName(t *testing.T, size int) []byte {
	name, err := attribute(attributeTypes["CN"], wrap(0x0c, bytes.Repeat([]byte{1}, size)))
	require.NoError(t, err)
	return wrap(0x30, wrap(0x31, name))
}

// Names of signers, of issuers and in the certificate come from the peer, who can make them a megabyte long.
func TestHostile_namesOfPeers_areBoundedInErrorsAndWarnings(t *testing.T) {
	p := newPKI(t)
	name := hugeName(t, 200_000)
	signer := newIdentity(t, "CN=any", nil, func(c *x509.Certificate) { asCA(c); c.RawSubject = name })
	for _, row := range []hostile{
		{"sender", anchored, bent(signed,
			withHeader(func(_ *PKIMessage, h *PKIHeader) { h.Sender = DirectoryName(name) }))},
		{"signer", laxly, signedBy(signer)},
		{"issuer", nil, with(p.leafBy(t, signer, nil))},
		{"subject", nil, with(p.leaf(t, func(c *x509.Certificate) { c.RawSubject = name }))},
		{"names", nil, with(p.leaf(t, func(c *x509.Certificate) {
			for i := range 10_000 {
				c.DNSNames = append(c.DNSNames, fmt.Sprintf("name-%d-that-was-not-requested.example", i))
			}
		}))},
	} {
		t.Run(row.name, func(t *testing.T) {
			got := p.initialize(t, row.config, row.bend)
			text := fmt.Sprint(got.err)
			assert.Less(t, len(text), 3*maxShownText)
			assert.Less(t, got.logged.Len(), 6*maxShownText)
			assert.Contains(t, text+got.logged.String(), "…", "something was cut")
			for _, request := range got.requests {
				der := fixture.Must(request.Marshal())
				assert.Less(t, len(der), 6*maxShownText, "what the CA is told")
			}
		})
	}
}
