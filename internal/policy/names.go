package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// nameKind is a kind of subject alternative name that rules can allow.
type nameKind string

const (
	kindDNS   nameKind = "DNS name"
	kindEmail nameKind = "e-mail address"
	kindURI   nameKind = "URI"
	kindIP    nameKind = "IP address"
)

// generalNames are the kinds of GeneralName by their tags (RFC 5280, 4.2.1.6).
var (
	generalNames = map[uint8]nameKind{1: kindEmail, 2: kindDNS, 6: kindURI, 7: kindIP}
	refusedNames = map[uint8]string{0: "otherName", 3: "x400Address", 4: "directoryName", 5: "ediPartyName",
		8: "registeredID"}
)

// tagNumber masks the number of a context-specific tag, of which GeneralNames have low ones.
const tagNumber = 0x1f

// kindOfName: all kinds that are known are primitive.
func kindOfName(tag cbasn1.Tag) (kind nameKind, known bool) {
	number := uint8(tag) & tagNumber
	if tag != cbasn1.Tag(number).ContextSpecific() {
		return "", false
	}
	kind, known = generalNames[number]
	return kind, known
}

// readNames reads every GeneralName of a SubjectAltName.
func readNames(der []byte) (names []generalName, err error) {
	err = eachName(der, func(tag cbasn1.Tag, value []byte) error {
		kind, known := kindOfName(tag)
		switch {
		case !known:
			name, named := refusedNames[uint8(tag)&tagNumber]
			if !named {
				name = fmt.Sprintf("one with the tag %#x", uint8(tag))
			}
			return refuse("asks for a subject alternative name of a kind that is not issued here: %s", name)
		case kind == kindIP && len(value) != 4 && len(value) != 16:
			return refuse("asks for an IP address of %d bytes, want 4 or 16", len(value))
		case kind != kindIP && len(value) == 0:
			return refuse("asks for a %s that is empty", kind)
		case kind != kindIP && slices.ContainsFunc(value, func(b byte) bool { return b < ' ' || b == 0x7f }):
			return refuse("asks for the %s %q, which holds control characters", kind, shorten(string(value)))
		}
		names = append(names, newName(kind, value))
		return nil
	})
	return names, err
}

// eachName passes on the GeneralNames of a SubjectAltName.
func eachName(der []byte, take func(tag cbasn1.Tag, value []byte) error) error {
	var list cryptobyte.String
	s := cryptobyte.String(der)
	if !s.ReadASN1(&list, cbasn1.SEQUENCE) || !s.Empty() {
		return refuse("asks for subject alternative names that cannot be read")
	}
	for !list.Empty() {
		var value cryptobyte.String
		var tag cbasn1.Tag
		if !list.ReadAnyASN1(&value, &tag) {
			return refuse("asks for subject alternative names that cannot be read")
		}
		if err := take(tag, value); err != nil {
			return err
		}
	}
	return nil
}

func newName(kind nameKind, value []byte) generalName {
	n := generalName{kind: kind, value: string(value)}
	n.wildcard = kind == kindDNS && strings.Contains(n.value, "*")
	switch kind {
	case kindIP:
		address, _ := netip.AddrFromSlice(value)
		n.ip, n.value = address.Unmap(), address.String()
	case kindDNS:
		n.form, n.fault = dnsForm(n.value)
	case kindEmail:
		n.form, n.fault = emailForm(n.value)
	case kindURI:
		n.form, n.fault = uriForm(n.value)
	}
	if n.fault != "" {
		n.form = ""
	}
	return n
}

func (n generalName) String() string { return fmt.Sprintf("%s %q", n.kind, shorten(n.value)) }

// dnsForm returns a DNS name in lower case, and what is wrong with it. A label * is right here:
// who may have that is another question.
func dnsForm(name string) (form, fault string) {
	switch {
	case strings.ContainsFunc(name, func(r rune) bool { return r > '~' }):
		return "", "is not ASCII, want its A-label (xn--…)"
	case strings.HasSuffix(name, "."):
		return "", "ends in a dot"
	case len(name) > 253:
		return "", "has more than 253 characters"
	}
	rest, _ := strings.CutPrefix(name, "*.")
	for label := range strings.SplitSeq(rest, ".") {
		if label == "" || len(label) > 63 || !consistsOf(label, func(c byte) bool { return isLabel(c) || c == '_' }) {
			return "", "is not a host name: want labels of letters, digits and hyphens"
		}
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return "", "is an IP address, want it as one"
	}
	return strings.ToLower(name), ""
}

// emailForm returns an address with its domain in lower case.
func emailForm(address string) (form, fault string) {
	local, domain, ok := strings.Cut(address, "@")
	if !ok || local == "" || !consistsOf(local, isAtext) {
		return "", "is not of the form local@domain, with nothing quoted"
	}
	if domain, fault = dnsForm(domain); fault != "" {
		return "", "has a domain that " + fault
	}
	if strings.Contains(domain, "*") {
		return "", "has a domain with *"
	}
	return local + "@" + domain, ""
}

// uriForm returns a URI (RFC 3986) with its scheme and host in lower case.
func uriForm(uri string) (form, fault string) {
	p, fault := splitURI(uri)
	if fault != "" {
		return "", fault
	}
	p.scheme, p.authority = strings.ToLower(p.scheme), strings.ToLower(p.authority)
	return p.String(), ""
}

// uriParts are those of a URI that compare in different ways.
type uriParts struct {
	scheme       string
	hasAuthority bool
	authority    string
	rest         string // path, query and fragment
}

func (p uriParts) String() string {
	if p.hasAuthority {
		return p.scheme + "://" + p.authority + p.rest
	}
	return p.scheme + ":" + p.rest
}

// cutURI takes a URI or a pattern of URIs apart.
func cutURI(uri string) (p uriParts, ok bool) {
	p.scheme, p.rest, ok = strings.Cut(uri, ":")
	if !ok {
		return p, false
	}
	if after, found := strings.CutPrefix(p.rest, "//"); found {
		p.hasAuthority, p.authority, p.rest = true, after, ""
		if i := strings.IndexAny(after, "/?#"); i >= 0 {
			p.authority, p.rest = after[:i], after[i:]
		}
	}
	return p, true
}

// splitURI takes a URI apart, and says what in it other programs read in different ways.
func splitURI(uri string) (p uriParts, fault string) {
	p, ok := cutURI(uri)
	scheme := func(c byte) bool { return isAlphanumeric(c) || c == '+' || c == '-' || c == '.' }
	switch {
	case !ok || p.scheme == "" || !isLetter(p.scheme[0]) || !consistsOf(p.scheme, scheme):
		return p, "is no URI: want scheme:…"
	case !consistsOf(uri, isURICharacter):
		return p, "has characters that a URI cannot have, want them percent-encoded"
	case strings.Contains(p.authority, "@"):
		return p, "has user information before its host"
	case strings.Contains(p.authority, "%"):
		return p, "has a host with % (an IPv6 zone, or an encoded character)"
	case p.hasAuthority && strings.HasSuffix(hostOf(p.authority), "."):
		return p, "has a host that ends in a dot"
	case strings.Contains(p.rest, "%"):
		if fault := faultInEncoding(p.rest); fault != "" {
			return p, fault
		}
	}
	path, _, _ := strings.Cut(p.rest, "?")
	path, _, _ = strings.Cut(path, "#")
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "." || segment == ".." {
			return p, "has a path with the segment " + segment
		}
	}
	return p, ""
}

// hostOf is an authority without its port.
func hostOf(authority string) string {
	if i := strings.LastIndexByte(authority, ':'); i >= 0 && !strings.HasSuffix(authority, "]") {
		return authority[:i]
	}
	return authority
}

// faultInEncoding: an encoded unreserved character is another spelling of the plain one (RFC 3986,
// 6.2.2.2), and patterns compare spellings.
func faultInEncoding(text string) string {
	for i := 0; i < len(text); i++ {
		if text[i] != '%' {
			continue
		}
		if i+2 >= len(text) {
			return "has a % without two hexadecimal digits"
		}
		high, okHigh := hexDigit(text[i+1])
		low, okLow := hexDigit(text[i+2])
		switch c := high<<4 | low; {
		case !okHigh || !okLow:
			return "has a % without two hexadecimal digits"
		case isUnreserved(c):
			return fmt.Sprintf("has the character %q percent-encoded, want it plain", c)
		case c < ' ' || c == 0x7f:
			return "has a control character percent-encoded"
		}
	}
	return ""
}

func hexDigit(c byte) (value byte, ok bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

func isLetter(c byte) bool       { return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' }
func isAlphanumeric(c byte) bool { return isLetter(c) || '0' <= c && c <= '9' }
func isLabel(c byte) bool        { return isAlphanumeric(c) || c == '-' }

// isUnreserved: RFC 3986, 2.3.
func isUnreserved(c byte) bool {
	return isLabel(c) || c == '.' || c == '_' || c == '~'
}

// isURICharacter: unreserved or reserved (RFC 3986, 2), or the sign of an encoded one.
func isURICharacter(c byte) bool {
	return isUnreserved(c) || strings.IndexByte(":/?#[]@!$&'()*+,;=%", c) >= 0
}

// isAtext: RFC 5322, 3.2.3, and the dot.
func isAtext(c byte) bool {
	return isAlphanumeric(c) || strings.IndexByte(".!#$%&'*+-/=?^_`{|}~", c) >= 0
}

func consistsOf(text string, class func(byte) bool) bool {
	for i := range len(text) {
		if !class(text[i]) {
			return false
		}
	}
	return true
}

// isLabelText: one label of RFC 1123.
func isLabelText(text string) bool {
	return text != "" && len(text) <= 63 && consistsOf(text, isLabel) && text[0] != '-' && text[len(text)-1] != '-'
}
