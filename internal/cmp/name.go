package cmp

import (
	"bytes"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/certfetcher/certfetcher/internal/pki"
)

// GeneralName is the DER element of a GeneralName (RFC 5280,
// 4.2.1.6). In practice it is a directoryName.
type GeneralName []byte

// DirectoryName returns the GeneralName of a DER Name. Of nil it makes the NULL-DN, the empty name
// that stands for "not known" (RFC 9810, 5.1.1).
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

// String returns a directoryName as pki.DN does.
func (g GeneralName) String() string {
	name, ok := g.Name()
	if !ok {
		return fmt.Sprintf("GeneralName %x", []byte(g))
	}
	return pki.DN(name)
}

func (g *GeneralName) code(c codec, what string) {
	c.any(what, (*[]byte)(g))
	if c.in != nil && len(*g) > 0 && (*g)[0]&0xc0 != 0x80 {
		c.in.fail("%s is not a GeneralName", what)
	}
}

// commonName returns the DER Name that holds one CN and nothing else.
func commonName(text string) ([]byte, error) {
	if text == "" || !utf8.ValidString(text) {
		return nil, errors.New("common name is empty or not UTF-8")
	}
	cn, err := attribute(attributeTypes["CN"], wrap(cbasn1.UTF8String, []byte(text)))
	return wrap(cbasn1.SEQUENCE, wrap(cbasn1.SET, cn)), err
}

// attribute returns an AttributeTypeAndValue of a Name (RFC
// 5280, 4.1.2.4), which is like that of CRMF.
func attribute(attributeType asn1.ObjectIdentifier, value []byte) ([]byte, error) {
	return encode((&AttributeTypeAndValue{attributeType, value}).code)
}

// attributeTypes are the names of attributes in distinguished names (RFC 4514, 3, and those that
// Bouncy Castle and OpenSSL write).
var attributeTypes = map[string]asn1.ObjectIdentifier{
	"CN": {2, 5, 4, 3}, "SN": {2, 5, 4, 4}, "SURNAME": {2, 5, 4, 4}, "SERIALNUMBER": {2, 5, 4, 5}, "C": {2, 5, 4, 6},
	"L": {2, 5, 4, 7}, "ST": {2, 5, 4, 8}, "S": {2, 5, 4, 8}, "STREET": {2, 5, 4, 9},
	"O": {2, 5, 4, 10}, "OU": {2, 5, 4, 11},
	"T": {2, 5, 4, 12}, "TITLE": {2, 5, 4, 12}, "POSTALCODE": {2, 5, 4, 17},
	"GIVENNAME": {2, 5, 4, 42}, "INITIALS": {2, 5, 4, 43},
	"GENERATION": {2, 5, 4, 44}, "DN": {2, 5, 4, 46}, "DNQUALIFIER": {2, 5, 4, 46}, "PSEUDONYM": {2, 5, 4, 65},
	"ORGANIZATIONIDENTIFIER": {2, 5, 4, 97},
	"UID":                    {0, 9, 2342, 19200300, 100, 1, 1}, "DC": {0, 9, 2342, 19200300, 100, 1, 25},
	"E": {1, 2, 840, 113549, 1, 9, 1}, "EMAIL": {1, 2, 840, 113549, 1, 9, 1},
	"EMAILADDRESS": {1, 2, 840, 113549, 1, 9, 1},
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
// are kept in the order they are written in, as the ONAP server keeps them, not reversed as RFC
// 4514 would have it.
func ParseDN(text string) ([]byte, error) {
	p := dnParser{rest: text}
	rdns, err := p.name()
	if err != nil {
		return nil, fmt.Errorf("reading distinguished name %q: %w", text, err)
	}
	return wrap(cbasn1.SEQUENCE, bytes.Join(rdns, nil)), nil
}

// dnParser reads the string form of a distinguished name (RFC 4514, 3), with the spaces, semicolons
// and quoted values of RFC 2253, 4 allowed too.
type dnParser struct {
	rest string
}

// name returns the DER of each RDN.
func (p *dnParser) name() ([][]byte, error) {
	if strings.TrimSpace(p.rest) == "" {
		return nil, errors.New("is empty")
	}
	var rdns [][]byte
	for {
		rdn, err := p.rdn()
		if err != nil {
			return nil, err
		}
		if rdns = append(rdns, rdn); len(rdns) > maxElements {
			return nil, fmt.Errorf("has more than %d parts", maxElements)
		}
		if p.rest == "" {
			return rdns, nil
		}
		p.rest = p.rest[1:] // the comma or semicolon that the value ended at
	}
}

// rdn reads attributes joined by "+" up to a comma, a semicolon or the end.
func (p *dnParser) rdn() ([]byte, error) {
	var attributes [][]byte
	for {
		attribute, err := p.attribute()
		if err != nil {
			return nil, err
		}
		attributes = append(attributes, attribute)
		if p.rest == "" || p.rest[0] != '+' {
			break
		}
		p.rest = p.rest[1:]
	}
	slices.SortFunc(attributes, bytes.Compare) // DER orders the elements of a SET OF
	return wrap(cbasn1.SET, bytes.Join(attributes, nil)), nil
}

func (p *dnParser) attribute() ([]byte, error) {
	typeText, rest, found := strings.Cut(p.rest, "=")
	if !found {
		return nil, fmt.Errorf("%q has no equals sign", strings.TrimSpace(p.rest))
	}
	attributeType, err := attributeType(strings.TrimSpace(typeText))
	if err != nil {
		return nil, err
	}
	p.rest = strings.TrimLeft(rest, " ")
	value, err := p.value(attributeType)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", strings.TrimSpace(typeText), err)
	}
	return attribute(attributeType, value)
}

func attributeType(text string) (asn1.ObjectIdentifier, error) {
	if oid, known := attributeTypes[strings.ToUpper(text)]; known {
		return oid, nil
	}
	var oid asn1.ObjectIdentifier
	for arc := range strings.SplitSeq(strings.TrimPrefix(strings.ToUpper(text), "OID."), ".") {
		n, err := strconv.ParseUint(arc, 10, 31)
		if err != nil {
			return nil, fmt.Errorf("attribute type %q is not known", text)
		}
		oid = append(oid, int(n))
	}
	if _, err := attribute(oid, nil); err != nil {
		return nil, fmt.Errorf("attribute type %q is not an object identifier", text)
	}
	return oid, nil
}

// value reads one value and returns its DER.
func (p *dnParser) value(attributeType asn1.ObjectIdentifier) ([]byte, error) {
	var text string
	var err error
	switch {
	case strings.HasPrefix(p.rest, "#"):
		return p.hexValue()
	case strings.HasPrefix(p.rest, `"`):
		text, err = p.readQuoted()
	default:
		text, err = p.plain()
	}
	if err != nil {
		return nil, err
	}
	if text == "" {
		return nil, errors.New("value is empty")
	}
	if !utf8.ValidString(text) {
		return nil, errors.New("value is not UTF-8")
	}
	tag := stringTag(attributeType)
	if tag != cbasn1.UTF8String && strings.ContainsFunc(text, func(r rune) bool { return r > 0x7e || r < 0x20 }) {
		return nil, errors.New("value is not ASCII")
	}
	return wrap(tag, []byte(text)), nil
}

// hexValue reads "#" and the DER of the value in hexadecimal (RFC 4514, 2.4).
func (p *dnParser) hexValue() ([]byte, error) {
	end := strings.IndexAny(p.rest, ",;+")
	if end < 0 {
		end = len(p.rest)
	}
	der, err := hex.DecodeString(strings.TrimRight(p.rest[1:end], " "))
	if err != nil {
		return nil, errors.New("value after # is not hexadecimal")
	}
	s := cryptobyte.String(der)
	var element cryptobyte.String
	var tag cbasn1.Tag
	if checkDER(der, 0) != nil || !s.ReadAnyASN1Element(&element, &tag) || !s.Empty() {
		return nil, errors.New("value after # is not one DER value")
	}
	p.rest = p.rest[end:]
	return der, nil
}

// readQuoted reads a value in quotes (RFC 2253, 4).
func (p *dnParser) readQuoted() (string, error) {
	var text strings.Builder
	for i := 1; i < len(p.rest); i++ {
		switch c := p.rest[i]; c {
		case '"':
			p.rest = strings.TrimLeft(p.rest[i+1:], " ")
			if p.rest != "" && !strings.ContainsRune(",;+", rune(p.rest[0])) {
				return "", errors.New("value goes on after its closing quote")
			}
			return text.String(), nil
		case '\\':
			escaped, length, err := unescape(p.rest[i:])
			if err != nil {
				return "", err
			}
			text.WriteByte(escaped)
			i += length - 1
		default:
			text.WriteByte(c)
		}
	}
	return "", errors.New("value has no closing quote")
}

// plain reads a value with its special characters escaped (RFC 4514, 2.4), up to a separator.
func (p *dnParser) plain() (string, error) {
	var text []byte
	kept := 0 // length up to the last character that trimming may not take
	i := 0
	for ; i < len(p.rest) && !strings.ContainsRune(",;+", rune(p.rest[i])); i++ {
		c := p.rest[i]
		if c == '\\' {
			escaped, length, err := unescape(p.rest[i:])
			if err != nil {
				return "", err
			}
			text = append(text, escaped)
			i += length - 1
			kept = len(text)
			continue
		}
		if strings.ContainsRune("\"<>\x00", rune(c)) {
			return "", fmt.Errorf("character %q must be escaped", c)
		}
		if text = append(text, c); c != ' ' {
			kept = len(text)
		}
	}
	p.rest = p.rest[i:]
	return string(text[:kept]), nil
}

// unescape reads a backslash with a special character or two hexadecimal digits after it, and
// returns the byte and how much of s it took.
func unescape(s string) (byte, int, error) {
	if len(s) >= 2 && strings.ContainsRune(" \"#+,;<=>\\", rune(s[1])) {
		return s[1], 2, nil
	}
	if len(s) >= 3 {
		if value, err := hex.DecodeString(s[1:3]); err == nil {
			return value[0], 3, nil
		}
	}
	return 0, 0, errors.New("backslash is not followed by a special character or two hexadecimal digits")
}
