// Package truststore does the job of the ONAP CertService post-processor: it merges truststores and
// copies keystores over others, with the same variables and exit codes.
//
// The certificates of the second and later truststores are added to the first one. Two
// certificates are the same when their DER is, whatever their aliases: one that is there already
// is not added again, and one whose alias is taken gets another alias. The first truststore keeps
// its format and all entries, as keystore.Append describes. Formats are JKS, PKCS#12 and PEM,
// recognised by content; the cacerts of a JDK is JKS or PKCS#12, since JDK 18 without password,
// and before with one that need not be configured.
//
// A run that finds nothing to do writes nothing. One that finds a fault
// has changed nothing. Files are replaced by rename, so that readers
// see a whole one at any time; type run says what a crash leaves.
//
// It removes no certificate, checks none (neither dates nor whether it
// is a CA), and decrypts no private key unless only that shows which
// certificate it belongs to: keys may have passwords of their own.
package truststore

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/certfetcher/certfetcher/internal/program"
)

// Config says what to merge and what to copy.
type Config struct {
	// Truststores are merged into the first one. None: nothing is merged.
	Truststores []Store
	// Keystores are copied one after the other, when all truststores are merged.
	Keystores []Copy
	// Now dates the entries added to a JKS store; nil is time.Now.
	Now func() time.Time
}

// Store is a truststore and the file with its password. PasswordPath is empty for one that needs
// none, or has that of a JDK's cacerts, changeit; for PEM it is not read. One newline at the end
// of the password is dropped.
type Store struct{ Path, PasswordPath string }

// Copy is a file to put in the place of another, which need not exist. It may be of any kind:
// password files are copied along with their keystores.
type Copy struct{ Source, Destination string }

// variables are all that the program reads.
var variables = []program.Variable{
	{Name: truststoresVariable,
		Help: "truststores (JKS, PKCS#12 or PEM); the certificates of the second and later ones " +
			"are added to the first, which is kept as .bak; required"},
	{Name: passwordsVariable,
		Help: "the file with the password of each truststore, an empty entry for one without " +
			"(PEM, the cacerts of JDK 18 and later) and for one with the password of a JDK's " +
			"cacerts, changeit"},
	{Name: sourcesVariable,
		Help: "files to copy, such as keystores and their password files"},
	{Name: destinationsVariable,
		Help: "the file that each of them replaces, which is kept as .bak"},
}

// The variables by which errors name what they are about.
const (
	truststoresVariable  = "TRUSTSTORES_PATHS"
	passwordsVariable    = "TRUSTSTORES_PASSWORDS_PATHS"
	sourcesVariable      = "KEYSTORE_SOURCE_PATHS"
	destinationsVariable = "KEYSTORE_DESTINATION_PATHS"
)

// Wanted says whether the environment asks for anything: whether one of the variables is set.
func Wanted() bool {
	return slices.ContainsFunc(Names(), func(name string) bool { return os.Getenv(name) != "" })
}

// Names are the variables.
func Names() []string { return program.VariableNames(variables) }

// Load reads and checks the environment. The error, when there is one, is of type Faults. An empty
// variable counts as unset. Files are not looked at.
func Load() (Config, error) {
	r := program.ReadEnvironment(variables)
	// The kind of fault decides the exit code, not the
	// variable, so the faults are not those of package program.
	var l loader
	if r.Value(truststoresVariable) == "" {
		l.add(codeConfiguration, truststoresVariable, "is not set, want absolute paths separated by \":\"")
	}
	truststores := l.paths(truststoresVariable, r.Value(truststoresVariable))
	passwords := l.passwordPaths(r.Value(passwordsVariable))
	sources := l.paths(sourcesVariable, r.Value(sourcesVariable))
	destinations := l.paths(destinationsVariable, r.Value(destinationsVariable))
	if r.Value(truststoresVariable) != "" {
		l.sameLength(truststoresVariable, truststores, passwordsVariable, passwords)
	}
	l.sameLength(sourcesVariable, sources, destinationsVariable, destinations)
	if len(l.faults) > 0 {
		return Config{}, l.faults
	}
	var cfg Config
	for i, path := range truststores {
		cfg.Truststores = append(cfg.Truststores, Store{path, passwords[i]})
	}
	for i, path := range sources {
		cfg.Keystores = append(cfg.Keystores, Copy{path, destinations[i]})
	}
	return cfg, nil
}

// loader collects the faults while values are parsed.
type loader struct{ faults Faults }

func (l *loader) add(code int, variable, format string, args ...any) {
	l.faults = append(l.faults, Fault{code, variable, fmt.Sprintf(format, args...)})
}

func (l *loader) paths(variable, value string) []string {
	if value == "" {
		return nil
	}
	paths := strings.Split(value, ":")
	for i, path := range paths {
		l.checkPath(variable, i, path)
	}
	return paths
}

// passwordPaths returns a list with one empty entry for an unset variable: that is how the list of
// a single store without password is written.
func (l *loader) passwordPaths(value string) []string {
	paths := strings.Split(value, ":")
	for i, path := range paths {
		if path != "" {
			l.checkPath(passwordsVariable, i, path)
		}
	}
	return paths
}

func (l *loader) checkPath(variable string, i int, path string) {
	if !filepath.IsAbs(path) || strings.HasSuffix(path, "/") {
		l.add(codePaths, variable, "has %q as entry %d, want the absolute path of a file", path, i+1)
	}
}

func (l *loader) sameLength(variable string, paths []string, other string, otherPaths []string) {
	if len(paths) != len(otherPaths) {
		code := codeConfiguration
		if other == passwordsVariable && len(otherPaths) == 1 && otherPaths[0] == "" {
			code = codePaths // as for the ONAP post-processor, which took an empty list for a wrong path
		}
		l.add(code, variable, "has %d entries and %s has %d, want as many in each (an entry may be empty in %s only)",
			len(paths), other, len(otherPaths), passwordsVariable)
	}
}

// WriteUsage writes the variables.
func WriteUsage(w io.Writer) error {
	var text strings.Builder
	text.WriteString("Variables, each a list of absolute paths separated by \":\"\n")
	for _, v := range variables {
		text.WriteString("  " + v.Name + "\n")
		program.Wrap(&text, "      ", v.Help)
	}
	_, err := io.WriteString(w, text.String())
	return err
}

// The exit codes of the ONAP post-processor, which name the step that failed.
const (
	codePaths          = 1
	codeConfiguration  = 2
	codePair           = 3
	codePassword       = 4
	codeBackup         = 5
	codeFormat         = 6
	codeUnreadable     = 7
	codeOperation      = 8
	codeNoCertificates = 9
	codeAlias          = 10
	codeSave           = 11
	codeCopy           = 12
	codeMissing        = 13
	codeOther          = 99
)

// ExitCodes are all, with what they mean.
var ExitCodes = []program.ExitCode{
	{Code: 0, Meaning: "success, whether or not anything had to be changed"},
	{Code: codePaths, Meaning: "a variable has a value that is not the absolute path of a file, or wrong usage"},
	{Code: codeConfiguration,
		Meaning: "a variable is missing, two lists differ in length, or a file would be written twice"},
	{Code: codePair, Meaning: "a truststore does not exist"},
	{Code: codePassword, Meaning: "a password file is missing or cannot be read"},
	{Code: codeBackup, Meaning: "a backup could not be made"},
	{Code: codeFormat, Meaning: "a truststore is not JKS, PKCS#12 or PEM, and its name promises none of them"},
	{Code: codeUnreadable,
		Meaning: "a truststore cannot be read: damaged, of another format, or the password is wrong"},
	{Code: codeOperation, Meaning: "the merged truststore could not be built"},
	{Code: codeNoCertificates, Meaning: "a truststore has no certificate"},
	{Code: codeAlias, Meaning: "not used: an alias that is taken gets a number, where the ONAP post-processor failed"},
	{Code: codeSave, Meaning: "the merged truststore could not be saved"},
	{Code: codeCopy, Meaning: "a keystore could not be copied"},
	{Code: codeMissing, Meaning: "a keystore to copy does not exist"},
	{Code: codeOther, Meaning: "anything else"},
}

// Error is a step that failed, with the exit code that stands for it.
type Error struct {
	Code int
	Err  error
}

func (e *Error) Error() string { return e.Err.Error() }

// Unwrap gives the step's own error.
func (e *Error) Unwrap() error { return e.Err }

// ExitCode is the process's exit code when this step failed.
func (e *Error) ExitCode() int { return e.Code }

func fail(code int, format string, args ...any) *Error {
	return &Error{Code: code, Err: fmt.Errorf(format, args...)}
}

// Fault is one fault of the environment.
type Fault struct {
	Code     int // the exit code that stands for it
	Variable string
	Problem  string // the rest of a sentence that begins with the variable's name
}

func (f Fault) Error() string { return f.Variable + " " + f.Problem }

// Faults are all faults of the environment, in the order in
// which the ONAP post-processor found them.
type Faults []Fault

func (f Faults) Error() string { return program.JoinFaults(f) }

// ExitCode is that of the first fault.
func (f Faults) ExitCode() int { return f[0].Code }

// ExitCode returns the exit code for an error of Load or
// Run: 0 for nil, 99 for an error of another origin.
func ExitCode(err error) int {
	if err == nil {
		return 0
	}
	var coded interface {
		error
		ExitCode() int
	}
	if errors.As(err, &coded) {
		return coded.ExitCode()
	}
	return codeOther
}
