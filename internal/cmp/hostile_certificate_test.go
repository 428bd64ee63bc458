package cmp

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// with has the responder grant a certificate of its own choice.
func with(cert *x509.Certificate, more ...[]byte) func(*testPKI, *responder) {
	return func(_ *testPKI, r *responder) {
		r.body = func(_ *PKIMessage, honest PKIBody) PKIBody {
			if _, ok := honest.Content.(*CertRepMessage); ok {
				honest.Content = r.granted(cert)
			}
			return honest
		}
		r.message = func(_, m *PKIMessage) { m.ExtraCerts = append(m.ExtraCerts, more...) }
	}
}

// leafInCAPubs has the responder send the issued certificate in caPubs, too, with more certificates.
func leafInCAPubs(more []byte) func(*testPKI, *responder) {
	return func(_ *testPKI, r *responder) {
		r.body = func(_ *PKIMessage, honest PKIBody) PKIBody {
			if rep, ok := honest.Content.(*CertRepMessage); ok {
				rep.CAPubs = [][]byte{rep.Response[0].CertifiedKeyPair.Certificate}
				if more != nil {
					rep.CAPubs = append(rep.CAPubs, more)
				}
			}
			return honest
		}
	}
}

func TestHostile_certificate(t *testing.T) {
	p := newPKI(t)
	leaf := func(change func(*x509.Certificate)) func(*testPKI, *responder) { return with(p.leaf(t, change)) }
	named := func(subject string) func(*testPKI, *responder) {
		return leaf(func(c *x509.Certificate) { c.RawSubject = dn(t, subject) })
	}
	otherKey := newKey(t)
	impostor := newIdentity(t, testRecipient, nil, asCA)
	impostorOfRoot := newIdentity(t, "CN=Test Root", nil, asCA)
	hidden := newIdentity(t, "CN=Hidden CA", p.ca, asCA)
	// a certifies b and b certifies a: a chain that never ends
	a, b := newIdentity(t, "CN=A", nil, asCA), newIdentity(t, "CN=B", nil, asCA)
	aByB := issue(t, "CN=A", a.key.Public(), b, nil, asCA)
	bByA := issue(t, "CN=B", b.key.Public(), a, nil, asCA)
	attacker := newIdentity(t, "CN=Attacker Root", nil, asCA)
	itself := issue(t, "CN=leaf,O=Example", p.key.Public(), nil, p.key, func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = p.csr.DNSNames, p.csr.IPAddresses })
	pinned := p.leaf(t, nil)
	unknownCritical := pkix.Extension{Id: []int{1, 2, 3, 4}, Critical: true, Value: derNull}
	unverified := func(issuer, reason string) string {
		return `chain: "CN=leaf,O=Example" issued by "` + issuer + `", which does not verify (` + reason + `)`
	}
	for name, row := range map[string]hostile{
		"for another key":              {respond: with(issue(t, "CN=leaf,O=Example", otherKey.Public(), p.ca, nil, nil)), want: "public key: another key in the certificate"},
		"with another subject":         {respond: named("CN=other,O=Example"), want: `subject: "CN=other,O=Example"`},
		"with more in its subject":     {respond: named("CN=leaf,O=Example,OU=Admins"), want: `subject: "CN=leaf,O=Example,OU=Admins"`},
		"with an RDN twice":            {respond: named("CN=leaf,O=Example,CN=leaf"), want: `subject: "CN=leaf,O=Example,CN=leaf"`},
		"with two RDNs made one":       {respond: named("CN=leaf+O=Example"), want: `subject: "CN=leaf+O=Example"`},
		"with an empty subject":        {respond: leaf(func(c *x509.Certificate) { c.RawSubject = []byte{0x30, 0} }), want: `subject: ""`},
		"with an extra DNS name":       {respond: leaf(func(c *x509.Certificate) { c.DNSNames = append([]string{"admin.example"}, c.DNSNames...) }), want: `subjectAltName: DNS "admin.example", DNS "leaf.example", IP 10.0.0.1`},
		"with a wildcard":              {respond: leaf(func(c *x509.Certificate) { c.DNSNames = []string{"*.example"} }), want: `subjectAltName: DNS "*.example", IP 10.0.0.1`},
		"with an extra IP address":     {respond: leaf(func(c *x509.Certificate) { c.IPAddresses = append(c.IPAddresses, net.IP{127, 0, 0, 1}) }), want: `subjectAltName: DNS "leaf.example", IP 10.0.0.1, IP 127.0.0.1`},
		"with an extra e-mail address": {respond: leaf(func(c *x509.Certificate) { c.EmailAddresses = []string{"root@example"} }), want: `subjectAltName: DNS "leaf.example", IP 10.0.0.1, email "root@example"`},
		"with an extra URI":            {respond: leaf(func(c *x509.Certificate) { c.URIs = []*url.URL{{Scheme: "spiffe", Host: "example"}} }), want: `subjectAltName: DNS "leaf.example", IP 10.0.0.1, URI "spiffe://example"`},
		"with a name missing":          {respond: leaf(func(c *x509.Certificate) { c.DNSNames = nil }), want: "subjectAltName: IP 10.0.0.1"},
		"without alternative names":    {respond: leaf(func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = nil, nil }), want: "subjectAltName: none"},
		"with CA:TRUE":                 {respond: leaf(asCA), want: "basicConstraints: CA:TRUE"},
		"that may sign certificates":   {respond: leaf(func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign }), want: "keyUsage: keyCertSign or cRLSign"},
		"that may sign CRLs":           {respond: leaf(func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCRLSign }), want: "keyUsage: keyCertSign or cRLSign"},
		"that has expired":             {respond: leaf(func(c *x509.Certificate) { c.NotAfter = testNow }), want: "validity: notAfter 2026-05-04T03:02:01Z"},
		"that is not valid yet":        {respond: leaf(func(c *x509.Certificate) { c.NotBefore = testNow.Add(clockSkew + time.Second) }), want: "validity: notBefore 2026-05-04T03:07:02Z"},
		"that ends before it begins": {respond: leaf(func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = testNow.Add(2*time.Minute), testNow.Add(time.Minute)
		}), want: "validity: notAfter 2026-05-04T03:03:01Z"},
		"with an unknown critical thing": {respond: leaf(func(c *x509.Certificate) { c.ExtraExtensions = []pkix.Extension{unknownCritical} }), want: unverified("CN=Test CA,O=Example,C=SE", `the certificate "O=Example,CN=leaf" has a critical extension that is not supported: OID 1.2.3.4`)},
		"by an impostor of the CA": {respond: with(p.leafBy(t, impostor, nil), impostor.cert.Raw),
			want: unverified(`CN=Test CA,O=Example,C=SE`, `x509: certificate signed by unknown authority (possibly because of "x509: ECDSA verification failure" while trying to verify candidate authority certificate "Test CA")`)},
		"by an impostor of the root, in extraCerts": {respond: with(p.leafBy(t, impostorOfRoot, nil), impostorOfRoot.cert.Raw),
			want: unverified(`CN=Test Root`, `a CA certificate "CN=Test Root" is among the trusted certificates, but with another key than the one that signed "CN=Test Root": get the CA's current certificate`)},
		"with a link of its chain missing":         {respond: with(p.leafBy(t, hidden, nil)), want: unverified("CN=Hidden CA", "x509: certificate signed by unknown authority")},
		"in a loop":                                {respond: with(p.leafBy(t, a, nil), aByB.Raw, bByA.Raw), want: unverified("CN=A", "x509: certificate signed by unknown authority")},
		"under the attacker's root, in extraCerts": {respond: with(p.leafBy(t, attacker, nil), attacker.cert.Raw), want: unverified("CN=Attacker Root", "x509: certificate signed by unknown authority")},
		"under the attacker's root, in caPubs of a signed answer": {config: anchored, respond: func(p *testPKI, r *responder) {
			with(p.leafBy(t, attacker, nil))(p, r)
			r.signed = true
			grant := r.body
			r.body = func(request *PKIMessage, honest PKIBody) PKIBody {
				body := grant(request, honest)
				if rep, ok := body.Content.(*CertRepMessage); ok {
					rep.CAPubs = [][]byte{attacker.cert.Raw}
				}
				return body
			}
		}, want: unverified("CN=Attacker Root", "x509: certificate signed by unknown authority")},
		"that is all there is in caPubs": {respond: leafInCAPubs(nil), want: `chain: "CN=leaf,O=Example" issued by "CN=Test CA,O=Example,C=SE", and no trust anchor`},
		"that signed itself, with lax trust": {config: laxly, respond: func(p *testPKI, r *responder) {
			with(itself, itself.Raw)(p, r)
			r.signed = true
		}, want: `chain: "CN=leaf,O=Example" issued by "CN=leaf,O=Example", and no trust anchor`},
		"that is a trust anchor itself": {config: func(_ *testPKI, c *Config) { c.TrustAnchors = []*x509.Certificate{pinned} },
			respond: with(pinned), want: `chain: "CN=leaf,O=Example", which is a trust anchor itself`},
	} {
		t.Run(name, func(t *testing.T) {
			r := row.run(t, p)
			require.Equal(t, []BodyType{BodyIR, BodyCertConf}, r.kinds(), "the CA is told")
			status := r.requests[1].Body.Content.(CertConfirmContent)
			require.Len(t, status, 1)
			require.NotNil(t, status[0].StatusInfo)
			assert.Equal(t, StatusRejection, status[0].StatusInfo.Status)
			failInfo := []string{"badCertTemplate"}
			if strings.HasPrefix(row.want, "chain: ") {
				failInfo = []string{"signerNotTrusted"}
			}
			assert.Equal(t, failInfo, status[0].StatusInfo.FailInfo.Names())
			assert.NotEmpty(t, status[0].StatusInfo.StatusString)
			assert.Len(t, status[0].CertHash, 32)
		})
	}
}

func TestHostile_certificateUnreadable_allAreRejected(t *testing.T) {
	p := newPKI(t)
	pair := func(change func(*CertifiedKeyPair)) func(*testPKI, *responder) {
		return func(_ *testPKI, r *responder) {
			r.body = func(_ *PKIMessage, honest PKIBody) PKIBody {
				if rep, ok := honest.Content.(*CertRepMessage); ok {
					change(rep.Response[0].CertifiedKeyPair)
				}
				return honest
			}
		}
	}
	for name, row := range map[string]hostile{
		"encryptedCert": {respond: pair(func(c *CertifiedKeyPair) { c.Certificate, c.EncryptedCert = nil, anyCertificate }), want: "certificate: an encryptedCert"},
		"private key":   {respond: pair(func(c *CertifiedKeyPair) { c.PrivateKey = anyCertificate }), want: "certificate: a private key with it"},
		"no certificate": {respond: pair(func(c *CertifiedKeyPair) { c.Certificate = anyCertificate }),
			want: "certificate: one that cannot be read (x509: malformed tbs certificate)"},
	} {
		t.Run(name, func(t *testing.T) {
			r := row.run(t, p)
			require.Equal(t, []BodyType{BodyIR, BodyCertConf}, r.kinds())
			assert.Empty(t, r.requests[1].Body.Content, "no status rejects all")
		})
	}
}

func TestHostile_certificate_rejectionNotConfirmed_reasonIsKept(t *testing.T) {
	p := newPKI(t)
	r := &responder{t: t, testPKI: p}
	with(p.leaf(t, asCA))(p, r)
	r.message = func(request, m *PKIMessage) {
		if request.Body.Type == BodyCertConf {
			m.Protection = []byte{}
		}
	}
	c, log := testClient(t, r, nil)

	_, err := c.Initialize(t.Context(), Request{CSR: p.csr, Key: p.key})

	assert.Equal(t, "basicConstraints: CA:TRUE", outline(err))
	assert.Contains(t, log.String(), "rejection of the certificate not confirmed by the CA")
}

func TestClient_certificateOfOtherWriting_isAccepted(t *testing.T) {
	p := newPKI(t)
	for name, change := range map[string]func(*x509.Certificate){
		"subject in reverse":        func(c *x509.Certificate) { c.RawSubject = dn(t, "O=Example,CN=leaf") },
		"names in other case":       func(c *x509.Certificate) { c.DNSNames = []string{"LEAF.example"} },
		"valid from in two minutes": func(c *x509.Certificate) { c.NotBefore = testNow.Add(2 * time.Minute) },
		"name twice":                func(c *x509.Certificate) { c.DNSNames = []string{"leaf.example", "leaf.example"} },
	} {
		t.Run(name, func(t *testing.T) {
			r := &responder{t: t, testPKI: p}
			with(p.leaf(t, change))(p, r)
			c, _ := testClient(t, r, nil)
			_, err := c.Initialize(t.Context(), Request{CSR: p.csr, Key: p.key})
			assert.NoError(t, err)
		})
	}
}

// Where certificates of the same subject compete, the chain is built by signatures.
func TestClient_impostorBesideTheCA_isPassedOver(t *testing.T) {
	p := newPKI(t)
	impostor := newIdentity(t, testRecipient, nil, asCA)
	r := &responder{t: t, testPKI: p}
	r.message = func(_, m *PKIMessage) { m.ExtraCerts = [][]byte{impostor.cert.Raw, p.ca.cert.Raw} }
	c, _ := testClient(t, r, nil)

	result, err := c.Initialize(t.Context(), Request{CSR: p.csr, Key: p.key})

	require.NoError(t, err)
	assert.Equal(t, p.ca.cert, result.Chain[1])
}
