package cmp

import (
	"bytes"
	"crypto"
	_ "crypto/sha1" // linked for the peers that still use it inside a MAC
	_ "crypto/sha256"
	_ "crypto/sha512"
	"crypto/x509"
	"encoding/asn1"
	"fmt"

	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// AlgorithmIdentifier names an algorithm (RFC 5280, 4.1.1.2).
type AlgorithmIdentifier struct {
	Algorithm  asn1.ObjectIdentifier
	Parameters []byte // one DER element; nil: absent
}

func (a *AlgorithmIdentifier) code(c codec, what string) { a.codeTagged(c, cbasn1.SEQUENCE, what) }

func (a *AlgorithmIdentifier) codeTagged(c codec, tag cbasn1.Tag, what string) {
	c.codeTag(tag, what, func(c codec) {
		c.oid("algorithm", &a.Algorithm)
		if c.out != nil || c.in.more() {
			c.any("parameters", &a.Parameters)
		}
	})
}

// derNull is the DER of NULL.
var derNull = []byte{5, 0}

// plain says whether there are no parameters. RFC 9481 wants NULL with some algorithms and nothing
// with others, and peers mix them up, so both pass for either.
func (a AlgorithmIdentifier) plain() bool {
	return a.Parameters == nil || bytes.Equal(a.Parameters, derNull)
}

// Protection algorithms with a shared secret (RFC 9481, 6).
var (
	oidPasswordBasedMAC = asn1.ObjectIdentifier{1, 2, 840, 113533, 7, 66, 13}
	oidPBMAC1           = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 14}
	oidPBKDF2           = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12}
	oidPBES2            = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}
)

// hashAlgorithms are the one-way functions of PBM and of hashAlg (RFC 9481, 2).
var hashAlgorithms = []struct {
	oid  asn1.ObjectIdentifier
	hash crypto.Hash
}{
	{asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}, crypto.SHA1},
	{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 4}, crypto.SHA224},
	{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}, crypto.SHA256},
	{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 2}, crypto.SHA384},
	{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 3}, crypto.SHA512},
}

// hmacAlgorithms are the MACs of PBM and PBMAC1 and the PRFs of PBKDF2 (RFC 9481, 6.2). SHA-1 has
// two names: the one that RFC 4210 and the ONAP server use, and the one of RFC 8018. The first of
// a hash is the one that is sent.
var hmacAlgorithms = []struct {
	oid  asn1.ObjectIdentifier
	hash crypto.Hash
}{
	{asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 8, 1, 2}, crypto.SHA1},
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 7}, crypto.SHA1},
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 8}, crypto.SHA224},
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 9}, crypto.SHA256},
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 10}, crypto.SHA384},
	{asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 11}, crypto.SHA512},
}

// hashOf returns the hash an identifier names.
func hashOf(a AlgorithmIdentifier) (crypto.Hash, error) {
	for _, known := range hashAlgorithms {
		if a.Algorithm.Equal(known.oid) && a.plain() {
			return known.hash, nil
		}
	}
	return 0, fmt.Errorf("hash algorithm %s is not supported", a.Algorithm)
}

// hmacOf returns the hash of the HMAC an identifier names.
func hmacOf(a AlgorithmIdentifier) (crypto.Hash, error) {
	for _, known := range hmacAlgorithms {
		if a.Algorithm.Equal(known.oid) && a.plain() {
			return known.hash, nil
		}
	}
	return 0, fmt.Errorf("MAC algorithm %s is not supported", a.Algorithm)
}

// hashIdentifier names a hash, without parameters (RFC 5754, 2).
func hashIdentifier(hash crypto.Hash) AlgorithmIdentifier {
	for _, known := range hashAlgorithms {
		if known.hash == hash {
			return AlgorithmIdentifier{Algorithm: known.oid}
		}
	}
	panic("cmp: no identifier for " + hash.String())
}

// hmacIdentifier names the HMAC of a hash, with NULL parameters (RFC 8018, B.1.2; RFC 9481, 6.2.1).
func hmacIdentifier(hash crypto.Hash) AlgorithmIdentifier {
	for _, known := range hmacAlgorithms {
		if known.hash == hash {
			return AlgorithmIdentifier{Algorithm: known.oid, Parameters: derNull}
		}
	}
	panic("cmp: no identifier for HMAC with " + hash.String())
}

// CertHash returns the hash of a certificate that certConf carries (RFC 9810,
// 5.3.18): by the hash of the certificate's own signature, or SHA-512 where that
// is Ed25519 (RFC 9481, 3.3). Where the signature names no hash that is known,
// it is SHA-256, and hashAlg is not nil: it must then be sent, with PVNO3.
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
