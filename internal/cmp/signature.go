package cmp

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"

	"github.com/certfetcher/certfetcher/internal/pki"
)

// signatureAlgorithms are those of RFC 9481, 3, without those that use SHA-1 or SHA-224.
var signatureAlgorithms = []struct {
	oid       asn1.ObjectIdentifier
	algorithm x509.SignatureAlgorithm
	hash      crypto.Hash
	null      bool // parameters are NULL, else absent, in what is sent
}{
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}, x509.SHA256WithRSA, crypto.SHA256, true},
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 12}, x509.SHA384WithRSA, crypto.SHA384, true},
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 13}, x509.SHA512WithRSA, crypto.SHA512, true},
	{asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}, x509.ECDSAWithSHA256, crypto.SHA256, false},
	{asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 3}, x509.ECDSAWithSHA384, crypto.SHA384, false},
	{asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 4}, x509.ECDSAWithSHA512, crypto.SHA512, false},
	{asn1.ObjectIdentifier{1, 3, 101, 112}, x509.PureEd25519, 0, false},
}

var oidRSAPSS = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}

// pssAlgorithms are the RSASSA-PSS parameter sets that are understood: the same hash throughout,
// and a salt of its length (RFC 9481, 3.1; RFC 8702 and RFC 4055, 3.1).
var pssAlgorithms = []struct {
	hash      crypto.Hash
	algorithm x509.SignatureAlgorithm
}{
	{crypto.SHA256, x509.SHA256WithRSAPSS},
	{crypto.SHA384, x509.SHA384WithRSAPSS},
	{crypto.SHA512, x509.SHA512WithRSAPSS},
}

// pssParameters encodes the parameters of RSASSA-PSS for a hash, with or without the NULL that RFC
// 4055, 2.1 has receivers take either way.
func pssParameters(hash crypto.Hash, null bool) ([]byte, error) {
	identifier := hashIdentifier(hash)
	if null {
		identifier.Parameters = derNull
	}
	return encode(func(c codec) {
		c.sequence("RSASSA-PSS-params", func(c codec) {
			c.codeTag(explicit(0), "hashAlgorithm", func(c codec) { identifier.code(c, "hashAlgorithm") })
			c.codeTag(explicit(1), "maskGenAlgorithm", func(c codec) {
				c.sequence("maskGenAlgorithm", func(c codec) {
					c.oid("id-mgf1", &asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 8})
					identifier.code(c, "hashAlgorithm")
				})
			})
			saltLength := hash.Size()
			c.codeTag(explicit(2), "saltLength", func(c codec) { integer(c, "saltLength", &saltLength) })
		})
	})
}

// CheckKey says whether a public key is of a kind and size that is worked with here: RSA up to
// pki.MaxRSABits, ECDSA P-256, P-384 or P-521, or Ed25519. It must be asked before anything is
// computed with a foreign key.
func CheckKey(public crypto.PublicKey) error {
	if _, err := signingAlgorithm(public); err != nil {
		return err
	}
	return checkModulus(public)
}

func checkModulus(public crypto.PublicKey) error {
	if key, ok := public.(*rsa.PublicKey); ok && key.N.BitLen() > pki.MaxRSABits {
		return fmt.Errorf("RSA key has %d bits, want at most %d", key.N.BitLen(), pki.MaxRSABits)
	}
	return nil
}

// parseCertificate reads a foreign certificate, and refuses
// one whose key nothing must be computed with.
func parseCertificate(der []byte) (*x509.Certificate, error) {
	certificate, err := pki.ParseAnyPrintable(der)
	if err != nil {
		return nil, err
	}
	return certificate, checkModulus(certificate.PublicKey)
}

// x509Algorithm returns the algorithm that an identifier names.
func x509Algorithm(a AlgorithmIdentifier) (x509.SignatureAlgorithm, error) {
	for _, known := range signatureAlgorithms {
		if a.Algorithm.Equal(known.oid) && a.plain() {
			return known.algorithm, nil
		}
	}
	if a.Algorithm.Equal(oidRSAPSS) {
		for _, known := range pssAlgorithms {
			for _, null := range []bool{true, false} {
				parameters, err := pssParameters(known.hash, null)
				if err == nil && bytes.Equal(parameters, a.Parameters) {
					return known.algorithm, nil
				}
			}
		}
	}
	return x509.UnknownSignatureAlgorithm, fmt.Errorf("signature algorithm %s is not supported", a.Algorithm)
}

// signingAlgorithm chooses the algorithm that a key signs
// with: the hash follows the curve's strength.
func signingAlgorithm(public crypto.PublicKey) (x509.SignatureAlgorithm, error) {
	switch public := public.(type) {
	case *rsa.PublicKey:
		return x509.SHA256WithRSA, nil
	case ed25519.PublicKey:
		return x509.PureEd25519, nil
	case *ecdsa.PublicKey:
		switch public.Curve {
		case elliptic.P256():
			return x509.ECDSAWithSHA256, nil
		case elliptic.P384():
			return x509.ECDSAWithSHA384, nil
		case elliptic.P521():
			return x509.ECDSAWithSHA512, nil
		}
	}
	return x509.UnknownSignatureAlgorithm,
		fmt.Errorf("key of type %s is not supported: want RSA, ECDSA P-256, P-384 or P-521, or Ed25519",
			kindOfKey(public))
}

func kindOfKey(public crypto.PublicKey) string {
	if key, ok := public.(*ecdsa.PublicKey); ok {
		return "ECDSA " + key.Params().Name
	}
	return fmt.Sprintf("%T", public)
}

// signatureIdentifier returns the identifier and hash that a key signs with.
func signatureIdentifier(public crypto.PublicKey) (AlgorithmIdentifier, crypto.Hash, error) {
	algorithm, err := signingAlgorithm(public)
	if err != nil {
		return AlgorithmIdentifier{}, 0, err
	}
	for _, known := range signatureAlgorithms {
		if known.algorithm == algorithm {
			identifier := AlgorithmIdentifier{Algorithm: known.oid}
			if known.null {
				identifier.Parameters = derNull
			}
			return identifier, known.hash, nil
		}
	}
	panic("cmp: no identifier for " + algorithm.String())
}

// sign signs data with a key, by the algorithm that fits the key.
func sign(key crypto.Signer, data []byte) (AlgorithmIdentifier, []byte, error) {
	identifier, hash, err := signatureIdentifier(key.Public())
	if err != nil {
		return AlgorithmIdentifier{}, nil, err
	}
	if hash != 0 {
		h := hash.New()
		h.Write(data)
		data = h.Sum(nil)
	}
	signature, err := key.Sign(rand.Reader, data, hash)
	return identifier, signature, err
}

// verifySignature checks a signature over data.
func verifySignature(public crypto.PublicKey, algorithm AlgorithmIdentifier, data, signature []byte) error {
	if err := CheckKey(public); err != nil {
		return err
	}
	known, err := x509Algorithm(algorithm)
	if err != nil {
		return err
	}
	return (&x509.Certificate{PublicKey: public}).CheckSignature(known, data, signature)
}

// ProtectSignature sets protectionAlg and protection of the message, signed with the key. What
// Header and Body hold must not change afterwards. The signer's certificate belongs first into
// ExtraCerts (RFC 9810, 5.1; RFC 9483, 3.3), its subject into sender and its key identifier into
// senderKID; see [PKIMessage.SetSigner].
func ProtectSignature(m *PKIMessage, key crypto.Signer) error {
	_, err := protectSignature(m, key)
	return err
}

// protectSignature is ProtectSignature, and returns the protected part.
func protectSignature(m *PKIMessage, key crypto.Signer) ([]byte, error) {
	identifier, _, err := signatureIdentifier(key.Public())
	if err != nil {
		return nil, err
	}
	m.Header.ProtectionAlg = &identifier
	m.RawHeader, m.RawBody = nil, nil
	part, err := m.protectedPart()
	if err != nil {
		return nil, fmt.Errorf("encoding protected part: %w", err)
	}
	if _, m.Protection, err = sign(key, part); err != nil {
		return nil, fmt.Errorf("signing message: %w", err)
	}
	return part, nil
}

// SetSigner names the certificate whose key will sign the message: in sender, senderKID and,
// followed by its chain, in ExtraCerts (RFC 9810, 5.1.1; RFC 9483, 3.1 and 3.3).
func (m *PKIMessage) SetSigner(certificate *x509.Certificate, chain []*x509.Certificate) {
	m.Header.Sender = DirectoryName(certificate.RawSubject)
	m.Header.SenderKID = slices.Clone(certificate.SubjectKeyId)
	m.ExtraCerts = [][]byte{certificate.Raw}
	for _, c := range chain {
		m.ExtraCerts = append(m.ExtraCerts, c.Raw)
	}
}

// VerifySignature checks the protection of a message with a
// public key. It says nothing about whose key that is.
func VerifySignature(m *PKIMessage, public crypto.PublicKey) error {
	if m.Header.ProtectionAlg == nil || m.Protection == nil {
		return errors.New("message is not protected")
	}
	part, err := m.protectedPart()
	if err != nil {
		return fmt.Errorf("encoding protected part: %w", err)
	}
	return verifySignature(public, *m.Header.ProtectionAlg, part, m.Protection)
}
