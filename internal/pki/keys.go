package pki

import (
	"bytes"
	"crypto"
	"crypto/x509"
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

// SameKey says whether two public keys are the same. Keys of unknown kinds are not, nor is nil.
func SameKey(a, b crypto.PublicKey) bool {
	key, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && key.Equal(b)
}
