package program

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"strings"
)

// columns is the width of all help.
const columns = 100

// help is the command of that name.
func (a *App) help(c *Call) int {
	if len(c.Args) == 0 {
		return c.Print(a.writeOverview)
	}
	if command, rest := a.match(c.Args); command != nil && len(rest) == 0 {
		return c.Print(func(w io.Writer) error { return a.writeCommand(w, command) })
	}
	if group := a.group(c.Args[0]); len(group) > 0 && len(c.Args) == 1 {
		return c.Print(func(w io.Writer) error { return a.writeGroup(w, c.Args[0], group) })
	}
	return a.reportUsage("", a.noCommand(c.Args), c.Stderr)
}

// writeOverview lists the commands.
func (a *App) writeOverview(w io.Writer) error {
	var text strings.Builder
	a.overview(&text)
	text.WriteString("\n")
	Wrap(&text, "", fmt.Sprintf("%[1]s help COMMAND describes a command, %[1]s help %[2]s and %[1]s --help all "+
		"variables. Documents: %[3]scommands.md", a.Name, a.Default, Documentation))
	_, err := io.WriteString(w, text.String())
	return err
}

func (a *App) overview(text *strings.Builder) {
	Wrap(text, "", a.Short)
	fmt.Fprintf(text, "\nUsage: %s [command] [flags]\n\nCommands\n", a.Name)
	writeCommands(text, a.Commands)
	text.WriteString("\n")
	Wrap(text, "", fmt.Sprintf("A call without a command is %s. The flags %s are commands, too.",
		a.Default, a.oldSpellings()))
}

// oldSpellings names the flags that stand for commands.
func (a *App) oldSpellings() string {
	names := []string{"--help"}
	for _, name := range a.Flags {
		names = append(names, "--"+name)
	}
	return strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1]
}

// WriteReference writes the overview, and everything about the command that a call without one runs.
func (a *App) WriteReference(w io.Writer) error {
	var text strings.Builder
	a.overview(&text)
	err := a.find(a.Default).details(&text)
	_, writeErr := io.WriteString(w, text.String())
	return errors.Join(err, writeErr)
}

// writeGroup lists the commands of two words that begin with one.
func (a *App) writeGroup(w io.Writer, word string, group []*Command) error {
	var text strings.Builder
	fmt.Fprintf(&text, "Usage: %s %s [command] [flags]\n\nCommands\n", a.Name, word)
	writeCommands(&text, group)
	_, err := io.WriteString(w, text.String())
	return err
}

func writeCommands(text *strings.Builder, commands []*Command) {
	var rows [][2]string
	for _, c := range commands {
		rows = append(rows, [2]string{c.Name, c.Short})
	}
	writeRows(text, rows)
}

// writeCommand writes all that is to be said about a command.
func (a *App) writeCommand(w io.Writer, c *Command) error {
	var text strings.Builder
	for i, paragraph := range strings.Split(c.Long, "\n\n") {
		if i == 0 {
			paragraph = a.Name + " " + c.Name + " " + paragraph
		} else {
			text.WriteString("\n")
		}
		Wrap(&text, "", paragraph)
	}
	fmt.Fprintf(&text, "\nUsage: %s %s%s [flags]\n", a.Name, c.Name, c.arguments())
	if len(c.Args) > 0 {
		text.WriteString("\nArguments\n")
		var rows [][2]string
		for _, arg := range c.Args {
			rows = append(rows, [2]string{arg.Name, arg.Help})
		}
		writeRows(&text, rows)
	}
	text.WriteString("\nFlags\n")
	var rows [][2]string
	for _, f := range append(c.Flags[:len(c.Flags):len(c.Flags)], Flag{Name: "help", Short: "h", Help: "print this"}) {
		rows = append(rows, f.row())
	}
	writeRows(&text, rows)
	err := c.details(&text)
	if len(c.Examples) > 0 {
		text.WriteString("\nExamples\n")
		for _, example := range c.Examples {
			fmt.Fprintf(&text, "  %s %s\n", a.Name, example)
		}
	}
	_, writeErr := io.WriteString(w, text.String())
	return errors.Join(err, writeErr)
}

func (f *Flag) row() [2]string {
	written, help := "    --"+f.Name, f.Help
	if f.Short != "" {
		written = "-" + f.Short + ", --" + f.Name
	}
	if !f.IsSwitch() {
		written += " " + f.value()
	}
	if f.Default != "" {
		help += " (default " + f.Default + ")"
	}
	return [2]string{written, help}
}

// details writes further help and the exit codes.
func (c *Command) details(text *strings.Builder) error {
	var err error
	if c.Details != nil {
		text.WriteString("\n")
		err = c.Details(text)
	}
	if len(c.ExitCodes) > 0 {
		text.WriteString("\nExit codes\n")
		for _, row := range c.ExitCodes {
			writeRow(text, fmt.Sprintf("  %2d  ", row.Code), row.Meaning)
		}
	}
	return err
}

// mostFirst is the width of a first column. What is wider has its text below.
const mostFirst = 32

// writeRows writes names and what they are, in two columns.
func writeRows(text *strings.Builder, rows [][2]string) {
	width := 0
	for _, row := range rows {
		if len(row[0]) <= mostFirst {
			width = max(width, len(row[0]))
		}
	}
	for _, row := range rows {
		if len(row[0]) > mostFirst {
			text.WriteString("  " + row[0] + "\n")
			row[0] = ""
		}
		writeRow(text, fmt.Sprintf("  %-*s  ", width, row[0]), row[1])
	}
}

// writeRow writes a text after a first column; its further lines begin below the first one.
func writeRow(text *strings.Builder, first, words string) {
	var lines strings.Builder
	Wrap(&lines, strings.Repeat(" ", len(first)), words)
	text.WriteString(first + strings.TrimPrefix(lines.String(), strings.Repeat(" ", len(first))))
}

// Wrap writes a text as lines of at most columns, each after the indent.
func Wrap(text *strings.Builder, indent, words string) {
	line := ""
	for _, word := range strings.Fields(words) {
		if line != "" && len(indent)+len(line)+1+len(word) > columns {
			text.WriteString(indent + line + "\n")
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	text.WriteString(indent + line + "\n")
}

// Build is what a program was built from and with.
type Build struct {
	Name      string `json:"name"`
	Version   string `json:"version"`
	GoVersion string `json:"go_version"`
	Platform  string `json:"platform"`           // such as linux/amd64
	Revision  string `json:"revision,omitempty"` // of the sources; empty when they were not in a repository
	Time      string `json:"time,omitempty"`     // of the revision, RFC 3339
	Modified  bool   `json:"modified"`           // the sources were not those of the revision
}

// build describes the running program.
func (a *App) build() Build {
	b := Build{Name: a.Name, Version: Version(), GoVersion: runtime.Version(),
		Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, setting := range info.Settings {
			switch setting.Key {
			case "vcs.revision":
				b.Revision = setting.Value
			case "vcs.time":
				b.Time = setting.Value
			case "vcs.modified":
				b.Modified = setting.Value == "true"
			}
		}
	}
	return b
}

// version is the command of that name. The old spelling prints its first line.
func (a *App) version(c *Call) int {
	b := a.build()
	return c.Print(func(w io.Writer) error {
		if c.Flag("output") == "json" {
			encoder := json.NewEncoder(w)
			encoder.SetIndent("", "  ")
			return encoder.Encode(b)
		}
		text := fmt.Sprintf("%s %s\n", b.Name, b.Version)
		if c.Flag("version") == "" {
			text += fmt.Sprintf("built with %s for %s\n", b.GoVersion, b.Platform)
			if b.Revision != "" {
				text += fmt.Sprintf("from revision %s of %s%s\n", b.Revision, b.Time,
					map[bool]string{true: ", modified"}[b.Modified])
			}
		}
		_, err := io.WriteString(w, text)
		return err
	})
}
