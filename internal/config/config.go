// Package config fills the settings of the stages from the environment. It reads the environment once; the stages of an
// enrolment receive values and never look at the environment themselves.
//
// All faults are found in one go, each naming the variable, what it has and what is wanted, so that a manifest is
// corrected in one round. No fault shows the value of a secret variable.
package config

import (
	"github.com/certfetcher/certfetcher/internal/enroll"
	"github.com/certfetcher/certfetcher/internal/mtls"
	"github.com/certfetcher/certfetcher/internal/notify"
	"github.com/certfetcher/certfetcher/internal/program"
	"github.com/certfetcher/certfetcher/internal/sidecar"
)

// Fetcher is the configuration of certfetcher: the settings of its stages, each of which owns the type of its own.
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
