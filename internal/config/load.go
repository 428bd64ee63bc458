package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/kelseyhightower/envconfig"
)

// Load reads and checks the environment. The error, when there is one, is of type Faults; even then
// the logging, termination-message and TLS settings that could be understood are returned, so that the
// caller can report the faults where the operator looks, and look for more.
//
// An empty variable counts as unset. A variable X marked secret may instead be given as X_FILE, the
// path of a file that holds it; one trailing newline is dropped.
func Load() (*Fetcher, error) {
	var env environment
	if err := envconfig.Process("", &env); err != nil {
		// Every field is text, so this cannot depend on what the environment holds.
		panic(fmt.Sprintf("config: the environment type does not fit envconfig: %v", err))
	}
	l := &loader{variables: describe(&env)}
	l.applyTwinsAndDefaults()
	l.checkRequired()
	fetcher := l.fetcher(&env)
	if len(l.faults) == 0 {
		return fetcher, nil
	}
	slices.SortStableFunc(l.faults, func(a, b Fault) int {
		if a.Part != b.Part {
			return int(a.Part - b.Part)
		}
		return l.position(a.Variable) - l.position(b.Variable)
	})
	return fetcher, l.faults
}

// loader collects the faults while values are parsed.
type loader struct {
	variables []variable
	faults    Faults
}

// variable is a field of environment with its tags.
type variable struct {
	Name, Default, Group, Rule, Description string
	Part                                    Part
	Required, Secret, Hidden                bool
	value                                   *string
}

// describe lists the variables in the order of their documentation.
func describe(env *environment) []variable {
	v := reflect.ValueOf(env).Elem()
	variables := make([]variable, v.NumField())
	for i := range variables {
		tag := v.Type().Field(i).Tag
		variables[i] = variable{
			Name: tag.Get("envconfig"), Default: tag.Get("default"), Group: tag.Get("group"),
			Rule: tag.Get("rule"), Description: tag.Get("desc"), Part: partByTag[tag.Get("part")],
			Required: tag.Get("required") == "true", Secret: tag.Get("secret") == "true", Hidden: tag.Get("hidden") == "true",
			value: v.Field(i).Addr().Interface().(*string),
		}
	}
	return variables
}

func (l *loader) position(name string) int {
	return slices.IndexFunc(l.variables, func(v variable) bool { return v.Name == strings.TrimSuffix(name, "_FILE") || v.Name == name })
}

func (l *loader) lookup(name string) variable { return l.variables[l.position(name)] }

func (l *loader) applyTwinsAndDefaults() {
	for _, v := range l.variables {
		if v.Secret {
			l.readTwin(v)
		}
		if *v.value == "" {
			*v.value = v.Default
		}
	}
}

// readTwin takes the value of X from the file that X_FILE names.
func (l *loader) readTwin(v variable) {
	twin := v.Name + "_FILE"
	path := os.Getenv(twin)
	switch {
	case path == "":
		return
	case *v.value != "":
		l.add(v.Part, twin, fmt.Sprintf("and %s are both set, want one of them", v.Name))
		return
	}
	content, err := os.ReadFile(path)
	if err != nil {
		l.add(v.Part, twin, fmt.Sprintf("has %q, which cannot be read: %v", path, pathReason(err)))
		return
	}
	*v.value = strings.TrimSuffix(strings.TrimSuffix(string(content), "\n"), "\r")
	if *v.value == "" {
		l.add(v.Part, twin, fmt.Sprintf("has %q, which is empty, want %s", path, v.Rule))
	}
}

// pathReason drops the path, which the fault already shows, from a file system error.
func pathReason(err error) error {
	var pathError *fs.PathError
	if errors.As(err, &pathError) {
		return pathError.Err
	}
	return err
}

func (l *loader) checkRequired() {
	for _, v := range l.variables {
		if v.Required && *v.value == "" {
			l.add(v.Part, v.Name, "is not set, want "+v.Rule)
		}
	}
}

func (l *loader) add(part Part, name, problem string) {
	l.faults = append(l.faults, Fault{Part: part, Variable: name, Problem: problem})
}

// reject records that a variable's value breaks its rule; detail, which may be empty, says how.
func (l *loader) reject(name, detail string) {
	v := l.lookup(name)
	shown := fmt.Sprintf("%q", *v.value)
	if v.Secret || v.Hidden {
		shown = "a value that is not shown"
	}
	if detail != "" {
		detail = " (" + detail + ")"
	}
	l.add(v.Part, name, fmt.Sprintf("has %s%s, want %s", shown, detail, v.Rule))
}
