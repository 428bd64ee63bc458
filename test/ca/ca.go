// Package ca is a throwaway certification authority for tests and the demo: a root, an issuing CA
// below it, keys that live in memory only. It signs what it is given and checks nothing but the
// request's own signature; what a bad CA would do is left to the caller, through Change.
package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"time"
)

// CA is a root and an issuing CA. Its fields may be changed before Issue is called.
type CA struct {
	Root, Issuing *x509.Certificate
	RootKey       crypto.Signer
	IssuingKey    crypto.Signer
	// Validity of the leaves, from a minute before now; 0 means 24 hours.
	Validity time.Duration
	// Change, when set, may turn a leaf into something that should be refused.
	Change func(leaf *x509.Certificate)
}

// New makes a CA whose certificates carry the name.
func New(name string) (*CA, error) {
	rootKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	issuingKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	root, err := sign(authority(name+" Root CA"), nil, rootKey.Public(), rootKey)
	if err != nil {
		return nil, fmt.Errorf("making the root: %w", err)
	}
	issuing, err := sign(authority(name+" Issuing CA"), root, issuingKey.Public(), rootKey)
	if err != nil {
		return nil, fmt.Errorf("making the issuing CA: %w", err)
	}
	return &CA{Root: root, Issuing: issuing, RootKey: rootKey, IssuingKey: issuingKey}, nil
}

func authority(name string) *x509.Certificate {
	return &x509.Certificate{
		Subject:   pkix.Name{CommonName: name, Organization: []string{"Throwaway"}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(10, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
}

// Issue signs a certificate for a request: its subject byte for byte, its names, its key.
// It returns the chain without the root, leaf first.
func (c *CA) Issue(csr *x509.CertificateRequest) ([]*x509.Certificate, error) {
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("checking the request's signature: %w", err)
	}
	leaf := c.leaf()
	leaf.RawSubject = csr.RawSubject
	leaf.DNSNames, leaf.EmailAddresses, leaf.IPAddresses, leaf.URIs = csr.DNSNames, csr.EmailAddresses, csr.IPAddresses, csr.URIs
	return c.chain(leaf, csr.PublicKey)
}

// Identity makes a key and a certificate for mutual TLS on this machine, as client and as server,
// valid for localhost, the loopback addresses and the given DNS names.
func (c *CA) Identity(commonName string, dnsNames ...string) (crypto.Signer, []*x509.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	leaf := c.leaf()
	leaf.Subject = pkix.Name{CommonName: commonName}
	leaf.DNSNames = append([]string{"localhost"}, dnsNames...)
	leaf.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1).To4(), net.IPv6loopback}
	chain, err := c.chain(leaf, key.Public())
	return key, chain, err
}

func (c *CA) leaf() *x509.Certificate {
	validity := c.Validity
	if validity == 0 {
		validity = 24 * time.Hour
	}
	return &x509.Certificate{
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(validity),
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
	}
}

func (c *CA) chain(leaf *x509.Certificate, pub crypto.PublicKey) ([]*x509.Certificate, error) {
	if c.Change != nil {
		c.Change(leaf)
	}
	cert, err := sign(leaf, c.Issuing, pub, c.IssuingKey)
	if err != nil {
		return nil, fmt.Errorf("signing a leaf: %w", err)
	}
	return []*x509.Certificate{cert, c.Issuing}, nil
}

// sign signs with the parent, or with the certificate itself where there is none.
func sign(template, parent *x509.Certificate, pub crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}
