package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kelseyhightower/envconfig"

	"github.com/certfetcher/certfetcher/internal/devca"
)

// settings are the environment's values, checked.
type settings struct {
	addr     string
	loopback bool // nobody but this machine can reach addr
	caFile   string
	faults   string // as given, for the log
	ca       devca.Config
	json     bool
	level    slog.Level
}

// loadSettings reads the environment. It returns everything that is wrong with it, one text for each fault.
func loadSettings() (settings, []string) {
	var env environment
	if err := envconfig.Process("", &env); err != nil {
		// Every field is text, so this cannot depend on what the environment holds.
		panic(fmt.Sprintf("devca: the environment type does not fit envconfig: %v", err))
	}
	l := &loader{variables: describe(&env)}
	ownSecret := l.applyTwinsAndDefaults(&env)
	s := settings{addr: env.Addr, caFile: env.CAFile, faults: env.Fault}
	l.listenOn(&s, ownSecret)
	s.ca.Reference, s.ca.Secret = l.credentials(&env)
	s.ca.Validity = l.validity(&env.Validity)
	s.ca.ResponseProtection = devca.ResponseProtection(l.oneOf(&env.Protection, "mac", "signature"))
	var err error
	if s.ca.Faults, err = devca.ParseFaults(env.Fault); err != nil {
		l.reject(&env.Fault, strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	s.json = l.oneOf(&env.LogFormat, "json", "text") == "json"
	if err := s.level.UnmarshalText([]byte(l.oneOf(&env.LogLevel, "debug", "info", "warn", "error"))); err != nil && len(l.faults) == 0 {
		l.reject(&env.LogLevel, err.Error())
	}
	return s, l.faults
}

// loader collects the faults while values are parsed.
type loader struct {
	variables []variable
	faults    []string
}

// reject records that a value breaks its rule; detail, which may be empty, says how.
func (l *loader) reject(value *string, detail string) {
	v := l.variables[slices.IndexFunc(l.variables, func(v variable) bool { return v.value == value })]
	shown := fmt.Sprintf("%q", *value)
	if v.secret {
		shown = "a value that is not shown"
	}
	if detail != "" {
		detail = " (" + detail + ")"
	}
	l.faults = append(l.faults, fmt.Sprintf("%s has %s%s, want %s", v.name, shown, detail, v.rule))
}

// applyTwinsAndDefaults says whether a secret was given, rather than the default taken.
func (l *loader) applyTwinsAndDefaults(env *environment) bool {
	for _, v := range l.variables {
		if v.secret {
			l.readTwin(v)
		}
	}
	own := env.IAK != ""
	if !own {
		env.IAK = devca.DefaultSecret
	}
	for _, v := range l.variables {
		if *v.value == "" {
			*v.value = v.def
		}
	}
	return own
}

// readTwin takes the value of X from the file that X_FILE names.
func (l *loader) readTwin(v variable) {
	twin := v.name + "_FILE"
	path := os.Getenv(twin)
	if path == "" {
		return
	}
	if *v.value != "" {
		l.faults = append(l.faults, fmt.Sprintf("%s and %s are both set, want one of them", twin, v.name))
		return
	}
	content, err := os.ReadFile(path)
	if err != nil {
		var pathError *fs.PathError
		if errors.As(err, &pathError) {
			err = pathError.Err
		}
		l.faults = append(l.faults, fmt.Sprintf("%s has %q, which cannot be read: %v", twin, path, err))
		return
	}
	if *v.value = strings.TrimSuffix(strings.TrimSuffix(string(content), "\n"), "\r"); *v.value == "" {
		l.faults = append(l.faults, fmt.Sprintf("%s has %q, which is empty, want %s", twin, path, v.rule))
	}
}

// listenOn checks the address. One that other machines can reach needs a secret of its own, so
// that nobody puts a CA with a secret that everybody knows on a network by mistake.
func (l *loader) listenOn(s *settings, ownSecret bool) {
	host, port, err := net.SplitHostPort(s.addr)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		l.faults = append(l.faults, fmt.Sprintf("DEVCA_ADDR has %q, want %s", s.addr, l.variables[0].rule))
		return
	}
	ip := net.ParseIP(host)
	s.loopback = host == "localhost" || ip != nil && ip.IsLoopback()
	if !s.loopback && !ownSecret {
		l.faults = append(l.faults, fmt.Sprintf("DEVCA_ADDR has %q, which other machines can reach: set DEVCA_IAK too, for everybody knows the default", s.addr))
	}
}

func (l *loader) credentials(env *environment) (reference string, secret []byte) {
	for _, value := range []*string{&env.RV, &env.IAK} {
		if len(*value) > 256 {
			l.reject(value, fmt.Sprintf("%d bytes", len(*value)))
		}
	}
	return env.RV, []byte(env.IAK)
}

func (l *loader) validity(value *string) time.Duration {
	d, err := time.ParseDuration(*value)
	if err != nil {
		d, err = time.ParseDuration(*value + "s")
	}
	if err != nil || d < time.Second || d > devca.MaxValidity {
		l.reject(value, "")
	}
	return d
}

func (l *loader) oneOf(value *string, words ...string) string {
	if !slices.Contains(words, *value) {
		l.reject(value, "")
	}
	return *value
}

func (s settings) newLogger(w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: s.level}
	if s.json {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// writeFile writes a file as a whole or not at all: readers that wait for it to appear never see a part.
func writeFile(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails, as it should, after the rename
	_, err = f.Write(content)
	if err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
