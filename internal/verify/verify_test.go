package verify

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/golden"
)

// now is when all tests play.
var now = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// cert is the type that most is about here.
type cert = x509.Certificate

type authority struct {
	cert *cert
	key  crypto.Signer
}

var serial int64

func issue(t testing.TB, by *authority, key crypto.PublicKey, self crypto.Signer, template *cert) *cert {
	t.Helper()
	serial++
	template.SerialNumber = big.NewInt(serial)
	if template.NotBefore.IsZero() {
		template.NotBefore = now.Add(-time.Hour)
	}
	if template.NotAfter.IsZero() {
		template.NotAfter = now.Add(24 * time.Hour)
	}
	parent, signer := template, self
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der := fixture.Must(x509.CreateCertificate(rand.Reader, template, parent, key, signer))
	cert := fixture.Must(x509.ParseCertificate(der))
	return cert
}

func newKey(t testing.TB) crypto.Signer {
	t.Helper()
	key := fixture.Must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	return key
}

func newCA(t testing.TB, name string, by *authority, change func(*cert)) *authority {
	t.Helper()
	key := newKey(t)
	template := &cert{Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotAfter: now.Add(48 * time.Hour)}
	if change != nil {
		change(template)
	}
	return &authority{issue(t, by, key.Public(), key, template), key}
}

// world is a CA of three levels and a request to it.
type world struct {
	root, policy, issuing, other *authority
	key                          crypto.Signer
	csr                          *x509.CertificateRequest
}

var requested = x509.CertificateRequest{
	Subject:        pkix.Name{CommonName: "app.example.org", Organization: []string{"Example"}},
	DNSNames:       []string{"app.example.org", "app.ns.svc.cluster.local"},
	IPAddresses:    []net.IP{net.IPv4(192, 0, 2, 1), net.ParseIP("2001:db8::1")},
	EmailAddresses: []string{"Pki@example.org"},
	URIs:           []*url.URL{{Scheme: "https", Host: "example.org", Path: "/app"}},
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{key: newKey(t)}
	w.root = newCA(t, "Root", nil, nil)
	w.policy = newCA(t, "Policy CA", w.root, nil)
	w.issuing = newCA(t, "Issuing CA", w.policy, nil)
	w.other = newCA(t, "Other Root", nil, nil)
	w.csr = request(t, w.key, requested)
	return w
}

func request(t testing.TB, key crypto.Signer, template x509.CertificateRequest) *x509.CertificateRequest {
	t.Helper()
	der := fixture.Must(x509.CreateCertificateRequest(rand.Reader, &template, key))
	csr := fixture.Must(x509.ParseCertificateRequest(der))
	return csr
}

// leaf is what a good CA issues, but for what change does to it.
func (w *world) leaf(t testing.TB, change func(*cert)) *cert {
	t.Helper()
	template := &cert{RawSubject: w.csr.RawSubject, DNSNames: w.csr.DNSNames, IPAddresses: w.csr.IPAddresses,
		EmailAddresses: w.csr.EmailAddresses, URIs: w.csr.URIs, BasicConstraintsValid: true}
	if change != nil {
		change(template)
	}
	return issue(t, w.issuing, w.key.Public(), nil, template)
}

func certs(all ...*cert) []*cert { return all }

// answer is what a CertService gives for the world's request, or for another.
type answer struct {
	chain, trusted []*cert
	csr            *x509.CertificateRequest
}

var hash = regexp.MustCompile(`SHA-256 [0-9a-f]{64}`)

// summary is what comes of an answer.
func summary(r Result, err error) string {
	if err != nil {
		return "refused: " + hash.ReplaceAllString(err.Error(), "SHA-256 HASH")
	}
	lines := []string{"chain: " + dnList(r.Chain), "trusted: " + dnList(r.Trusted)}
	for _, warning := range r.Warnings {
		lines = append(lines, "warning: "+warning)
	}
	return strings.Join(lines, "\n")
}

func TestAnswer(t *testing.T) {
	w, at := newWorld(t), now.Add
	root, policy, issuing, other := w.root.cert, w.policy.cert, w.issuing.cert, w.other.cert
	leaf, anchors := w.leaf(t, nil), certs(root)
	given := func(trusted []*cert, chain ...*cert) answer { return answer{chain, trusted, nil} }
	bare := func(key crypto.Signer) *cert {
		return issue(t, w.issuing, key.Public(), nil, &cert{RawSubject: w.csr.RawSubject})
	}
	// issued is a good answer but for the leaf.
	issued := func(change func(c *cert)) answer {
		return given(anchors, w.leaf(t, change), issuing, policy)
	}
	// by is a leaf of another authority, which is trusted.
	by := func(a *authority) answer { return given(certs(a.cert), w.leafBy(t, a)) }
	dated := func(name string, from, to time.Duration) *authority {
		return newCA(t, name, nil, func(c *cert) { c.NotBefore, c.NotAfter = at(from), at(to) })
	}
	signed := func(key crypto.Signer, name string, parent *authority, algorithm x509.SignatureAlgorithm) *authority {
		return &authority{issue(t, parent, key.Public(), key, &cert{
			Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
			KeyUsage:           x509.KeyUsageCertSign,
			SignatureAlgorithm: algorithm, NotAfter: at(48 * time.Hour),
		}), key}
	}
	registered := func(number byte) pkix.Extension { // a name of a kind that crypto/x509 passes over
		value := fixture.Must(asn1.Marshal([]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 8,
			Bytes: []byte{0x2a, number}}}))
		return pkix.Extension{Id: oidSubjectAltName, Value: value}
	}
	named := func(number byte) answer {
		return answer{
			issued(func(c *cert) { c.ExtraExtensions = []pkix.Extension{registered(number)} }).chain, anchors,
			request(t, w.key, x509.CertificateRequest{Subject: requested.Subject,
				ExtraExtensions: []pkix.Extension{registered(3)}}),
		}
	}
	rsaKey := fixture.Must(rsa.GenerateKey(rand.Reader, 2048))
	large := issue(t, w.root, fixture.OversizedRSA().Public(), nil,
		&cert{Subject: pkix.Name{CommonName: "Large"}, IsCA: true, BasicConstraintsValid: true})
	impostor := newCA(t, "Issuing CA", w.policy, nil) // same name, another key
	notCA := issue(t, w.issuing, w.key.Public(), nil, &cert{Subject: pkix.Name{CommonName: "not a CA"}})
	narrow := newCA(t, "Narrow CA", w.root, func(c *cert) { c.PermittedDNSDomains = []string{"example.com"} })
	oldIssuing := newCA(t, "Issuing CA", w.policy, func(c *cert) { c.NotAfter = at(-time.Minute) })
	next := newCA(t, "Root", w.root, nil) // a root's new key signed with its old one: it has the root's name as issuer
	sha1Root := signed(rsaKey, "SHA-1 Root", nil, x509.SHA1WithRSA)
	rsaRoot := signed(rsaKey, "RSA Root", nil, 0)
	weak := newCA(t, "Weak CA", rsaRoot, func(c *cert) { c.SignatureAlgorithm = x509.SHA1WithRSA })
	template := *leaf
	self := issue(t, nil, w.key.Public(), w.key, &template)
	rows := map[string]answer{
		"a chain without its root":        given(certs(other, root), leaf, issuing, policy),
		"a root at the end of the chain":  given(certs(other), leaf, issuing, policy, root),
		"a trusted root in the chain":     given(certs(root, other), leaf, issuing, policy, root),
		"duplicates in both lists":        given(certs(root, other, root), leaf, leaf, issuing, issuing, policy, leaf),
		"an anchor below the root":        given(certs(policy), leaf, issuing),
		"an anchor in the chain":          given(certs(issuing), leaf, issuing),
		"only a leaf":                     given(certs(issuing), leaf),
		"a rollover certificate":          given(anchors, w.leafBy(t, next), next.cert),
		"a root signed with SHA-1":        given(certs(other), w.leafBy(t, sha1Root), sha1Root.cert),
		"a signer signed with SHA-1":      given(certs(rsaRoot.cert), w.leafBy(t, weak), weak.cert),
		"too large a key in the chain":    given(anchors, leaf, issuing, policy, large),
		"too large a trusted key":         given(certs(root, large), leaf, issuing, policy),
		"an unreadable root in the chain": given(anchors, leaf, issuing, policy, negative(t, other)),
		"an unreadable certificate":       given(anchors, negative(t, leaf), issuing, policy),
		"an unreadable signer":            given(anchors, leaf, negative(t, issuing), policy),
		"an unreadable anchor":            given(certs(negative(t, root)), leaf, issuing, policy),

		"no certificate":              {trusted: anchors},
		"no trusted certificate":      {chain: certs(leaf, issuing, policy)},
		"another key":                 given(anchors, bare(newKey(t)), issuing, policy),
		"the leaf behind its signers": given(anchors, issuing, policy, leaf),
		"a certificate of a CA":       issued(func(c *cert) { c.IsCA = true }),
		"another common name": issued(func(c *cert) {
			c.RawSubject, c.Subject = nil,
				pkix.Name{CommonName: "other.example.org"}
		}),
		"no common name": issued(func(c *cert) {
			c.RawSubject, c.Subject = nil,
				pkix.Name{Organization: []string{"x"}}
		}),
		"a host name short":            issued(func(c *cert) { c.DNSNames = c.DNSNames[:1] }),
		"an IP address short":          issued(func(c *cert) { c.IPAddresses = c.IPAddresses[:1] }),
		"an address in another case":   issued(func(c *cert) { c.EmailAddresses = []string{"pki@example.org"} }),
		"a URI short":                  issued(func(c *cert) { c.URIs = nil }),
		"no alternative names at all":  given(anchors, bare(w.key), issuing, policy),
		"a name of another kind":       named(3),
		"another name of another kind": named(4),
		"names where none were requested": {chain: certs(leaf, issuing, policy), trusted: anchors,
			csr: request(t, w.key, x509.CertificateRequest{})},
		"signers in the wrong order":     given(anchors, leaf, policy, issuing),
		"a signer left out":              given(anchors, leaf, policy),
		"a root before the end":          given(anchors, leaf, issuing, root, policy),
		"a signer with the wrong key":    given(anchors, leaf, impostor.cert, policy),
		"a signer that may not sign":     given(anchors, w.leafBy(t, &authority{notCA, w.key}), notCA, issuing, policy),
		"a root that is not trusted":     given(certs(other), leaf, issuing, policy),
		"a chain that ends too early":    given(anchors, leaf),
		"names that the CA may not sign": given(anchors, w.leafBy(t, narrow), narrow.cert),
		"trust in itself":                given(certs(self), self),
		"an expired certificate":         issued(func(c *cert) { c.NotAfter = at(-time.Second) }),
		"a certificate of the future":    issued(func(c *cert) { c.NotBefore = at(5*time.Minute + time.Second) }),
		"a certificate from soon on":     issued(func(c *cert) { c.NotBefore = at(5 * time.Minute) }),
		"dates in the wrong order":       issued(func(c *cert) { c.NotAfter = at(-2 * time.Hour) }),
		"an expired signer":              given(anchors, w.leafBy(t, oldIssuing), oldIssuing.cert, policy),
		"an expired anchor":              by(dated("Old Root", -time.Hour, -time.Minute)),
		"an anchor of the future":        by(dated("Future Root", time.Hour, 48*time.Hour)),
		"an anchor that begins soon":     by(dated("Soon Root", 2*time.Minute, 48*time.Hour)),
		"anchors of other times": {chain: certs(leaf, issuing, policy),
			trusted: certs(dated("Gone Root", -time.Hour, -time.Minute).cert,
				dated("Next Root", 1000*time.Hour, 2000*time.Hour).cert, root)},
		"a short life from soon on": {
			issued(func(c *cert) { c.NotBefore, c.NotAfter = at(10*time.Second), at(40*time.Second) }).chain,
			certs(dated("Later Root", 4*time.Minute, 48*time.Hour).cert, root), nil},
		"a life longer than its signers'": issued(func(c *cert) { c.NotAfter = at(72 * time.Hour) }),
		"a host name more": issued(func(c *cert) {
			c.DNSNames = append(slices.Clone(c.DNSNames),
				"extra.example.org")
		}),
		"another organization": issued(func(c *cert) {
			c.RawSubject, c.Subject = nil, pkix.Name{CommonName: "app.example.org", Organization: []string{"Policy"}}
		}),
		"the subject in another order": issued(func(c *cert) {
			c.RawSubject, c.Subject = nil, pkix.Name{ExtraNames: slices.Concat(requested.Subject.ToRDNSequence()...)}
			slices.Reverse(c.Subject.ExtraNames)
		}),
		"host names in another case": issued(func(c *cert) {
			c.DNSNames, c.EmailAddresses = []string{"APP.example.org", "App.ns.svc.cluster.local"},
				[]string{"Pki@EXAMPLE.org"}
		}),
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	p384 := fixture.Must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	for name, key := range map[string]crypto.Signer{"RSA": rsaKey, "Ed25519": edKey, "P-384": p384} {
		csr := request(t, key, requested)
		rows["a request for a key of "+name] = answer{certs(leaf, issuing, policy), anchors, csr}
		good := &world{issuing: w.issuing, key: key, csr: csr}
		rows["a key of "+name] = answer{certs(good.leaf(t, nil), issuing, policy), anchors, csr}
	}
	want := golden.Load(t, "answers.txt")
	for is, row := range rows {
		chain, trusted := slices.Clone(row.chain), slices.Clone(row.trusted)
		r, err := Answer(cmp.Or(row.csr, w.csr), row.chain, row.trusted, now)
		want.Equal(t, is, summary(r, err))
		if err != nil {
			assert.ErrorAs(t, err, new(*Error), is)
			assert.Empty(t, r, is)
		}
		assert.Equal(t, []any{chain, trusted}, []any{row.chain, row.trusted}, "%s: the arguments are unchanged", is)
	}
}

// crypto/x509 would say that the chain leads to no trusted certificate.
func TestAnswer_longChain_saysSo(t *testing.T) {
	w := newWorld(t)
	signer, signers := w.root, []*cert{}
	for i := range maxChain {
		signer = newCA(t, fmt.Sprintf("CA %d", i), signer, nil)
		signers = append([]*cert{signer.cert}, signers...)
		chain := append([]*cert{w.leafBy(t, signer)}, signers...)
		_, err := Answer(w.csr, chain, certs(w.root.cert), now)
		if len(chain) <= maxChain {
			require.NoError(t, err, len(chain))
		} else {
			require.EqualError(t, err, "the chain is too long: want at most 100 certificates without the root, got 101")
		}
	}
}

func (w *world) leafBy(t testing.TB, by *authority) *cert {
	t.Helper()
	return (&world{issuing: by, key: w.key, csr: w.csr}).leaf(t, nil)
}

func negative(t testing.TB, cert *cert) *cert {
	t.Helper()
	outline, err := pki.Parse(fixture.NegativeSerial(cert))
	require.NoError(t, err)
	require.Nil(t, outline.PublicKey)
	return outline
}

func TestAnswer_golden(t *testing.T) {
	read := func(name string) *cert {
		cert := fixture.Must(x509.ParseCertificate(pemBytes(t, name)))
		return cert
	}
	csr := fixture.Must(x509.ParseCertificateRequest(pemBytes(t, "csr.pem")))
	chain, trusted := certs(read("certificate.pem"), read("issuing-ca.pem")),
		certs(read("root-ca.pem"), read("other-root-ca.pem"))
	r, err := Answer(csr, chain, trusted, now)
	require.NoError(t, err)
	assert.Equal(t, Result{Chain: chain, Trusted: trusted}, r)

	_, err = Answer(csr, certs(read("old-certificate.pem"), read("issuing-ca.pem")), trusted, now)
	assert.ErrorContains(t, err,
		"the certificate's public key does not match the request's: want RSA-2048 with SHA-256 ")
}

func pemBytes(t testing.TB, name string) []byte {
	t.Helper()
	data := fixture.Must(os.ReadFile("../../test/testdata/pem/" + name))
	block, _ := pem.Decode(data)
	require.NotNil(t, block)
	return block.Bytes
}

func FuzzAltNames(f *testing.F) {
	csr := fixture.Must(x509.ParseCertificateRequest(pemBytes(f, "csr.pem")))
	for _, e := range csr.Extensions {
		f.Add(e.Value)
	}
	f.Add([]byte{0x30, 0x00})
	f.Add([]byte{0x30, 0x03, 0x87, 0x01, 0x01})
	f.Add([]byte{0x30, 0x04, 0x82, 0x02, '\n', 0xff})
	f.Fuzz(func(t *testing.T, value []byte) {
		names, err := altNames([]pkix.Extension{{Id: oidSubjectAltName, Value: value}})
		if err != nil {
			return
		}
		for _, name := range names {
			for _, r := range name {
				if r < ' ' || r > '~' {
					t.Fatalf("%q is not fit for a line of a log", name)
				}
			}
		}
		if len(without(names, names)) > 0 {
			t.Fatal(fmt.Sprint(names, " differs from itself"))
		}
	})
}
