package devca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"time"

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/internal/pki"
)

// authorityValidity is how long the root and the issuing CA are valid: longer than any run that should be.
const authorityValidity = 366 * 24 * time.Hour

// MaxValidity is the longest validity of leaves that may be configured.
const MaxValidity = 365 * 24 * time.Hour

// label is in the name of every authority, so that anyone who sees a certificate knows what it is worth.
const label = "DEVELOPMENT ONLY"

// issuingAlgorithm is what leaves are signed with.
const issuingAlgorithm = x509.ECDSAWithSHA256

// newAuthorities makes the root and the issuing CA. The names stay the same from one start to the next,
// because peers have the issuer's name in their configuration; the keys and key identifiers do not.
func newAuthorities(now time.Time) (root, issuing *x509.Certificate, key *ecdsa.PrivateKey, err error) {
	rootKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("making the root's key: %w", err)
	}
	if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, nil, nil, fmt.Errorf("making the issuing CA's key: %w", err)
	}
	template := authorityTemplate("Root CA", now)
	if root, err = sign(template, template, rootKey.Public(), rootKey); err != nil {
		return nil, nil, nil, fmt.Errorf("signing the root: %w", err)
	}
	template = authorityTemplate("Issuing CA", now)
	template.MaxPathLenZero = true
	// Answers are signed with this key, and verifiers want to see that it may be used for that.
	template.KeyUsage |= x509.KeyUsageDigitalSignature
	if issuing, err = sign(template, root, key.Public(), rootKey); err != nil {
		return nil, nil, nil, fmt.Errorf("signing the issuing CA: %w", err)
	}
	return root, issuing, key, nil
}

func authorityTemplate(name string, now time.Time) *x509.Certificate {
	return &x509.Certificate{
		Subject:   pkix.Name{CommonName: label + " " + name, Organization: []string{label}},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(authorityValidity),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
}

// sign signs a certificate with a random serial number.
func sign(template, parent *x509.Certificate, public any, key *ecdsa.PrivateKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		return nil, err
	}
	return pki.ParseAnyPrintable(der)
}

// issue signs a leaf. Its subject and its extensions are the bytes that were asked for.
func (e *exchange) issue(w wanted) (*x509.Certificate, error) {
	notBefore, notAfter := e.now, e.now.Add(e.ca.config.Validity)
	if e.faults.Expired {
		notBefore, notAfter = e.now.Add(-2*time.Hour), e.now.Add(-time.Hour)
	}
	if notAfter.After(e.ca.issuing.NotAfter) {
		notAfter = e.ca.issuing.NotAfter
	}
	keyID, err := keyIdentifier(w.key)
	if err != nil {
		return nil, err
	}
	for i, extension := range w.extensions {
		if extension.Id.Equal(oidSubjectAltName) && emptyName(w.subject) {
			w.extensions[i].Critical = true // RFC 5280, 4.2.1.6
		}
	}
	certificate, err := sign(&x509.Certificate{
		RawSubject: w.subject, NotBefore: notBefore, NotAfter: notAfter, SubjectKeyId: keyID,
		KeyUsage: w.usage, ExtraExtensions: w.extensions, SignatureAlgorithm: issuingAlgorithm,
		// As the ONAP server asks, unless the extensions have others.
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}, e.ca.issuing, w.key, e.ca.key)
	if err != nil { // the names and extensions are the requester's
		return nil, refuse(cmp.FailBadCertTemplate, "the certificate asked for would not be readable: %v", err)
	}
	return certificate, nil
}

// keyIdentifier returns the key identifier of a public key after RFC 7093, 2, method 1: 20 bytes.
func keyIdentifier(public any) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("encoding public key: %w", err)
	}
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(der, &info); err != nil {
		return nil, fmt.Errorf("reading public key: %w", err)
	}
	sum := sha256.Sum256(info.Key.Bytes)
	return sum[:20], nil
}
