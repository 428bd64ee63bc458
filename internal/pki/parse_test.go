package pki

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

func TestSerial_hasTwoDigitsToAnOctet(t *testing.T) {
	for want, serial := range map[string]int64{"00": 0, "0A": 10, "0A1B": 0xA1B, "FF00": 0xFF00} {
		assert.Equal(t, want, Serial(&x509.Certificate{SerialNumber: big.NewInt(serial)}))
	}
}

func TestDN_keepsTheOrderOfTheDER(t *testing.T) {
	// L, OU, O, ST, C, CN, as package config encodes a subject.
	assert.Equal(t, `CN=cn,C=SE,ST=st,O=o\, inc,OU=ou,L=l`, DN(dn("/L=l/OU=ou/O=o, inc/ST=st/C=SE/CN=cn")))
	assert.Equal(t, "a name that cannot be read (asn1: syntax error: sequence truncated)", DN(nil))
}

func TestNames_areSortedAndSayTheirKind(t *testing.T) {
	cert := &x509.Certificate{
		DNSNames: []string{"B.example", "a.example"}, EmailAddresses: []string{"X@Example.org"},
		IPAddresses: []net.IP{net.IPv4(192, 0, 2, 1)}, URIs: []*url.URL{{Scheme: "spiffe", Host: "td", Path: "/x"}},
	}
	want := []string{"DNS:a.example", "DNS:b.example", "IP Address:192.0.2.1", "URI:spiffe://td/x",
		"email:X@example.org"}
	assert.Equal(t, want, Names(cert))
	assert.Equal(t, want, RequestNames(&x509.CertificateRequest{
		DNSNames: cert.DNSNames, EmailAddresses: cert.EmailAddresses, IPAddresses: cert.IPAddresses, URIs: cert.URIs,
	}))
}

func TestOf_foreignText_isOneShortPrintableLine(t *testing.T) {
	assert.Equal(t, "a b c", OneLine(" a\r\n\tb\x00\u202e c\xff ", 5))
	assert.Equal(t, "äöü…", OneLine("äöüß", 3))
	assert.Equal(t, "", OneLine("\n", 3))
}

var (
	year1950 = time.Date(1950, 1, 1, 0, 0, 0, 0, time.UTC)
	year2026 = time.Date(2026, 11, 27, 12, 0, 0, 500, time.UTC)
	year9999 = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
)

func TestMoment_ofAnySpan(t *testing.T) {
	const all = 0.9999999999999999
	assert.Equal(t, year2026.Add(40*time.Minute), Moment(year2026, year2026.Add(time.Hour), 2./3))
	assert.Equal(t, year2026.Add(-time.Hour), Moment(year2026, year2026.Add(-2*time.Hour), 0.5))
	assert.Equal(t, []int{7316, 9999, 7342, 2316}, []int{Moment(year1950, year9999, 2./3).Year(),
		Moment(year2026, year9999, all).Year(), Moment(year2026, year9999, 2./3).Year(),
		Moment(year2026, year2026.AddDate(290, 0, 0), all).Year()})
}

func TestDays_ofAnySpan(t *testing.T) {
	for end, want := range map[time.Time]int{
		year2026.Add(time.Hour): 0, year2026.AddDate(0, 0, 30): 30, year2026.AddDate(0, 0, 30).Add(-1): 29,
		year2026.Add(-1): -1, year2026.AddDate(0, 0, -1): -1, year2026.AddDate(0, 0, -1).Add(-1): -2, year9999: 2912112,
	} {
		assert.Equal(t, want, Days(year2026, end), end)
	}
}

func TestLeafKeyUsage_enciphermentIsForRSAOnly(t *testing.T) {
	signing := []x509.KeyUsage{x509.KeyUsageDigitalSignature, x509.KeyUsageContentCommitment}
	assert.Equal(t, append(signing, x509.KeyUsageKeyEncipherment), bits(t, LeafKeyUsage(&rsa.PublicKey{}).Value))
	assert.Equal(t, signing, bits(t, LeafKeyUsage(&ecdsa.PublicKey{}).Value))
	assert.Equal(t, signing, bits(t, LeafKeyUsage(ed25519.PublicKey{}).Value))
}

// bits reads a KeyUsage, which as a named bit list has no zero bits at its end (X.690, 11.2.2).
func bits(t *testing.T, der []byte) (usages []x509.KeyUsage) {
	var list asn1.BitString
	rest := fixture.Must(asn1.Unmarshal(der, &list))
	require.Empty(t, rest)
	require.Equal(t, 1, list.At(list.BitLength-1))
	for bit := range list.BitLength {
		if list.At(bit) == 1 {
			usages = append(usages, x509.KeyUsage(1<<bit))
		}
	}
	return usages
}

const certificates = "../../test/testdata/certificates"

// readDER reads what a PEM file holds.
func readDER(t testing.TB, path string) []byte {
	block, _ := pem.Decode(fixture.Must(os.ReadFile(path)))
	require.NotNil(t, block, path)
	return block.Bytes
}

func TestParse_readsWhatCryptoX509Refuses(t *testing.T) {
	for name, want := range map[string]struct{ serial, unusable string }{
		"negative-serial.pem": {"-4D", "it cannot be parsed: x509: negative serial number"},
		"brainpool.pem":       {"", "it cannot be parsed: x509: unsupported elliptic curve"},
		"ecacc.pem": {"-11D4C2142BDE21EB579D53FB0C223BFF",
			"it cannot be parsed: x509: negative serial number"},
		"underscore.pem": {"", ""}, // which is no reason for not using it
		"ed448.pem":      {"", "its key is of an unsupported kind (Ed448)"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(certificates, name)
			cert := fixture.Must(Parse(readDER(t, path)))
			if want.unusable == "" {
				require.NoError(t, Unusable(cert))
				require.True(t, SelfSigned(cert))
			} else {
				require.EqualError(t, Unusable(cert), want.unusable)
			}
			if want.serial != "" {
				assert.Equal(t, want.serial, Serial(cert))
			}
			openssl := fixture.RequirePrograms(t, "openssl")[0]
			out := fixture.Must(exec.Command(openssl, "x509", "-in", path, "-noout",
				"-nameopt", "RFC2253,-esc_msb,utf8", "-subject",
				"-issuer", "-serial", "-dates", "-dateopt", "iso_8601").Output())
			const stamp = "2006-01-02 15:04:05Z"
			assert.Equal(t, strings.TrimSpace(string(out)), strings.Join([]string{
				"subject=" + DN(cert.RawSubject), "issuer=" + DN(cert.RawIssuer), "serial=" + Serial(cert),
				"notBefore=" + cert.NotBefore.Format(stamp), "notAfter=" + cert.NotAfter.Format(stamp),
			}, "\n"))
		})
	}
}

func TestParse_readsWhatCryptoX509Reads(t *testing.T) {
	der := readDER(t, "../../test/testdata/pem/root-ca.pem")
	want, cert := fixture.Must(x509.ParseCertificate(der)), fixture.Must(Parse(der))
	assert.Equal(t, want, cert)
	require.NoError(t, Unusable(cert))

	outline := parseOutline(der)
	assert.Equal(t, []any{want.Raw, want.RawTBSCertificate, want.RawSubject, want.RawIssuer,
		want.RawSubjectPublicKeyInfo, want.SerialNumber, want.NotBefore, want.NotAfter},
		[]any{outline.Raw, outline.RawTBSCertificate, outline.RawSubject, outline.RawIssuer,
			outline.RawSubjectPublicKeyInfo, outline.SerialNumber, outline.NotBefore, outline.NotAfter})
}

func TestParse_refusesWhatIsNoCertificate(t *testing.T) {
	der := readDER(t, filepath.Join(certificates, "brainpool.pem"))
	for name, data := range map[string][]byte{
		"nothing": nil, "text": []byte("hello"), "an empty SEQUENCE": {0x30, 0},
		"trailing bytes": append(append([]byte{}, der...), 0), "cut short": der[:len(der)-1],
		"a CSR": readDER(t, "../../test/testdata/pem/csr.pem"),
	} {
		_, err := Parse(data)
		assert.Error(t, err, name)
	}
}

// FuzzParse: whatever is taken for a certificate keeps its bytes, and Unusable agrees with the parser.
func FuzzParse(f *testing.F) {
	files := fixture.Must(filepath.Glob(filepath.Join(certificates, "*.pem")))
	for _, path := range append(files, "../../test/testdata/pem/root-ca.pem", "../../test/testdata/pem/csr.pem") {
		f.Add(readDER(f, path))
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		cert, err := Parse(der)
		if err != nil {
			return
		}
		require.Equal(t, der, cert.Raw)
		if _, err := ParseAnyPrintable(der); err != nil {
			require.Error(t, Unusable(cert), "the parser refuses it: %v", err)
		}
		Serial(cert)
		DN(cert.RawSubject)
		DN(cert.RawIssuer)
		KeyAlgorithm(cert.RawSubjectPublicKeyInfo)
	})
}

func TestParseAnyPrintable_underscore_isReadAndVerifies(t *testing.T) {
	der := readDER(t, filepath.Join(certificates, "underscore.pem"))
	_, err := x509.ParseCertificate(der)
	require.Error(t, err)

	cert, outline := fixture.Must(ParseAnyPrintable(der)), fixture.Must(Parse(der))

	assert.Equal(t, der, cert.Raw)
	assert.Equal(t, outline.RawSubject, cert.RawSubject)
	assert.Equal(t, outline.RawIssuer, cert.RawIssuer)
	assert.NotNil(t, cert.PublicKey)
	assert.NoError(t, cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature))
	assert.True(t, SelfSigned(cert))
	cert.RawTBSCertificate[20] ^= 1
	assert.Error(t, cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature))
}

func FuzzParseAnyPrintable(f *testing.F) {
	for _, name := range []string{"underscore", "negative-serial", "brainpool"} {
		f.Add(readDER(f, filepath.Join(certificates, name+".pem")))
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		cert, err := ParseAnyPrintable(der)
		if err != nil {
			return
		}
		outline, err := Parse(der)
		require.NoError(t, err)
		require.Equal(t, [][]byte{outline.Raw, outline.RawSubject, outline.RawIssuer},
			[][]byte{cert.Raw, cert.RawSubject, cert.RawIssuer}, "what is kept is what came")
	})
}
