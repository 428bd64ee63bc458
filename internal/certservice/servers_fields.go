package certservice

import (
	"encoding/json"
	"net/url"
	"strconv"
	"strings"
	"unicode"

	"github.com/certfetcher/certfetcher/internal/cmp"
)

// inner is the parser of an object in a field.
func (e entryParser) inner(field string, fields map[string]any) entryParser {
	e.place, e.fields, e.misspelt = e.place+"."+field, fields, nil
	return e
}

// requiredScalar is required for texts that people and templates write without quotes: a number and a boolean are read
// as their text, as the ONAP server did. The text is not shown: it may be a secret's.
func (e entryParser) requiredScalar(field string, shortest, longest int) string {
	var text string
	switch value := e.fields[field].(type) {
	case json.Number:
		text = value.String()
	case bool:
		text = strconv.FormatBool(value)
	default:
		return e.required(field, shortest, longest)
	}
	e.warn(field, "is %s, which is read as its text: write it in double quotes", kind(e.fields[field]))
	return e.ofLength(field, text, shortest, longest)
}

// unescaped are the characters besides letters and digits that stand for themselves in a path segment (RFC 3986, 3.3).
const unescaped = "._~!$&'()*+,;=:@-"

// caName returns the name that clients ask for. What has to be escaped in a URL works, when clients escape it.
func (e entryParser) caName() string {
	name := e.requiredScalar("caName", 1, 128)
	switch {
	case name == "":
		return ""
	case name == "." || name == "..":
		e.fault("caName", "has %q, which clients take out of a path, want another name", name)
		return ""
	case strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }):
		e.fault("caName", "has %q, want printable characters only", name)
		return ""
	case strings.ContainsFunc(name, func(r rune) bool { return !alphanumeric(r) && !strings.ContainsRune(unescaped, r) }):
		e.warn("caName", "has %q, which clients must write as %q in the path", name, url.PathEscape(name))
	}
	return name
}

func alphanumeric(r rune) bool {
	return '0' <= r && r <= '9' || 'A' <= r && r <= 'Z' || 'a' <= r && r <= 'z'
}

func (e entryParser) checkDN(field, text string) {
	if text == "" {
		return
	}
	if _, err := cmp.ParseDN(text); err != nil {
		e.fault(field, "%v", err)
	}
}

// optionalDN returns a distinguished name, "" when it is absent or after a fault.
func (e entryParser) optionalDN(field string) string {
	if e.fields[field] == nil {
		return ""
	}
	text := e.required(field, 4, 256)
	e.checkDN(field, text)
	return text
}
