package policy

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"

	"github.com/certfetcher/certfetcher/internal/program"
)

// Fault is one thing wrong with a policy file.
type Fault struct {
	Line, Column int    // from 1; 0 where the YAML parser does not say
	Place        string // such as rules[0].allow.dns[1]; "" for the file
	Problem      string // as a sentence's rest after the place
}

func (f Fault) Error() string {
	text := f.Problem
	if f.Place != "" {
		text = f.Place + " " + text
	}
	if f.Line == 0 {
		return text
	}
	return fmt.Sprintf("%d:%d: %s", f.Line, f.Column, text)
}

// Faults are all things wrong with a file, in its order.
type Faults []Fault

func (f Faults) Error() string { return program.JoinFaults(f) }

// Parse reads a policy file: YAML of the form that the schema describes (Schema). The error is of
// type Faults and has everything that is wrong.
func Parse(data []byte) (*Policy, error) {
	r := &reader{replaced: map[[2]int]bool{}}
	document := r.load(data)
	if document == nil {
		return nil, r.sorted()
	}
	p := r.policy(document)
	if len(r.faults) > 0 {
		return nil, r.sorted()
	}
	p.index = newIndex(p.Rules)
	return p, nil
}

func (r *reader) sorted() Faults {
	slices.SortStableFunc(r.faults, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return r.faults
}

// reader collects faults.
type reader struct {
	faults   Faults
	lines    [][]byte        // of the file; nodes have their places there
	replaced map[[2]int]bool // places of a * that has its fault, and is read as x
	last     int             // the line that offsets are of
	offsets  []int           // of its characters
}

func (r *reader) add(n *yaml.Node, place, format string, args ...any) {
	if !r.replaced[[2]int{n.Line, n.Column}] {
		r.faults = append(r.faults, Fault{n.Line, n.Column, place, fmt.Sprintf(format, args...)})
	}
}

const quoteStar = "begins with * and is not quoted, which makes it an alias in YAML: want it in quotation marks"

// load returns the root of the only document; nil when there is none that can be read. What is
// after an unquoted * is read all the same, so that one run finds all faults.
func (r *reader) load(data []byte) *yaml.Node {
	data = r.clean(data)
	if data == nil {
		return nil
	}
	r.lines = bytes.SplitAfter(data, []byte("\n"))
	r.findDirectives()
again:
	for stars := 0; ; stars++ {
		loader, err := yaml.NewLoader(bytes.NewReader(data))
		var document, another yaml.Node
		if err == nil {
			err = loader.Load(&document)
		}
		if errors.Is(err, io.EOF) || err == nil && len(document.Content) == 0 {
			r.faults = append(r.faults, Fault{1, 1, "", "is empty, want rules"})
			return nil
		}
		if err == nil {
			if err = loader.Load(&another); errors.Is(err, io.EOF) {
				return document.Content[0]
			}
			if err == nil {
				r.add(&another, "", "begins a second document, want one")
				return document.Content[0]
			}
		}
		fault, ok := errors.AsType[*yaml.LoadError](err)
		if !ok {
			r.faults = append(r.faults, Fault{Problem: "cannot be read: " + err.Error()})
			return nil
		}
		at := fault.Mark
		for _, column := range []int{at.Column, at.Column - 1} { // a * alone is complained about behind it
			if star := r.at(at.Line, column); len(star) > 0 && star[0] == '*' {
				r.faults = append(r.faults, Fault{at.Line, column, "", "a text " + quoteStar})
				star[0], r.replaced[[2]int{at.Line, column}] = 'x', true
				if stars == mostStars {
					return nil
				}
				continue again
			}
		}
		r.faults = append(r.faults, Fault{at.Line, at.Column, "", "is not YAML: " + fault.Message})
		return nil
	}
}

// mostStars bounds how often a file is read again. Who forgot the quotation marks so often knows
// what to do.
const mostStars = 50

var byteOrderMark = []byte("\ufeff")

// clean returns a copy in which x stands for what no text of a policy can have: characters that
// YAML refuses without saying where they are, and those that hide a rule from its readers. nil: the
// file is in another encoding.
func (r *reader) clean(data []byte) []byte {
	if bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")) {
		r.faults = append(r.faults, Fault{1, 1, "", "is UTF-16, want UTF-8"})
		return nil
	}
	clean := make([]byte, 0, len(data))
	line, column, told := 1, 1, 0
	for rest := bytes.TrimPrefix(data, byteOrderMark); len(rest) > 0; {
		c, size := utf8.DecodeRune(rest)
		this := rest[:size]
		rest = rest[size:]
		problem := ""
		switch {
		case c == utf8.RuneError && size == 1:
			problem = fmt.Sprintf("has the byte %#x, which is not UTF-8", this[0])
		case c == '\r' && !bytes.HasPrefix(rest, []byte("\n")):
			problem = "has a carriage return without a line feed"
		case c != '\n' && c != '\r' && c != '\t' && unprintable(c):
			problem = fmt.Sprintf("has the character %U, which a reader does not see", c)
		}
		if problem != "" {
			if told++; told <= mostStars {
				r.faults = append(r.faults, Fault{line, column, "", problem})
			}
			this = []byte("x")
		}
		clean = append(clean, this...)
		if column++; c == '\n' {
			line, column = line+1, 1
		}
	}
	return clean
}

// findDirectives: a %TAG gives tags other meanings, and a %YAML is for other parsers.
func (r *reader) findDirectives() {
	for i, line := range r.lines {
		switch {
		case bytes.HasPrefix(line, []byte("%")):
			r.faults = append(r.faults, Fault{i + 1, 1, "", "has a directive (%), want none"})
		case len(bytes.TrimSpace(line)) > 0 && line[0] != '#':
			return
		}
	}
}

// at is the rest of a line from a place, which counts from 1 in characters; nil: there is none.
func (r *reader) at(line, column int) []byte {
	if line < 1 || line > len(r.lines) {
		return nil
	}
	if r.last != line { // most lines have several nodes, and one may have all
		r.last, r.offsets = line, r.offsets[:0]
		for offset := range string(r.lines[line-1]) {
			r.offsets = append(r.offsets, offset)
		}
	}
	if column < 1 || column > len(r.offsets) {
		return nil
	}
	return r.lines[line-1][r.offsets[column-1]:]
}

// field is a key of a mapping with what reads its value.
type field struct {
	name string
	read func(value *yaml.Node, place string)
}

// mapping reads a mapping with known keys, and returns those that it has.
func (r *reader) mapping(n *yaml.Node, place string, fields ...field) map[string]bool {
	if !r.plain(n, place, yaml.MappingNode, "a mapping") {
		return nil
	}
	var known []string
	for _, f := range fields {
		known = append(known, f.name)
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Value == "<<" && key.Style == 0 {
			r.add(key, place, "has a merge key (<<), want each key written out")
			continue
		}
		name, ok := r.text(key, place)
		if !ok {
			continue
		}
		at := slices.Index(known, name)
		switch {
		case at < 0:
			text := fmt.Sprintf("has the unknown key %q, want %s", shorten(name), strings.Join(known, ", "))
			if meant, ok := program.Closest(name, known); ok {
				text = fmt.Sprintf("has the unknown key %q, meant is perhaps %q", shorten(name), meant)
			}
			r.add(key, place, "%s", text)
			r.allBare(value, join(place, shorten(name)))
		case seen[name]:
			r.add(key, place, "has the key %q twice", name)
			r.allBare(value, join(place, name))
		default:
			seen[name] = true
			fields[at].read(value, join(place, name))
		}
	}
	return seen
}

func join(place, name string) string {
	if place == "" {
		return name
	}
	return place + "." + name
}

// plain checks that a node is of the kind wanted, and nothing that YAML can do with it.
func (r *reader) plain(n *yaml.Node, place string, kind yaml.Kind, want string) bool {
	if !r.bare(n, place) {
		return false
	}
	if n.Kind != kind {
		r.add(n, place, "is %s, want %s", kindText(n), want)
		return false
	}
	return true
}

// bare refuses what YAML offers to write a value in another way. Behind an anchor or a tag the
// value is read all the same, for its own faults.
func (r *reader) bare(n *yaml.Node, place string) bool {
	tag := r.at(n.Line, n.Column)
	switch {
	case n.Kind == yaml.AliasNode:
		r.add(n, place, "%s", quoteStar)
		return false
	case n.Anchor != "":
		r.add(n, place, "has an anchor (&%s), want each value written out", shorten(n.Anchor))
	case n.Style&yaml.TaggedStyle != 0:
		r.add(n, place, "has a tag (%s), want the value alone", shorten(n.Tag))
	case len(tag) > 0 && tag[0] == '!': // the parser does not tell of a tag that is a ! alone
		r.add(n, place, "has a tag (!), want the value alone")
	}
	return true
}

// allBare is for values that no key reads.
func (r *reader) allBare(n *yaml.Node, place string) {
	if r.bare(n, place) {
		for _, child := range n.Content {
			r.allBare(child, place)
		}
	}
}

func kindText(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.ShortTag() == "!!null":
		return "empty"
	}
	return fmt.Sprintf("%q", shorten(n.Value))
}

// text reads a string. What YAML takes for a number, a truth value or nothing has to be quoted.
func (r *reader) text(n *yaml.Node, place string) (string, bool) {
	if !r.plain(n, place, yaml.ScalarNode, "a text") {
		return "", false
	}
	kinds := map[string]string{"!!int": "a number", "!!float": "a number", "!!bool": "a truth value",
		"!!null": "nothing", "!!timestamp": "a time", "!!merge": "a merge key"}
	if kind, ok := kinds[n.ShortTag()]; ok {
		r.add(n, place, "is %q, which is %s in YAML, want a text: put it in quotation marks", shorten(n.Value), kind)
		return "", false
	}
	if strings.ContainsFunc(n.Value, unprintable) {
		r.add(n, place, "is %q, which holds control characters or ends of lines", shorten(n.Value))
		return "", false
	}
	return n.Value, true
}

// list reads each element of a list.
func (r *reader) list(n *yaml.Node, place string, read func(value *yaml.Node, place string)) (length int) {
	if !r.plain(n, place, yaml.SequenceNode, "a list") {
		return -1
	}
	for i, value := range n.Content {
		read(value, fmt.Sprintf("%s[%d]", place, i))
	}
	return len(n.Content)
}

// filled is list for lists that need an element.
func (r *reader) filled(n *yaml.Node, place string, read func(value *yaml.Node, place string)) {
	if r.list(n, place, read) == 0 {
		r.add(n, place, "is empty, want at least one element")
	}
}

// number reads a number from 1.
func (r *reader) number(n *yaml.Node, place string, to *int) {
	if !r.plain(n, place, yaml.ScalarNode, "a number") {
		return
	}
	value, err := strconv.Atoi(n.Value)
	if n.ShortTag() != "!!int" || err != nil || value < 1 || value > 1_000_000 || strconv.Itoa(value) != n.Value {
		r.add(n, place, "is %q, want a number from 1 to 1000000", shorten(n.Value))
		return
	}
	*to = value
}

// require adds a fault for each key that is missing.
func (r *reader) require(n *yaml.Node, place string, seen map[string]bool, names ...string) {
	for _, name := range names {
		if seen != nil && !seen[name] {
			r.add(n, place, "has no %s", name)
		}
	}
}

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
	if slices.Contains(keyUsages[:], text) {
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
