package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"strings"
)

// MaxRSABits bounds the modulus of keys that others chose, before anything is computed with them: what a verification
// costs grows with its square, and an answer has room for one that keeps a core busy for minutes. crypto/tls has the
// same bound.
const MaxRSABits = 8192

// SelfSigned tells a root from a self-issued certificate (RFC 5280, section 3.2), which carries its own
// name as issuer but another key's signature, as in a key rollover. A root that signed itself with SHA-1, as
// old ones did, is one all the same. Of a certificate that can verify nothing it is not known.
func SelfSigned(cert *x509.Certificate) bool {
	return bytes.Equal(cert.RawSubject, cert.RawIssuer) && Unusable(cert) == nil &&
		cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature) == nil
}

// SameKey compares public keys. Keys of unknown kinds are not the same as anything.
func SameKey(a, b crypto.PublicKey) bool {
	key, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && key.Equal(b)
}

// KeyName is the algorithm and size of a public key as KEY_ALGORITHM has them: RSA-2048, ECDSA-P256, Ed25519. Of a key
// of another kind, ok is false and the name that of its Go type.
func KeyName(pub crypto.PublicKey) (name string, ok bool) {
	switch pub := pub.(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA-%d", pub.N.BitLen()), true
	case *ecdsa.PublicKey:
		return "ECDSA-" + strings.ReplaceAll(pub.Curve.Params().Name, "-", ""), true
	case ed25519.PublicKey:
		return "Ed25519", true
	}
	return fmt.Sprintf("%T", pub), false
}
