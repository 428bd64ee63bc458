package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// allowance is what a rule allows its clients to ask for.
type allowance struct {
	commonName []pattern
	names      namePatterns
	wildcards  []string             // in lower case
	subject    map[string][]pattern // by the kind of attribute
	keys       []keyPattern
	usages     []string
}

// namePatterns are those of each kind of subject alternative name.
type namePatterns struct {
	dns, uri, email []pattern
	ip              []netip.Prefix
}

func (p *namePatterns) match(n *generalName, who *subject) bool {
	if n.fault != "" {
		return false
	}
	switch n.kind {
	case kindDNS:
		return matchesAny(p.dns, n.form, who)
	case kindURI:
		return matchesAny(p.uri, n.form, who)
	case kindEmail:
		return matchesAny(p.email, n.form, who)
	}
	for i := range p.ip {
		if p.ip[i].Contains(n.ip) {
			return true
		}
	}
	return false
}

// keyPattern is a kind of key, with the sizes of RSA keys in bits.
type keyPattern struct {
	name        string
	least, most int
}

// defaultKeys and defaultUsages count where a rule has none.
var (
	defaultKeys = []keyPattern{{"RSA", 2048, 4096}, {name: "ECDSA-P256"}, {name: "ECDSA-P384"}, {name: "ECDSA-P521"},
		{name: "Ed25519"}}
	defaultUsages = []string{"digitalSignature", "nonRepudiation", "keyEncipherment", "keyAgreement", "serverAuth",
		"clientAuth"}
)

func (p keyPattern) matches(k keyKind) bool {
	return p.name == k.name && p.least <= k.bits && k.bits <= p.most
}

// allows says whether all that is asked for is allowed.
func (a *allowance) allows(asked *Asked, who *subject) bool {
	_, count := a.refuses(asked, who, 1)
	return count == 0
}

// refusal is a part of a request that is not allowed.
type refusal struct {
	what, value string
	fault       string // why no rule can allow it; "": this one does not
}

func (r refusal) String() string {
	text := r.what
	if r.value != "" {
		text += fmt.Sprintf(" %q", shorten(r.value))
	}
	if r.fault != "" {
		return text + " " + r.fault
	}
	return text + " is not allowed"
}

// refuses returns the first part that is not allowed, names before others, and how many there are;
// it stops counting at enough.
func (a *allowance) refuses(asked *Asked, who *subject, enough int) (first refusal, count int) {
	refused := func(what, value, fault string) (done bool) {
		if count++; count == 1 {
			first = refusal{what, value, fault}
		}
		return count == enough
	}
	for i := range asked.names {
		n := &asked.names[i]
		if !a.allowsName(n, who) && refused(string(n.kind), n.value, n.fault) {
			return first, count
		}
	}
	for i := range asked.attributes {
		at := &asked.attributes[i]
		if !a.allowsAttribute(at, who) && refused(at.kind, at.value, "") {
			return first, count
		}
	}
	if !a.allowsKey(asked.key) && refused("key", asked.key.text, "") {
		return first, count
	}
	for _, usage := range asked.usages {
		if !slices.Contains(a.usages, usage) && refused("usage", usage, "") {
			return first, count
		}
	}
	for _, other := range asked.others {
		if refused(other.what, other.value, other.fault) {
			return first, count
		}
	}
	return first, count
}

func (a *allowance) allowsKey(key keyKind) bool {
	for i := range a.keys {
		if a.keys[i].matches(key) {
			return true
		}
	}
	return false
}

func (a *allowance) allowsName(n *generalName, who *subject) bool {
	if n.wildcard {
		return n.fault == "" && slices.Contains(a.wildcards, n.form)
	}
	return a.names.match(n, who)
}

func (a *allowance) allowsAttribute(at *attribute, who *subject) bool {
	switch {
	case at.kind != "commonName":
		return matchesAny(a.subject[at.kind], at.value, who)
	case at.named:
		return true
	case strings.Contains(at.value, "*"):
		return slices.Contains(a.wildcards, lowerASCII(at.value))
	}
	return matchesAny(a.commonName, at.value, who)
}

// lowerASCII leaves other letters alone: of some the lower case is an ASCII letter.
func lowerASCII(text string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, text)
}
