package policy

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/golden"
)

// A file that parses can decide, and a fault is on a line of the file.
func FuzzParse(f *testing.F) {
	for _, text := range golden.Read(f, "faults.txt") {
		f.Add([]byte(fixture.PolicyText(commandsOf(text))))
	}
	for _, path := range fixture.Must(filepath.Glob("testdata/policies/*.yaml")) {
		f.Add(fixture.Must(os.ReadFile(path)))
	}
	r := &request{t: f, key: publicKey(f, "ECDSA-P256")}
	for _, part := range []string{"CN=a", "O=b", "DNS:a.example.org", "URI:spiffe://a/b", "email:a@b", "IP:10.0.0.1"} {
		r.add(part)
	}
	asked := fixture.Must(ReadCSR(r.csr()))
	clients := []Client{{}, {Account: &ServiceAccount{"payments", "api"}},
		{Certificate: &x509.Certificate{RawSubject: r.subject(), Extensions: r.extensions()}}}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Parse(data)
		if err != nil {
			lines := strings.Count(string(data), "\n") + 1
			for _, fault := range err.(Faults) {
				assert.True(t, 1 <= fault.Line && fault.Line <= lines+1 && fault.Column >= 1, "%v", fault)
			}
			return
		}
		for _, client := range clients {
			for _, operation := range operations {
				p.Decide(Question{Client: client, CA: "RA", Operation: operation, Asked: asked}, NewLimits())
				p.Decide(Question{Client: client, CA: "RA", Operation: operation}, nil)
			}
		}
	})
}

func commandsOf(text string) (commands string) {
	for line := range strings.Lines(text + "\n") {
		if strings.HasPrefix(line, ">") {
			commands += line
		}
	}
	return commands
}

// What FuzzReadCSR judges by, as expressions that someone wrote who knows the specification and not
// the code: for each kind of name those that the rule "payments" allows the account payments/api.
var naive = map[nameKind]*regexp.Regexp{
	kindDNS: regexp.MustCompile(`^(?i)([a-z0-9-]+\.payments\.example\.org|api\.payments\.svc|` +
		`[a-z0-9-]+-api\.[a-z0-9-]+\.example\.org|\*\.apps\.payments\.example\.org)$`),
	kindURI: regexp.MustCompile(`^((?i:spiffe://example\.org)/ns/payments/sa/api|` +
		`(?i:https://[a-z0-9-]+\.example\.org)/a/[A-Za-z0-9._~-]+/b)$`),
	kindEmail: regexp.MustCompile(`^([A-Za-z0-9._~-]+@(?i:payments\.example\.org)|ops@(?i:payments\.example\.org))$`),
}

var (
	naiveRanges = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32"),
		netip.MustParsePrefix("192.0.2.7/32")}
	naiveCommonName = regexp.MustCompile(
		`^(api\.payments\.svc\.cluster\.local|Payments Gateway [A-Za-z0-9-]+|\*\.(?i:apps\.payments\.example\.org))$`)
	naiveSubject = map[string]*regexp.Regexp{"O": regexp.MustCompile(`(?s)^(Example|Example .*)$`),
		"ST": regexp.MustCompile(`^Skåne$`), "C": regexp.MustCompile(`^SE$`)}
)

// Nothing panics, and a request that is allowed has nothing that is not, as crypto/x509 reads it.
func FuzzReadCSR(f *testing.F) {
	f.Add([]byte("0\x00"), []byte("0\x13\x82\x11api.payments.svc\x00"), []byte("\x03\x02\x05\xa0"), []byte("0\x00"))
	for _, text := range golden.Read(f, "decisions.txt") {
		for line := range strings.Lines(commandsOf(text)) {
			_, parts, found := strings.Cut(strings.TrimSpace(line), ": ")
			if !found || strings.Contains(line, "policy ") {
				continue
			}
			r := (&desk{t: &testing.T{}}).read(parts)
			r.t = f
			var names []byte
			if r.names != nil {
				names = r.extensions()[0].Value
			}
			f.Add(r.subject(), names, []byte(nil), []byte(nil))
		}
	}
	p, err := Parse(fixture.Must(os.ReadFile("testdata/policies/payments.yaml")))
	require.NoError(f, err)
	client := Client{Account: &ServiceAccount{"payments", "api"}}
	key := fixture.Must(x509.MarshalPKIXPublicKey(fixture.NewKey("P-256").Public()))
	f.Fuzz(func(t *testing.T, subject, names, usage, attributes []byte) {
		csr := buildCSR(t, key, subject, names, usage, attributes)
		if csr == nil {
			return
		}
		holder := Client{Certificate: &x509.Certificate{RawSubject: subject, Extensions: csr.Extensions}}
		p.Decide(Question{Client: holder, CA: "RA", Operation: Revoke}, nil)
		asked, err := ReadCSR(csr)
		if err != nil {
			assert.NotEmpty(t, err.Error())
			return
		}
		if d := p.Decide(Question{Client: client, CA: "RA", Operation: Enroll, Asked: asked}, nil); d.Allowed {
			checkNaively(t, csr)
		}
	})
}

// buildCSR makes a request of pieces, and reads it as the service does; nil for what that refuses.
func buildCSR(t *testing.T, key, subject, names, usage, attributes []byte) *x509.CertificateRequest {
	t.Helper()
	var extensions []pkix.Extension
	for oid, value := range map[string][]byte{extensionAltName: names, extensionKeyUsage: usage} {
		if len(value) > 0 {
			extensions = append(extensions, pkix.Extension{Id: parseOID(t, oid), Value: value})
		}
	}
	request := slices.Concat(fixture.Must(asn1.Marshal(oidExtensionRequest)),
		tlv(0x31, fixture.Must(asn1.Marshal(extensions))))
	body := slices.Concat(tlv(0x02, []byte{0}), subject, key, tlv(0xa0, append(tlv(0x30, request), attributes...)))
	ecdsaWithSHA256 := fixture.Must(asn1.Marshal(asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}))
	csr, err := x509.ParseCertificateRequest(tlv(0x30, slices.Concat(tlv(0x30, body), tlv(0x30, ecdsaWithSHA256),
		tlv(0x03, []byte{0}))))
	if err != nil {
		return nil
	}
	return csr
}

func checkNaively(t *testing.T, csr *x509.CertificateRequest) {
	t.Helper()
	for _, name := range csr.DNSNames {
		assert.Regexp(t, naive[kindDNS], name)
	}
	for _, name := range csr.EmailAddresses {
		assert.Regexp(t, naive[kindEmail], name)
	}
	for _, name := range csr.URIs {
		assert.Regexp(t, naive[kindURI], name.String())
	}
	for _, ip := range csr.IPAddresses {
		address, ok := netip.AddrFromSlice(ip)
		assert.True(t, ok)
		within := func(p netip.Prefix) bool { return p.Contains(address.Unmap()) }
		assert.True(t, slices.ContainsFunc(naiveRanges, within), address)
	}
	short := map[string]string{"2.5.4.10": "O", "2.5.4.8": "ST", "2.5.4.6": "C"}
	for _, attribute := range csr.Subject.Names {
		value, ok := attribute.Value.(string)
		if !ok { // encoding/asn1 does not read a UniversalString, which the decisions have
			continue
		}
		if attribute.Type.String() == "2.5.4.3" {
			named := slices.ContainsFunc(csr.DNSNames, func(name string) bool { return strings.EqualFold(name, value) })
			isASCII := !strings.ContainsFunc(value, func(r rune) bool { return r > '~' })
			assert.True(t, named && isASCII || naiveCommonName.MatchString(value), value)
			continue
		}
		want := naiveSubject[short[attribute.Type.String()]]
		require.NotNil(t, want, attribute.Type)
		assert.Regexp(t, want, value)
	}
	for _, e := range csr.Extensions {
		assert.Contains(t, []string{"2.5.29.14", "2.5.29.15", "2.5.29.17", "2.5.29.19", "2.5.29.37"}, e.Id.String())
		if e.Id.String() == extensionKeyUsage {
			var bits asn1.BitString
			_, err := asn1.Unmarshal(e.Value, &bits)
			require.NoError(t, err)
			assert.Zero(t, bits.At(5)|bits.At(6)|bits.At(3)|bits.At(7)|bits.At(8), "a usage that is not allowed")
		}
	}
}

// Patterns match what regular expressions match that are made of them.
func FuzzPattern(f *testing.F) {
	for _, row := range [][2]string{{"*.example.org", "a.example.org"}, {"*-api.*.example.org", "a-api.b.example.org"},
		{"a*b*a", "aabababa"}, {"{serviceAccount}.{namespace}*", "api.payments-1"}, {"*a-a*", "a-a-a-a"},
		{"*", "*"}, {"*-{namespace}.*", "payments-payments.a"}} {
		f.Add(row[0], row[1])
	}
	who := newSubject(Client{Account: &ServiceAccount{"payments", "a"}})
	class := strings.NewReplacer(`\*`, `[A-Za-z0-9-]+`, `\{namespace\}`, "payments", `\{serviceAccount\}`, "a")
	f.Fuzz(func(t *testing.T, text, name string) {
		p, err := compileDNS(text, false)
		form, fault := dnsForm(name)
		if err != nil || fault != "" || strings.Contains(text, "{commonName}") {
			return
		}
		expression, err := regexp.Compile("^(?i)" + class.Replace(regexp.QuoteMeta(text)) + "$")
		require.NoError(t, err)
		assert.Equal(t, expression.MatchString(form), p.matches(form, who), "%q %q", text, form)
	})
}
