package pki

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// OneLine puts foreign text on one line: control, format and undecodable characters become spaces,
// spaces collapse, and what is longer than limit characters is cut.
func OneLine(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
	s = strings.Join(strings.Fields(s), " ")
	if utf8.RuneCountInString(s) > limit {
		s = string([]rune(s)[:limit]) + "…"
	}
	return s
}
