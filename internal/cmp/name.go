package cmp

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/certfetcher/certfetcher/internal/pki"
)

// GeneralName is the DER element of a GeneralName (RFC 5280, 4.2.1.6). In practice it is a directoryName.
type GeneralName []byte

// DirectoryName returns the GeneralName of a DER Name. Of nil it makes the NULL-DN, the empty name that
// stands for "not known" (RFC 9810, 5.1.1).
func DirectoryName(name []byte) GeneralName {
	if name == nil {
		name = []byte{0x30, 0}
	}
	return wrap(explicit(4), name)
}

// Name returns the DER Name inside a directoryName, and false for a GeneralName of another kind.
func (g GeneralName) Name() ([]byte, bool) {
	s := cryptobyte.String(g)
	var name cryptobyte.String
	if !s.ReadASN1(&name, explicit(4)) || !s.Empty() {
		return nil, false
	}
	return name, true
}

// String returns the name after RFC 4514 in the order of its RDNs, for messages to people.
func (g GeneralName) String() string {
	name, ok := g.Name()
	if !ok {
		return fmt.Sprintf("GeneralName %x", []byte(g))
	}
	return nameString(name)
}

func parseGeneralName(d *decoder, what string) GeneralName {
	der := d.any(what)
	if len(der) > 0 && der[0]&0xc0 != 0x80 {
		d.fail("%s is not a GeneralName", what)
	}
	return der
}

func (g GeneralName) marshal(b *cryptobyte.Builder) { b.AddBytes(g) }

// SameName says whether two DER Names are the same name; see pki.SameName.
func SameName(a, b []byte) bool { return pki.SameName(a, b) }

func parseName(der []byte) (pkix.RDNSequence, bool) {
	var name pkix.RDNSequence
	rest, err := asn1.Unmarshal(der, &name)
	return name, err == nil && len(rest) == 0
}

// nameString prints a DER Name with its RDNs in their order.
func nameString(der []byte) string {
	name, ok := parseName(der)
	if !ok {
		return "unreadable name"
	}
	slices.Reverse(name) // because RDNSequence.String reverses
	return name.String()
}

// commonName returns the DER Name that holds one CN and nothing else.
func commonName(text string) ([]byte, error) {
	if text == "" || !utf8.ValidString(text) {
		return nil, errors.New("common name is empty or not UTF-8")
	}
	return encode(func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) {
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1ObjectIdentifier(attributeTypes["CN"])
					b.AddASN1(cbasn1.UTF8String, func(b *cryptobyte.Builder) { b.AddBytes([]byte(text)) })
				})
			})
		})
	})
}

// attributeTypes are the names of attributes in distinguished names (RFC 4514, 3, and those that
// Bouncy Castle and OpenSSL write).
var attributeTypes = map[string]asn1.ObjectIdentifier{
	"CN": {2, 5, 4, 3}, "SN": {2, 5, 4, 4}, "SURNAME": {2, 5, 4, 4}, "SERIALNUMBER": {2, 5, 4, 5}, "C": {2, 5, 4, 6},
	"L": {2, 5, 4, 7}, "ST": {2, 5, 4, 8}, "S": {2, 5, 4, 8}, "STREET": {2, 5, 4, 9}, "O": {2, 5, 4, 10}, "OU": {2, 5, 4, 11},
	"T": {2, 5, 4, 12}, "TITLE": {2, 5, 4, 12}, "POSTALCODE": {2, 5, 4, 17}, "GIVENNAME": {2, 5, 4, 42}, "INITIALS": {2, 5, 4, 43},
	"GENERATION": {2, 5, 4, 44}, "DN": {2, 5, 4, 46}, "DNQUALIFIER": {2, 5, 4, 46}, "PSEUDONYM": {2, 5, 4, 65},
	"ORGANIZATIONIDENTIFIER": {2, 5, 4, 97},
	"UID":                    {0, 9, 2342, 19200300, 100, 1, 1}, "DC": {0, 9, 2342, 19200300, 100, 1, 25},
	"E": {1, 2, 840, 113549, 1, 9, 1}, "EMAIL": {1, 2, 840, 113549, 1, 9, 1}, "EMAILADDRESS": {1, 2, 840, 113549, 1, 9, 1},
}

// stringTag is the string type that an attribute's value is sent as: the one RFC 5280, 4.1.2.4 and
// appendix A fix, else UTF8String.
func stringTag(attribute asn1.ObjectIdentifier) cbasn1.Tag {
	switch attribute.String() {
	case "2.5.4.5", "2.5.4.6", "2.5.4.46":
		return cbasn1.PrintableString
	case "0.9.2342.19200300.100.1.25", "1.2.840.113549.1.9.1":
		return cbasn1.IA5String
	}
	return cbasn1.UTF8String
}

// ParseDN reads a distinguished name written after RFC 4514 and returns it as a DER Name. The RDNs
// are kept in the order they are written in, as the ONAP server keeps them, not reversed as RFC 4514 would
// have it.
func ParseDN(text string) ([]byte, error) {
	p := dnParser{rest: text}
	rdns, err := p.name()
	if err != nil {
		return nil, fmt.Errorf("reading distinguished name %q: %w", text, err)
	}
	der, err := encode(func(b *cryptobyte.Builder) { addSequenceOf(b, rdns) })
	if err != nil {
		return nil, fmt.Errorf("encoding distinguished name %q: %w", text, err)
	}
	return der, nil
}
