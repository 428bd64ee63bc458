package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// MaxRSABits bounds the modulus of keys that others chose, before anything is computed with them:
// what a verification costs grows with its square, and an answer has room for one that keeps a
// core busy for minutes. crypto/tls has the same bound.
const MaxRSABits = 8192

// SelfSigned tells a root from a self-issued certificate (RFC 5280, section 3.2), which carries
// its own name as issuer but another key's signature, as in a key rollover. A root that signed
// itself with SHA-1, as old ones did, is one all the same. Of a certificate that can verify
// nothing it is not known.
func SelfSigned(cert *x509.Certificate) bool {
	return bytes.Equal(cert.RawSubject, cert.RawIssuer) && Unusable(cert) == nil &&
		cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature) == nil
}

// SameKey compares public keys. Keys of unknown kinds are not the same as anything.
func SameKey(a, b crypto.PublicKey) bool {
	key, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && key.Equal(b)
}

// KeyName is the algorithm and size of a public key as KEY_ALGORITHM has them: RSA-2048,
// ECDSA-P256, Ed25519. Of a key of another kind, ok is false and the name that of its Go type.
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

// OIDKeyUsage is id-ce-keyUsage (RFC 5280, 4.2.1.3).
var OIDKeyUsage = asn1.ObjectIdentifier{2, 5, 29, 15}

// KeyUsages are the names of the bits of KeyUsage, in their order (RFC 5280, 4.2.1.3).
var KeyUsages = [...]string{"digitalSignature", "nonRepudiation", "keyEncipherment", "dataEncipherment",
	"keyAgreement", "keyCertSign", "cRLSign", "encipherOnly", "decipherOnly"}

// ReadKeyUsage returns the names of the bits that are set in the DER of a KeyUsage; false where it
// cannot be read, or has a bit that is not known.
func ReadKeyUsage(der []byte) (names []string, ok bool) {
	var bits asn1.BitString
	if rest, err := asn1.Unmarshal(der, &bits); err != nil || len(rest) > 0 || bits.BitLength > len(KeyUsages) {
		return nil, false
	}
	for bit, name := range KeyUsages {
		if bits.At(bit) == 1 {
			names = append(names, name)
		}
	}
	return names, true
}

// LeafKeyUsage returns the key usage that an end entity's certificate is asked for with:
// digitalSignature and nonRepudiation, and with an RSA key keyEncipherment. Other keys encipher
// nothing, and their certificates must not say that they do (RFC 8813, 3; RFC 8410, 5; RFC 9295,
// 3): a strict CA refuses the request.
func LeafKeyUsage(public crypto.PublicKey) pkix.Extension {
	if _, isRSA := public.(*rsa.PublicKey); isRSA {
		return pkix.Extension{Id: OIDKeyUsage, Critical: true, Value: []byte{3, 2, 5, 0xe0}}
	}
	return pkix.Extension{Id: OIDKeyUsage, Critical: true, Value: []byte{3, 2, 6, 0xc0}}
}

// verifiable are the signature algorithms that are verified
// here: those of crypto/x509 without MD5 and SHA-1.
var verifiable = []x509.SignatureAlgorithm{x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA,
	x509.SHA256WithRSAPSS, x509.SHA384WithRSAPSS, x509.SHA512WithRSAPSS,
	x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512, x509.PureEd25519}

// UnsupportedSignature names the algorithm that a certificate is signed with, when that algorithm
// is not verified here, such as SHA-1 with RSA; else it is empty. Verification says of such a
// certificate only that no authority is known.
func UnsupportedSignature(cert *x509.Certificate) string {
	if slices.Contains(verifiable, cert.SignatureAlgorithm) {
		return ""
	}
	s := cryptobyte.String(cert.Raw)
	var body, algorithm cryptobyte.String
	var oid asn1.ObjectIdentifier
	if !s.ReadASN1(&body, cbasn1.SEQUENCE) || !body.SkipASN1(cbasn1.SEQUENCE) || // tbsCertificate
		!body.ReadASN1(&algorithm, cbasn1.SEQUENCE) || !algorithm.ReadASN1ObjectIdentifier(&oid) {
		return "an unreadable algorithm"
	}
	return SignatureAlgorithm(oid)
}

// SignatureAlgorithm names a signature algorithm: the usual
// name and the object identifier, or this alone.
func SignatureAlgorithm(oid asn1.ObjectIdentifier) string {
	if name, known := signatureNames[oid.String()]; known {
		return name + " (" + oid.String() + ")"
	}
	return "OID " + oid.String()
}

// signatureNames are algorithms that CAs sign with (RFC 8017, RFC 5758, RFC 8410, RFC 8692, RFC
// 9881, and NIST's CSOR).
var signatureNames = map[string]string{
	"1.2.840.113549.1.1.2":    "MD2 with RSA",
	"1.2.840.113549.1.1.4":    "MD5 with RSA",
	"1.2.840.113549.1.1.5":    "SHA-1 with RSA",
	"1.3.14.3.2.29":           "SHA-1 with RSA",
	"1.2.840.113549.1.1.10":   "RSASSA-PSS",
	"1.2.840.113549.1.1.11":   "SHA-256 with RSA",
	"1.2.840.113549.1.1.12":   "SHA-384 with RSA",
	"1.2.840.113549.1.1.13":   "SHA-512 with RSA",
	"1.2.840.113549.1.1.14":   "SHA-224 with RSA",
	"1.2.840.113549.1.1.15":   "SHA-512/224 with RSA",
	"1.2.840.113549.1.1.16":   "SHA-512/256 with RSA",
	"1.2.840.10045.4.1":       "ECDSA with SHA-1",
	"1.2.840.10045.4.3.1":     "ECDSA with SHA-224",
	"1.2.840.10045.4.3.2":     "ECDSA with SHA-256",
	"1.2.840.10045.4.3.3":     "ECDSA with SHA-384",
	"1.2.840.10045.4.3.4":     "ECDSA with SHA-512",
	"1.2.840.10040.4.3":       "DSA with SHA-1",
	"2.16.840.1.101.3.4.3.1":  "DSA with SHA-224",
	"2.16.840.1.101.3.4.3.2":  "DSA with SHA-256",
	"2.16.840.1.101.3.4.3.9":  "ECDSA with SHA3-224",
	"2.16.840.1.101.3.4.3.10": "ECDSA with SHA3-256",
	"2.16.840.1.101.3.4.3.11": "ECDSA with SHA3-384",
	"2.16.840.1.101.3.4.3.12": "ECDSA with SHA3-512",
	"2.16.840.1.101.3.4.3.13": "SHA3-224 with RSA",
	"2.16.840.1.101.3.4.3.14": "SHA3-256 with RSA",
	"2.16.840.1.101.3.4.3.15": "SHA3-384 with RSA",
	"2.16.840.1.101.3.4.3.16": "SHA3-512 with RSA",
	"2.16.840.1.101.3.4.3.17": "ML-DSA-44",
	"2.16.840.1.101.3.4.3.18": "ML-DSA-65",
	"2.16.840.1.101.3.4.3.19": "ML-DSA-87",
	"1.3.6.1.5.5.7.6.30":      "RSASSA-PSS with SHAKE128",
	"1.3.6.1.5.5.7.6.31":      "RSASSA-PSS with SHAKE256",
	"1.3.6.1.5.5.7.6.32":      "ECDSA with SHAKE128",
	"1.3.6.1.5.5.7.6.33":      "ECDSA with SHAKE256",
	"1.3.101.112":             "Ed25519",
	"1.3.101.113":             "Ed448",
	"1.2.156.10197.1.501":     "SM2 with SM3",
}

// longest is a span of which any share surely fits into a
// time.Duration, whose own end is at 292 years.
const longest = 1 << 62 * time.Nanosecond

// Moment is when the share, 0 to 1, of the time from one moment to another has gone by.
// Certificates may be valid to the year 9999 (RFC 5280, section 4.1.2.5), for longer than a
// time.Duration holds.
func Moment(from, to time.Time, share float64) time.Time {
	if span := to.Sub(from); -longest < span && span < longest {
		return from.Add(time.Duration(share * float64(span)))
	}
	return time.Unix(from.Unix()+int64(share*float64(to.Unix()-from.Unix())),
		int64(from.Nanosecond())).In(from.Location())
}

// Days is how many whole days are left from one moment to another; negative when that has gone by.
func Days(from, to time.Time) int {
	const day = 24 * 60 * 60
	seconds := to.Unix() - from.Unix()
	if to.Nanosecond() < from.Nanosecond() {
		seconds--
	}
	days := seconds / day
	if seconds%day < 0 {
		days--
	}
	return int(days)
}

// Stamp is a time as text (RFC 3339), in UTC.
func Stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// ExpiresSoon tells whether less than a fifth of a certificate's life is left, and at most 30 days.
func ExpiresSoon(cert *x509.Certificate, now time.Time) bool {
	return cert.NotAfter.Sub(now) < min(30*24*time.Hour, cert.NotAfter.Sub(cert.NotBefore)/5)
}
