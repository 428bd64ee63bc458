// Package truststore does the job of the ONAP CertService post-processor: it merges truststores and
// puts keystores in the place of others, under the same variables and exit codes.
//
// The certificates of the second and later truststores are added to the first one. What makes two
// certificates the same is their DER, not their alias: one that is there already is not added again,
// and one whose alias is taken gets another alias. The first truststore keeps its format, and what it
// holds stays as it is, other aliases and private keys included; a PEM file and a JKS store keep every
// byte of it, but for PEM that other programs do not read, which is written again. Formats are JKS, PKCS#12 and PEM, told apart by content; a JDK's cacerts is JKS or
// PKCS#12, since JDK 18 without password; the one that it has otherwise need not be given.
//
// A run that finds nothing to do writes nothing. One that finds something wrong has changed nothing.
// Files are replaced by rename, so that one is always whole; see run for what a crash leaves.
//
// It removes no certificate, checks none (not the dates, not whether it is a CA), and opens no private key: keys may have
// passwords of their own.
package truststore

import (
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

// Store is a truststore and the file with its password. PasswordPath is empty for one that needs none, or has
// that of a JDK's cacerts, changeit; for PEM it is not read. One newline at the end of the password is dropped.
type Store struct{ Path, PasswordPath string }

// Copy is a file to put in the place of another, which need not exist. It may be of any kind: password
// files are copied along with their keystores.
type Copy struct{ Source, Destination string }

// environment is every variable as text; package environ says what its tags mean.
type environment struct {
	Truststores  string `envconfig:"TRUSTSTORES_PATHS" desc:"truststores (JKS, PKCS#12 or PEM); the certificates of the second and later ones are added to the first, which is kept as .bak; required"`
	Passwords    string `envconfig:"TRUSTSTORES_PASSWORDS_PATHS" desc:"the file with the password of each truststore, an empty entry for one without (PEM, the cacerts of JDK 18 and later) and for one with the password of a JDK's cacerts, changeit"`
	Sources      string `envconfig:"KEYSTORE_SOURCE_PATHS" desc:"files to copy, such as keystores and their password files"`
	Destinations string `envconfig:"KEYSTORE_DESTINATION_PATHS" desc:"the file that each of them replaces, which is kept as .bak"`
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
	return slices.ContainsFunc(program.DescribeVariables(&environment{}), func(v program.Variable) bool { return os.Getenv(v.Name) != "" })
}

// Names are the variables.
func Names() []string { return program.VariableNames(&environment{}) }

// Load reads and checks the environment. The error, when there is one, is of type Faults. An empty
// variable counts as unset. Files are not looked at.
func Load() (Config, error) {
	var env environment
	program.ReadEnvironment(&env)
	// What is wrong with a variable decides the exit code, and not which one it is, so the faults are not the reader's.
	var l loader
	if env.Truststores == "" {
		l.add(codeConfiguration, truststoresVariable, "is not set, want absolute paths separated by \":\"")
	}
	truststores := l.paths(truststoresVariable, env.Truststores)
	passwords := l.passwordPaths(env.Passwords)
	sources := l.paths(sourcesVariable, env.Sources)
	destinations := l.paths(destinationsVariable, env.Destinations)
	if env.Truststores != "" {
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

// passwordPaths gives a list with one empty entry for an unset variable: that is how the list of a
// single store without password has to be written.
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
			code = codePaths // as the ONAP post-processor, to which an empty list has a wrong path
		}
		l.add(code, variable, "has %d entries and %s has %d, want as many in each (an entry may be empty in %s only)",
			len(paths), other, len(otherPaths), passwordsVariable)
	}
}

// WriteUsage prints the variables and the exit codes.
func WriteUsage(w io.Writer) error {
	var text strings.Builder
	text.WriteString("Variables, each a list of absolute paths separated by \":\"\n")
	for _, v := range program.DescribeVariables(&environment{}) {
		fmt.Fprintf(&text, "  %s\n      %s\n", v.Name, v.Description)
	}
	text.WriteString("\nExit codes\n")
	for _, row := range exitCodes {
		fmt.Fprintf(&text, "  %2d  %s\n", row.code, row.meaning)
	}
	_, err := io.WriteString(w, text.String())
	return err
}
