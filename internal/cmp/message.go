package cmp

import (
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// PKIMessage is one CMP message (RFC 9810, 5.1):
//
//	PKIMessage ::= SEQUENCE {
//	    header           PKIHeader,
//	    body             PKIBody,
//	    protection   [0] PKIProtection OPTIONAL,
//	    extraCerts   [1] SEQUENCE SIZE (1..MAX) OF CMPCertificate OPTIONAL }
type PKIMessage struct {
	Header     PKIHeader
	Body       PKIBody
	Protection []byte   // MAC or signature; nil: not protected
	ExtraCerts [][]byte // DER certificates, not covered by the protection

	// RawHeader and RawBody are the DER that the protection covers, set by ParsePKIMessage and
	// removed by protecting anew. Marshal goes by the fields.
	RawHeader, RawBody []byte
}

// ParsePKIMessage decodes one DER PKIMessage of at most MaxMessageSize bytes with nothing after it. The
// message keeps parts of der, which must not be changed afterwards.
func ParsePKIMessage(der []byte) (*PKIMessage, error) {
	if len(der) > MaxMessageSize {
		return nil, fmt.Errorf("decoding PKIMessage: has %d bytes, want at most %d", len(der), MaxMessageSize)
	}
	if err := checkDER(der, 0); err != nil {
		return nil, fmt.Errorf("decoding PKIMessage: %w", err)
	}
	outer := newDecoder(der, "decoding PKIMessage")
	d := outer.sequence("PKIMessage")
	m := &PKIMessage{}
	m.RawHeader = d.element(cbasn1.SEQUENCE, "header")
	m.RawBody = d.any("body")
	if d.next(explicit(0)) {
		inner := d.open(explicit(0), "protection")
		m.Protection = inner.bits("protection")
		inner.end()
	}
	if d.next(explicit(1)) {
		inner := d.open(explicit(1), "extraCerts")
		m.ExtraCerts = parseCertificates(inner, "extraCerts")
		inner.end()
	}
	d.end()
	if err := outer.end(); err != nil {
		return nil, err
	}
	if err := m.Header.parse(m.RawHeader); err != nil {
		return nil, fmt.Errorf("decoding PKIMessage: %w", err)
	}
	if err := m.Body.parse(m.RawBody); err != nil {
		return nil, fmt.Errorf("decoding PKIMessage: %w", err)
	}
	return m, nil
}

// Marshal returns the message as DER. For a message that was parsed and not changed, these are the bytes
// it was parsed from.
func (m *PKIMessage) Marshal() ([]byte, error) {
	der, err := encode(func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			m.Header.marshal(b)
			m.Body.marshal(b)
			if m.Protection != nil {
				b.AddASN1(explicit(0), func(b *cryptobyte.Builder) { b.AddASN1BitString(m.Protection) })
			}
			if len(m.ExtraCerts) > 0 {
				b.AddASN1(explicit(1), func(b *cryptobyte.Builder) { addSequenceOf(b, m.ExtraCerts) })
			}
		})
	})
	if err != nil {
		return nil, fmt.Errorf("encoding PKIMessage: %w", err)
	}
	return der, nil
}

// protectedPart is what a MAC or signature is made over (RFC 9810, 5.1.3):
//
//	ProtectedPart ::= SEQUENCE { header PKIHeader, body PKIBody }
func (m *PKIMessage) protectedPart() ([]byte, error) {
	return encode(func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			if m.RawHeader != nil && m.RawBody != nil {
				b.AddBytes(m.RawHeader)
				b.AddBytes(m.RawBody)
				return
			}
			m.Header.marshal(b)
			m.Body.marshal(b)
		})
	})
}

// parseCertificates reads a SEQUENCE SIZE (1..MAX) OF CMPCertificate. Only X.509 certificates are known
// (RFC 9810, 5.1); they stay DER, since what is no use to anybody need not be parsed.
func parseCertificates(d *decoder, what string) [][]byte {
	return list(d.sequence(what), 1, func(d *decoder) []byte { return d.element(cbasn1.SEQUENCE, "certificate") })
}
