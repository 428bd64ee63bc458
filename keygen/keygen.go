// Package keygen makes key pairs and the certificate signing requests
// (PKCS#10, RFC 2986) for them. Keys come from crypto/rand and never
// leave memory here; writing them is the task of package output.
package keygen

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"strings"

	"github.com/certfetcher/certfetcher/internal/pki"
)

// algorithm is one row of the table of what GenerateKey can make.
type algorithm struct {
	name     string
	generate func() (crypto.Signer, error)
}

var algorithms = []algorithm{
	{"RSA-2048", func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 2048) }},
	{"RSA-3072", func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 3072) }},
	{"RSA-4096", func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 4096) }},
	{"ECDSA-P256", func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }},
	{"ECDSA-P384", func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P384(), rand.Reader) }},
	{"ECDSA-P521", func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P521(), rand.Reader) }},
	{"Ed25519", func() (crypto.Signer, error) { _, key, err := ed25519.GenerateKey(rand.Reader); return key, err }},
}

// Algorithms lists the names that GenerateKey knows, the default first.
func Algorithms() []string {
	names := make([]string, len(algorithms))
	for i, a := range algorithms {
		names[i] = a.name
	}
	return names
}

// GenerateKey makes a new key pair of the named algorithm, one of Algorithms.
func GenerateKey(name string) (crypto.Signer, error) {
	for _, a := range algorithms {
		if a.name == name {
			return a.generate()
		}
	}
	return nil, fmt.Errorf("key algorithm %q is unknown, want one of %s", name, strings.Join(Algorithms(), ", "))
}

// AlgorithmOf names the algorithm of a public key in GenerateKey's terms. RSA keys of other sizes
// and other curves get a name that GenerateKey does not know; other kinds of keys are an error.
func AlgorithmOf(pub crypto.PublicKey) (string, error) {
	name, ok := pki.KeyName(pub)
	if !ok {
		return "", fmt.Errorf("public key is of type %s, want RSA, ECDSA or Ed25519", name)
	}
	return name, nil
}

// PrivateKeyPEM encodes a private key as PKCS#8 (RFC 5958) under the label PRIVATE KEY.
func PrivateKeyPEM(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encoding the private key as PKCS#8: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// CreateCSR signs a certificate signing request for key. From the template it takes RawSubject
// (DER, kept byte for byte) and the subject alternative names. With names, it requests the key
// usage that fits the kind of key. Without names the request has no extension at all: the ONAP
// server fails where there are extensions without names. The CA chooses the key usage then.
//
// The signature is SHA-256 with RSA, the hash that fits the curve
// with ECDSA, or Ed25519: never SHA-1. The result is parsed from the
// signed DER (its Raw), so it holds exactly what a CA will read.
func CreateCSR(template *x509.CertificateRequest, key crypto.Signer) (*x509.CertificateRequest, error) {
	request := &x509.CertificateRequest{
		RawSubject:     template.RawSubject,
		DNSNames:       template.DNSNames,
		EmailAddresses: template.EmailAddresses,
		IPAddresses:    template.IPAddresses,
		URIs:           template.URIs,
	}
	if len(pki.RequestNames(request)) > 0 {
		request.ExtraExtensions = []pkix.Extension{pki.LeafKeyUsage(key.Public())}
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, request, key)
	if err != nil {
		return nil, fmt.Errorf("signing the certificate signing request: %w", err)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("reading back the certificate signing request: %w", err)
	}
	return csr, nil
}

// CSRPEM encodes a request under the label CERTIFICATE REQUEST (RFC 7468).
func CSRPEM(csr *x509.CertificateRequest) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr.Raw})
}
