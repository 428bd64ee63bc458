package policy

import (
	"bytes"
	"cmp"
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
