package program

import (
	"fmt"
	"io"
	"strings"
)

// WriteUsage prints every variable with its rule and default, for --help.
func WriteUsage(w io.Writer, variables []Variable) error {
	var text strings.Builder
	group := ""
	for _, v := range variables {
		if v.Group != group {
			group = v.Group
			fmt.Fprintf(&text, "\n%s\n", group)
		}
		fmt.Fprintf(&text, "  %s (%s)\n", v.Name, v.Need())
		wrap(&text, v.Help)
		wrap(&text, v.Rule)
	}
	text.WriteString(
		"\nAn empty variable counts as unset. A secret X may be given as X_FILE, the path of a file that holds it.\n")
	_, err := io.WriteString(w, text.String())
	return err
}

// wrap writes a text as lines of at most 100 columns.
func wrap(text *strings.Builder, words string) {
	const indent = "     "
	line := indent
	for _, word := range strings.Fields(words) {
		if len(line)+1+len(word) > 100 {
			text.WriteString(line + "\n")
			line = indent
		}
		line += " " + word
	}
	text.WriteString(line + "\n")
}

// Need says whether a variable must be given, and what holds when it is not.
func (v Variable) Need() string {
	switch {
	case v.Required:
		return "required"
	case v.Default != "":
		return "default " + v.Default
	case v.Secret:
		return "optional, secret"
	}
	return "optional"
}
