package cmp

import (
	"crypto"
	"crypto/x509"
	"fmt"
)

// CertHash returns the hash of a certificate that certConf carries (RFC 9810, 5.3.18): by the hash of the
// certificate's own signature, or SHA-512 where that is Ed25519 (RFC 9481, 3.3). Where the signature names
// no hash that is known, it is SHA-256, and hashAlg is not nil: it must then be sent, with PVNO3.
func CertHash(certificate *x509.Certificate) (hash []byte, hashAlg *AlgorithmIdentifier) {
	function, known := signatureHash(certificate.SignatureAlgorithm)
	if !known {
		identifier := hashIdentifier(function)
		hashAlg = &identifier
	}
	return sum(function, certificate.Raw), hashAlg
}

// CertHashWith returns the hash of a certificate by the algorithm that a peer named in hashAlg.
func CertHashWith(certificate *x509.Certificate, hashAlg AlgorithmIdentifier) ([]byte, error) {
	function, err := hashOf(hashAlg)
	if err != nil {
		return nil, fmt.Errorf("computing certHash: %w", err)
	}
	return sum(function, certificate.Raw), nil
}

func sum(function crypto.Hash, data []byte) []byte {
	h := function.New()
	h.Write(data)
	return h.Sum(nil)
}

func signatureHash(algorithm x509.SignatureAlgorithm) (hash crypto.Hash, known bool) {
	switch algorithm {
	case x509.SHA1WithRSA, x509.ECDSAWithSHA1:
		return crypto.SHA1, true
	case x509.SHA256WithRSA, x509.ECDSAWithSHA256, x509.SHA256WithRSAPSS:
		return crypto.SHA256, true
	case x509.SHA384WithRSA, x509.ECDSAWithSHA384, x509.SHA384WithRSAPSS:
		return crypto.SHA384, true
	case x509.SHA512WithRSA, x509.ECDSAWithSHA512, x509.SHA512WithRSAPSS, x509.PureEd25519:
		return crypto.SHA512, true
	}
	return crypto.SHA256, false
}
