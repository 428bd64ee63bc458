package keygen

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

// subject is CN=onap.org as a UTF8String, where crypto/x509 would write a PrintableString.
const subject = "\x30\x13\x31\x11\x30\x0f\x06\x03\x55\x04\x03\x0c\x08onap.org"

// request makes a key and a request with one name.
func request(t *testing.T, algorithm string) (crypto.Signer, *x509.CertificateRequest) {
	t.Helper()
	key, err := GenerateKey(algorithm)
	require.NoError(t, err)
	csr, err := CreateCSR(&x509.CertificateRequest{RawSubject: []byte(subject), DNSNames: []string{"a.example"}}, key)
	require.NoError(t, err)
	return key, csr
}

func TestGenerateKey_everyAlgorithm_makesThatKeyAndASignedRequest(t *testing.T) {
	want := map[string]x509.SignatureAlgorithm{
		"RSA-2048": x509.SHA256WithRSA, "RSA-3072": x509.SHA256WithRSA, "RSA-4096": x509.SHA256WithRSA,
		"ECDSA-P256": x509.ECDSAWithSHA256, "ECDSA-P384": x509.ECDSAWithSHA384, "ECDSA-P521": x509.ECDSAWithSHA512,
		"Ed25519": x509.PureEd25519,
	}
	require.Len(t, want, len(Algorithms()))
	for _, name := range Algorithms() {
		t.Run(name, func(t *testing.T) {
			key, csr := request(t, name)
			got, err := AlgorithmOf(key.Public())
			require.NoError(t, err)
			assert.Equal(t, name, got)
			require.NoError(t, csr.CheckSignature())
			assert.Equal(t, want[name], csr.SignatureAlgorithm)
			assert.Equal(t, key.Public(), csr.PublicKey)

			text, err := PrivateKeyPEM(key)
			require.NoError(t, err)
			block, rest := pem.Decode(text)
			require.NotNil(t, block)
			assert.Empty(t, rest)
			assert.Equal(t, "PRIVATE KEY", block.Type)
			parsed := fixture.Must(x509.ParsePKCS8PrivateKey(block.Bytes))
			// By value: the precomputed numbers of an RSA key may differ in leading zeros.
			assert.True(t, key.(interface{ Equal(crypto.PrivateKey) bool }).Equal(parsed))
		})
	}
}

func TestAlgorithms_unknown_areNamed(t *testing.T) {
	_, err := GenerateKey("DSA-1024")
	require.EqualError(t, err, `key algorithm "DSA-1024" is unknown, want one of `+strings.Join(Algorithms(), ", "))
	_, err = AlgorithmOf("no key")
	require.EqualError(t, err, "public key is of type string, want RSA, ECDSA or Ed25519")
}

func TestCreateCSR_keepsSubjectBytesAndAllNames(t *testing.T) {
	key, err := GenerateKey("ECDSA-P256")
	require.NoError(t, err)
	template := &x509.CertificateRequest{
		RawSubject: []byte(subject), DNSNames: []string{"a.example"}, EmailAddresses: []string{"a@example.org"},
		IPAddresses: []net.IP{net.IPv4(192, 0, 2, 1).To4(), net.ParseIP("2001:db8::1")},
		URIs:        []*url.URL{{Scheme: "spiffe", Host: "example.org", Path: "/ns/a"}},
	}
	csr, err := CreateCSR(template, key)
	require.NoError(t, err)
	assert.Equal(t, template.RawSubject, csr.RawSubject)
	assert.Equal(t, template.DNSNames, csr.DNSNames)
	assert.Equal(t, template.EmailAddresses, csr.EmailAddresses)
	assert.Equal(t, template.IPAddresses, csr.IPAddresses)
	assert.Equal(t, template.URIs, csr.URIs)

	// The ONAP server fails over a request with extensions and without names (a NullPointerException).
	csr, err = CreateCSR(&x509.CertificateRequest{RawSubject: []byte(subject)}, key)
	require.NoError(t, err)
	assert.Empty(t, csr.Extensions)
}

func TestCSRPEM_isReadByOpenSSL(t *testing.T) {
	openssl := fixture.RequirePrograms(t, "openssl")[0]
	for _, name := range []string{"RSA-2048", "ECDSA-P256", "ECDSA-P521", "Ed25519"} {
		_, csr := request(t, name)
		file := filepath.Join(t.TempDir(), "csr.pem")
		require.NoError(t, os.WriteFile(file, CSRPEM(csr), 0o600))
		out, err := exec.Command(openssl, "req", "-in", file, "-noout", "-verify", "-subject", "-text").CombinedOutput()
		require.NoError(t, err, string(out))
		assert.Contains(t, string(out), "subject=CN = onap.org")
		assert.Contains(t, string(out), "DNS:a.example")
		// Strict CAs refuse other keys that are to encipher (RFC 8813, 3; RFC 8410, 5).
		usages := "Digital Signature, Non Repudiation"
		if strings.HasPrefix(name, "RSA") {
			usages += ", Key Encipherment"
			assert.Contains(t, string(out), "sha256WithRSAEncryption")
		}
		assert.Contains(t, string(out), "X509v3 Key Usage: critical\n                    "+usages+"\n")
	}
}

func BenchmarkGenerateKey(b *testing.B) {
	for _, name := range []string{"RSA-2048", "ECDSA-P256"} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := GenerateKey(name); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
