package certservice

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/internal/program"
)

// shorten makes a foreign name fit for a message.
func shorten(name string) string { return pki.OneLine(name, 100) }

// jsonWants says what encoding/json expected, by the end of its own text.
var jsonWants = []struct{ context, want string }{
	{"looking for beginning of value", "a value"},
	{"looking for beginning of object key string", "a field's name in double quotes"},
	{"after object key:value pair", "a comma or }"},
	{"after object key", "a colon"},
	{"after array element", "a comma or ]"},
	{"after top-level value", "the end of the file"},
	{"in string literal", "a string without control characters: a line break in it is written as \\n"},
	{"in string escape code", "one of \" \\ / b f n r t u after a backslash"},
	{"hexadecimal character escape", "four hexadecimal digits after \\u"},
	{"numeric literal", "a digit"},
}

// jsonFault describes a syntax error with its line and column. It shows one character of the text at most: the text has
// secrets.
func jsonFault(data []byte, err error) string {
	syntax, ok := errors.AsType[*json.SyntaxError](err)
	if !ok {
		return "the file is not JSON: it cannot be read"
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return "the file is empty, want an object with the key \"cmpv2Servers\""
	}
	read := data[:min(max(int(syntax.Offset), 1), len(data))]
	before, found := read[:len(read)-1], read[len(read)-1]
	line := 1 + bytes.Count(before, []byte("\n"))
	column := len(before) - bytes.LastIndexByte(before, '\n')
	reason := jsonReason(before, found, syntax.Error())
	return fmt.Sprintf("line %d, column %d: the file is not JSON: %s", line, column, reason)
}

func jsonReason(before []byte, found byte, text string) string {
	switch {
	case strings.HasPrefix(text, "unexpected end"):
		return "it ends too early, want all braces and brackets closed"
	case !strings.HasPrefix(text, "invalid character"):
		return "it cannot be read"
	}
	want := "a value such as true, false or null"
	for _, w := range jsonWants {
		if strings.HasSuffix(text, w.context) {
			want = w.want
			break
		}
	}
	return fmt.Sprintf("has %s, want %s%s", quotedByte(found), want, jsonAdvice(before, found))
}

// jsonAdvice says how to fix common mistakes.
func jsonAdvice(before []byte, found byte) string {
	rest := bytes.TrimRight(before, " \t\r\n")
	switch {
	case (found == '}' || found == ']') && bytes.HasSuffix(rest, []byte(",")):
		return " (remove the comma before it)"
	case found == '/' || found == '#':
		return " (JSON has no comments)"
	case found == '\'':
		return " (strings are in double quotes)"
	}
	return ""
}

func quotedByte(b byte) string {
	if b > '~' || b < ' ' {
		return fmt.Sprintf("the byte 0x%02x", b)
	}
	return fmt.Sprintf("%q", rune(b))
}

// misspellings are the fields that have no effect, by the known one that each looks like.
type misspellings map[string]string

// hint names the misspelt field after the words that a field is missing.
func (m misspellings) hint(field string) string {
	if written, ok := m[field]; ok {
		return fmt.Sprintf(" (there is %q)", written)
	}
	return ""
}

// findMisspelt finds the fields that look like a known one, and warns of each. Others are ignored: files for other
// programs and other versions have them. place is where the object is, with a colon.
func findMisspelt(place string, object map[string]any, known []string, warnings *[]string) misspellings {
	found := misspellings{}
	for _, name := range slices.Sorted(maps.Keys(object)) {
		if meant, ok := program.Closest(name, known); ok && !slices.Contains(known, name) {
			found[meant] = shorten(name)
			*warnings = append(*warnings, fmt.Sprintf("%sthe field %q is not known and has no effect: did you mean %q?",
				place, shorten(name), meant))
		}
	}
	return found
}

// parseJSON reads a file that is JSON as a whole; numbers keep their text. A fault has its line and column.
func parseJSON(data []byte) (root any, fault string) {
	var all json.RawMessage
	if err := json.Unmarshal(data, &all); err != nil { // reads to the end before it says so
		return nil, jsonFault(data, err)
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	if err := decoder.Decode(&root); err != nil {
		return nil, jsonFault(data, err)
	}
	return root, ""
}

func kind(value any) string {
	switch value.(type) {
	case nil:
		return "null"
	case bool:
		return "true or false"
	case json.Number:
		return "a number"
	case string:
		return "a string"
	case []any:
		return "a list"
	default:
		return "an object"
	}
}
