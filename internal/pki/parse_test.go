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

func readDER(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	block, _ := pem.Decode(data)
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
			cert, err := Parse(readDER(t, path))
			require.NoError(t, err)
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
			out, err := exec.Command(openssl, "x509", "-in", path, "-noout", "-nameopt", "RFC2253,-esc_msb,utf8",
				"-subject", "-issuer", "-serial", "-dates", "-dateopt", "iso_8601").Output()
			require.NoError(t, err)
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
	want, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	cert, err := Parse(der)
	require.NoError(t, err)
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
		t.Run(name, func(t *testing.T) {
			_, err := Parse(data)
			require.Error(t, err)
		})
	}
}

// FuzzParse: whatever is taken for a certificate keeps its bytes, and Unusable agrees with the parser.
func FuzzParse(f *testing.F) {
	files, err := filepath.Glob(filepath.Join(certificates, "*.pem"))
	require.NoError(f, err)
	for _, path := range append(files, "../../test/testdata/pem/root-ca.pem", "../../test/testdata/pem/csr.pem") {
		data, err := os.ReadFile(path)
		require.NoError(f, err)
		block, _ := pem.Decode(data)
		f.Add(block.Bytes)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		cert, err := Parse(der)
		if err != nil {
			return
		}
		if string(cert.Raw) != string(der) {
			t.Fatal("the certificate has other bytes than were read")
		}
		_, refused := ParseAnyPrintable(der)
		if refused != nil && Unusable(cert) == nil {
			t.Fatal("the parser refuses the certificate, and it counts as usable")
		}
		Serial(cert)
		DN(cert.RawSubject)
		DN(cert.RawIssuer)
		KeyAlgorithm(cert.RawSubjectPublicKeyInfo)
	})
}

func TestParseAnyPrintable_underscore_isReadAndVerifies(t *testing.T) {
	data, err := os.ReadFile("../../test/testdata/certificates/underscore.pem")
	require.NoError(t, err)
	block, _ := pem.Decode(data)
	_, err = x509.ParseCertificate(block.Bytes)
	require.Error(t, err)

	cert, err := ParseAnyPrintable(block.Bytes)

	require.NoError(t, err)
	outline, err := Parse(block.Bytes)
	require.NoError(t, err)
	assert.Equal(t, block.Bytes, cert.Raw)
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
		data, err := os.ReadFile("../../test/testdata/certificates/" + name + ".pem")
		require.NoError(f, err)
		block, _ := pem.Decode(data)
		f.Add(block.Bytes)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		cert, err := ParseAnyPrintable(der)
		if err != nil {
			return
		}
		outline, err := Parse(der)
		if err != nil || string(cert.Raw) != string(outline.Raw) ||
			string(cert.RawSubject) != string(outline.RawSubject) ||
			string(cert.RawIssuer) != string(outline.RawIssuer) {
			t.Fatal("what is kept is not what came")
		}
	})
}
