package config

import (
	"github.com/certfetcher/certfetcher/internal/enroll"
	"github.com/certfetcher/certfetcher/internal/program"
)

// stages are those of the parts that program.Variable.Part names. Faults in them differ in their exit codes, and are
// reported in the order in which the ONAP client checked the parts, which is that of the codes.
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

// Stage is the first one, which decides the exit code.
func (f Faults) Stage() enroll.Stage { return f[0].Stage }
