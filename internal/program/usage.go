package program

import (
	"fmt"
	"io"
	"strings"
)

// WriteUsage prints every variable of a tagged type with its rule and default, for --help.
func WriteUsage(w io.Writer, spec any) error {
	var text strings.Builder
	group := ""
	for _, v := range DescribeVariables(spec) {
		if v.Group != group {
			group = v.Group
			fmt.Fprintf(&text, "\n%s\n", group)
		}
		fmt.Fprintf(&text, "  %s (%s)\n      %s\n      %s\n", v.Name, v.need(), v.Description, v.Rule)
	}
	text.WriteString("\nAn empty variable counts as unset. A secret X may be given as X_FILE, the path of a file that holds it.\n")
	_, err := io.WriteString(w, text.String())
	return err
}

// WriteMarkdown prints the same as a table.
func WriteMarkdown(w io.Writer, spec any) error {
	var text strings.Builder
	text.WriteString("| variable | default | meaning | rule |\n|---|---|---|---|\n")
	cell := strings.NewReplacer("|", `\|`, "<", "&lt;", ">", "&gt;", "*", `\*`, "_", `\_`, "~", `\~`)
	for _, v := range DescribeVariables(spec) {
		name := "`" + v.Name + "`"
		if v.Secret {
			name += ", `" + v.Name + "_FILE`"
		}
		given := "*" + v.need() + "*"
		if v.Default != "" {
			given = "`" + v.Default + "`"
		}
		fmt.Fprintf(&text, "| %s | %s | %s | %s |\n", name, given, cell.Replace(v.Description), cell.Replace(v.Rule))
	}
	_, err := io.WriteString(w, text.String())
	return err
}

// need says whether a variable must be given, and what holds when it is not.
func (v Variable) need() string {
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
