// Package config fills the settings of the stages from the environment. It reads the environment
// once; the stages of an enrolment receive values and never look at the environment themselves.
//
// All faults are found in one run, each naming the variable, what it has and what is wanted, so
// that a manifest is corrected in one round. No fault shows the value of a secret variable.
package config

import (
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/certfetcher/certfetcher/internal/enroll"
	"github.com/certfetcher/certfetcher/internal/mtls"
	"github.com/certfetcher/certfetcher/internal/notify"
	"github.com/certfetcher/certfetcher/internal/program"
	"github.com/certfetcher/certfetcher/internal/sidecar"
)

// Fetcher is the configuration of certfetcher: the settings
// of its stages, each of which owns the type of its own.
type Fetcher struct {
	enroll.Settings
	TLS     mtls.Files
	Sidecar sidecar.Settings
	Notify  notify.Settings // of the sidecar; notify.New checks them
	Log     program.LogSettings

	// Warnings are what is usable but doubtful about the variables.
	Warnings []Fault
	// Inputs are the files that are read, by the variable that names them.
	Inputs map[string]string
	// TerminationMessagePath is where the reason of a failure goes; empty for nowhere.
	TerminationMessagePath string
}

// Load reads and checks the environment. The error, when there is one, is of type Faults; even then
// the logging, termination-message and TLS settings that could be understood are returned, so that
// the caller can report the faults where the operator looks, and look for more.
func Load() (*Fetcher, error) {
	l := &loader{program.ReadEnvironment(Variables)}
	fetcher := l.fetcher()
	faults := Faults(ours(l.Faults()))
	fetcher.Warnings = ours(l.Warnings())
	if len(faults) == 0 {
		return fetcher, nil
	}
	sort.SliceStable(faults, func(i, j int) bool { return faults[i].Stage < faults[j].Stage })
	return fetcher, faults
}

// ours turns the reader's faults into this package's.
func ours(found []program.Fault) []Fault {
	var faults []Fault
	for _, f := range found {
		faults = append(faults, Fault{Stage: stages[f.Part], Variable: f.Variable, Problem: f.Problem})
	}
	return faults
}

// loader adds to the reader what this program's values need.
type loader struct {
	*program.Reader
}

// stages are those of the parts that program.Variable.Part names. Faults
// in them differ in their exit codes, and are reported in the order in
// which the ONAP client checked the parts, which is that of the codes.
var stages = map[string]enroll.Stage{
	"client": enroll.StageClientConfiguration, // which CertService, what to write
	"csr":    enroll.StageCSRConfiguration,    // the certificate requested
	"tls":    enroll.StageTLSConfiguration,    // mutual TLS with the CertService
}

// Fault is one thing wrong with the environment.
type Fault struct {
	Stage    enroll.Stage // that decides the exit code
	Variable string
	Problem  string // what is wrong, as a sentence's rest after the variable's name
}

func (f Fault) Error() string { return f.Variable + " " + f.Problem }

// Faults are all things wrong with the environment, ordered by stage and then as documented.
type Faults []Fault

func (f Faults) Error() string { return program.JoinFaults(f) }

// Variables names the variables of several faults only, for where these are known.
func (f Faults) Variables() string {
	var names []string
	for _, fault := range f {
		if !slices.Contains(names, fault.Variable) {
			names = append(names, fault.Variable)
		}
	}
	return fmt.Sprintf("the configuration has %d faults: %s", len(f), strings.Join(names, ", "))
}

// Stage is the first one, which decides the exit code.
func (f Faults) Stage() enroll.Stage { return f[0].Stage }
