package certservice

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// attributeTypes are the short names of RFC 4514 section 3 and those that the ONAP server's library
// takes beyond them.
var attributeTypes = map[string]asn1.ObjectIdentifier{
	"CN":                     {2, 5, 4, 3},
	"SURNAME":                {2, 5, 4, 4},
	"SERIALNUMBER":           {2, 5, 4, 5},
	"C":                      {2, 5, 4, 6},
	"L":                      {2, 5, 4, 7},
	"ST":                     {2, 5, 4, 8},
	"STREET":                 {2, 5, 4, 9},
	"O":                      {2, 5, 4, 10},
	"OU":                     {2, 5, 4, 11},
	"T":                      {2, 5, 4, 12},
	"GIVENNAME":              {2, 5, 4, 42},
	"INITIALS":               {2, 5, 4, 43},
	"GENERATION":             {2, 5, 4, 44},
	"DN":                     {2, 5, 4, 46},
	"PSEUDONYM":              {2, 5, 4, 65},
	"ORGANIZATIONIDENTIFIER": {2, 5, 4, 97},
	"UID":                    {0, 9, 2342, 19200300, 100, 1, 1},
	"DC":                     oidDomainComponent,
	"E":                      oidEmailAddress,
	"EMAILADDRESS":           oidEmailAddress,
}

var (
	oidDomainComponent = asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 25}
	oidEmailAddress    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}
)

// parseDN reads a distinguished name as RFC 4514 writes them, and the quoted values of RFC 2253. The
// RDNs keep the order in which they are written, as the ONAP server keeps it; RFC 4514 would turn it
// round, but configuration files in the field have either.
func parseDN(text string) (pkix.RDNSequence, error) {
	var name pkix.RDNSequence
	rest := text
	for {
		var rdn pkix.RelativeDistinguishedNameSET
		for {
			attribute, after, err := parseAttribute(rest)
			if err != nil {
				return nil, err
			}
			rdn = append(rdn, attribute)
			rest = after
			if !strings.HasPrefix(rest, "+") {
				break
			}
			rest = rest[1:]
		}
		name = append(name, rdn)
		if rest == "" {
			return name, nil
		}
		rest = rest[1:] // the comma: parseAttribute stops only at "+", "," and the end
	}
}

// parseAttribute reads one "type=value" and returns what follows it, beginning with "+" or ",".
func parseAttribute(text string) (pkix.AttributeTypeAndValue, string, error) {
	var none pkix.AttributeTypeAndValue
	keyword, rest, found := strings.Cut(text, "=")
	keyword = strings.TrimSpace(keyword)
	if !found || keyword == "" {
		return none, "", fmt.Errorf("has %q where an attribute such as \"CN=name\" is expected", strings.TrimSpace(text))
	}
	oid, err := parseAttributeType(keyword)
	if err != nil {
		return none, "", err
	}
	rest = strings.TrimLeft(rest, " ")
	var value any
	switch {
	case strings.HasPrefix(rest, "#"):
		value, rest, err = parseHexValue(rest[1:])
	case strings.HasPrefix(rest, `"`):
		value, rest, err = parseQuotedValue(rest[1:])
	default:
		value, rest, err = parseStringValue(rest)
	}
	if err != nil {
		return none, "", fmt.Errorf("has a value of %s that %w", keyword, err)
	}
	if s, ok := value.(string); ok && (oid.Equal(oidDomainComponent) || oid.Equal(oidEmailAddress)) {
		value = asn1.RawValue{Tag: asn1.TagIA5String, Bytes: []byte(s)} // RFC 4519 section 2.4, RFC 5280 appendix A.1
	}
	return pkix.AttributeTypeAndValue{Type: oid, Value: value}, rest, nil
}

func parseAttributeType(keyword string) (asn1.ObjectIdentifier, error) {
	upper := strings.ToUpper(keyword)
	if oid, ok := attributeTypes[upper]; ok {
		return oid, nil
	}
	arcs := strings.Split(strings.TrimPrefix(upper, "OID."), ".")
	oid := make(asn1.ObjectIdentifier, len(arcs))
	for i, arc := range arcs {
		n, err := strconv.ParseInt(arc, 10, 31)
		if err != nil || n < 0 {
			return nil, fmt.Errorf("has the unknown attribute type %q (any type can be written as a dotted OID)", keyword)
		}
		oid[i] = int(n)
	}
	if _, err := asn1.Marshal(oid); err != nil {
		return nil, fmt.Errorf("has the attribute type %q, which is not an OID", keyword)
	}
	return oid, nil
}

var errNotEnded = errors.New(`is followed by neither "," nor "+" nor the end`)

// parseHexValue reads the hexadecimal digits of a DER value, after the "#".
func parseHexValue(text string) (any, string, error) {
	end := strings.IndexAny(text, ",+")
	if end < 0 {
		end = len(text)
	}
	der, err := hex.DecodeString(strings.TrimRight(text[:end], " "))
	if err != nil {
		return nil, "", errors.New("is not hexadecimal after the \"#\"")
	}
	var value asn1.RawValue
	if rest, err := asn1.Unmarshal(der, &value); err != nil || len(rest) > 0 {
		return nil, "", errors.New("is not DER after the \"#\"")
	}
	return value, text[end:], nil
}

// parseQuotedValue reads to the closing quote, after the opening one.
func parseQuotedValue(text string) (any, string, error) {
	var b strings.Builder
	for i := 0; i < len(text); {
		switch text[i] {
		case '"':
			rest := strings.TrimLeft(text[i+1:], " ")
			if rest != "" && rest[0] != ',' && rest[0] != '+' {
				return nil, "", errNotEnded
			}
			value, err := nonEmpty(b.String())
			return value, rest, err
		case '\\':
			c, n, err := unescape(text[i:])
			if err != nil {
				return nil, "", err
			}
			b.WriteByte(c)
			i += n
		default:
			b.WriteByte(text[i])
			i++
		}
	}
	return nil, "", errors.New("has no closing quote")
}

// parseStringValue reads to an unescaped "," or "+".
func parseStringValue(text string) (any, string, error) {
	var b strings.Builder
	kept := 0 // length up to the last character that is not an unescaped, so trailing, space
	i := 0
scan:
	for i < len(text) {
		switch c := text[i]; c {
		case ',', '+':
			break scan
		case '"', ';', '<', '>', 0:
			return nil, "", fmt.Errorf("has %q, which must be escaped with a backslash", c)
		case '\\':
			c, n, err := unescape(text[i:])
			if err != nil {
				return nil, "", err
			}
			b.WriteByte(c)
			i += n
			kept = b.Len()
		default:
			b.WriteByte(c)
			i++
			if c != ' ' {
				kept = b.Len()
			}
		}
	}
	value, err := nonEmpty(b.String()[:kept])
	return value, text[i:], err
}

// unescape reads a backslash and the special character or the two hexadecimal digits that follow it.
func unescape(text string) (c byte, length int, err error) {
	if len(text) >= 2 && strings.IndexByte(` "#+,;<=>\`, text[1]) >= 0 {
		return text[1], 2, nil
	}
	if len(text) >= 3 {
		if b, err := hex.DecodeString(text[1:3]); err == nil {
			return b[0], 3, nil
		}
	}
	return 0, 0, errors.New("has a backslash before something that needs none")
}

// nonEmpty refuses what no attribute of a CA's name can be.
func nonEmpty(value string) (any, error) {
	switch {
	case value == "":
		return nil, errors.New("is empty")
	case !utf8.ValidString(value):
		return nil, errors.New("is not UTF-8")
	default:
		return value, nil
	}
}
