package program

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// App is a program with its commands. Their help, what a shell completes and docs/commands.md come from these tables.
type App struct {
	Name     string
	Short    string // what the program is for, as a sentence
	Commands []*Command
	Default  string // the command that a call without one runs
	// Flags are old spellings: a switch of this name, in a call without a command, is the command of the same name.
	Flags []string
	// UsageCode is the exit code of wrong usage, FailedCode that of standard output that cannot be written.
	UsageCode, FailedCode int
	// WrongUsage reports wrong usage of a command, "" for none; nil: a line on standard error.
	WrongUsage func(command string, err error, stderr io.Writer)
}

// Command is one command of a program.
type Command struct {
	Name      string // one word, or two such as "policy check"
	Short     string // a line for the list of commands
	Long      string // paragraphs; the first follows program and command as the rest of a sentence
	Args      []Argument
	Flags     []Flag
	Details   func(w io.Writer) error // further help, such as variables; nil: none
	ExitCodes []ExitCode
	Examples  []string // without the program's name
	Run       func(c *Call) (exitCode int)
}

// Argument is one that a command takes by its position.
type Argument struct {
	Name     string
	Help     string
	Choices  []string // nil: any
	Optional bool
	Many     bool // any number of words; of the last argument
}

// Flag is a flag of a command. One without Value is a switch. A flag may be written --name VALUE, --name=VALUE,
// -n VALUE and -name VALUE.
type Flag struct {
	Name    string // of more than one letter
	Short   string // one letter, or ""
	Value   string // how the value is called in the help: FILE and DIR are completed as paths
	Choices []string
	Default string
	Help    string
}

// OutputFlag is the flag of commands that print for people or for programs.
var OutputFlag = Flag{Name: "output", Short: "o", Choices: []string{"text", "json"}, Default: "text",
	Help: "how it is printed"}

// ExitCode says what a code means.
type ExitCode struct {
	Code    int
	Meaning string
}

// Call is one call of a command.
type Call struct {
	Context        context.Context
	Args           []string
	Stdout, Stderr io.Writer

	app     *App
	command *Command
	values  map[string]string
}

// Flag returns the value of a flag; a switch that is given has "true".
func (c *Call) Flag(name string) string {
	if value, given := c.values[name]; given {
		return value
	}
	for _, f := range c.command.Flags {
		if f.Name == name {
			return f.Default
		}
	}
	return ""
}

// Given says how many flags are given.
func (c *Call) Given() int { return len(c.values) }

// WrongUsage reports what is wrong with flags or arguments, and returns the exit code for it.
func (c *Call) WrongUsage(problem string) int {
	return c.app.reportUsage(c.command.Name, problem, c.Stderr)
}

// Print writes to standard output and returns the exit code: 0, or that of an output that cannot be written, mostly
// a closed pipe.
func (c *Call) Print(write func(io.Writer) error) int {
	if err := write(c.Stdout); err != nil {
		fmt.Fprintf(c.Stderr, "%s: writing to standard output: %v\n", c.app.Name, err)
		return c.app.FailedCode
	}
	return 0
}

// Run runs the command that the arguments call, and returns its exit code.
func (a *App) Run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	a.addOwn()
	c := &Call{Context: ctx, Stdout: stdout, Stderr: stderr, app: a, values: map[string]string{}}
	bare := len(args) == 0 || strings.HasPrefix(args[0], "-")
	if bare {
		c.command = a.find(a.Default)
	} else if c.command, args = a.match(args); c.command == nil {
		if group := a.group(args[0]); len(group) > 0 && len(args) > 1 && asksForHelp(args[1]) {
			return c.Print(func(w io.Writer) error { return a.writeGroup(w, args[0], group) })
		}
		return a.reportUsage("", a.noCommand(args), stderr)
	}
	help, problem := c.parse(args, bare)
	switch {
	case help && bare:
		return c.Print(a.WriteReference)
	case help:
		return c.Print(func(w io.Writer) error { return a.writeCommand(w, c.command) })
	case problem == "":
		problem = c.checkArguments()
	}
	if problem != "" {
		name := c.command.Name
		if bare {
			name = ""
		}
		return a.reportUsage(name, problem, stderr)
	}
	if bare {
		for _, name := range a.Flags {
			if c.values[name] == "true" {
				c.command = a.find(name)
				break
			}
		}
	}
	return c.command.Run(c)
}

// addOwn adds the commands that every program has.
func (a *App) addOwn() {
	if a.find("help") != nil {
		return
	}
	a.Commands = append(a.Commands,
		&Command{Name: "help", Short: "describe the program, or a command",
			Long: "describes a command; without one it lists all of them.\n\n" +
				"--help after a command does the same. " + a.Name +
				" --help, without a command, also has all variables.",
			Args: []Argument{{Name: "command", Help: "a command, of one word or two", Optional: true, Many: true}},
			Run:  a.help},
		&Command{Name: "version", Short: "print the version",
			Long:  "prints the version, and what the program was built from and with.",
			Flags: []Flag{OutputFlag},
			Run:   a.version},
		&Command{Name: "completion", Short: "print what makes a shell complete commands and flags",
			Long: "prints a script for a shell, which completes commands, flags and their values.",
			Args: []Argument{{Name: "shell", Help: "the shell", Choices: []string{"bash", "zsh", "fish"}}},
			Examples: []string{
				"completion bash > /etc/bash_completion.d/" + a.Name,
				"completion zsh > /usr/local/share/zsh/site-functions/_" + a.Name,
				"completion fish > ~/.config/fish/completions/" + a.Name + ".fish"},
			Run: a.completion})
}

// find returns the command of a name; nil when there is none.
func (a *App) find(name string) *Command {
	for _, c := range a.Commands {
		if c.Name == name {
			return c
		}
	}
	return nil
}

// match finds the command that the arguments begin with, and what is left of them; nil and all of them when there is
// none.
func (a *App) match(args []string) (*Command, []string) {
	for n := min(2, len(args)); n > 0; n-- {
		if c := a.find(strings.Join(args[:n], " ")); c != nil {
			return c, args[n:]
		}
	}
	return nil, args
}

// group are the commands of two words that begin with a word.
func (a *App) group(word string) (found []*Command) {
	for _, c := range a.Commands {
		if strings.HasPrefix(c.Name, word+" ") {
			found = append(found, c)
		}
	}
	return found
}

// noCommand says what is wrong with arguments that begin with no command.
func (a *App) noCommand(args []string) string {
	var names, all []string
	group := a.group(args[0])
	for _, c := range a.Commands {
		all = append(all, c.Name)
	}
	for _, c := range group {
		names = append(names, c.Name)
	}
	if len(group) > 0 && len(args) == 1 {
		return fmt.Sprintf("%q is half a command, want %s", args[0], list(names))
	}
	name := args[0]
	if len(group) > 0 {
		name = strings.Join(args[:2], " ")
	} else {
		names = all
	}
	return fmt.Sprintf("there is no command %q%s, want %s", name, didYouMean(name, names), list(names))
}

// didYouMean words a suggestion, if a known name is near.
func didYouMean(name string, known []string) string {
	if meant, ok := Closest(name, known); ok {
		return " (did you mean " + meant + "?)"
	}
	return ""
}

// list words alternatives.
func list(names []string) string {
	if len(names) == 1 {
		return names[0]
	}
	return strings.Join(names[:len(names)-1], ", ") + " or " + names[len(names)-1]
}

// reportUsage reports wrong usage of a command, "" for none, and returns its exit code.
func (a *App) reportUsage(command, problem string, stderr io.Writer) int {
	err := fmt.Errorf("%s; see %s", problem, strings.TrimSpace(a.Name+" help "+command))
	if a.WrongUsage != nil {
		a.WrongUsage(command, err, stderr)
	} else {
		fmt.Fprintf(stderr, "%s: %v\n", strings.TrimSpace(a.Name+" "+command), err)
	}
	return a.UsageCode
}

func asksForHelp(arg string) bool { return arg == "--help" || arg == "-help" || arg == "-h" }

// parse reads flags and arguments, in any order. What follows "--" are arguments.
func (c *Call) parse(args []string, bare bool) (help bool, problem string) {
	flags := c.command.Flags
	if bare {
		flags = slices.Clone(flags)
		for _, name := range c.app.Flags {
			flags = append(flags, Flag{Name: name})
		}
	}
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		switch {
		case arg == "--":
			c.Args = append(c.Args, args...)
			return false, ""
		case asksForHelp(arg):
			return true, ""
		case len(arg) < 2 || arg[0] != '-':
			c.Args = append(c.Args, arg)
			continue
		}
		name, value, hasValue := strings.Cut(arg, "=")
		f := findFlag(flags, name)
		if f == nil && len(arg) > 2 && arg[1] != '-' { // -ojson
			if f = findFlag(flags, arg[:2]); f != nil && f.IsSwitch() {
				f = nil
			}
			value, hasValue = arg[2:], true
		}
		switch {
		case f == nil:
			return false, noFlag(name, flags)
		case f.IsSwitch() && !hasValue:
			value = "true"
		case f.IsSwitch():
			if on, err := strconv.ParseBool(value); err != nil {
				return false, fmt.Sprintf("%s has %q, want no value", f.spelling(), value)
			} else if value = "true"; !on {
				value = ""
			}
		case !hasValue && len(args) == 0:
			return false, fmt.Sprintf("%s has no value, want %s", f.spelling(), f.value())
		case !hasValue:
			value, args = args[0], args[1:]
		}
		if len(f.Choices) > 0 && !slices.Contains(f.Choices, value) {
			return false, fmt.Sprintf("%s is %q%s, want %s", f.spelling(), value, didYouMean(value, f.Choices),
				list(f.Choices))
		}
		c.values[f.Name] = value
	}
	return false, ""
}

// findFlag finds a flag by how it is written: --name, -name or its letter.
func findFlag(flags []Flag, written string) *Flag {
	name := strings.TrimPrefix(strings.TrimPrefix(written, "-"), "-")
	for i, f := range flags {
		if name == f.Name || f.Short != "" && name == f.Short {
			return &flags[i]
		}
	}
	return nil
}

func noFlag(written string, flags []Flag) string {
	names := []string{}
	for _, f := range flags {
		names = append(names, "--"+f.Name)
	}
	names = append(names, "--help")
	meant := didYouMean(written, names)
	return fmt.Sprintf("there is no flag %s%s, want %s", written, meant, list(names))
}

// IsSwitch tells a flag that takes no value.
func (f *Flag) IsSwitch() bool { return f.Value == "" && len(f.Choices) == 0 }

func (f *Flag) spelling() string { return "--" + f.Name }

// value names what a flag takes.
func (f *Flag) value() string {
	if f.Value == "" {
		return strings.Join(f.Choices, "|")
	}
	return f.Value
}

// checkArguments says what is wrong with their number or values.
func (c *Call) checkArguments() string {
	known := c.command.Args
	for i, arg := range c.Args {
		if i >= len(known) {
			if len(known) > 0 && known[len(known)-1].Many {
				break
			}
			takes := "no arguments"
			if len(known) > 0 {
				takes = strings.TrimSpace(c.command.arguments()) + " only"
			}
			return fmt.Sprintf("%q is one argument too many, want %s", arg, takes)
		}
		if choices := known[i].Choices; len(choices) > 0 && !slices.Contains(choices, arg) {
			return fmt.Sprintf("%s is %q%s, want %s", known[i].Name, arg, didYouMean(arg, choices), list(choices))
		}
	}
	for _, missing := range known[min(len(c.Args), len(known)):] {
		if !missing.Optional {
			want := missing.Help
			if len(missing.Choices) > 0 {
				want = list(missing.Choices)
			}
			return fmt.Sprintf("%s is missing, want %s", missing.Name, want)
		}
	}
	return ""
}

// arguments are those of a command as its usage has them.
func (c *Command) arguments() (text string) {
	for _, arg := range c.Args {
		name := arg.Name
		if len(arg.Choices) > 0 {
			name = strings.Join(arg.Choices, "|")
		}
		if arg.Optional {
			name = "[" + name + "]"
		}
		text += " " + name
	}
	return text
}
