package devca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"time"
)

// authorityValidity is how long the root and the issuing CA are valid: longer than any run that should be.
const authorityValidity = 366 * 24 * time.Hour

// MaxValidity is the longest validity of leaves that may be configured.
const MaxValidity = 365 * 24 * time.Hour

// label is in the name of every authority, so that whoever meets a certificate knows what it is worth.
const label = "DEVELOPMENT ONLY"

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
	if root, err = signAuthority(template, template, rootKey, rootKey); err != nil {
		return nil, nil, nil, fmt.Errorf("signing the root: %w", err)
	}
	template = authorityTemplate("Issuing CA", now)
	template.MaxPathLenZero = true
	// Answers are signed with this key, and verifiers want to see that it may be used for that.
	template.KeyUsage |= x509.KeyUsageDigitalSignature
	if issuing, err = signAuthority(template, root, key, rootKey); err != nil {
		return nil, nil, nil, fmt.Errorf("signing the issuing CA: %w", err)
	}
	return root, issuing, key, nil
}

func authorityTemplate(name string, now time.Time) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: newSerial(),
		Subject:      pkix.Name{CommonName: label + " " + name, Organization: []string{label}},
		NotBefore:    now.Add(-time.Hour), NotAfter: now.Add(authorityValidity),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
}

func signAuthority(template, parent *x509.Certificate, key, parentKey *ecdsa.PrivateKey) (*x509.Certificate, error) {
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, err
	}
	if template.SubjectKeyId, err = keyID(spki); err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// newSerial returns a random positive serial number of at most 16 bytes.
func newSerial() *big.Int {
	bytes := make([]byte, 16)
	rand.Read(bytes) // never fails
	bytes[0] = bytes[0]&0x7f | 0x40
	return new(big.Int).SetBytes(bytes)
}
