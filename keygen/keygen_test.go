package keygen

import (
	"crypto"
	"crypto/x509"
	"encoding/asn1"
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

	"github.com/certfetcher/certfetcher/test/peer"
)

func subject(t *testing.T) []byte {
	t.Helper()
	type attribute struct {
		Type  asn1.ObjectIdentifier
		Value string `asn1:"utf8"`
	}
	der, err := asn1.Marshal([]asn1.RawValue{set(t, attribute{asn1.ObjectIdentifier{2, 5, 4, 3}, "onap.org"})})
	require.NoError(t, err)
	return der
}

func set(t *testing.T, values ...any) asn1.RawValue {
	t.Helper()
	var content []byte
	for _, v := range values {
		der, err := asn1.Marshal(v)
		require.NoError(t, err)
		content = append(content, der...)
	}
	return asn1.RawValue{Class: asn1.ClassUniversal, Tag: asn1.TagSet, IsCompound: true, Bytes: content}
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
			key, err := GenerateKey(name)
			require.NoError(t, err)
			got, err := AlgorithmOf(key.Public())
			require.NoError(t, err)
			assert.Equal(t, name, got)

			csr, err := CreateCSR(&x509.CertificateRequest{RawSubject: subject(t), DNSNames: []string{"a.example"}}, key)
			require.NoError(t, err)
			require.NoError(t, csr.CheckSignature())
			assert.Equal(t, want[name], csr.SignatureAlgorithm)
			assert.Equal(t, key.Public(), csr.PublicKey)

			text, err := PrivateKeyPEM(key)
			require.NoError(t, err)
			block, rest := pem.Decode(text)
			require.NotNil(t, block)
			assert.Empty(t, rest)
			assert.Equal(t, "PRIVATE KEY", block.Type)
			parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			require.NoError(t, err)
			// By value: the precomputed numbers of an RSA key may differ in leading zeros.
			assert.True(t, key.(interface{ Equal(crypto.PrivateKey) bool }).Equal(parsed))
		})
	}
}

func TestGenerateKey_unknownAlgorithm_namesTheChoices(t *testing.T) {
	_, err := GenerateKey("DSA-1024")
	require.EqualError(t, err, `key algorithm "DSA-1024" is unknown, want one of RSA-2048, RSA-3072, RSA-4096, ECDSA-P256, ECDSA-P384, ECDSA-P521, Ed25519`)
}

func TestAlgorithmOf_foreignKey_isAnError(t *testing.T) {
	_, err := AlgorithmOf("no key")
	require.EqualError(t, err, "public key is of type string, want RSA, ECDSA or Ed25519")
}

func TestCreateCSR_keepsSubjectBytesAndAllNames(t *testing.T) {
	key, err := GenerateKey("ECDSA-P256")
	require.NoError(t, err)
	uri, err := url.Parse("spiffe://example.org/ns/a")
	require.NoError(t, err)
	template := &x509.CertificateRequest{
		RawSubject: subject(t), DNSNames: []string{"a.example"}, EmailAddresses: []string{"a@example.org"},
		IPAddresses: []net.IP{net.IPv4(192, 0, 2, 1).To4(), net.ParseIP("2001:db8::1")}, URIs: []*url.URL{uri},
	}
	csr, err := CreateCSR(template, key)
	require.NoError(t, err)
	assert.Equal(t, template.RawSubject, csr.RawSubject)
	assert.Equal(t, template.DNSNames, csr.DNSNames)
	assert.Equal(t, template.EmailAddresses, csr.EmailAddresses)
	assert.Equal(t, template.IPAddresses, csr.IPAddresses)
	assert.Equal(t, template.URIs, csr.URIs)
}

// The ONAP server fails over a request with extensions and without names (a NullPointerException).
func TestCreateCSR_withoutNames_hasNoExtension(t *testing.T) {
	key, err := GenerateKey("Ed25519")
	require.NoError(t, err)
	csr, err := CreateCSR(&x509.CertificateRequest{RawSubject: subject(t)}, key)
	require.NoError(t, err)
	assert.Empty(t, csr.Extensions)
}

func TestCSRPEM_isReadByOpenSSL(t *testing.T) {
	openssl := peer.Require(t, "openssl")[0]
	for _, name := range []string{"RSA-2048", "ECDSA-P256", "ECDSA-P521", "Ed25519"} {
		t.Run(name, func(t *testing.T) {
			key, err := GenerateKey(name)
			require.NoError(t, err)
			csr, err := CreateCSR(&x509.CertificateRequest{RawSubject: subject(t), DNSNames: []string{"a.example"}}, key)
			require.NoError(t, err)
			file := filepath.Join(t.TempDir(), "csr.pem")
			require.NoError(t, os.WriteFile(file, CSRPEM(csr), 0o600))
			out, err := exec.Command(openssl, "req", "-in", file, "-noout", "-verify", "-subject", "-text").CombinedOutput()
			require.NoError(t, err, string(out))
			assert.Contains(t, string(out), "subject=CN = onap.org")
			assert.Contains(t, string(out), "DNS:a.example")
			// Strict CAs refuse other keys that are to encipher (RFC 8813, 3; RFC 8410, 5).
			usages := "Digital Signature, Non Repudiation\n"
			if strings.HasPrefix(name, "RSA") {
				usages = "Digital Signature, Non Repudiation, Key Encipherment\n"
				assert.Contains(t, string(out), "sha256WithRSAEncryption")
			}
			assert.Contains(t, string(out), "X509v3 Key Usage: critical\n                    "+usages)
		})
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
