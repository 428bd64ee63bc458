package config

import (
	"slices"

	"github.com/certfetcher/certfetcher/internal/program"
)

// Load reads and checks the environment. The error, when there is one, is of type Faults; even then
// the logging, termination-message and TLS settings that could be understood are returned, so that the
// caller can report the faults where the operator looks, and look for more.
func Load() (*Fetcher, error) {
	l := &loader{program.ReadEnvironment(Variables)}
	fetcher := l.fetcher()
	faults := Faults(ours(l.Faults()))
	fetcher.Warnings = ours(l.Warnings())
	if len(faults) == 0 {
		return fetcher, nil
	}
	slices.SortStableFunc(faults, func(a, b Fault) int { return int(a.Stage - b.Stage) })
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
