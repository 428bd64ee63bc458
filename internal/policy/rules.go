package policy

import (
	"crypto/x509"
	"errors"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/certfetcher/certfetcher/internal/pki"
)

// policy reads the root of a policy file; what follows reads the keys below it.
func (r *reader) policy(n *yaml.Node) *Policy {
	p := &Policy{}
	names := map[string]bool{}
	seen := r.mapping(n, "",
		field{"mode", func(v *yaml.Node, place string) {
			mode, ok := r.text(v, place)
			if ok && mode != "warn" && mode != "enforce" {
				r.add(v, place, "is %q, want enforce (which is the default) or warn", shorten(mode))
			}
			p.WarnOnly = mode == "warn"
		}},
		field{"rules", func(v *yaml.Node, place string) {
			r.filled(v, place, func(v *yaml.Node, place string) {
				rule := r.rule(v, place)
				if rule.Name != "" && names[rule.Name] {
					r.add(v, place, "has the name %q, which an earlier rule has", rule.Name)
				}
				names[rule.Name] = true
				p.Rules = append(p.Rules, rule)
			})
		}})
	r.require(n, "", seen, "rules")
	return p
}

func (r *reader) rule(n *yaml.Node, place string) *Rule {
	rule := &Rule{}
	rule.allow.keys, rule.allow.usages = defaultKeys, defaultUsages
	seen := r.mapping(n, place,
		field{"name", func(v *yaml.Node, place string) {
			name, ok := r.text(v, place)
			switch {
			case ok && name == "":
				r.add(v, place, "is empty, want a name for logs and metrics")
			case len(name) > 64:
				r.add(v, place, "has more than 64 bytes")
			}
			rule.Name = name
		}},
		field{"clients", func(v *yaml.Node, place string) {
			r.filled(v, place, func(v *yaml.Node, place string) {
				rule.clients = append(rule.clients, r.client(v, place))
			})
		}},
		field{"cas", func(v *yaml.Node, place string) {
			r.filled(v, place, func(v *yaml.Node, place string) {
				r.pattern(v, place, &rule.cas, func(text string, _ bool) (pattern, error) { return compileCA(text) })
			})
		}},
		field{"operations", func(v *yaml.Node, place string) {
			r.filled(v, place, func(v *yaml.Node, place string) {
				name, ok := r.text(v, place)
				if ok && !slices.Contains(operations, Operation(name)) {
					r.add(v, place, "is %q, want one of %s", shorten(name), joinTexts(operations))
				}
				rule.operations |= setOf(Operation(name))
			})
		}},
		field{"allow", func(v *yaml.Node, place string) { r.allowance(v, place, &rule.allow) }},
		field{"rate", func(v *yaml.Node, place string) {
			seen := r.mapping(v, place,
				field{"perMinute", func(v *yaml.Node, place string) { r.number(v, place, &rule.rate.PerMinute) }},
				field{"burst", func(v *yaml.Node, place string) { r.number(v, place, &rule.rate.Burst) }})
			r.require(v, place, seen, "perMinute", "burst")
		}})
	r.require(n, place, seen, "name", "clients", "cas", "operations")
	return rule
}

func joinTexts[T ~string](list []T) string {
	var text strings.Builder
	for i, element := range list {
		if i > 0 {
			text.WriteString(", ")
		}
		text.WriteString(string(element))
	}
	return text.String()
}

// pattern reads a pattern and adds it to a list.
func (r *reader) pattern(n *yaml.Node, place string, to *[]pattern,
	compile func(text string, ofClient bool) (pattern, error)) {
	r.patternOf(n, place, to, compile, false)
}

func (r *reader) patternOf(n *yaml.Node, place string, to *[]pattern,
	compile func(text string, ofClient bool) (pattern, error), ofClient bool) {
	text, ok := r.text(n, place)
	if !ok {
		return
	}
	p, err := compile(text, ofClient)
	if err != nil {
		r.add(n, place, "is %q, which %v", shorten(text), err)
		return
	}
	*to = append(*to, p)
}

// subjectKinds are the attributes that a policy can name, beside commonName.
var subjectKinds = []string{"organization", "organizationalUnit", "country", "state", "locality", "serialNumber"}

func (r *reader) client(n *yaml.Node, place string) clientCondition {
	var c clientCondition
	seen := r.mapping(n, place,
		field{"subject", func(v *yaml.Node, place string) { r.clientSubject(v, place, &c) }},
		field{"san", func(v *yaml.Node, place string) { c.san = r.clientName(v, place) }},
		field{"serviceAccount", func(v *yaml.Node, place string) {
			var list []pattern
			r.pattern(v, place, &list, func(text string, _ bool) (pattern, error) { return compileAccount(text) })
			if len(list) == 1 {
				c.account = &list[0]
			}
		}})
	switch {
	case seen != nil && len(n.Content) == 0:
		r.add(n, place, "is empty, want subject, san or serviceAccount")
	case seen["serviceAccount"] && len(seen) > 1:
		r.add(n, place, "has serviceAccount beside what is in certificates, which no client has: the certificate "+
			"counts where one has both; want two entries")
	}
	c.text = textOf(n)
	return c
}

// textOf is the same for nodes with the same values in the same order.
func textOf(n *yaml.Node) string {
	text := strconv.Quote(n.Value)
	for _, child := range n.Content {
		text += "(" + textOf(child) + ")"
	}
	return text
}

func (r *reader) clientSubject(n *yaml.Node, place string, c *clientCondition) {
	one := func(kind string, compile func(string, bool) (pattern, error)) field {
		return field{kind, func(v *yaml.Node, place string) {
			var list []pattern
			r.patternOf(v, place, &list, compile, true)
			for _, p := range list {
				c.attributes = append(c.attributes, attributeCondition{kind, p})
			}
		}}
	}
	fields := []field{one("commonName", compileCommonName)}
	for _, kind := range subjectKinds {
		fields = append(fields, one(kind, compileText))
	}
	if seen := r.mapping(n, place, fields...); seen != nil && len(n.Content) == 0 {
		r.add(n, place, "is empty, want at least one attribute")
	}
}

// clientName reads a condition such as URI:spiffe://example.org/*.
func (r *reader) clientName(n *yaml.Node, place string) *nameCondition {
	text, ok := r.text(n, place)
	if !ok {
		return nil
	}
	c := &nameCondition{}
	kind, value, _ := strings.Cut(text, ":")
	var err error
	add := func(to *[]pattern, compile func(string, bool) (pattern, error)) {
		var p pattern
		p, err = compile(value, true)
		*to = append(*to, p)
	}
	switch kind {
	case "DNS":
		add(&c.names.dns, compileDNS)
	case "URI":
		add(&c.names.uri, compileURI)
		c.spiffe = strings.HasPrefix(strings.ToLower(value), spiffeScheme)
	case "email":
		add(&c.names.email, compileEmail)
	case "IP":
		prefix, parseErr := compileIP(value)
		err = parseErr
		c.names.ip = append(c.names.ip, prefix)
	default:
		err = errors.New("has no DNS:, URI:, email: or IP: before it")
	}
	if err != nil {
		r.add(n, place, "is %q, which %v", shorten(text), err)
	}
	return c
}

func (r *reader) allowance(n *yaml.Node, place string, a *allowance) {
	list := func(kind string, to *[]pattern, compile func(string, bool) (pattern, error)) field {
		return field{kind, func(v *yaml.Node, place string) {
			r.list(v, place, func(v *yaml.Node, place string) { r.pattern(v, place, to, compile) })
		}}
	}
	each := func(kind string, read func(v *yaml.Node, place, text string)) field {
		return field{kind, func(v *yaml.Node, place string) {
			r.list(v, place, func(v *yaml.Node, place string) {
				if text, ok := r.text(v, place); ok {
					read(v, place, text)
				}
			})
		}}
	}
	r.mapping(n, place,
		list("commonName", &a.commonName, compileCommonName),
		list("dns", &a.names.dns, compileDNS),
		each("wildcards", func(v *yaml.Node, place, text string) {
			form, fault := dnsForm(text)
			switch base, ok := strings.CutPrefix(form, "*."); {
			case fault != "":
				r.add(v, place, "is %q, which %s", shorten(text), fault)
			case !ok || strings.Contains(base, "*"):
				r.add(v, place, "is %q, want a name that begins with *. and is meant literally", shorten(text))
			}
			a.wildcards = append(a.wildcards, form)
		}),
		each("ip", func(v *yaml.Node, place, text string) {
			prefix, err := compileIP(text)
			if err != nil {
				r.add(v, place, "is %q, which %v", shorten(text), err)
			}
			a.names.ip = append(a.names.ip, prefix)
		}),
		list("uri", &a.names.uri, compileURI),
		list("email", &a.names.email, compileEmail),
		field{"subject", func(v *yaml.Node, place string) { r.allowedSubject(v, place, a) }},
		field{"keys", func(v *yaml.Node, place string) {
			a.keys = nil
			each("", func(v *yaml.Node, place, text string) {
				p, ok := parseKey(text)
				if !ok {
					r.add(v, place, "is %q, want one such as RSA-3072, RSA-2048+ (that size or more), ECDSA-P256, "+
						"ECDSA-P384, ECDSA-P521 or Ed25519", shorten(text))
				}
				a.keys = append(a.keys, p)
			}).read(v, place)
		}},
		field{"usages", func(v *yaml.Node, place string) {
			a.usages = nil
			each("", func(v *yaml.Node, place, text string) {
				if fault := faultInUsage(text); fault != "" {
					r.add(v, place, "is %q, %s", shorten(text), fault)
				}
				a.usages = append(a.usages, text)
			}).read(v, place)
		}})
}

func (r *reader) allowedSubject(n *yaml.Node, place string, a *allowance) {
	a.subject = map[string][]pattern{}
	var fields []field
	for _, kind := range subjectKinds {
		fields = append(fields, field{kind, func(v *yaml.Node, place string) {
			r.list(v, place, func(v *yaml.Node, place string) {
				list := a.subject[kind]
				r.pattern(v, place, &list, compileText)
				a.subject[kind] = list
			})
		}})
	}
	r.mapping(n, place, fields...)
}

// mostRSABits is beyond any key that is in use.
const mostRSABits = 16384

func parseKey(text string) (keyPattern, bool) {
	size, ok := strings.CutPrefix(text, "RSA-")
	if !ok {
		at := slices.IndexFunc(defaultKeys, func(p keyPattern) bool { return p.name == text })
		if at <= 0 { // the first is RSA
			return keyPattern{}, false
		}
		return defaultKeys[at], true
	}
	size, open := strings.CutSuffix(size, "+")
	bits, err := strconv.Atoi(size)
	if err != nil || bits < 2048 || bits > mostRSABits || strconv.Itoa(bits) != size {
		return keyPattern{}, false
	}
	if open {
		return keyPattern{"RSA", bits, mostRSABits}, true
	}
	return keyPattern{"RSA", bits, bits}, true
}

func faultInUsage(text string) string {
	if slices.Contains(refusedUsages, text) {
		return "which is not issued whatever a rule says"
	}
	if slices.Contains(pki.KeyUsages[:], text) {
		return ""
	}
	for oid, name := range extKeyUsages {
		switch {
		case name == text:
			return ""
		case oid == text:
			return "want its name " + name
		}
	}
	if oid, err := x509.ParseOID(text); err != nil || strings.Count(text, ".") < 2 || oid.String() != text {
		return "want a name of RFC 5280 such as digitalSignature or serverAuth, or the OID of an extended key usage"
	}
	return ""
}
