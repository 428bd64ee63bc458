package pki

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

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
			out := fixture.Must(exec.Command(openssl, "x509", "-in", path, "-noout", "-nameopt", "RFC2253,-esc_msb,utf8",
				"-subject", "-issuer", "-serial", "-dates", "-dateopt", "iso_8601").Output())
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
