package program

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// completion prints the script for a shell. The scripts are complete: pressing Tab starts no program.
func (a *App) completion(c *Call) int {
	script := map[string]func() string{"bash": a.bash, "zsh": a.zsh, "fish": a.fish}[c.Args[0]]
	return c.Print(func(w io.Writer) error {
		_, err := io.WriteString(w, script())
		return err
	})
}

// paths is a list of choices that stands for the names of files.
var paths = []string{"a path"}

// choices are what may follow a flag; nil when that is not known.
func (f *Flag) choices() []string {
	if f.Value == "FILE" || f.Value == "DIR" {
		return paths
	}
	return f.Choices
}

// choices are what an argument may be; nil when that is not known.
func (arg Argument) choices() []string {
	if arg.Name == "path" || arg.Name == "dir" {
		return paths
	}
	return arg.Choices
}

// next are the words that may follow the words of a command, with what they are: the second one of two.
func (a *App) next(word string) (rows [][2]string) {
	for _, c := range a.Commands {
		first, second, _ := strings.Cut(c.Name, " ")
		row := [2]string{first, c.Short}
		if word != "" {
			if row[0] = second; first != word {
				continue
			}
		} else if second != "" {
			row[1] = ""
		}
		if row[0] != "" && !slices.ContainsFunc(rows, func(r [2]string) bool { return r[0] == row[0] }) {
			rows = append(rows, row)
		}
	}
	return rows
}

// groups are the first words of the commands of two.
func (a *App) groups() (words []string) {
	for _, c := range a.Commands {
		if first, _, two := strings.Cut(c.Name, " "); two && !slices.Contains(words, first) {
			words = append(words, first)
		}
	}
	return words
}

// flags are those of a command, and --help; those of a call without a command when it is nil.
func (a *App) flags(c *Command) []Flag {
	var all []Flag
	if c != nil {
		all = append(all, c.Flags...)
	} else {
		for _, name := range a.Flags {
			all = append(all, Flag{Name: name, Help: a.find(name).Short})
		}
	}
	return append(all, Flag{Name: "help", Short: "h", Help: "print this"})
}

// argumentChoices are what the first argument of a command may be.
func (a *App) argumentChoices(c *Command) []string {
	if c.Name == "help" {
		return append(firsts(a.next("")), a.groups()...)
	}
	if len(c.Args) == 0 {
		return nil
	}
	return c.Args[0].choices()
}

func firsts(rows [][2]string) (words []string) {
	for _, row := range rows {
		words = append(words, row[0])
	}
	return words
}

// quote is a text as one word of a shell.
func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

func (a *App) bash() string {
	var text strings.Builder
	fmt.Fprintf(&text, `# bash completion of %[1]s. To load it: source <(%[1]s completion bash)
_%[1]s() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} at words= files=
	if [[ $cur == = ]]; then
		cur=
	elif [[ $prev == = ]]; then
		prev=${COMP_WORDS[COMP_CWORD-2]}
	fi
	at="${COMP_WORDS[*]:1:COMP_CWORD-1} "
	case $at in
`, a.Name)
	for _, c := range a.Commands {
		fmt.Fprintf(&text, "\t%s*)\n\t\tcase $prev in\n", quote(c.Name+" "))
		for _, f := range c.Flags {
			if !f.IsSwitch() {
				fmt.Fprintf(&text, "\t\t%s) %s ;;\n", strings.Join(f.spellings(), "|"), bashChoices(f.choices()))
			}
		}
		text.WriteString("\t\t*)\n\t\t\tif [[ $cur == -* ]]; then\n\t\t\t\twords=")
		var names []string
		for _, f := range a.flags(c) {
			names = append(names, "--"+f.Name)
		}
		fmt.Fprintf(&text, "%s\n\t\t\telse\n\t\t\t\t%s\n\t\t\tfi\n\t\t\t;;\n\t\tesac\n\t\t;;\n",
			quote(strings.Join(names, " ")), bashChoices(a.argumentChoices(c)))
	}
	for _, word := range a.groups() {
		fmt.Fprintf(&text, "\t%s) %s ;;\n", quote(word+" "), bashChoices(firsts(a.next(word))))
	}
	words := firsts(a.next(""))
	for _, f := range a.flags(nil) {
		words = append(words, "--"+f.Name)
	}
	fmt.Fprintf(&text, `	' ') %s ;;
	esac
	if [[ $files ]]; then
		compopt -o filenames
		mapfile -t COMPREPLY < <(compgen -f -- "$cur")
	else
		mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
	fi
}
complete -F _%[2]s %[2]s
`, bashChoices(words), a.Name)
	return text.String()
}

func bashChoices(choices []string) string {
	if slices.Equal(choices, paths) {
		return "files=1"
	}
	return "words=" + quote(strings.Join(choices, " "))
}

// spellings are all ways to write a flag.
func (f *Flag) spellings() []string {
	all := []string{"--" + f.Name, "-" + f.Name}
	if f.Short != "" {
		all = append(all, "-"+f.Short)
	}
	return all
}

func (a *App) zsh() string {
	var text strings.Builder
	fmt.Fprintf(&text, `#compdef %[1]s
# zsh completion of %[1]s. To load it: source <(%[1]s completion zsh)
_%[1]s() {
	local cur=${words[CURRENT]} prev=${words[CURRENT-1]} at="${words[2,CURRENT-1]} "
	local -a choices
	if [[ $cur == --*=* ]]; then
		prev=${cur%%%%=*}
		compset -P '*='
	fi
	case $at in
`, a.Name)
	for _, c := range a.Commands {
		fmt.Fprintf(&text, "\t(%s*)\n\t\tcase $prev in\n", quote(c.Name+" "))
		for _, f := range c.Flags {
			if !f.IsSwitch() {
				fmt.Fprintf(&text, "\t\t(%s) %s ;;\n", strings.Join(f.spellings(), "|"), zshChoices(f.choices()))
			}
		}
		fmt.Fprintf(&text, "\t\t(*)\n\t\t\tif [[ $cur == -* ]]; then\n\t\t\t\t%s\n\t\t\telse\n\t\t\t\t%s\n\t\t\tfi\n"+
			"\t\t\t;;\n\t\tesac\n\t\t;;\n", zshRows(flagRows(a.flags(c))), zshChoices(a.argumentChoices(c)))
	}
	for _, word := range a.groups() {
		fmt.Fprintf(&text, "\t(%s) %s ;;\n", quote(word+" "), zshRows(a.next(word)))
	}
	fmt.Fprintf(&text, `	(' ')
		if [[ $cur == -* ]]; then
			%s
		else
			%s
		fi
		;;
	esac
}
if [[ ${zsh_eval_context[-1]} == loadautofunc ]]; then
	_%[3]s "$@"
else
	compdef _%[3]s %[3]s
fi
`, zshRows(flagRows(a.flags(nil))), zshRows(a.next("")), a.Name)
	return text.String()
}

func flagRows(flags []Flag) (rows [][2]string) {
	for _, f := range flags {
		rows = append(rows, [2]string{"--" + f.Name, f.Help})
	}
	return rows
}

// zshRows offers words, each with what it is.
func zshRows(rows [][2]string) string {
	text := "choices=("
	for _, row := range rows {
		word := row[0]
		if row[1] != "" {
			word += ":" + row[1]
		}
		text += quote(word) + " "
	}
	return strings.TrimSuffix(text, " ") + "); _describe '' choices"
}

func zshChoices(choices []string) string {
	switch {
	case slices.Equal(choices, paths):
		return "_files"
	case choices == nil:
		return "true"
	}
	return "compadd -- " + strings.Join(choices, " ")
}

func (a *App) fish() string {
	var text strings.Builder
	fmt.Fprintf(&text, `# fish completion of %[1]s. To load it: %[1]s completion fish | source
function __%[1]s_at
	set -l words (commandline -opc)
	set -e words[1]
	string match -q -- $argv[1] "$words "
end
complete -c %[1]s -f
`, a.Name)
	add := func(at, rest string) {
		fmt.Fprintf(&text, "complete -c %s -n %s %s\n", a.Name, quote("__"+a.Name+"_at "+quoteFish(at)), rest)
	}
	addWords := func(at string, rows [][2]string) {
		for _, row := range rows {
			rest := "-a " + row[0]
			if row[1] != "" {
				rest += " -d " + quoteFish(row[1])
			}
			add(at, rest)
		}
	}
	addFlags := func(at string, flags []Flag) {
		for _, f := range flags {
			rest := "-l " + f.Name
			if f.Short != "" {
				rest += " -s " + f.Short
			}
			switch choices := f.choices(); {
			case slices.Equal(choices, paths):
				rest += " -rF"
			case choices != nil:
				rest += " -xa " + quoteFish(strings.Join(choices, " "))
			case !f.IsSwitch():
				rest += " -x"
			}
			add(at, rest+" -d "+quoteFish(f.Help))
		}
	}
	addWords(" ", a.next(""))
	addFlags(" ", a.flags(nil))
	for _, word := range a.groups() {
		addWords(word+" ", a.next(word))
	}
	for _, c := range a.Commands {
		at := c.Name + " *"
		addFlags(at, a.flags(c))
		switch choices := a.argumentChoices(c); {
		case slices.Equal(choices, paths):
			add(at, "-F")
		case choices != nil:
			add(at, "-a "+quoteFish(strings.Join(choices, " ")))
		}
	}
	return text.String()
}

// quoteFish is a text as one word of fish, in double quotes, which may stand in single ones.
func quoteFish(text string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`).Replace(text) + `"`
}
