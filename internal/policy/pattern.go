package policy

import (
	"fmt"
	"net/netip"
	"strings"
)

// A pattern is a text in which * stands for characters of a class, and {namespace},
// {serviceAccount} and {commonName} for what the client is authenticated as. Nothing else is
// special. Values are inserted after the pattern was taken apart, so that a * in one is a *.
type pattern struct {
	// What a text that matches begins and ends with, by which most are told apart at once. Where the
	// pattern matches as it is, without * and placeholders, both are all of it.
	prefix, suffix string
	whole          bool
	pieces         []piece
	text           string // as the file has it
}

// piece is one of a pattern: a literal text, a *, or a placeholder.
type piece struct {
	literal     string
	star        class
	placeholder placeholder
	usable      func(value string) bool // of a placeholder's value
	fold        bool                    // the value is compared in lower case
}

// class is what a * stands for.
type class struct {
	of    *[256]bool // nil: the piece is not a *
	least int        // characters
}

func classOf(of func(byte) bool) *[256]bool {
	var class [256]bool
	for c := range class {
		class[c] = of(byte(c))
	}
	return &class
}

type placeholder string

const (
	namespacePlaceholder      placeholder = "{namespace}"
	serviceAccountPlaceholder placeholder = "{serviceAccount}"
	commonNamePlaceholder     placeholder = "{commonName}"
)

var placeholders = []placeholder{namespacePlaceholder, serviceAccountPlaceholder, commonNamePlaceholder}

// What a * stands for in each kind of text.
var (
	starLabel      = class{classOf(isLabel), 1}
	starUnreserved = class{classOf(isUnreserved), 1}
	starAny        = class{classOf(func(byte) bool { return true }), 0}
)

// What a placeholder's value may be.
var (
	usableLabel   = isLabelText
	usableSegment = func(value string) bool {
		return value != "" && value != "." && value != ".." && consistsOf(value, isUnreserved)
	}
	usableText = func(value string) bool { return value != "" }
)

// part says how a piece of text in a pattern is read.
type part struct {
	star         class
	usable       func(string) bool
	fold         bool // compared without case
	placeholders bool // allowed here
}

// add takes a text apart and adds its pieces.
func (p *pattern) add(text string, how part) error {
	for text != "" {
		i := strings.IndexAny(text, "*{}")
		if i < 0 {
			i = len(text)
		}
		if i > 0 {
			literal := text[:i]
			if how.fold {
				literal = strings.ToLower(literal)
			}
			p.addLiteral(literal)
			text = text[i:]
			continue
		}
		if text[0] == '*' {
			if how.star.of == nil {
				return fmt.Errorf("has a * where none can be")
			}
			if n := len(p.pieces); n > 0 && p.pieces[n-1].star.of != nil {
				return fmt.Errorf("has two * in a row, want one: it stands for several characters already")
			}
			p.pieces = append(p.pieces, piece{star: how.star})
			text = text[1:]
			continue
		}
		name, ok := placeholderAt(text)
		switch {
		case !ok:
			return fmt.Errorf("has a brace that begins none of %s", joinTexts(placeholders))
		case !how.placeholders:
			return fmt.Errorf("has the placeholder %s where none can be", name)
		}
		p.pieces = append(p.pieces, piece{placeholder: name, usable: how.usable, fold: how.fold})
		text = text[len(name):]
	}
	return nil
}

func (p *pattern) addLiteral(text string) {
	if n := len(p.pieces); n > 0 && p.pieces[n-1].literal != "" {
		p.pieces[n-1].literal += text
		return
	}
	p.pieces = append(p.pieces, piece{literal: text})
}

func placeholderAt(text string) (placeholder, bool) {
	for _, name := range placeholders {
		if strings.HasPrefix(text, string(name)) {
			return name, true
		}
	}
	return "", false
}

// finish is called when all pieces are there.
func (p *pattern) finish() {
	if n := len(p.pieces); n > 0 {
		p.prefix, p.suffix = p.pieces[0].literal, p.pieces[n-1].literal
		p.whole = n == 1 && p.prefix != ""
	}
}

// matches compares a text in the form that its kind has. who gives the values of placeholders; nil:
// there are none.
func (p *pattern) matches(text string, who *subject) bool {
	if p.whole {
		return p.prefix == text
	}
	return strings.HasPrefix(text, p.prefix) && strings.HasSuffix(text, p.suffix) && match(p.pieces, text, who)
}

// match compares from the left. Where a literal does not fit, the last * takes a character more:
// earlier ones need not, as what they could take more of, the last one can take as well. All * of
// one text stand for the same class of characters.
func match(pieces []piece, text string, who *subject) bool {
	at, star, next := 0, -1, 0 // star: the last one; next: where the text after it begins
	for i := 0; ; {
		if i == len(pieces) && at == len(text) {
			return true
		}
		if i < len(pieces) && pieces[i].star.of != nil {
			star, next = i, at
			for range pieces[i].star.least {
				if next == len(text) || !pieces[i].star.of[text[next]] {
					return false // no more characters, or one that earlier * cannot take either
				}
				next++
			}
			at, i = next, i+1
			continue
		}
		if i < len(pieces) {
			value, ok := pieces[i].value(who)
			if !ok {
				return false
			}
			if strings.HasPrefix(text[at:], value) {
				at += len(value)
				i++
				continue
			}
		}
		if star < 0 || next == len(text) || !pieces[star].star.of[text[next]] {
			return false
		}
		next++
		at, i = next, star+1
	}
}

// value is the text that a literal or placeholder stands for; false where the client has none that
// can be used here.
func (p *piece) value(who *subject) (string, bool) {
	if p.placeholder == "" {
		return p.literal, true
	}
	value := ""
	if who != nil {
		value = who.value(p.placeholder)
	}
	if !p.usable(value) {
		return "", false
	}
	if p.fold {
		value = strings.ToLower(value)
	}
	return value, true
}

func matchesAny(patterns []pattern, text string, who *subject) bool {
	for i := range patterns {
		if patterns[i].matches(text, who) {
			return true
		}
	}
	return false
}

// The compilers of each kind of pattern. ofClient says that the pattern is about the client itself,
// where placeholders make no sense.

func compileText(text string, ofClient bool) (p pattern, err error) {
	return compile(text, part{starAny, usableText, false, !ofClient})
}

// compileCommonName: a common name is taken for a host name by many programs, so * is as in host
// names. A placeholder that is the whole pattern stands for any value: nothing else can be meant.
func compileCommonName(text string, ofClient bool) (pattern, error) {
	how := part{starLabel, usableLabel, false, !ofClient}
	if name, ok := placeholderAt(text); ok && string(name) == text {
		how.usable = usableText
	}
	return compile(text, how)
}

func compileDNS(text string, ofClient bool) (pattern, error) {
	if _, fault := dnsForm(example(text)); fault != "" {
		return pattern{}, fmt.Errorf("%s", fault)
	}
	return compile(text, part{starLabel, usableLabel, true, !ofClient})
}

func compileEmail(text string, ofClient bool) (pattern, error) {
	if _, fault := emailForm(example(text)); fault != "" {
		return pattern{}, fmt.Errorf("%s", fault)
	}
	local, domain, _ := strings.Cut(text, "@")
	p := pattern{text: text}
	err := p.add(local, part{starUnreserved, usableLabel, false, !ofClient})
	p.addLiteral("@")
	if err == nil {
		err = p.add(domain, part{starLabel, usableLabel, true, !ofClient})
	}
	p.finish()
	return p, err
}

func compileURI(text string, ofClient bool) (pattern, error) {
	parts, ok := cutURI(text)
	if !ok {
		return pattern{}, fmt.Errorf("is no URI: want scheme:…")
	}
	if strings.ContainsAny(parts.scheme, "*{}") {
		return pattern{}, fmt.Errorf("has a scheme with * or a placeholder, want it as it is")
	}
	if _, fault := splitURI(example(text)); fault != "" {
		return pattern{}, fmt.Errorf("%s", fault)
	}
	p := pattern{text: text}
	p.addLiteral(strings.ToLower(parts.scheme) + ":")
	var err error
	if parts.hasAuthority {
		p.addLiteral("//")
		err = p.add(parts.authority, part{starLabel, usableLabel, true, !ofClient})
	}
	if err == nil {
		err = p.add(parts.rest, part{starUnreserved, usableSegment, false, !ofClient})
	}
	p.finish()
	return p, err
}

// compileAccount: the names of namespaces and service accounts have dots or none, and no case.
func compileAccount(text string) (pattern, error) {
	namespace, name, ok := strings.Cut(text, "/")
	if !ok || namespace == "" || name == "" || strings.Contains(name, "/") {
		return pattern{}, fmt.Errorf("is not of the form namespace/name")
	}
	lower := func(c byte) bool { return isLabel(c) && (c < 'A' || c > 'Z') || c == '*' }
	if !consistsOf(namespace, lower) || !consistsOf(name, func(c byte) bool { return lower(c) || c == '.' }) {
		return pattern{}, fmt.Errorf("has characters that names of service accounts cannot have, want lower case " +
			"letters, digits, hyphens and *; dots in the name as well")
	}
	return compile(text, part{star: starLabel})
}

// compileCA: names of CAs may have any characters.
func compileCA(text string) (pattern, error) { return compile(text, part{star: starAny}) }

func compile(text string, how part) (pattern, error) {
	p := pattern{text: text}
	if text == "" {
		return p, fmt.Errorf("is empty")
	}
	err := p.add(text, how)
	p.finish()
	return p, err
}

// example is a text that a pattern could match, for checking its form: 1 is right in every kind.
func example(text string) string {
	for _, name := range placeholders {
		text = strings.ReplaceAll(text, string(name), "1")
	}
	return strings.ReplaceAll(text, "*", "1")
}

// compileIP reads an address or a range.
func compileIP(text string) (netip.Prefix, error) {
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		address, addressErr := netip.ParseAddr(text)
		if addressErr != nil || address.Zone() != "" {
			return prefix, fmt.Errorf("is neither an IP address nor a range such as 10.0.0.0/8")
		}
		prefix = netip.PrefixFrom(address, address.BitLen())
	}
	switch {
	case prefix.Addr().Is4In6():
		return prefix, fmt.Errorf("is an IPv4-mapped IPv6 address, want it as IPv4: requests for mapped ones are " +
			"judged as that")
	case prefix != prefix.Masked():
		return prefix, fmt.Errorf("has bits beyond its length, want %s", prefix.Masked())
	}
	return prefix, nil
}
