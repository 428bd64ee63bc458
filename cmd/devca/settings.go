package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/certfetcher/certfetcher/internal/devca"
	"github.com/certfetcher/certfetcher/internal/program"
)

// settings are the environment's values, checked.
type settings struct {
	addr     string
	loopback bool // nobody but this machine can reach addr
	caFile   string
	faults   string // as given, for the log
	ca       devca.Config
	log      program.LogSettings
}

// loadSettings reads the environment, and returns everything that is wrong with it.
func loadSettings() (settings, []program.Fault) {
	var env environment
	r := program.ReadEnvironment(&env)
	s := settings{addr: env.Addr, caFile: env.CAFile, faults: env.Fault, log: r.Log()}
	s.loopback = listensOnLoopback(r, env.IAK != "")
	if env.IAK == "" {
		env.IAK = devca.DefaultSecret
	}
	for _, name := range []string{"DEVCA_RV", "DEVCA_IAK"} {
		if n := len(r.Value(name)); n > 256 {
			r.Reject(name, fmt.Sprintf("%d bytes", n))
		}
	}
	s.ca.Reference, s.ca.Secret = env.RV, []byte(env.IAK)
	s.ca.Validity = validity(r)
	s.ca.ResponseProtection = devca.ResponseProtection(r.Choice("DEVCA_RESPONSE_PROTECTION", "mac", "signature"))
	s.ca.StrictKeyUsage = r.Bool("DEVCA_STRICT_KEY_USAGE")
	var err error
	if s.ca.Faults, err = devca.ParseFaults(env.Fault); err != nil {
		r.Reject("DEVCA_FAULT", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	return s, r.Faults()
}

// listensOnLoopback checks the address. One that other machines can reach needs a secret of its own, so
// that nobody puts a CA with a secret that everybody knows on a network by mistake.
func listensOnLoopback(r *program.Reader, ownSecret bool) bool {
	host, port, err := net.SplitHostPort(r.Value("DEVCA_ADDR"))
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		r.Reject("DEVCA_ADDR", "")
		return false
	}
	ip := net.ParseIP(host)
	loopback := host == "localhost" || ip != nil && ip.IsLoopback()
	if !loopback && !ownSecret {
		r.Add("DEVCA_ADDR", fmt.Sprintf("has %q, which other machines can reach: set DEVCA_IAK too, for everybody knows the default", r.Value("DEVCA_ADDR")))
	}
	return loopback
}

// validity reads a duration, or a number of seconds.
func validity(r *program.Reader) time.Duration {
	text := r.Value("DEVCA_VALIDITY")
	d, err := time.ParseDuration(text)
	if err != nil {
		d, err = time.ParseDuration(text + "s")
	}
	if err != nil || d < time.Second || d > devca.MaxValidity {
		r.Reject("DEVCA_VALIDITY", program.DurationHint(text))
	}
	return d
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
