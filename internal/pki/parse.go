package pki

import (
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Parse reads a certificate (RFC 5280, 4.1) as far as it can be read. What a certificate is used for decides how much
// of that is enough: one that is stored or passed on needs its DER, one that verifies something must have no Unusable.
//
// One that only has other characters in a PrintableString than belong there is read whole. A certificate that
// crypto/x509 refuses, for a negative serial number or a brainpool key, comes back with Raw and its parts, the names,
// the serial number and, where they can be read, the dates. Its PublicKey is nil, and so are all extensions. The error
// is for data that is not the DER of a certificate.
func Parse(der []byte) (*x509.Certificate, error) {
	cert, err := ParseAnyPrintable(der)
	if err == nil {
		return cert, nil
	}
	if cert = parseOutline(der); cert == nil {
		return nil, err
	}
	return cert, nil
}

// Unusable says why a certificate that Parse returned can verify nothing here, nil when it can: it was not understood
// as a whole, or its key is of a kind that is not supported or too large to compute with.
func Unusable(cert *x509.Certificate) error {
	if key, ok := cert.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() > MaxRSABits {
		return fmt.Errorf("its RSA key has %d bits, want at most %d", key.N.BitLen(), MaxRSABits)
	}
	if cert.PublicKey != nil {
		return nil
	}
	if _, err := ParseAnyPrintable(cert.Raw); err != nil {
		return fmt.Errorf("it cannot be parsed: %w", err)
	}
	return fmt.Errorf("its key is of an unsupported kind (%s)", KeyAlgorithm(cert.RawSubjectPublicKeyInfo))
}

// KeyAlgorithm names the algorithm of a SubjectPublicKeyInfo, given as DER: the usual name where there is one, else
// the object identifier.
func KeyAlgorithm(spki []byte) string {
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(spki, &info); err != nil {
		return "unreadable"
	}
	oid := info.Algorithm.Algorithm.String()
	if name, ok := keyAlgorithms[oid]; ok {
		return name
	}
	return "OID " + oid
}

// keyAlgorithms are kinds of keys that CAs have and crypto/x509 has not (RFC 8410, RFC 9881, RFC 8692).
var keyAlgorithms = map[string]string{
	"1.2.840.10040.4.1":       "DSA",
	"1.2.840.10045.2.1":       "EC",
	"1.2.840.113549.1.1.1":    "RSA",
	"1.2.840.113549.1.1.10":   "RSASSA-PSS",
	"1.3.101.110":             "X25519",
	"1.3.101.112":             "Ed25519",
	"1.3.101.113":             "Ed448",
	"2.16.840.1.101.3.4.3.17": "ML-DSA-44",
	"2.16.840.1.101.3.4.3.18": "ML-DSA-65",
	"2.16.840.1.101.3.4.3.19": "ML-DSA-87",
}

// parseOutline reads a certificate's outermost structure, without a look at keys and extensions. It is nil when that
// is not a certificate's.
func parseOutline(der []byte) *x509.Certificate {
	cert := &x509.Certificate{Raw: der}
	s := cryptobyte.String(der)
	var body, tbs, signature cryptobyte.String
	var raw, spki, issuer, subject cryptobyte.String
	if !s.ReadASN1(&body, cbasn1.SEQUENCE) || !s.Empty() ||
		!body.ReadASN1Element(&raw, cbasn1.SEQUENCE) || !body.SkipASN1(cbasn1.SEQUENCE) ||
		!body.ReadASN1(&signature, cbasn1.BIT_STRING) || !body.Empty() {
		return nil
	}
	cert.RawTBSCertificate = raw
	if !raw.ReadASN1(&tbs, cbasn1.SEQUENCE) {
		return nil
	}
	var validity cryptobyte.String
	serial := new(big.Int)
	if !tbs.SkipOptionalASN1(cbasn1.Tag(0).ContextSpecific().Constructed()) || // version
		!tbs.ReadASN1Integer(serial) || !tbs.SkipASN1(cbasn1.SEQUENCE) ||
		!tbs.ReadASN1Element(&issuer, cbasn1.SEQUENCE) || !tbs.ReadASN1(&validity, cbasn1.SEQUENCE) ||
		!tbs.ReadASN1Element(&subject, cbasn1.SEQUENCE) || !tbs.ReadASN1Element(&spki, cbasn1.SEQUENCE) {
		return nil
	}
	cert.SerialNumber, cert.RawIssuer, cert.RawSubject, cert.RawSubjectPublicKeyInfo = serial, issuer, subject, spki
	cert.NotBefore = readTime(&validity)
	cert.NotAfter = readTime(&validity)
	return cert
}

func readTime(s *cryptobyte.String) time.Time {
	var t time.Time
	if s.PeekASN1Tag(cbasn1.UTCTime) && s.ReadASN1UTCTime(&t) ||
		s.PeekASN1Tag(cbasn1.GeneralizedTime) && s.ReadASN1GeneralizedTime(&t) {
		return t
	}
	return time.Time{}
}

// parseName reads a Name (RFC 5280, 4.1.2.4) without regard to which characters a string type allows: an underscore in
// a PrintableString is common. It is nil for what has not a name's structure.
func parseName(der []byte) pkix.RDNSequence {
	var sets []attributeSET
	if rest, err := asn1.Unmarshal(der, &sets); err != nil || len(rest) > 0 {
		return nil
	}
	name := pkix.RDNSequence{}
	for _, set := range sets {
		var rdn pkix.RelativeDistinguishedNameSET
		for _, a := range set {
			value := strings.ToValidUTF8(string(a.Value.Bytes), "\uFFFD")
			rdn = append(rdn, pkix.AttributeTypeAndValue{Type: a.Type, Value: value})
		}
		name = append(name, rdn)
	}
	return name
}

// Usable are those of some certificates that can verify something, in their order.
func Usable(certs []*x509.Certificate) []*x509.Certificate {
	return slices.DeleteFunc(slices.Clone(certs), func(c *x509.Certificate) bool { return Unusable(c) != nil })
}
