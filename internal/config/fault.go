package config

import "github.com/certfetcher/certfetcher/internal/program"

// Part is the part of the configuration that a fault is in. The parts differ in their exit codes,
// and are ordered as the ONAP client checked them.
type Part int

// The parts, in the order in which faults are reported.
const (
	PartClient Part = iota // which CertService, what to write
	PartCSR                // the certificate asked for
	PartTLS                // mutual TLS with the CertService
)

var partByTag = map[string]Part{"client": PartClient, "csr": PartCSR, "tls": PartTLS}

// Fault is one thing wrong with the environment.
type Fault struct {
	Part     Part
	Variable string
	Problem  string // what is wrong, as a sentence's rest after the variable's name
}

func (f Fault) Error() string { return f.Variable + " " + f.Problem }

// Faults are all things wrong with the environment, ordered by part and then as documented.
type Faults []Fault

func (f Faults) Error() string { return program.JoinFaults(f) }

// First is the part that decides the exit code.
func (f Faults) First() Part { return f[0].Part }
