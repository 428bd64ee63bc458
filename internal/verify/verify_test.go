package verify

import (
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
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/test/ca"
)

// now is when all tests play.
var now = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

var serial int64

func issue(t testing.TB, by *authority, key crypto.PublicKey, self crypto.Signer, template *x509.Certificate) *x509.Certificate {
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
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key, signer)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return cert
}

func newKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return key
}

func newCA(t testing.TB, name string, by *authority, change func(*x509.Certificate)) *authority {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, NotAfter: now.Add(48 * time.Hour)}
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
	der, err := x509.CreateCertificateRequest(rand.Reader, &template, key)
	require.NoError(t, err)
	csr, err := x509.ParseCertificateRequest(der)
	require.NoError(t, err)
	return csr
}

// leaf is what a good CA issues, but for what change does to it.
func (w *world) leaf(t testing.TB, change func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{RawSubject: w.csr.RawSubject, DNSNames: w.csr.DNSNames, IPAddresses: w.csr.IPAddresses, EmailAddresses: w.csr.EmailAddresses, URIs: w.csr.URIs, BasicConstraintsValid: true}
	if change != nil {
		change(template)
	}
	return issue(t, w.issuing, w.key.Public(), nil, template)
}

func certs(all ...*x509.Certificate) []*x509.Certificate { return all }

func TestAnswer_keyTooLarge_verifiesNothing(t *testing.T) {
	w := newWorld(t)
	large := issue(t, w.root, ca.OversizedRSA().Public(), nil, &x509.Certificate{Subject: pkix.Name{CommonName: "Large"}, IsCA: true, BasicConstraintsValid: true})
	good := []*x509.Certificate{w.leaf(t, nil), w.issuing.cert, w.policy.cert}
	_, err := Answer(w.csr, append(good, large), []*x509.Certificate{w.root.cert}, now)
	assert.EqualError(t, err, `certificate 4 of the chain can verify nothing: want one with a key and extensions that are supported, `+
		`got "CN=Large": its RSA key has 8676 bits, want at most 8192`)

	r, err := Answer(w.csr, good, []*x509.Certificate{w.root.cert, large}, now)
	require.NoError(t, err)
	assert.Equal(t, certs(w.root.cert, large), r.Trusted)
	assert.Equal(t, []string{`trusted certificate 2, "CN=Large", is published, but can verify nothing here: its RSA key has 8676 bits, want at most 8192`}, r.Warnings)
}

func negative(t testing.TB, cert *x509.Certificate) *x509.Certificate {
	t.Helper()
	outline, err := pki.Parse(ca.NegativeSerial(cert))
	require.NoError(t, err)
	require.Nil(t, outline.PublicKey)
	return outline
}

func TestAnswer_certificateThatCannotBeParsed(t *testing.T) {
	w := newWorld(t)
	leaf, bad := w.leaf(t, nil), negative(t, w.other.cert)
	r, err := Answer(w.csr, certs(leaf, w.issuing.cert, w.policy.cert, bad), certs(w.root.cert), now)
	require.NoError(t, err)
	assert.Equal(t, certs(leaf, w.issuing.cert, w.policy.cert), r.Chain)
	assert.Equal(t, certs(w.root.cert, bad), r.Trusted, "a root in the chain is one to trust, as it would be otherwise")
	assert.Equal(t, []string{`trusted certificate 2, "CN=Other Root", is published, but can verify nothing here: it cannot be parsed: x509: negative serial number`}, r.Warnings)

	for what, row := range map[string]struct {
		chain, trusted []*x509.Certificate
		want           string
	}{
		"the certificate itself": {certs(negative(t, leaf), w.issuing.cert, w.policy.cert), certs(w.root.cert),
			`certificate 1 of the chain can verify nothing: want one with a key and extensions that are supported, got "CN=app.example.org,O=Example": it cannot be parsed: x509: negative serial number`},
		"a signer": {certs(leaf, negative(t, w.issuing.cert), w.policy.cert), certs(w.root.cert),
			`certificate 2 of the chain can verify nothing: want one with a key and extensions that are supported, got "CN=Issuing CA": it cannot be parsed: x509: negative serial number`},
		"the only anchor": {certs(leaf, w.issuing.cert, w.policy.cert), certs(negative(t, w.root.cert)),
			`the chain does not verify to a trusted certificate: want a path from "CN=Policy CA", issued by "CN=Root", to one of them, got "CN=Root" ` +
				`(the CA certificate "CN=Root" is among the trusted certificates, but can verify nothing: it cannot be parsed: x509: negative serial number)`},
	} {
		_, err := Answer(w.csr, row.chain, row.trusted, now)
		assert.EqualError(t, err, row.want, what)
	}
}

func TestAnswer_good(t *testing.T) {
	w := newWorld(t)
	leaf := w.leaf(t, nil)
	for _, row := range []struct {
		is                     string
		chain, trusted         []*x509.Certificate
		wantChain, wantTrusted []*x509.Certificate
		wantWarnings           []string
	}{
		{"a chain without its root",
			certs(leaf, w.issuing.cert, w.policy.cert), certs(w.other.cert, w.root.cert),
			certs(leaf, w.issuing.cert, w.policy.cert), certs(w.other.cert, w.root.cert), nil},
		{"a root at the end of the chain is moved",
			certs(leaf, w.issuing.cert, w.policy.cert, w.root.cert), certs(w.other.cert),
			certs(leaf, w.issuing.cert, w.policy.cert), certs(w.other.cert, w.root.cert), nil},
		{"a root at the end of the chain that is trusted anyway is dropped",
			certs(leaf, w.issuing.cert, w.policy.cert, w.root.cert), certs(w.root.cert, w.other.cert),
			certs(leaf, w.issuing.cert, w.policy.cert), certs(w.root.cert, w.other.cert), nil},
		{"duplicates in both lists are dropped",
			certs(leaf, leaf, w.issuing.cert, w.issuing.cert, w.policy.cert, leaf), certs(w.root.cert, w.other.cert, w.root.cert),
			certs(leaf, w.issuing.cert, w.policy.cert), certs(w.root.cert, w.other.cert), nil},
		{"an anchor that is no root",
			certs(leaf, w.issuing.cert), certs(w.policy.cert),
			certs(leaf, w.issuing.cert), certs(w.policy.cert), nil},
		{"an anchor that stands in the chain as well",
			certs(leaf, w.issuing.cert), certs(w.issuing.cert),
			certs(leaf, w.issuing.cert), certs(w.issuing.cert), nil},
		{"only a leaf", certs(leaf), certs(w.issuing.cert), certs(leaf), certs(w.issuing.cert), nil},
	} {
		t.Run(row.is, func(t *testing.T) {
			chain, trusted := slices.Clone(row.chain), slices.Clone(row.trusted)
			r, err := Answer(w.csr, row.chain, row.trusted, now)
			require.NoError(t, err)
			assert.Equal(t, row.wantChain, r.Chain)
			assert.Equal(t, row.wantTrusted, r.Trusted)
			assert.Equal(t, row.wantWarnings, r.Warnings)
			assert.Equal(t, chain, row.chain, "the argument is unchanged")
			assert.Equal(t, trusted, row.trusted, "the argument is unchanged")
		})
	}
}

func TestAnswer_good_for_every_key(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	require.NoError(t, err)
	w := newWorld(t)
	for _, key := range []crypto.Signer{rsaKey, edKey, p384} {
		w.key, w.csr = key, request(t, key, requested)
		_, err := Answer(w.csr, certs(w.leaf(t, nil), w.issuing.cert, w.policy.cert), certs(w.root.cert), now)
		assert.NoError(t, err, "%T", key)
		w.key = newKey(t)
		_, err = Answer(w.csr, certs(w.leaf(t, nil), w.issuing.cert, w.policy.cert), certs(w.root.cert), now)
		assert.ErrorContains(t, err, "the certificate's public key does not match the request's: want "+keyText(key.Public())+", got ECDSA-P256 with SHA-256 ")
	}
}

func TestAnswer_refuses(t *testing.T) {
	w := newWorld(t)
	leaf := w.leaf(t, nil)
	issuing, policy, root := w.issuing.cert, w.policy.cert, w.root.cert
	impostor := newCA(t, "Issuing CA", w.policy, nil) // same name, another key
	notCA := issue(t, w.issuing, w.key.Public(), nil, &x509.Certificate{Subject: pkix.Name{CommonName: "not a CA"}})
	underNotCA := w.leafBy(t, &authority{notCA, w.key})
	narrow := newCA(t, "Narrow CA", w.root, func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"example.com"} })
	oldRoot := newCA(t, "Old Root", nil, func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Minute) })
	futureRoot := newCA(t, "Future Root", nil, func(c *x509.Certificate) { c.NotBefore = now.Add(time.Hour) })
	oldIssuing := newCA(t, "Issuing CA", w.policy, func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Minute) })
	self := w.selfSigned(t)
	key := keyText(w.key.Public())
	for _, row := range []struct {
		is             string
		chain, trusted []*x509.Certificate
		want           string
	}{
		{"an empty chain", nil, certs(root), "the answer holds no certificate: want the new one and its signers, got an empty chain"},
		{"nothing to trust", certs(leaf, issuing, policy), nil, "the answer holds no trusted certificate: want at least the root of the chain, got an empty list"},
		{"another key's certificate", certs(issuing, policy), certs(root), "the certificate's public key does not match the request's: want " + key + ", got " + keyText(issuing.PublicKey)},
		{"a chain that begins at the other end", certs(policy, issuing, leaf), certs(root), "the certificate's public key does not match the request's: want " + key + ", got " + keyText(policy.PublicKey) + ", while certificate 3 of the chain has ours: the chain is out of order"},
		{"a CA certificate for our key", certs(w.leaf(t, func(c *x509.Certificate) { c.IsCA = true }), issuing, policy), certs(root), `the certificate is one of a CA: want CA:FALSE, got CA:TRUE for "CN=app.example.org,O=Example"`},
		{"another common name", certs(w.leaf(t, func(c *x509.Certificate) { c.RawSubject, c.Subject = nil, pkix.Name{CommonName: "app"} }), issuing, policy), certs(root), `the certificate lacks the requested common name: want "app.example.org", got the subject "CN=app"`},
		{"no common name", certs(w.leaf(t, func(c *x509.Certificate) { c.RawSubject, c.Subject = nil, pkix.Name{Organization: []string{"x"}} }), issuing, policy), certs(root), `the certificate lacks the requested common name: want "app.example.org", got the subject "O=x"`},
		{"a DNS name short", certs(w.leaf(t, func(c *x509.Certificate) { c.DNSNames = c.DNSNames[:1] }), issuing, policy), certs(root), `the certificate lacks requested alternative names: want DNS:app.ns.svc.cluster.local, got DNS:app.example.org, email:Pki@example.org, IP Address:192.0.2.1, IP Address:2001:db8::1, URI:https://example.org/app`},
		{"an IP address short", certs(w.leaf(t, func(c *x509.Certificate) { c.IPAddresses = c.IPAddresses[:1] }), issuing, policy), certs(root), `the certificate lacks requested alternative names: want IP Address:2001:db8::1, got DNS:app.example.org, DNS:app.ns.svc.cluster.local, email:Pki@example.org, IP Address:192.0.2.1, URI:https://example.org/app`},
		{"an e-mail address short", certs(w.leaf(t, func(c *x509.Certificate) { c.EmailAddresses = []string{"pki@example.org"} }), issuing, policy), certs(root), `the certificate lacks requested alternative names: want email:Pki@example.org, got DNS:app.example.org, DNS:app.ns.svc.cluster.local, email:pki@example.org, IP Address:192.0.2.1, IP Address:2001:db8::1, URI:https://example.org/app`},
		{"a URI short", certs(w.leaf(t, func(c *x509.Certificate) { c.URIs = nil }), issuing, policy), certs(root), `the certificate lacks requested alternative names: want URI:https://example.org/app, got DNS:app.example.org, DNS:app.ns.svc.cluster.local, email:Pki@example.org, IP Address:192.0.2.1, IP Address:2001:db8::1`},
		{"no alternative names at all", certs(issue(t, w.issuing, w.key.Public(), nil, &x509.Certificate{RawSubject: w.csr.RawSubject}), issuing, policy), certs(root), `the certificate lacks requested alternative names: want DNS:app.example.org, DNS:app.ns.svc.cluster.local, email:Pki@example.org, IP Address:192.0.2.1, IP Address:2001:db8::1, URI:https://example.org/app, got none`},
		{"signers in the wrong order", certs(leaf, policy, issuing), certs(root), `the chain is broken between certificates 1 and 2: want the issuer "CN=Issuing CA", which is certificate 3, got "CN=Policy CA"`},
		{"a signer left out", certs(leaf, policy), certs(root), `the chain is broken between certificates 1 and 2: want the issuer "CN=Issuing CA", got "CN=Policy CA"`},
		{"a root before the end", certs(leaf, issuing, root, policy), certs(root), `the chain is broken between certificates 2 and 3: want the issuer "CN=Policy CA", which is certificate 4, got "CN=Root"`},
		{"a signer with the right name and the wrong key", certs(leaf, impostor.cert, policy), certs(root), `the chain is broken between certificates 1 and 2: want a signature by "CN=Issuing CA", got one that does not verify (x509: ECDSA verification failure)`},
		{"a signer that is no CA", certs(underNotCA, notCA, issuing, policy), certs(root), `the chain is broken between certificates 1 and 2: want a signature by "CN=not a CA", got one that does not verify (x509: invalid signature: parent certificate cannot sign this kind of certificate)`},
		{"a chain to a root that is not trusted", certs(leaf, issuing, policy), certs(w.other.cert), `the chain does not verify to a trusted certificate: want a path from "CN=Policy CA", issued by "CN=Root", to one of them, got "CN=Other Root" (x509: certificate signed by unknown authority)`},
		{"a chain that ends too early", certs(leaf), certs(root), `the chain does not verify to a trusted certificate: want a path from "CN=app.example.org,O=Example", issued by "CN=Issuing CA", to one of them, got "CN=Root" (x509: certificate signed by unknown authority)`},
		{"names that the CA may not certify", certs(w.leafBy(t, narrow), narrow.cert), certs(root), `the chain does not verify to a trusted certificate: want a path from "CN=Narrow CA", issued by "CN=Root", to one of them, got "CN=Root" (x509: a root or intermediate certificate is not authorized to sign for this name: DNS name "app.example.org" is not permitted by any constraint)`},
		{"an expired certificate", certs(w.leaf(t, func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Second) }), issuing, policy), certs(root), `the certificate has expired: want an end after 2026-06-01T12:00:00Z, got 2026-06-01T11:00:00Z to 2026-06-01T11:59:59Z for "CN=app.example.org,O=Example"`},
		{"a certificate of the future", certs(w.leaf(t, func(c *x509.Certificate) { c.NotBefore = now.Add(5*time.Minute + time.Second) }), issuing, policy), certs(root), `the certificate is not valid yet: want a beginning not more than 5m0s after 2026-06-01T12:00:00Z, got 2026-06-01T12:05:01Z to 2026-06-02T12:00:00Z for "CN=app.example.org,O=Example"`},
		{"dates in the wrong order", certs(w.leaf(t, func(c *x509.Certificate) { c.NotAfter = now.Add(-2 * time.Hour) }), issuing, policy), certs(root), `the certificate ends before it begins: want dates in order, got 2026-06-01T11:00:00Z to 2026-06-01T10:00:00Z for "CN=app.example.org,O=Example"`},
		{"an expired signer", certs(w.leafBy(t, oldIssuing), oldIssuing.cert, policy), certs(root), `certificate 2 of the chain has expired: want an end after 2026-06-01T12:00:00Z, got 2026-06-01T11:00:00Z to 2026-06-01T11:59:00Z for "CN=Issuing CA"`},
		{"an expired anchor", certs(w.leafBy(t, oldRoot)), certs(oldRoot.cert), `a certificate on the path to the trust anchor is not valid now: want a validity that includes 2026-06-01T12:00:00Z, got 2026-06-01T11:00:00Z to 2026-06-01T11:59:00Z for "CN=Old Root"`},
		{"an anchor of the future", certs(w.leafBy(t, futureRoot)), certs(futureRoot.cert), `a certificate on the path to the trust anchor is not valid now: want a validity that includes 2026-06-01T12:00:00Z, got 2026-06-01T13:00:00Z to 2026-06-03T12:00:00Z for "CN=Future Root"`},
		{"a certificate that trusts itself", certs(self), certs(self), `the certificate is its own trust anchor: want one that a CA signed, got "CN=app.example.org,O=Example" in both lists`},
	} {
		t.Run(row.is, func(t *testing.T) {
			r, err := Answer(w.csr, row.chain, row.trusted, now)
			var typed *Error
			require.ErrorAs(t, err, &typed)
			assert.EqualError(t, err, row.want)
			assert.Empty(t, r)
		})
	}
}

func (w *world) leafBy(t testing.TB, by *authority) *x509.Certificate {
	t.Helper()
	issuing := w.issuing
	defer func() { w.issuing = issuing }()
	w.issuing = by
	return w.leaf(t, nil)
}

func (w *world) selfSigned(t testing.TB) *x509.Certificate {
	t.Helper()
	return issue(t, nil, w.key.Public(), w.key, &x509.Certificate{RawSubject: w.csr.RawSubject, DNSNames: w.csr.DNSNames, IPAddresses: w.csr.IPAddresses, EmailAddresses: w.csr.EmailAddresses, URIs: w.csr.URIs})
}

func TestAnswer_warns(t *testing.T) {
	w := newWorld(t)
	issuing, policy, root := w.issuing.cert, w.policy.cert, w.root.cert
	soon := newCA(t, "Soon Root", nil, func(c *x509.Certificate) { c.NotBefore = now.Add(2 * time.Minute) })
	next := newCA(t, "Next Root", nil, func(c *x509.Certificate) {
		c.NotBefore = now.Add(1000 * time.Hour)
		c.NotAfter = now.Add(2000 * time.Hour)
	})
	gone := newCA(t, "Gone Root", nil, func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Minute) })
	for _, row := range []struct {
		is             string
		chain, trusted []*x509.Certificate
		want           []string
	}{
		{"of names that were not requested", certs(w.leaf(t, func(c *x509.Certificate) { c.DNSNames = append(slices.Clone(c.DNSNames), "extra.example.org") }), issuing, policy), certs(root),
			[]string{"the certificate has alternative names that were not requested: DNS:extra.example.org"}},
		{"of another subject", certs(w.leaf(t, func(c *x509.Certificate) {
			c.RawSubject, c.Subject = nil, pkix.Name{CommonName: "app.example.org", Organization: []string{"Policy"}}
		}), issuing, policy), certs(root),
			[]string{`the certificate's subject is "CN=app.example.org,O=Policy", requested was "CN=app.example.org,O=Example"`}},
		{"not of the order of the subject's parts", certs(w.leaf(t, func(c *x509.Certificate) {
			c.RawSubject, c.Subject = nil, pkix.Name{ExtraNames: slices.Concat(requested.Subject.ToRDNSequence()...)}
			slices.Reverse(c.Subject.ExtraNames)
			require.NotEqual(t, w.csr.RawSubject, rawName(t, c.Subject))
		}), issuing, policy), certs(root), nil},
		{"not of the case of host names", certs(w.leaf(t, func(c *x509.Certificate) {
			c.DNSNames = []string{"APP.example.org", "App.ns.svc.cluster.local"}
			c.EmailAddresses = []string{"Pki@EXAMPLE.org"}
		}), issuing, policy), certs(root), nil},
		{"of a certificate that is to begin soon", certs(w.leaf(t, func(c *x509.Certificate) { c.NotBefore = now.Add(5 * time.Minute) }), issuing, policy), certs(root),
			[]string{"the certificate becomes valid only at 2026-06-01T12:05:00Z, 5m0s from now: this machine's clock is behind the CA's, which is tolerated up to 5m0s"}},
		{"of a certificate that outlives its signer", certs(w.leaf(t, func(c *x509.Certificate) { c.NotAfter = now.Add(72 * time.Hour) }), issuing, policy), certs(root),
			[]string{
				`certificate 2 of the chain, "CN=Issuing CA", ends at 2026-06-03T12:00:00Z, before the certificate does at 2026-06-04T12:00:00Z`,
				`certificate 3 of the chain, "CN=Policy CA", ends at 2026-06-03T12:00:00Z, before the certificate does at 2026-06-04T12:00:00Z`,
			}},
		{"of an anchor that is to begin soon", certs(w.leafBy(t, soon)), certs(soon.cert),
			[]string{"the trust anchor becomes valid only at 2026-06-01T12:02:00Z, 2m0s from now: this machine's clock is behind the CA's, which is tolerated up to 5m0s"}},
		{"of a trusted certificate that has expired and is not needed, and not of one for later", certs(w.leaf(t, nil), issuing, policy), certs(gone.cert, next.cert, root),
			[]string{`the trusted certificate "CN=Gone Root" expired at 2026-06-01T11:59:00Z`}},
	} {
		t.Run(row.is, func(t *testing.T) {
			r, err := Answer(w.csr, row.chain, row.trusted, now)
			require.NoError(t, err)
			assert.Equal(t, row.want, r.Warnings)
		})
	}
}

func rawName(t *testing.T, name pkix.Name) []byte {
	der, err := asn1.Marshal(name.ToRDNSequence())
	require.NoError(t, err)
	return der
}

func TestAnswer_short_life_that_begins_soon(t *testing.T) {
	w := newWorld(t)
	leaf := w.leaf(t, func(c *x509.Certificate) { c.NotBefore, c.NotAfter = now.Add(10*time.Second), now.Add(40*time.Second) })
	later := newCA(t, "Later Root", nil, func(c *x509.Certificate) { c.NotBefore = now.Add(4 * time.Minute) })
	r, err := Answer(w.csr, certs(leaf, w.issuing.cert, w.policy.cert), certs(later.cert, w.root.cert), now)
	require.NoError(t, err)
	assert.Len(t, r.Warnings, 1)
}

func TestAnswer_names_of_other_kinds(t *testing.T) {
	registered := func(number byte) pkix.Extension {
		value, err := asn1.Marshal([]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 8, Bytes: []byte{0x2a, number}}})
		require.NoError(t, err)
		return pkix.Extension{Id: oidSubjectAltName, Value: value}
	}
	w := newWorld(t)
	w.csr = request(t, w.key, x509.CertificateRequest{Subject: requested.Subject, ExtraExtensions: []pkix.Extension{registered(3)}})
	with := func(number byte) []*x509.Certificate {
		return certs(w.leaf(t, func(c *x509.Certificate) { c.ExtraExtensions = []pkix.Extension{registered(number)} }), w.issuing.cert, w.policy.cert)
	}
	_, err := Answer(w.csr, with(3), certs(w.root.cert), now)
	assert.NoError(t, err)
	_, err = Answer(w.csr, with(4), certs(w.root.cert), now)
	assert.EqualError(t, err, "the certificate lacks requested alternative names: want kind 8:88022a03, got kind 8:88022a04")
}

func TestAnswer_request_without_names_accepts_any(t *testing.T) {
	w := newWorld(t)
	leaf := w.leaf(t, nil)
	w.csr = request(t, w.key, x509.CertificateRequest{})
	_, err := Answer(w.csr, certs(leaf, w.issuing.cert, w.policy.cert), certs(w.root.cert), now)
	assert.NoError(t, err)
}

func TestAnswer_root_signed_with_SHA1(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	old := &authority{key: key}
	old.cert = issue(t, nil, key.Public(), key, &x509.Certificate{Subject: pkix.Name{CommonName: "SHA-1 Root"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, SignatureAlgorithm: x509.SHA1WithRSA, NotAfter: now.Add(48 * time.Hour)})
	w := newWorld(t)
	leaf := w.leafBy(t, old)
	r, err := Answer(w.csr, certs(leaf, old.cert), certs(w.other.cert), now)
	require.NoError(t, err)
	assert.Equal(t, certs(leaf), r.Chain)
	assert.Equal(t, certs(w.other.cert, old.cert), r.Trusted)
}

func TestAnswer_signer_signed_with_SHA1(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	rootOf := &authority{key: key}
	rootOf.cert = issue(t, nil, key.Public(), key, &x509.Certificate{Subject: pkix.Name{CommonName: "RSA Root"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, NotAfter: now.Add(48 * time.Hour)})
	weak := newCA(t, "Weak CA", rootOf, func(c *x509.Certificate) { c.SignatureAlgorithm = x509.SHA1WithRSA })
	w := newWorld(t)
	_, err = Answer(w.csr, certs(w.leafBy(t, weak), weak.cert), certs(rootOf.cert), now)
	assert.EqualError(t, err, `the chain does not verify to a trusted certificate: want a path from "CN=Weak CA", issued by "CN=RSA Root", to one of them, got "CN=RSA Root" ("CN=Weak CA" is signed with SHA-1 with RSA (1.2.840.113549.1.1.5), which is not accepted: have it issued with SHA-256 or stronger)`)
}

// A root's new key signed with its old one carries the root's name as issuer, but is no root.
func TestAnswer_rollover_certificate_stays_in_the_chain(t *testing.T) {
	w := newWorld(t)
	successor := newCA(t, "Root", w.root, nil)
	leaf := w.leafBy(t, successor)
	r, err := Answer(w.csr, certs(leaf, successor.cert), certs(w.root.cert), now)
	require.NoError(t, err)
	assert.Equal(t, certs(leaf, successor.cert), r.Chain)
	assert.Equal(t, certs(w.root.cert), r.Trusted)
}

func TestAnswer_golden(t *testing.T) {
	read := func(name string) *x509.Certificate {
		cert, err := x509.ParseCertificate(pemBytes(t, name))
		require.NoError(t, err)
		return cert
	}
	csr, err := x509.ParseCertificateRequest(pemBytes(t, "csr.pem"))
	require.NoError(t, err)
	chain, trusted := certs(read("certificate.pem"), read("issuing-ca.pem")), certs(read("root-ca.pem"), read("other-root-ca.pem"))
	r, err := Answer(csr, chain, trusted, now)
	require.NoError(t, err)
	assert.Equal(t, Result{Chain: chain, Trusted: trusted}, r)

	_, err = Answer(csr, certs(read("old-certificate.pem"), read("issuing-ca.pem")), trusted, now)
	assert.ErrorContains(t, err, "the certificate's public key does not match the request's: want RSA-2048 with SHA-256 ")
}

func pemBytes(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile("../../test/testdata/pem/" + name)
	require.NoError(t, err)
	block, _ := pem.Decode(data)
	require.NotNil(t, block)
	return block.Bytes
}

func FuzzAltNames(f *testing.F) {
	csr, err := x509.ParseCertificateRequest(pemBytes(f, "csr.pem"))
	require.NoError(f, err)
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
