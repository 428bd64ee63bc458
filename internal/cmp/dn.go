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
)

// dnParser reads the string form of a distinguished name (RFC 4514, 3), with the spaces, semicolons
// and quoted values of RFC 2253, 4 allowed as well.
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
	return encode(func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(attributeType)
			b.AddBytes(value)
		})
	})
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
	if _, err := encode(func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oid) }); err != nil {
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
		text, err = p.quoted()
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

// quoted reads a value in quotes (RFC 2253, 4).
func (p *dnParser) quoted() (string, error) {
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
