package verify

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"strings"

	"github.com/certfetcher/certfetcher/internal/pki"
)

// dn is a distinguished name in quotes as RFC 4514 writes it, which is the DER order reversed.
func dn(raw []byte) string {
	return fmt.Sprintf("%q", pki.DN(raw))
}

// dnList names the first few.
func dnList(certs []*x509.Certificate) string {
	const most = 8
	var names []string
	for _, cert := range certs[:min(len(certs), most)] {
		names = append(names, dn(cert.RawSubject))
	}
	if len(certs) > most {
		names = append(names, fmt.Sprintf("%d more", len(certs)-most))
	}
	return strings.Join(names, ", ")
}

// keyText is a public key's algorithm and the SHA-256 of its SubjectPublicKeyInfo, as openssl and key
// pinning have it.
func keyText(key crypto.PublicKey) string {
	algorithm, _ := pki.KeyName(key)
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return algorithm
	}
	return fmt.Sprintf("%s with SHA-256 %x", algorithm, sha256.Sum256(der))
}
