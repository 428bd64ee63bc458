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

// Parse reads a certificate (RFC 5280, 4.1) as far as it can be read. What a certificate is used
// for decides how much of that is enough: one that is stored or passed on needs its DER, one that
// verifies something must have no Unusable.
//
// One that only has other characters in a PrintableString than belong there is read whole. A
// certificate that crypto/x509 refuses, for a negative serial number or a brainpool key, comes
// back with Raw and its parts, the names, the serial number and, where they can be read, the
// dates. Its PublicKey is nil, and so are all extensions. The error is for data that is not the
// DER of a certificate.
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

// Unusable says why a certificate that Parse returned can verify nothing
// here, nil when it can: it was not understood as a whole, or its key is
// of a kind that is not supported or too large to compute with.
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

// KeyAlgorithm names the algorithm of a SubjectPublicKeyInfo, given as DER: the usual name where
// there is one, else the object identifier.
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

// keyAlgorithms are kinds of keys that CAs have and
// crypto/x509 has not (RFC 8410, RFC 9881, RFC 8692).
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

// parseOutline reads a certificate's outermost structure, without a look at keys and extensions.
// It is nil when that is not a certificate's.
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

// parseName reads a Name (RFC 5280, 4.1.2.4) without regard to which
// characters a string type allows: an underscore in a PrintableString
// is common. It is nil for what has not a name's structure.
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

// ParseAnyPrintable is x509.ParseCertificate that also takes names with other characters of ASCII
// in a PrintableString than belong there, such as an underscore: anyone who requests such a name
// must be able to read its certificate. Raw, RawTBSCertificate, RawIssuer and RawSubject are the
// bytes that came, so that signatures verify and names compare.
func ParseAnyPrintable(der []byte) (*x509.Certificate, error) {
	cert, err := x509.ParseCertificate(der)
	if err == nil {
		return cert, nil
	}
	adapted, outline := adaptCertificate(der)
	if adapted == nil {
		return nil, err
	}
	if cert, err = x509.ParseCertificate(adapted); err != nil {
		return nil, err
	}
	cert.Raw, cert.RawTBSCertificate = outline.Raw, outline.RawTBSCertificate
	cert.RawIssuer, cert.RawSubject = outline.RawIssuer, outline.RawSubject
	return cert, nil
}

// adaptCertificate returns the certificate with its names adapted, and what it was before; nil
// where it cannot be read.
func adaptCertificate(der []byte) ([]byte, *x509.Certificate) {
	before := &x509.Certificate{Raw: der}
	s := cryptobyte.String(der)
	var body, tbs, raw, version, serial, algorithm, issuer, validity, subject cryptobyte.String
	if !s.ReadASN1(&body, cbasn1.SEQUENCE) || !s.Empty() || !body.ReadASN1Element(&raw, cbasn1.SEQUENCE) {
		return nil, nil
	}
	before.RawTBSCertificate = raw
	tag := cbasn1.Tag(0).ContextSpecific().Constructed()
	if !raw.ReadASN1(&tbs, cbasn1.SEQUENCE) || (tbs.PeekASN1Tag(tag) && !tbs.ReadASN1Element(&version, tag)) ||
		!tbs.ReadASN1Element(&serial, cbasn1.INTEGER) || !tbs.ReadASN1Element(&algorithm, cbasn1.SEQUENCE) ||
		!tbs.ReadASN1Element(&issuer, cbasn1.SEQUENCE) || !tbs.ReadASN1Element(&validity, cbasn1.SEQUENCE) ||
		!tbs.ReadASN1Element(&subject, cbasn1.SEQUENCE) {
		return nil, nil
	}
	before.RawIssuer, before.RawSubject = issuer, subject
	newIssuer, ok := AdaptName(issuer)
	if !ok {
		return nil, nil
	}
	newSubject, ok := AdaptName(subject)
	if !ok {
		return nil, nil
	}
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			for _, part := range [][]byte{version, serial, algorithm, newIssuer, validity, newSubject, tbs} {
				b.AddBytes(part)
			}
		})
		b.AddBytes(body)
	})
	adapted, err := b.Bytes()
	if err != nil {
		return nil, nil
	}
	return adapted, before
}

// AdaptName returns a Name in which each PrintableString is a
// UTF8String, whatever characters of ASCII it has. It is false for what
// is not the DER of a Name, and for other bytes in a PrintableString.
func AdaptName(der []byte) ([]byte, bool) {
	s := cryptobyte.String(der)
	var rdns cryptobyte.String
	if !s.ReadASN1(&rdns, cbasn1.SEQUENCE) || !s.Empty() {
		return nil, false
	}
	ok := true
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for ok && !rdns.Empty() {
			var attributes cryptobyte.String
			if ok = rdns.ReadASN1(&attributes, cbasn1.SET); !ok {
				return
			}
			b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) {
				for ok && !attributes.Empty() {
					ok = adaptAttribute(b, &attributes)
				}
			})
		}
	})
	adapted, err := b.Bytes()
	return adapted, ok && err == nil
}

func adaptAttribute(b *cryptobyte.Builder, from *cryptobyte.String) bool {
	var attribute, kind, value cryptobyte.String
	var tag cbasn1.Tag
	if !from.ReadASN1(&attribute, cbasn1.SEQUENCE) || !attribute.ReadASN1Element(&kind, cbasn1.OBJECT_IDENTIFIER) ||
		!attribute.ReadAnyASN1(&value, &tag) || !attribute.Empty() {
		return false
	}
	if tag == cbasn1.PrintableString {
		for _, c := range value {
			if c < ' ' || c > '~' {
				return false
			}
		}
		tag = cbasn1.UTF8String
	}
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(kind)
		b.AddASN1(tag, func(b *cryptobyte.Builder) { b.AddBytes(value) })
	})
	return true
}
