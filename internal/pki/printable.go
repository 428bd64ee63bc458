package pki

import (
	"crypto/x509"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// ParseAnyPrintable is x509.ParseCertificate that also takes names with other characters of ASCII in a PrintableString
// than belong there, such as an underscore: whoever asks for such a name must be able to read its certificate. Raw,
// RawTBSCertificate, RawIssuer and RawSubject are the bytes that came, so that signatures verify and names compare.
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

// adaptCertificate returns the certificate with its names adapted, and what it was before; nil where it cannot be read.
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

// AdaptName returns a Name in which each PrintableString is a UTF8String, whatever characters of ASCII it has. It is
// false for what is not the DER of a Name, and for other bytes in a PrintableString.
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
