package program

import (
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/kelseyhightower/envconfig"

	"github.com/certfetcher/certfetcher/internal/files"
)

// Variable is one that a program reads. Its values are text until the program parses them.
type Variable struct {
	Name    string
	Default string // the value when it is unset or empty
	Rule    string // what a value has to look like, worded to follow "want"
	Help    string // what it is for
	Group   string // the heading under which it is documented; may be empty
	Part    string // what a fault in it counts as; the program's own words

	Required bool // there is no way to run without it
	// With, such as "PROTOCOL=cmp", limits Required to the case that another variable has a value.
	With string
	// Unless names a variable that makes this one needless where it is set.
	Unless string
	Secret bool // the value is never shown, and NAME_FILE may give a path to read it from
	Hidden bool // the value is never shown
}

// Group gives variables their Group, and their Part where they have none of their own.
func Group(name, part string, variables []Variable) []Variable {
	for i := range variables {
		variables[i].Group = name
		if variables[i].Part == "" {
			variables[i].Part = part
		}
	}
	return variables
}

// Fault is one thing wrong with the environment.
type Fault struct {
	Part     string // the variable's
	Variable string
	Problem  string // the rest of a sentence that begins with the variable's name
}

func (f Fault) Error() string { return f.Variable + " " + f.Problem }

// JoinFaults puts faults, at least one, on one line with their number.
func JoinFaults[F error](faults []F) string {
	texts := make([]string, len(faults))
	for i, fault := range faults {
		texts[i] = fault.Error()
	}
	if len(texts) == 1 {
		return texts[0]
	}
	return fmt.Sprintf("%d faults: %s", len(texts), strings.Join(texts, "; "))
}

// Reader parses values and collects what is wrong with them.
type Reader struct {
	variables        []Variable
	values           []string // in the order of the variables
	faults, warnings []Fault
	files            map[string]string
}

// Files returns the paths of the files that values were read
// from, by the variable that named them, X_FILE.
func (r *Reader) Files() map[string]string { return r.files }

// ReadEnvironment reads a program's environment, in the same way for all programs: every variable
// is text first, then it is parsed, and all faults are found in one run. Each fault names the
// variable, what it has and what is wanted; values of secrets are in none. An empty variable
// counts as unset. A secret X may be given as X_FILE, the path of a file that ReadSecret reads.
func ReadEnvironment(variables []Variable) *Reader {
	r := &Reader{variables: variables, values: processEnvironment(variables), files: map[string]string{}}
	for i, v := range r.variables {
		if v.Secret {
			r.readTwin(i)
		}
		if r.values[i] == "" {
			r.values[i] = v.Default
		}
	}
	for i, v := range r.variables {
		other, value, _ := strings.Cut(v.With, "=")
		if !v.Required || r.values[i] != "" || other != "" && !strings.EqualFold(r.Value(other), value) {
			continue
		}
		switch {
		case v.Unless == "":
			r.Require(v.Name)
		case r.Value(v.Unless) == "":
			r.Add(v.Name, fmt.Sprintf("is not set, and neither is %s, want %s", v.Unless, v.Rule))
		}
	}
	return r
}

// Require records that a variable is not set that has to be.
func (r *Reader) Require(name string) { r.Add(name, "is not set, want "+r.Rule(name)) }

// processEnvironment returns the values that envconfig finds. It wants a struct, which is made of
// the variables that are set: a few of a hundred, and each field costs a kilobyte at every start.
func processEnvironment(variables []Variable) []string {
	var set []int
	var fields []reflect.StructField
	for i, v := range variables {
		if os.Getenv(v.Name) != "" {
			fields = append(fields, reflect.StructField{Name: "V" + strconv.Itoa(i), Type: reflect.TypeFor[string](),
				Tag: reflect.StructTag(fmt.Sprintf("envconfig:%q", v.Name))})
			set = append(set, i)
		}
	}
	spec := reflect.New(reflect.StructOf(fields))
	if err := envconfig.Process("", spec.Interface()); err != nil {
		panic(fmt.Sprintf("program: reading variables as text: %v", err)) // text is never refused
	}
	values := make([]string, len(variables))
	for field, i := range set {
		values[i] = spec.Elem().Field(field).String()
	}
	return values
}

// readTwin takes the value of X from the file that X_FILE names. Whether X is set, only the
// environment tells: its value may already be the default.
func (r *Reader) readTwin(at int) {
	v := r.variables[at]
	twin := v.Name + "_FILE"
	path := os.Getenv(twin)
	switch {
	case path == "":
		return
	case os.Getenv(v.Name) != "":
		r.Add(twin, fmt.Sprintf("and %s are both set, want one of them", v.Name))
		return
	}
	r.files[twin] = path
	content, err := ReadSecret(path)
	if err != nil {
		r.Add(twin, fmt.Sprintf("has %q, which %v", path, files.Explain(path, files.Reason(err))))
		return
	}
	r.values[at] = content
	if content == "" {
		r.Add(twin, fmt.Sprintf("has %q, which is empty, want %s", path, v.Rule))
	}
}

// Faults returns what is wrong, in the order in which the variables are documented.
func (r *Reader) Faults() []Fault { return r.sortFaults(r.faults) }

// Warnings returns what is usable but doubtful, in the same order.
func (r *Reader) Warnings() []Fault { return r.sortFaults(r.warnings) }

func (r *Reader) sortFaults(faults []Fault) []Fault {
	faults = slices.Clone(faults)
	sort.SliceStable(faults, func(i, j int) bool {
		return r.position(faults[i].Variable) < r.position(faults[j].Variable)
	})
	return faults
}

// position is called for every value of every variable; inlined, the loop would be there a hundred times.
//
//go:noinline
func (r *Reader) position(name string) int {
	return slices.IndexFunc(r.variables, func(v Variable) bool {
		return v.Name == name || v.Secret && v.Name+"_FILE" == name
	})
}

// Value returns a variable's text.
//
//go:noinline
func (r *Reader) Value(name string) string { return r.values[r.position(name)] }

// SecretFile returns the path of the file that a secret came
// from, if it can be read again: a pipe cannot.
func (r *Reader) SecretFile(name string) string {
	path := r.files[name+"_FILE"]
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
		return ""
	}
	return path
}

// Rule returns what a variable has to look like.
func (r *Reader) Rule(name string) string { return r.variables[r.position(name)].Rule }

// Add records a fault in a variable, or in the twin of one.
func (r *Reader) Add(name, problem string) { r.faults = append(r.faults, r.fault(name, problem)) }

// Warn records what is doubtful about a variable's value, which is used all the same.
func (r *Reader) Warn(name, problem string) { r.warnings = append(r.warnings, r.fault(name, problem)) }

func (r *Reader) fault(name, problem string) Fault {
	return Fault{Part: r.variables[r.position(name)].Part, Variable: name, Problem: problem}
}

// Reject records that a variable's value breaks its rule; detail, which may be empty, says how.
func (r *Reader) Reject(name, detail string) {
	v := r.variables[r.position(name)]
	shown := fmt.Sprintf("%q", r.Value(name))
	if v.Secret || v.Hidden {
		shown = "a value that is not shown"
	}
	if path, fromFile := r.files[name+"_FILE"]; fromFile {
		name, shown = name+"_FILE", fmt.Sprintf("%q, with content that is not shown", path)
	}
	if detail != "" {
		detail = " (" + detail + ")"
	}
	r.Add(name, fmt.Sprintf("has %s%s, want %s", shown, detail, v.Rule))
}

// Choice returns a variable's value in lower case, which has to be one of the choices.
func (r *Reader) Choice(name string, choices ...string) string {
	value := strings.ToLower(r.Value(name))
	if !slices.Contains(choices, value) {
		r.Reject(name, choiceHint(value, choices))
	}
	return value
}

// Bool reads true or false.
func (r *Reader) Bool(name string) bool { return r.Choice(name, "true", "false") == "true" }

// Number reads a decimal number between two bounds, both included.
func (r *Reader) Number(name string, least, most int) int {
	n, err := strconv.Atoi(r.Value(name))
	if err != nil || n < least || n > most {
		r.Reject(name, "")
		return 0
	}
	return n
}

// Duration reads a Go duration that is at least least.
func (r *Reader) Duration(name string, least time.Duration) time.Duration {
	d, err := time.ParseDuration(r.Value(name))
	if err != nil || d < least {
		r.Reject(name, DurationHint(r.Value(name)))
		return 0
	}
	return d
}

const (
	// secretMost is the size of a secret's file, in bytes.
	secretMost = 64 << 10
	// secretPatience is for how long a pipe is read, which is what a shell makes of <(command).
	secretPatience = 30 * time.Second
)

// ReadSecret reads a secret from a file or a pipe; one trailing newline is dropped. It does not
// wait for a pipe to be opened, and not for long for one that is.
func ReadSecret(path string) (string, error) {
	return readSecret(path, secretPatience)
}

func readSecret(path string, patience time.Duration) (string, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer file.Close()
	_ = file.SetReadDeadline(time.Now().Add(patience)) // an error means that reading never waits
	content, err := io.ReadAll(io.LimitReader(file, secretMost+1))
	if err != nil {
		return "", err
	}
	if len(content) > secretMost {
		return "", fmt.Errorf("has more than %d bytes", secretMost)
	}
	return TrimSecret(content), nil
}

// TrimSecret is the secret in a file's content: without one newline at its end, and without the
// byte order mark that Windows editors and shells write.
func TrimSecret(content []byte) string {
	text, _ := files.Text(content)
	return strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
}

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
		Wrap(&text, "      ", v.Help)
		Wrap(&text, "      ", v.Rule)
	}
	text.WriteString("\n")
	Wrap(&text, "", "An empty variable counts as unset. A secret X may be given as X_FILE, the path of a file that "+
		"holds it.")
	_, err := io.WriteString(w, text.String())
	return err
}

// Need says whether a variable must be given, and what holds when it is not.
func (v Variable) Need() string {
	switch {
	case v.Required && v.Unless != "":
		return "required with " + v.With + " unless " + v.Unless + " is set"
	case v.Required && v.With != "":
		return "required with " + v.With
	case v.Required:
		return "required"
	case v.Default != "":
		return "default " + v.Default
	case v.Secret:
		return "optional, secret"
	}
	return "optional"
}
