package keygen

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"

	"github.com/certfetcher/certfetcher/internal/pki"
)

// CreateCSR signs a certificate signing request for key. From the template it takes RawSubject (DER, kept byte for
// byte) and the subject alternative names. With names, it requests the key usage that fits the kind of key. Without
// names the request has no extension at all: the ONAP server fails where there are extensions without names. The CA
// chooses the key usage then.
//
// The signature is SHA-256 with RSA, the hash that fits the curve with ECDSA, or Ed25519: never SHA-1.
// The result is parsed from the signed DER (its Raw), so it holds exactly what a CA will read.
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
