package pki

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// maxComparisons bounds how many pairs of a name and a constraint are compared for one
// verification, as OpenSSL does.
const maxComparisons = 1 << 20

// kind is a kind of GeneralName (RFC 5280, section 4.2.1.6).
// Of otherName, each type is a kind of its own.
type kind struct {
	tag  int
	oid  string // of otherName
	text string // for people
}

const (
	tagOther     = 0
	tagEmail     = 1
	tagDNS       = 2
	tagX400      = 3
	tagDirectory = 4
	tagEDI       = 5
	tagURI       = 6
	tagIP        = 7
	tagID        = 8
)

var kindTexts = map[int]string{
	tagEmail: "rfc822Name", tagDNS: "dNSName", tagX400: "x400Address", tagDirectory: "directoryName",
	tagEDI: "ediPartyName", tagURI: "uniformResourceIdentifier", tagIP: "iPAddress", tagID: "registeredID",
}

// oidSMTPUTF8Mailbox is the type of an otherName on which
// rfc822Name constraints are (RFC 9598, section 6).
const oidSMTPUTF8Mailbox = "1.3.6.1.5.5.7.8.9"

// name is a name of a certificate that crypto/x509 does not check.
type name struct {
	kind
	rdns []string // of a directoryName, each RDN in a form that compares
	der  []byte   // of a directoryName, for people
	bad  bool     // a directoryName that cannot be read
	mail string   // of an rfc822Name
}

// subtree is one constraint.
type subtree struct {
	name
	limited bool // it has a minimum or a maximum, which RFC 5280 does not allow
}

type constraints struct {
	critical            bool
	permitted, excluded []subtree
	unreadable          bool
}

// checker applies constraints, and reads each certificate once.
type checker struct {
	names       map[*x509.Certificate][]name
	constraints map[*x509.Certificate]*constraints
	left        int // comparisons
}

func newChecker() *checker {
	return &checker{map[*x509.Certificate][]name{}, map[*x509.Certificate]*constraints{}, maxComparisons}
}

// check says which constraint of one of its authorities a path violates, "" when none.
func (c *checker) check(chain []*x509.Certificate) string {
	for i, authority := range chain[1:] {
		limits := c.constraintsOf(authority)
		if limits.unreadable {
			return fmt.Sprintf("the name constraints of %q cannot be read", shownName(authority.RawSubject))
		}
		if len(limits.permitted) == 0 && len(limits.excluded) == 0 {
			continue
		}
		for at, cert := range chain[:i+1] {
			if at > 0 && bytes.Equal(cert.RawSubject, cert.RawIssuer) {
				continue // self-issued: RFC 5280, section 6.1.3 (b)
			}
			if fault := c.apply(limits, cert); fault != "" {
				return fmt.Sprintf("the CA certificate %q %s", shownName(authority.RawSubject), fault)
			}
		}
	}
	return ""
}

func (c *checker) apply(limits *constraints, cert *x509.Certificate) string {
	for _, n := range c.namesOf(cert) {
		if c.left -= len(limits.permitted) + len(limits.excluded); c.left < 0 {
			return fmt.Sprintf("has too many name constraints for the names below it, want at most %d comparisons",
				maxComparisons)
		}
		if fault := limits.allow(n); fault != "" {
			return fmt.Sprintf("%s: see the certificate %q below it", fault, shownName(cert.RawSubject))
		}
	}
	return ""
}

// allow says why a name is not allowed: as a clause about
// the CA, on whose constraint of which kind it is.
func (l *constraints) allow(n name) string {
	if fault := l.beyond(n); fault != "" {
		return fault
	}
	var what string
	var covers func(subtree) bool
	switch n.tag {
	case tagDirectory:
		what, covers = fmt.Sprintf("the directory name %q", shownName(n.der)),
			func(s subtree) bool { return within(n.rdns, s.rdns) }
	case tagEmail:
		what, covers = fmt.Sprintf("the e-mail address %q", OneLine(n.mail, 256)),
			func(s subtree) bool { return mailWithin(n.mail, s.mail) }
	default:
		return ""
	}
	sameKind := func(s subtree) bool { return s.tag == n.tag }
	coversIt := func(s subtree) bool { return sameKind(s) && covers(s) }
	switch {
	case slices.ContainsFunc(l.excluded, coversIt):
		return "excludes " + what
	case slices.ContainsFunc(l.permitted, sameKind) && !slices.ContainsFunc(l.permitted, coversIt):
		return "does not permit " + what
	}
	return ""
}

// mailWithin tells whether an address is what a constraint names: an address, a host, or the hosts
// below a domain that begins with a dot (RFC 5280, section 4.2.1.10).
func mailWithin(mail, base string) bool {
	at := strings.LastIndexByte(mail, '@')
	local, host := mail[:max(at, 0)], mail[at+1:]
	if baseLocal, baseHost, address := strings.Cut(base, "@"); address {
		return local == baseLocal && strings.EqualFold(host, baseHost)
	}
	if strings.HasPrefix(base, ".") {
		return len(host) > len(base) && strings.EqualFold(host[len(host)-len(base):], base)
	}
	return base == "" || strings.EqualFold(host, base)
}

// beyond says why a name cannot be compared with the constraints of its kind. Of those that are
// not understood, one that is not critical may be passed over (RFC 5280, section 4.2).
func (l *constraints) beyond(n name) string {
	for _, list := range [][]subtree{l.excluded, l.permitted} {
		for _, s := range list {
			switch {
			case !s.applies(n.kind) || n.tag == tagEmail && s.tag == tagEmail:
			case s.tag != tagDirectory && l.critical:
				return fmt.Sprintf("has a critical name constraint of the kind %s, which is not supported", s.text)
			case s.tag != tagDirectory:
			case s.bad || s.limited:
				return "has a name constraint of the kind directoryName that cannot be read or has a minimum or maximum"
			case n.bad:
				return "has a name constraint of the kind directoryName, for a name that cannot be read"
			}
		}
	}
	return ""
}

func (s subtree) applies(k kind) bool {
	return s.tag == k.tag && s.oid == k.oid || s.tag == tagEmail && k.oid == oidSMTPUTF8Mailbox
}

// within tells whether a name is in the subtree of another:
// that is how it begins (RFC 5280, section 7.1).
func within(name, base []string) bool {
	return len(base) <= len(name) && slices.Equal(name[:len(base)], base)
}

func (c *checker) constraintsOf(cert *x509.Certificate) *constraints {
	if known, ok := c.constraints[cert]; ok {
		return known
	}
	read := &constraints{}
	for _, e := range cert.Extensions {
		if e.Id.Equal(oidNameConstraints) {
			read = parseConstraints(e)
		}
	}
	c.constraints[cert] = read
	return read
}

// parseConstraints reads NameConstraints (RFC 5280, section 4.2.1.10).
func parseConstraints(e pkix.Extension) *constraints {
	c := &constraints{critical: e.Critical}
	s := cryptobyte.String(e.Value)
	var body, permitted, excluded cryptobyte.String
	tag := func(n uint8) cbasn1.Tag { return cbasn1.Tag(n).ContextSpecific().Constructed() }
	c.unreadable = !s.ReadASN1(&body, cbasn1.SEQUENCE) || !s.Empty() ||
		!body.ReadOptionalASN1(&permitted, nil, tag(0)) || !body.ReadOptionalASN1(&excluded, nil, tag(1)) ||
		!body.Empty() ||
		!parseSubtrees(permitted, &c.permitted) || !parseSubtrees(excluded, &c.excluded)
	return c
}

func parseSubtrees(s cryptobyte.String, list *[]subtree) bool {
	for !s.Empty() {
		var body cryptobyte.String
		var t subtree
		if !s.ReadASN1(&body, cbasn1.SEQUENCE) || !parseConstraintName(&body, &t.name) {
			return false
		}
		var minimum int64
		zero := cbasn1.Tag(0).ContextSpecific()
		if body.PeekASN1Tag(zero) {
			t.limited = !body.ReadASN1Int64WithTag(&minimum, zero) || minimum != 0
		}
		t.limited = t.limited || !body.Empty()
		*list = append(*list, t)
	}
	return true
}

// parseConstraintName reads a GeneralName; of kinds that crypto/x509 checks only the kind.
func parseConstraintName(s *cryptobyte.String, n *name) bool {
	var value cryptobyte.String
	var tag cbasn1.Tag
	if !s.ReadAnyASN1(&value, &tag) || tag&0xc0 != 0x80 {
		return false
	}
	n.tag = int(tag & 0x1f)
	switch n.tag {
	case tagOther:
		var oid asn1.ObjectIdentifier
		if !value.ReadASN1ObjectIdentifier(&oid) {
			return false
		}
		n.oid, n.text = oid.String(), "otherName "+oid.String()
		if n.oid == oidSMTPUTF8Mailbox {
			n.setMailbox(value)
		}
		return true
	case tagDirectory:
		n.setDirectory(value)
	case tagEmail:
		n.mail = string(value)
	}
	if n.text = kindTexts[n.tag]; n.text == "" {
		n.text = fmt.Sprintf("[%d]", n.tag)
	}
	return true
}

// setMailbox makes an address of a mailbox whose host is ASCII. Of another host, how a constraint
// names it is not understood here, so that it stays an otherName.
func (n *name) setMailbox(value cryptobyte.String) {
	var inner, mail cryptobyte.String
	if !value.ReadASN1(&inner, cbasn1.Tag(0).ContextSpecific().Constructed()) ||
		!inner.ReadASN1(&mail, cbasn1.UTF8String) {
		return
	}
	host := mail[bytes.LastIndexByte(mail, '@')+1:]
	if !slices.ContainsFunc(host, func(b byte) bool { return b >= 0x80 }) {
		*n = name{kind: kind{tag: tagEmail, text: kindTexts[tagEmail]}, mail: string(mail)}
	}
}

func (n *name) setDirectory(der []byte) {
	n.kind = kind{tag: tagDirectory, text: kindTexts[tagDirectory]}
	n.der = der
	var ok bool
	n.rdns, ok = RDNs(der)
	n.bad = !ok
}

// namesOf are the names of a certificate that are to be checked here: its subject and the e-mail
// addresses in it, and the alternative names of kinds that crypto/x509 passes over.
func (c *checker) namesOf(cert *x509.Certificate) []name {
	if known, ok := c.names[cert]; ok {
		return known
	}
	var list []name
	if !bytes.Equal(cert.RawSubject, []byte{0x30, 0}) {
		var subject name
		subject.setDirectory(cert.RawSubject)
		list = append(list, subject)
	}
	for _, attribute := range cert.Subject.Names {
		if mail, ok := attribute.Value.(string); ok && attribute.Type.Equal(oidEmailAddress) {
			list = append(list, name{kind: kind{tag: tagEmail, text: kindTexts[tagEmail]}, mail: mail})
		}
	}
	for _, e := range cert.Extensions {
		if e.Id.Equal(oidSubjectAltName) {
			list = append(list, parseAlternativeNames(e.Value)...)
		}
	}
	c.names[cert] = list
	return list
}

var (
	oidSubjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidEmailAddress   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}
)

// parseAlternativeNames stops at what cannot be read, which then is a name that no constraint on
// directory names allows.
func parseAlternativeNames(der []byte) []name {
	s := cryptobyte.String(der)
	var body cryptobyte.String
	ok := s.ReadASN1(&body, cbasn1.SEQUENCE) && s.Empty()
	var list []name
	for ok && !body.Empty() {
		var n name
		mailbox := body.PeekASN1Tag(cbasn1.Tag(tagOther).ContextSpecific().Constructed())
		if ok = parseConstraintName(&body, &n); ok &&
			(mailbox || !slices.Contains([]int{tagEmail, tagDNS, tagURI, tagIP}, n.tag)) {
			list = append(list, n)
		}
	}
	if !ok {
		list = append(list, name{kind: kind{tag: tagDirectory, text: kindTexts[tagDirectory]}, bad: true})
	}
	return list
}
