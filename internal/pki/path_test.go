package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

// now is when the authorities of test/testdata/constraints are valid.
var testTime = time.Date(2027, 6, 1, 12, 0, 0, 0, time.UTC)

type testAuthority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// stored reads an authority of test/testdata/constraints.
func stored(t testing.TB, name string) testAuthority {
	t.Helper()
	read := func(name string) []byte {
		text, err := os.ReadFile("../../test/testdata/constraints/" + name + ".pem")
		require.NoError(t, err)
		block, _ := pem.Decode(text)
		return block.Bytes
	}
	cert, err := x509.ParseCertificate(read(name))
	require.NoError(t, err)
	a := testAuthority{cert: cert}
	if name != "root" {
		key, err := x509.ParsePKCS8PrivateKey(read(name + "-key"))
		require.NoError(t, err)
		a.key = key.(crypto.Signer)
	}
	return a
}

var testSerial int64

// issue signs what the template says; without by, by itself.
func issue(t testing.TB, by *testAuthority, template *x509.Certificate) testAuthority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	testSerial++
	template.SerialNumber, template.NotBefore, template.NotAfter = big.NewInt(testSerial),
		testTime.Add(-time.Hour), testTime.Add(time.Hour)
	parent, signer := template, crypto.Signer(key)
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return testAuthority{cert, key}
}

func dn(parts ...string) []byte {
	oids := map[string]asn1.ObjectIdentifier{"C": {2, 5, 4, 6}, "O": {2, 5, 4, 10},
		"OU": {2, 5, 4, 11}, "CN": {2, 5, 4, 3}, "E": oidEmailAddress}
	rdns := pkix.RDNSequence{}
	for _, part := range parts {
		key, value, _ := strings.Cut(part, "=")
		var attribute any = value
		if key == "E" {
			attribute = asn1.RawValue{Tag: asn1.TagIA5String, Bytes: []byte(value)}
		}
		rdns = append(rdns, pkix.RelativeDistinguishedNameSET{{Type: oids[key], Value: attribute}})
	}
	der, err := asn1.Marshal(rdns)
	if err != nil {
		panic(err)
	}
	return der
}

func tlv(tag byte, content ...[]byte) []byte {
	der, err := asn1.Marshal(asn1.RawValue{Class: int(tag >> 6), IsCompound: tag&0x20 != 0,
		Tag: int(tag & 0x1f), Bytes: join(content)})
	if err != nil {
		panic(err)
	}
	return der
}

func join(parts [][]byte) (all []byte) {
	for _, part := range parts {
		all = append(all, part...)
	}
	return all
}

// GeneralNames.
func dirName(parts ...string) []byte { return tlv(0xa4, dn(parts...)) }
func dnsName(text string) []byte     { return tlv(0x82, []byte(text)) }

var (
	upn     = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 20, 2, 3}
	another = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, 1}
	mailbox = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 8, 9}
)

func otherName(oid asn1.ObjectIdentifier, text string) []byte {
	id, err := asn1.Marshal(oid)
	if err != nil {
		panic(err)
	}
	return tlv(0xa0, id, tlv(0xa0, tlv(0x0c, []byte(text))))
}

func subtrees(names ...[]byte) (all []byte) {
	for _, n := range names {
		all = append(all, tlv(0x30, n)...)
	}
	return all
}

func nameConstraints(critical bool, permitted, excluded []byte) pkix.Extension {
	var body []byte
	if permitted != nil {
		body = append(body, tlv(0xa0, permitted)...)
	}
	if excluded != nil {
		body = append(body, tlv(0xa1, excluded)...)
	}
	return pkix.Extension{Id: oidNameConstraints, Critical: critical, Value: tlv(0x30, body)}
}

func alternative(names ...[]byte) pkix.Extension {
	return pkix.Extension{Id: oidSubjectAltName, Value: tlv(0x30, names...)}
}

func constrained(t testing.TB, by *testAuthority, subject []byte, extensions ...pkix.Extension) testAuthority {
	return issue(t, by, &x509.Certificate{RawSubject: subject, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, ExtraExtensions: extensions})
}

// leaves are end entities as an authority may be asked for.
var leaves = map[string]x509.Certificate{
	"C=SE":                      {RawSubject: dn("C=SE", "O=Example", "CN=app")},
	"C=SE in other letters":     {RawSubject: dn("C=se", "O=Example", "CN=app")},
	"no C":                      {RawSubject: dn("O=Example", "CN=app")},
	"a bad host as common name": {RawSubject: dn("C=SE", "CN=app.example.com")},
	"an address of the host":    {RawSubject: dn("C=SE", "E=a@example.org")},
	"an address below the host": {RawSubject: dn("C=SE", "E=a@mail.Example.org")},
	"an address of another":     {RawSubject: dn("C=SE", "E=a@example.com")},
	"another's address":         {RawSubject: dn("C=SE", "E=b@example.org")},
	"C=DE":                      {RawSubject: dn("C=DE", "O=Example", "CN=app")},
	"C=SE not first":            {RawSubject: dn("O=Example", "C=SE", "CN=app")},
	"C=SE and a good host":      {RawSubject: dn("C=SE", "CN=app"), DNSNames: []string{"app.example.org"}},
	"C=SE and a bad host":       {RawSubject: dn("C=SE", "CN=app"), DNSNames: []string{"app.example.com"}},
	"C=SE, an address": {RawSubject: dn("C=SE", "CN=app"),
		ExtraExtensions: []pkix.Extension{alternative(dnsName("app.example.org"), tlv(0x87, []byte{192, 0, 2, 1}))}},
	"a good host, no C": {RawSubject: dn("O=Example"), DNSNames: []string{"app.example.org"}},
	"no subject":        {RawSubject: dn(), DNSNames: []string{"app.example.org"}},
	"a UPN": {RawSubject: dn("C=SE", "O=Example"),
		ExtraExtensions: []pkix.Extension{alternative(dnsName("app.example.org"), otherName(upn, "a@example.org"))}},
	"another otherName": {RawSubject: dn("C=SE", "O=Example"),
		ExtraExtensions: []pkix.Extension{alternative(dnsName("app.example.org"), otherName(another, "x"))}},
	"a directory name of C=SE": {RawSubject: dn("C=SE"),
		ExtraExtensions: []pkix.Extension{alternative(dnsName("app.example.org"), dirName("C=SE", "CN=x"))}},
	"a directory name of C=DE": {RawSubject: dn("C=SE"),
		ExtraExtensions: []pkix.Extension{alternative(dnsName("app.example.org"), dirName("C=DE", "CN=x"))}},
	"an internationalised mailbox": {RawSubject: dn("C=SE"),
		ExtraExtensions: []pkix.Extension{alternative(dnsName("app.example.org"),
			otherName(mailbox, "ä@example.org"))}},
	"a mailbox of another host": {RawSubject: dn("C=SE"),
		ExtraExtensions: []pkix.Extension{alternative(otherName(mailbox, "ä@example.com"))}},
	"a registered ID": {RawSubject: dn("C=SE"),
		ExtraExtensions: []pkix.Extension{alternative(dnsName("app.example.org"), tlv(0x88, []byte{0x2a, 3}))}},
	"an excluded organisation":       {RawSubject: dn("C=SE", "O=Evil", "CN=app")},
	"an organisation that is longer": {RawSubject: dn("C=SE", "O=Evil twin", "CN=app")},
}

// differences are the chains on which openssl decides otherwise, and why.
func difference(by, leaf string) string {
	switch {
	case by == "stored sha1":
		return "openssl verify accepts signatures with SHA-1 at its default security level"
	case leaf == "a bad host as common name" &&
		slices.Contains([]string{"stored dns", "stored other-name", "stored mixed"}, by):
		return "openssl takes a common name for a host name where there is no other; here it is none (RFC 9525)"
	}
	return ""
}

func TestVerify_agreesWithOpenSSL(t *testing.T) {
	openssl := fixture.RequirePrograms(t, "openssl")[0]
	root := stored(t, "root")
	own := constrained(t, nil, dn("O=Example", "CN=Own Root"))
	rootLimited := constrained(t, nil, dn("C=SE", "CN=Limited Root"),
		nameConstraints(true, subtrees(dirName("C=SE")), nil))
	below := constrained(t, &own, dn("C=SE", "CN=Upper"), nameConstraints(true, subtrees(dirName("C=SE")), nil))
	// crypto/x509 leaves the identifier of the issuer's key out of such a certificate, and openssl takes it for a root
	// then.
	keyIdentifier := pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 35},
		Value: tlv(0x30, tlv(0x80, below.cert.SubjectKeyId))}
	selfIssued := constrained(t, &below, dn("C=SE", "CN=Upper"), keyIdentifier)
	stranger := constrained(t, &below, dn("C=DE", "CN=Lower"))
	minimum := tlv(0x30, tlv(0x30, dirName("C=SE"), []byte{0x80, 1, 1}))[2:]
	authorities := map[string]struct {
		root  testAuthority
		chain []testAuthority // the issuer first
	}{
		"unlimited root":       {own, []testAuthority{own}},
		"limited root":         {rootLimited, []testAuthority{rootLimited}},
		"self-issued below":    {own, []testAuthority{selfIssued, below}},
		"CA that is forbidden": {own, []testAuthority{stranger, below}},
		"excluded": {own, []testAuthority{constrained(t, &own, dn("CN=X"),
			nameConstraints(true, nil, subtrees(dirName("C=SE", "O=Evil"))))}},
		"excluded everything": {own, []testAuthority{constrained(t, &own, dn("CN=X"),
			nameConstraints(true, nil, subtrees(dirName())))}},
		"permitted everything": {own, []testAuthority{constrained(t, &own, dn("CN=X"),
			nameConstraints(true, subtrees(dirName()), nil))}},
		"two permitted": {own, []testAuthority{constrained(t, &own, dn("CN=X"),
			nameConstraints(true, subtrees(dirName("C=DE"), dirName("C=SE")), nil))}},
		"permitted, excluded": {own,
			[]testAuthority{constrained(t, &own, dn("CN=X"),
				nameConstraints(true, subtrees(dirName("C=SE")), subtrees(dirName("C=SE", "O=Example"))))}},
		"other names excluded": {own, []testAuthority{constrained(t, &own, dn("CN=X"),
			nameConstraints(true, nil, subtrees(otherName(upn, "@example.org"))))}},
		"registered ID": {own, []testAuthority{constrained(t, &own, dn("CN=X"),
			nameConstraints(true, subtrees(tlv(0x88, []byte{0x2a, 3})), nil))}},
		"mail of a host": {own, []testAuthority{constrained(t, &own, dn("CN=X"),
			nameConstraints(true, subtrees(tlv(0x81, []byte("example.org"))), nil))}},
		"mail of a domain": {own, []testAuthority{constrained(t, &own, dn("CN=X"),
			nameConstraints(true, subtrees(tlv(0x81, []byte(".example.org"))), nil))}},
		"an address": {own, []testAuthority{constrained(t, &own, dn("CN=X"),
			nameConstraints(true, subtrees(tlv(0x81, []byte("a@example.org"))), nil))}},
		"an address less": {own, []testAuthority{constrained(t, &own, dn("CN=X"),
			nameConstraints(true, nil, subtrees(tlv(0x81, []byte("a@example.org")))))}},
		"a minimum": {own, []testAuthority{constrained(t, &own, dn("CN=X"), nameConstraints(true, minimum, nil))}},
	}
	for _, stem := range []string{"directory", "dns", "mixed", "not-critical", "other-name", "sha1"} {
		authorities["stored "+stem] = struct {
			root  testAuthority
			chain []testAuthority
		}{root, []testAuthority{stored(t, stem)}}
	}
	agreed, refused, differ := 0, 0, 0
	dir := t.TempDir()
	for by, a := range authorities {
		var others []*x509.Certificate
		for _, c := range a.chain {
			others = append(others, c.cert)
		}
		// One run for all leaves: the exit code is that of the worst, and each has a line.
		args := []string{"verify", "-attime", fmt.Sprint(testTime.Unix()), "-CAfile",
			writePEMFile(t, dir, "root.pem", a.root.cert), "-untrusted", writePEMFile(t, dir, "chain.pem", others...)}
		issued := map[string]*x509.Certificate{}
		for what, template := range leaves {
			issued[what] = issue(t, &a.chain[0], &template).cert
			args = append(args, writePEMFile(t, dir, fmt.Sprintf("%x.pem", what), issued[what]))
		}
		out, _ := exec.Command(openssl, args...).CombinedOutput()
		for what, leaf := range issued {
			_, err := VerifyPath(leaf, PathOptions{Anchors: []*x509.Certificate{a.root.cert},
				Others: others, At: testTime})
			accepted := strings.Contains(string(out), filepath.Join(dir, fmt.Sprintf("%x.pem", what))+": OK\n")
			if why := difference(by, what); why != "" {
				differ++
				assert.NotEqual(t, err == nil, accepted, "no difference any more: %s: %s (%s)", by, what, why)
				continue
			}
			agreed++
			if err != nil {
				refused++
			}
			assert.Equal(t, accepted, err == nil, "%s: %s: %v\n%s", by, what, err, out)
		}
	}
	t.Logf("%d chains agreed on, of which %d are refused; %d differ", agreed, refused, differ)
	assert.Greater(t, refused, 50)
	assert.Greater(t, agreed-refused, 50)
}

func writePEMFile(t *testing.T, dir, name string, certs ...*x509.Certificate) string {
	t.Helper()
	var text []byte
	for _, cert := range certs {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})...)
	}
	path := filepath.Join(dir, name)
	require.NoError(t, os.WriteFile(path, text, 0o600))
	return path
}

func TestVerify_namesTheConstraintAndTheCertificate(t *testing.T) {
	root := stored(t, "root")
	for _, row := range []struct{ by, leaf, want string }{
		{"directory", "C=SE", ""},
		{"directory", "C=DE",
			`the CA certificate "CN=NC Dir,O=Example" does not permit the directory name ` +
				`"CN=app,O=Example,C=DE": see the certificate "CN=app,O=Example,C=DE" below it`},
		{"directory", "a directory name of C=DE",
			`the CA certificate "CN=NC Dir,O=Example" does not permit the directory name ` +
				`"CN=x,C=DE": see the certificate "C=SE" below it`},
		{"mixed", "C=SE and a good host", ""},
		{"mixed", "C=SE and a bad host",
			`x509: a root or intermediate certificate is not authorized to sign for this name: ` +
				`DNS name "app.example.com" is not permitted by any constraint`},
		{"mixed", "C=SE, an address",
			`x509: a root or intermediate certificate is not authorized to sign for this name: ` +
				`IP address "192.0.2.1" is excluded by constraint "0.0.0.0/0"`},
		{"other-name", "C=SE and a good host", ""},
		{"other-name", "another otherName", ""},
		{"other-name", "a UPN",
			`the CA certificate "CN=NC Other,O=Example" has a critical name constraint of the ` +
				`kind otherName 1.3.6.1.4.1.311.20.2.3, which is not supported: ` +
				`see the certificate "O=Example,C=SE" below it`},
		{"not-critical", "C=SE", ""},
		{"sha1", "C=SE",
			`"CN=Sub SHA1,O=Example" is signed with SHA-1 with RSA (1.2.840.113549.1.1.5), ` +
				`which is not accepted: have it issued with SHA-256 or stronger`},
	} {
		authority, template := stored(t, row.by), leaves[row.leaf]
		leaf := issue(t, &authority, &template)
		chains, err := VerifyPath(leaf.cert, PathOptions{Anchors: []*x509.Certificate{root.cert},
			Others: []*x509.Certificate{authority.cert}, At: testTime})
		if row.want == "" {
			if assert.NoError(t, err, "%s: %s", row.by, row.leaf) {
				assert.Equal(t, [][]*x509.Certificate{{leaf.cert, authority.cert, root.cert}}, chains)
				assert.Same(t, authority.cert, chains[0][1], "the certificates given, not copies")
			}
			continue
		}
		assert.EqualError(t, err, row.want, "%s: %s", row.by, row.leaf)
	}
}

func TestVerify_anchorThatCanVerifyNothing_isNamed(t *testing.T) {
	root := constrained(t, nil, dn("CN=Root"))
	leaf := issue(t, &root, &x509.Certificate{RawSubject: dn("CN=leaf")})
	unusable := *root.cert
	unusable.PublicKey = fixture.OversizedRSA().Public()
	_, err := VerifyPath(leaf.cert, PathOptions{Anchors: []*x509.Certificate{&unusable}, At: testTime})
	assert.EqualError(t, err,
		`the CA certificate "CN=Root" is among the trusted certificates, but can verify `+
			`nothing: its RSA key has 8676 bits, want at most 8192`)
	chains, err := VerifyPath(leaf.cert, PathOptions{Anchors: []*x509.Certificate{&unusable, root.cert}, At: testTime})
	require.NoError(t, err)
	assert.Len(t, chains, 1)

	_, err = VerifyPath(&unusable, PathOptions{Anchors: []*x509.Certificate{root.cert}, At: testTime})
	assert.EqualError(t, err, "its RSA key has 8676 bits, want at most 8192")
}

func TestReason_isEmptyWhenTheIssuerIsNotThere(t *testing.T) {
	root, other := constrained(t, nil, dn("CN=Root")), constrained(t, nil, dn("CN=Other"))
	middle := constrained(t, &root, dn("CN=Middle"))
	leaf := issue(t, &middle, &x509.Certificate{RawSubject: dn("CN=leaf")})
	assert.Empty(t, PathReason(leaf.cert, nil, []*x509.Certificate{root.cert, other.cert}))
	assert.Empty(t, PathReason(leaf.cert, []*x509.Certificate{middle.cert}, []*x509.Certificate{other.cert}))

	endEntity := issue(t, nil, &x509.Certificate{RawSubject: dn("CN=Root"), BasicConstraintsValid: true})
	byEndEntity := issue(t, &endEntity, &x509.Certificate{RawSubject: dn("CN=leaf")})
	assert.Equal(t,
		`the certificate "CN=Root" is among the trusted certificates, but it is not one of a CA (basicConstraints)`,
		PathReason(byEndEntity.cert, nil, []*x509.Certificate{endEntity.cert}))
}

// What a hostile answer may hold costs little: it is refused when there is too much to compare.
func TestVerify_manyConstraintsAndNames_costLittle(t *testing.T) {
	var permitted, names [][]byte
	for i := range 10_000 {
		permitted = append(permitted, dirName("C=SE", fmt.Sprintf("O=%d", i)))
		names = append(names, dirName("C=SE", "O=Example", fmt.Sprintf("CN=%d", i)))
	}
	root := constrained(t, nil, dn("CN=Root"))
	limited := constrained(t, &root, dn("CN=Limited"), nameConstraints(true, subtrees(permitted...), nil))
	leaf := issue(t, &limited, &x509.Certificate{RawSubject: dn("C=SE", "O=1"),
		ExtraExtensions: []pkix.Extension{alternative(names...)}})
	few := issue(t, &limited, &x509.Certificate{RawSubject: dn("C=SE", "O=9999", "CN=app")})
	options := PathOptions{Anchors: []*x509.Certificate{root.cert},
		Others: []*x509.Certificate{limited.cert}, At: testTime}

	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	began := time.Now()
	_, err := VerifyPath(leaf.cert, options)
	took := time.Since(began)
	runtime.ReadMemStats(&after)
	assert.Error(t, err)
	assert.Less(t, took, 5*time.Second)
	assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(64<<20))
	_, err = VerifyPath(few.cert, options)
	assert.NoError(t, err)

	var excluded [][]byte
	for i := range 1_000 {
		excluded = append(excluded, dirName("C=SE", fmt.Sprintf("O=%d", i)))
	}
	limited = constrained(t, &root, dn("CN=Limited"), nameConstraints(true, nil, subtrees(excluded...)))
	leaf = issue(t, &limited, &x509.Certificate{RawSubject: dn("C=SE", "O=Example"),
		ExtraExtensions: []pkix.Extension{alternative(names...)}})
	_, err = VerifyPath(leaf.cert, PathOptions{Anchors: []*x509.Certificate{root.cert},
		Others: []*x509.Certificate{limited.cert}, At: testTime})
	assert.EqualError(t, err,
		`the CA certificate "CN=Limited" has too many name constraints for the names below it, `+
			`want at most 1048576 comparisons`)
}

func FuzzConstraints(f *testing.F) {
	f.Add(nameConstraints(true, subtrees(dirName("C=SE"), dnsName("example.org")),
		subtrees(otherName(upn, "@example.org"))).Value,
		alternative(dirName("C=SE", "CN=x"), otherName(another, "x")).Value)
	f.Fuzz(func(t *testing.T, constraints, names []byte) {
		limits := parseConstraints(pkix.Extension{Critical: true, Value: constraints})
		for _, n := range parseAlternativeNames(names) {
			if fault := limits.allow(n); n.bad && fault == "" && limits.speakOfDirectories() {
				t.Fatal("a name that cannot be read is allowed")
			}
		}
	})
}

func (l *constraints) speakOfDirectories() bool {
	return slices.ContainsFunc(slices.Concat(l.permitted, l.excluded),
		func(s subtree) bool { return s.tag == tagDirectory })
}
