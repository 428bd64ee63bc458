package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/golden"
)

const constraintsDir = "../../test/testdata/constraints/"

// testTime is when the authorities of test/testdata/constraints are valid.
var testTime = time.Date(2027, 6, 1, 12, 0, 0, 0, time.UTC)

type testAuthority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// stored reads an authority of test/testdata/constraints.
func stored(t testing.TB, name string) (a testAuthority) {
	a.cert = fixture.Must(x509.ParseCertificate(readDER(t, constraintsDir+name+".pem")))
	if name != "root" {
		a.key = fixture.Must(x509.ParsePKCS8PrivateKey(readDER(t, constraintsDir+name+"-key.pem"))).(crypto.Signer)
	}
	return a
}

// issue signs what the template says; without by, by itself.
func issue(by *testAuthority, template *x509.Certificate) testAuthority {
	key := fixture.Must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template.SerialNumber = big.NewInt(testSerial.Add(1))
	template.NotBefore, template.NotAfter = testTime.Add(-time.Hour), testTime.Add(time.Hour)
	parent, signer := template, crypto.Signer(key)
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der := fixture.Must(x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer))
	return testAuthority{fixture.Must(x509.ParseCertificate(der)), key}
}

var testSerial atomic.Int64

// dn encodes a name such as /C=SE/CN=app.
func dn(text string) []byte {
	oids := map[string]asn1.ObjectIdentifier{"C": {2, 5, 4, 6}, "O": {2, 5, 4, 10}, "ST": {2, 5, 4, 8},
		"L": {2, 5, 4, 7}, "OU": {2, 5, 4, 11}, "CN": {2, 5, 4, 3}, "E": oidEmailAddress}
	rdns := pkix.RDNSequence{}
	for part := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == '/' }) {
		key, value, _ := strings.Cut(part, "=")
		var attribute any = value
		if key == "E" {
			attribute = asn1.RawValue{Tag: asn1.TagIA5String, Bytes: []byte(value)}
		}
		rdns = append(rdns, pkix.RelativeDistinguishedNameSET{{Type: oids[key], Value: attribute}})
	}
	return fixture.Must(asn1.Marshal(rdns))
}

func tlv(tag byte, content ...[]byte) []byte {
	return fixture.Must(asn1.Marshal(asn1.RawValue{Class: int(tag >> 6), IsCompound: tag&0x20 != 0,
		Tag: int(tag & 0x1f), Bytes: slices.Concat(content...)}))
}

// generalName encodes one such as DNS:app.example.org.
func generalName(text string) []byte {
	kind, value, _ := strings.Cut(text, ":")
	switch kind {
	case "DIR":
		return tlv(0xa4, dn(value))
	case "DNS":
		return tlv(0x82, []byte(value))
	case "MAIL":
		return tlv(0x81, []byte(value))
	case "IP":
		return tlv(0x87, net.ParseIP(value).To4())
	case "RID":
		return tlv(0x88, []byte{0x2a, 3})
	}
	oids := map[string]asn1.ObjectIdentifier{"UPN": {1, 3, 6, 1, 4, 1, 311, 20, 2, 3},
		"OTHER": {1, 3, 6, 1, 4, 1, 99999, 1}, "MAILBOX": {1, 3, 6, 1, 5, 5, 7, 8, 9}}
	return tlv(0xa0, fixture.Must(asn1.Marshal(oids[kind])), tlv(0xa0, tlv(0x0c, []byte(value))))
}

// limits are critical name constraints of words such as +DNS:example.org, which is permitted, and -DIR:/C=SE.
func limits(words ...string) pkix.Extension {
	var permitted, excluded []byte
	for _, word := range words {
		name, hasMinimum := strings.CutSuffix(word[1:], ";1")
		subtree := tlv(0x30, generalName(name), map[bool][]byte{true: {0x80, 1, 1}}[hasMinimum])
		if word[0] == '+' {
			permitted = append(permitted, subtree...)
		} else {
			excluded = append(excluded, subtree...)
		}
	}
	var body []byte
	if permitted != nil {
		body = tlv(0xa0, permitted)
	}
	if excluded != nil {
		body = append(body, tlv(0xa1, excluded)...)
	}
	return pkix.Extension{Id: oidNameConstraints, Critical: true, Value: tlv(0x30, body)}
}

// leaf is a template of words: a subject, and alternative names.
func leaf(words ...string) *x509.Certificate {
	template := &x509.Certificate{RawSubject: dn(words[0])}
	var names [][]byte
	for _, word := range words[1:] {
		names = append(names, generalName(word))
	}
	if names != nil {
		template.ExtraExtensions = []pkix.Extension{{Id: oidSubjectAltName, Critical: words[0] == "/",
			Value: tlv(0x30, names...)}}
	}
	return template
}

func newAuthority(by *testAuthority, subject string, extensions ...pkix.Extension) testAuthority {
	return issue(by, &x509.Certificate{RawSubject: dn(subject), IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, ExtraExtensions: extensions})
}

// difference says why openssl decides otherwise on a chain.
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
	own := newAuthority(nil, "/O=Example/CN=Own Root")
	limited := newAuthority(nil, "/C=SE/CN=Limited Root", limits("+DIR:/C=SE"))
	below := newAuthority(&own, "/C=SE/CN=Upper", limits("+DIR:/C=SE"))
	// crypto/x509 leaves the identifier of the issuer's key out of such a certificate, and openssl takes it for a root
	// then.
	keyIdentifier := pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 35},
		Value: tlv(0x30, tlv(0x80, below.cert.SubjectKeyId))}
	authorities := map[string][]testAuthority{ // the issuer first, the root last
		"unlimited root":       {own},
		"limited root":         {limited},
		"self-issued below":    {newAuthority(&below, "/C=SE/CN=Upper", keyIdentifier), below, own},
		"CA that is forbidden": {newAuthority(&below, "/C=DE/CN=Lower"), below, own},
	}
	for sentence, words := range golden.Read(t, "limits.txt") {
		authorities[sentence] = []testAuthority{newAuthority(&own, "/CN=X", limits(strings.Fields(words)...)), own}
	}
	for _, stem := range []string{"directory", "dns", "mixed", "not-critical", "other-name", "sha1"} {
		authorities["stored "+stem] = []testAuthority{stored(t, stem), stored(t, "root")}
	}
	leaves := golden.Read(t, "leaves.txt")
	agreed, refused, differ := 0, 0, 0
	dir := t.TempDir()
	write := func(name string, certs ...*x509.Certificate) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, fixture.CertificatesPEM(certs...), 0o600))
		return path
	}
	for by, chain := range authorities {
		var certs []*x509.Certificate
		for _, a := range chain {
			certs = append(certs, a.cert)
		}
		others, root := certs[:max(1, len(certs)-1)], certs[len(certs)-1:]
		// One run for all leaves: the exit code is that of the worst, and each has a line.
		args := []string{"verify", "-attime", fmt.Sprint(testTime.Unix()), "-CAfile", write("root.pem", root...),
			"-untrusted", write("chain.pem", others...)}
		issued := map[string]*x509.Certificate{}
		for what, words := range leaves {
			issued[what] = issue(&chain[0], leaf(strings.Fields(words)...)).cert
			args = append(args, write(fmt.Sprintf("%x.pem", what), issued[what]))
		}
		out, _ := exec.Command(openssl, args...).CombinedOutput()
		for what, leaf := range issued {
			_, err := VerifyPath(leaf, PathOptions{Anchors: root, Others: others, At: testTime})
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

// TestVerify_namesTheConstraintAndTheCertificate reads testdata/verdicts.txt: a stored authority, a leaf of
// testdata/leaves.txt, and the error.
func TestVerify_namesTheConstraintAndTheCertificate(t *testing.T) {
	root, leaves := stored(t, "root"), golden.Read(t, "leaves.txt")
	for title, want := range golden.Read(t, "verdicts.txt") {
		by, what, _ := strings.Cut(title, ": ")
		authority := stored(t, by)
		require.Contains(t, leaves, what)
		cert := issue(&authority, leaf(strings.Fields(leaves[what])...)).cert
		chains, err := verifyBelow(cert, root, authority)
		if want = strings.TrimSpace(want); want != "" {
			assert.EqualError(t, err, want, title)
		} else if assert.NoError(t, err, title) {
			assert.Equal(t, [][]*x509.Certificate{{cert, authority.cert, root.cert}}, chains)
			assert.Same(t, authority.cert, chains[0][1], "the certificates given, not copies")
		}
	}
}

func verifyBelow(cert *x509.Certificate, root, by testAuthority) ([][]*x509.Certificate, error) {
	return VerifyPath(cert, PathOptions{Anchors: []*x509.Certificate{root.cert},
		Others: []*x509.Certificate{by.cert}, At: testTime})
}

func TestVerify_anchorThatCanVerifyNothing_isNamed(t *testing.T) {
	root := newAuthority(nil, "/CN=Root")
	cert := issue(&root, leaf("/CN=leaf"))
	unusable := *root.cert
	unusable.PublicKey = fixture.OversizedRSA().Public()
	_, err := VerifyPath(cert.cert, PathOptions{Anchors: []*x509.Certificate{&unusable}, At: testTime})
	assert.EqualError(t, err,
		`the CA certificate "CN=Root" is among the trusted certificates, but can verify `+
			`nothing: its RSA key has 8676 bits, want at most 8192`)
	chains, err := VerifyPath(cert.cert, PathOptions{Anchors: []*x509.Certificate{&unusable, root.cert}, At: testTime})
	require.NoError(t, err)
	assert.Len(t, chains, 1)

	_, err = VerifyPath(&unusable, PathOptions{Anchors: []*x509.Certificate{root.cert}, At: testTime})
	assert.EqualError(t, err, "its RSA key has 8676 bits, want at most 8192")
}

func TestReason_isEmptyWhenTheIssuerIsNotThere(t *testing.T) {
	root, other := newAuthority(nil, "/CN=Root"), newAuthority(nil, "/CN=Other")
	middle := newAuthority(&root, "/CN=Middle")
	cert := issue(&middle, leaf("/CN=leaf"))
	assert.Empty(t, PathReason(cert.cert, nil, []*x509.Certificate{root.cert, other.cert}))
	assert.Empty(t, PathReason(cert.cert, []*x509.Certificate{middle.cert}, []*x509.Certificate{other.cert}))

	endEntity := issue(nil, &x509.Certificate{RawSubject: dn("/CN=Root"), BasicConstraintsValid: true})
	byEndEntity := issue(&endEntity, leaf("/CN=leaf"))
	assert.Equal(t,
		`the certificate "CN=Root" is among the trusted certificates, but it is not one of a CA (basicConstraints)`,
		PathReason(byEndEntity.cert, nil, []*x509.Certificate{endEntity.cert}))
}

// What a hostile answer may hold costs little: it is refused when there is too much to compare.
func TestVerify_manyConstraintsAndNames_costLittle(t *testing.T) {
	var permitted, excluded []string
	names := []string{"/C=SE/O=1"}
	for i := range 10_000 {
		permitted = append(permitted, fmt.Sprintf("+DIR:/C=SE/O=%d", i))
		names = append(names, fmt.Sprintf("DIR:/C=SE/O=Example/CN=%d", i))
	}
	root := newAuthority(nil, "/CN=Root")
	limited := newAuthority(&root, "/CN=Limited", limits(permitted...))
	many, few := issue(&limited, leaf(names...)), issue(&limited, leaf("/C=SE/O=9999/CN=app"))

	before, began := allocated(), time.Now()
	_, err := verifyBelow(many.cert, root, limited)
	assert.Less(t, time.Since(began), 5*time.Second)
	assert.Less(t, allocated()-before, uint64(64<<20))
	assert.Error(t, err)
	_, err = verifyBelow(few.cert, root, limited)
	assert.NoError(t, err)

	for i := range 1_000 {
		excluded = append(excluded, fmt.Sprintf("-DIR:/C=SE/O=%d", i))
	}
	limited, names[0] = newAuthority(&root, "/CN=Limited", limits(excluded...)), "/C=SE/O=Example"
	_, err = verifyBelow(issue(&limited, leaf(names...)).cert, root, limited)
	assert.EqualError(t, err,
		`the CA certificate "CN=Limited" has too many name constraints for the names below it, `+
			`want at most 1048576 comparisons`)
}

func FuzzConstraints(f *testing.F) {
	f.Add(limits("+DIR:/C=SE", "+DNS:example.org", "-UPN:@example.org").Value,
		leaf("/", "DIR:/C=SE/CN=x", "OTHER:x").ExtraExtensions[0].Value)
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
