package certservice

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/certfetcher/certfetcher/internal/pki"
)

// bounded is a foreign name, fit for a message.
func bounded(name string) string { return pki.OneLine(name, 100) }

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

// jsonFault words a syntax error with its line and column. It shows one character of the text at most: the text holds
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

// jsonAdvice knows the usual mistakes.
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
