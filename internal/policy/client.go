package policy

import (
	"crypto/sha256"
	"crypto/x509"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Client is who asks, as it was authenticated: by a certificate, or by a service account's token.
// Where a client showed both, the certificate is the identity.
type Client struct {
	Certificate *x509.Certificate // nil: it has none
	Account     *ServiceAccount
}

// ServiceAccount is one of Kubernetes, from a token that was verified.
type ServiceAccount struct{ Namespace, Name string }

func (a ServiceAccount) String() string { return a.Namespace + "/" + a.Name }

// subject is a client as conditions and placeholders see it.
type subject struct {
	attributes  []attribute
	names       []generalName
	account     *ServiceAccount
	accountText string // namespace/name
	commonName  string // the only one; "" for none, several, or one that cannot be read
	spiffe      int    // SPIFFE ids
	answers     []answer
}

// answer is whether a condition holds, or a list of CAs fits, that several rules have.
type answer byte

const (
	unasked answer = iota
	yes
	no
)

const spiffeScheme = "spiffe:"

// newSubject reads a certificate. What cannot be read there fulfils no condition: of a subject or a
// list of names that is malformed nothing counts.
func newSubject(c Client) *subject {
	if c.Certificate == nil {
		s := &subject{account: c.Account}
		if s.account != nil {
			s.accountText = s.account.String()
		}
		return s
	}
	s := &subject{}
	if err := eachAttribute(c.Certificate.RawSubject, func(kind string, tag cbasn1.Tag, value []byte) error {
		text, _ := readText(tag, value) // a text that cannot be read is empty, which no pattern matches
		s.attributes = append(s.attributes, attribute{kind: kind, value: text})
		return nil
	}); err != nil {
		s.attributes = nil
	}
	if err := eachName(alternativeNames(c.Certificate), func(tag cbasn1.Tag, value []byte) error {
		if kind, known := kindOfName(tag); known && (kind != kindIP || len(value) == 4 || len(value) == 16) {
			s.names = append(s.names, newName(kind, value))
		}
		return nil
	}); err != nil {
		s.names = nil
	}
	s.commonName = s.only("commonName")
	for _, name := range s.names {
		if name.kind == kindURI && len(name.value) > len(spiffeScheme) &&
			strings.EqualFold(name.value[:len(spiffeScheme)], spiffeScheme) {
			s.spiffe++
		}
	}
	return s
}

// alternativeNames is the value of a certificate's extension, empty for none.
func alternativeNames(cert *x509.Certificate) cryptobyte.String {
	for _, e := range cert.Extensions {
		if e.Id.String() == extensionAltName {
			return e.Value
		}
	}
	return nil
}

// value is what a placeholder stands for; "" for nothing that can be used.
func (s *subject) value(name placeholder) string {
	switch {
	case name == commonNamePlaceholder:
		return s.commonName
	case s.account == nil:
		return ""
	case name == namespacePlaceholder:
		return s.account.Namespace
	}
	return s.account.Name
}

// only is the value of an attribute that the subject has once.
func (s *subject) only(kind string) (value string) {
	found := 0
	for i := range s.attributes {
		if s.attributes[i].kind == kind {
			found++
			value = s.attributes[i].value
		}
	}
	if found != 1 {
		return ""
	}
	return value
}

// clientCondition holds for a client for which each of its parts holds.
type clientCondition struct {
	attributes []attributeCondition
	san        *nameCondition
	account    *pattern
	text       string // the same for conditions that hold for the same clients
	shared     int    // from 1, for a condition that several rules have: its answer is remembered
}

type attributeCondition struct {
	kind string
	pattern
}

type nameCondition struct {
	names  namePatterns
	spiffe bool // it looks at SPIFFE ids, of which a certificate has one
}

func (c *clientCondition) holds(s *subject) bool {
	return s.remember(c.shared, func() bool { return c.isHeld(s) })
}

// remember asks a question once that several rules have, and each other one, with the number 0.
func (s *subject) remember(number int, question func() bool) bool {
	if number == 0 {
		return question()
	}
	known := &s.answers[number-1]
	if *known == unasked {
		if *known = no; question() {
			*known = yes
		}
	}
	return *known == yes
}

func (c *clientCondition) isHeld(s *subject) bool {
	if c.account != nil && (s.account == nil || !c.account.matches(s.accountText, nil)) {
		return false
	}
	for i := range c.attributes {
		if !c.attributes[i].holds(s) {
			return false
		}
	}
	return c.san == nil || c.san.holds(s)
}

// holds: a certificate with two common names is not clear about who it is for. Of other attributes
// one that fits is enough.
func (c *attributeCondition) holds(s *subject) bool {
	if c.kind == "commonName" {
		return s.commonName != "" && c.matches(s.commonName, nil)
	}
	for i := range s.attributes {
		if a := &s.attributes[i]; a.kind == c.kind && a.value != "" && c.matches(a.value, nil) {
			return true
		}
	}
	return false
}

func (c *nameCondition) holds(s *subject) bool {
	if c.spiffe && s.spiffe > 1 {
		return false
	}
	for i := range s.names {
		if c.names.match(&s.names[i], nil) {
			return true
		}
	}
	return false
}

// identity tells clients apart by whom they are, and not by a certificate, which is renewed.
type identity [sha256.Size]byte

func (c Client) identity() identity {
	h := sha256.New()
	if c.Certificate != nil {
		h.Write(c.Certificate.RawIssuer) // DER, which contains its length
		h.Write(c.Certificate.RawSubject)
		h.Write(alternativeNames(c.Certificate))
	} else if c.Account != nil {
		h.Write([]byte(c.Account.String()))
	}
	return identity(h.Sum(nil))
}
