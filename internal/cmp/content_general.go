package cmp

import (
	"encoding/asn1"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// GeneralContent is the content of genm and genp (RFC 9810, 5.3.19 and 5.3.20).
type GeneralContent []InfoTypeAndValue

func (c GeneralContent) fits(t BodyType) bool          { return t == BodyGenM || t == BodyGenP }
func (c GeneralContent) marshal(b *cryptobyte.Builder) { addList(b, c, marshalInfoTypeAndValue) }

// Info types of general messages that are spoken here (RFC 9483, 4.3).
var (
	// OIDCACerts is id-it-caCerts: asks for, and gives, CA certificates.
	OIDCACerts = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 4, 17}
	// OIDRootCACert is id-it-rootCaCert: asks for an update of the root certificate it holds.
	OIDRootCACert = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 4, 20}
	// OIDRootCAKeyUpdate is id-it-rootCaKeyUpdate: gives the update.
	OIDRootCAKeyUpdate = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 4, 18}
	// OIDCertReqTemplate is id-it-certReqTemplate: asks for, and gives, what the CA demands of templates.
	OIDCertReqTemplate = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 4, 19}
	// OIDCRLStatusList is id-it-crlStatusList: asks for CRLs that are newer.
	OIDCRLStatusList = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 4, 22}
	// OIDCRLs is id-it-crls: gives them.
	OIDCRLs = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 4, 23}
)

// Value returns the item of a type, and false when there is none.
func (c GeneralContent) Value(infoType asn1.ObjectIdentifier) ([]byte, bool) {
	for _, info := range c {
		if info.Type.Equal(infoType) {
			return info.Value, true
		}
	}
	return nil, false
}

// MarshalCACerts encodes the value of id-it-caCerts (RFC 9810, 5.3.19.14). The certificates are DER.
func MarshalCACerts(certificates [][]byte) ([]byte, error) {
	return encode(func(b *cryptobyte.Builder) { addSequenceOf(b, certificates) })
}

// ParseCACerts decodes the value of id-it-caCerts into DER certificates.
func ParseCACerts(der []byte) ([][]byte, error) {
	if err := checkDER(der, 0); err != nil {
		return nil, fmt.Errorf("decoding caCerts: %w", err)
	}
	d := newDecoder(der, "decoding caCerts")
	certificates := parseCertificates(d, "CaCertsValue")
	return certificates, d.end()
}

// RootCAKeyUpdate is the value of id-it-rootCaKeyUpdate (RFC 9810, 5.3.19.15); all certificates are DER:
//
//	RootCaKeyUpdateValue ::= SEQUENCE {
//	    newWithNew       CMPCertificate,
//	    newWithOld   [0] CMPCertificate OPTIONAL,
//	    oldWithNew   [1] CMPCertificate OPTIONAL }
type RootCAKeyUpdate struct {
	NewWithNew []byte
	NewWithOld []byte // nil: absent
	OldWithNew []byte // nil: absent
}

// ParseRootCAKeyUpdate decodes the value of id-it-rootCaKeyUpdate.
func ParseRootCAKeyUpdate(der []byte) (RootCAKeyUpdate, error) {
	if err := checkDER(der, 0); err != nil {
		return RootCAKeyUpdate{}, fmt.Errorf("decoding rootCaKeyUpdate: %w", err)
	}
	outer := newDecoder(der, "decoding rootCaKeyUpdate")
	d := outer.sequence("RootCaKeyUpdateValue")
	u := RootCAKeyUpdate{NewWithNew: d.element(cbasn1.SEQUENCE, "newWithNew")}
	if d.next(explicit(0)) {
		inner := d.open(explicit(0), "newWithOld")
		u.NewWithOld = inner.element(cbasn1.SEQUENCE, "newWithOld")
		inner.end()
	}
	if d.next(explicit(1)) {
		inner := d.open(explicit(1), "oldWithNew")
		u.OldWithNew = inner.element(cbasn1.SEQUENCE, "oldWithNew")
		inner.end()
	}
	d.end()
	return u, outer.end()
}

// Marshal encodes the value of id-it-rootCaKeyUpdate.
func (u RootCAKeyUpdate) Marshal() ([]byte, error) {
	return encode(func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddBytes(u.NewWithNew)
			addOptional(b, explicit(0), u.NewWithOld)
			addOptional(b, explicit(1), u.OldWithNew)
		})
	})
}
