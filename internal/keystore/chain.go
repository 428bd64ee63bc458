package keystore

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"slices"

	"github.com/certfetcher/certfetcher/internal/pki"
)

// Chain puts the certificates of a key in order: the first one that holds its public key, then the
// issuer of each as far as certs has it, up to a self-issued one. It is nil when no certificate holds
// the public key. Issuers are told by names and key identifiers; no signature is checked.
func Chain(pub crypto.PublicKey, certs []*x509.Certificate) []*x509.Certificate {
	i := slices.IndexFunc(certs, func(c *x509.Certificate) bool { return holds(c, pub) })
	if i < 0 {
		return nil
	}
	return follow(certs[i], certs)
}

// follow is the chain that begins with the certificate.
func follow(cert *x509.Certificate, certs []*x509.Certificate) []*x509.Certificate {
	chain := []*x509.Certificate{cert}
	for {
		last := chain[len(chain)-1]
		issuer := issuerOf(last, certs)
		// Cross-signed CAs can issue each other.
		if issuer == nil || slices.ContainsFunc(chain, issuer.Equal) {
			return chain
		}
		chain = append(chain, issuer)
	}
}

// holds says whether the certificate is for the public key. Of one that crypto/x509 refuses, only the bytes are known.
func holds(c *x509.Certificate, pub crypto.PublicKey) bool {
	if c.PublicKey == nil {
		der, err := x509.MarshalPKIXPublicKey(pub)
		return err == nil && bytes.Equal(der, c.RawSubjectPublicKeyInfo)
	}
	return pki.SameKey(c.PublicKey, pub)
}

// issuerOf finds the certificate's issuer, nil when it is its own or not there. Where several have
// the name, the one whose key identifier fits is taken before one that cannot tell.
func issuerOf(c *x509.Certificate, certs []*x509.Certificate) *x509.Certificate {
	if bytes.Equal(c.RawSubject, c.RawIssuer) {
		return nil
	}
	var found *x509.Certificate
	for _, candidate := range certs {
		if !bytes.Equal(candidate.RawSubject, c.RawIssuer) {
			continue
		}
		if len(c.AuthorityKeyId) > 0 && bytes.Equal(candidate.SubjectKeyId, c.AuthorityKeyId) {
			return candidate
		}
		unknown := len(c.AuthorityKeyId) == 0 || len(candidate.SubjectKeyId) == 0
		if found == nil && unknown {
			found = candidate
		}
	}
	return found
}
