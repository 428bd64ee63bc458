// Package config turns the environment into typed, checked values. It reads the environment once;
// the stages of an enrolment receive values and never look at the environment themselves.
//
// All faults are found in one go, each naming the variable, what it has and what is wanted, so that
// a manifest is mended in one round. Values of secret variables are in no fault.
package config

import (
	"crypto/x509"
	"io/fs"
	"time"

	"github.com/certfetcher/certfetcher/internal/notify"
	"github.com/certfetcher/certfetcher/internal/program"
)

// Fetcher is the configuration of certfetcher.
type Fetcher struct {
	Request     Request
	TLS         TLS
	Certificate Certificate
	Output      Output
	Sidecar     Sidecar
	Notify      notify.Settings // of the sidecar; notify.New checks them
	Log         program.LogSettings

	// ForceEnroll asks for a certificate even when the volume holds a matching, valid one.
	ForceEnroll bool
	// Warnings are what is usable but doubtful about the variables.
	Warnings []Fault
	// Inputs are the files that are read, by the variable that names them.
	Inputs map[string]string
	// TerminationMessagePath is where the reason of a failure goes; empty for nowhere.
	TerminationMessagePath string
}

// Request says which CertService is asked, and how patiently.
type Request struct {
	URL     string        // absolute, https
	Timeout time.Duration // of each try, more than 0
	CAName  string

	RetryInitialInterval time.Duration // more than 0
	RetryMaxInterval     time.Duration // not less than RetryInitialInterval
	RetryMaxElapsed      time.Duration // 0: for ever
}

// TLS names the material for mutual TLS with the CertService; internal/mtls reads it.
type TLS struct {
	KeystorePath, KeystoreKeyPath, KeystorePassword string
	TruststorePath, TruststorePassword              string
	// The files that the passwords came from; empty where they did not, or from what cannot be read again.
	KeystorePasswordFile, TruststorePasswordFile string
	// AllowNoClientAuth lets a request go to a server that did not ask for the client certificate.
	AllowNoClientAuth bool
}

// Certificate is what to ask for.
type Certificate struct {
	KeyAlgorithm string // in package keygen's terms
	// Template holds the subject, as DER in RawSubject and readable in Subject, and the subject
	// alternative names; nothing else of it is set.
	Template *x509.CertificateRequest
}

// Output says what is written, and where to.
type Output struct {
	Dir                   string   // absolute and clean
	Types                 []string // of output.FormatNames; each at most once, at least one
	Layout                string   // symlink or inplace
	FileMode              fs.FileMode
	Group                 string // name or number, empty for the directory's
	KeystoreAlias         string
	TruststoreAliasPrefix string
	P12Profile            string // modern or legacy
	KeystorePassword      string // empty: read back or made
	TruststorePassword    string // empty: read back or made
}

// Sidecar says whether, when and how to renew.
type Sidecar struct {
	Enabled bool // MODE=sidecar; all else is for that

	RenewAt      float64       // share of the certificate's life, between 0 and 1
	RenewBefore  time.Duration // before its end, in place of RenewAt; 0: RenewAt holds
	Seed         string        // for the jitter; never empty
	TriggerFile  string        // absolute, or empty
	Fallback     bool
	UpdateURL    string // absolute, https; empty: derived from Request.URL
	ReuseKey     bool
	TrustOverlap time.Duration // negative: until the certificate that came with the trusted ones expires

	HealthAddress string // empty: not served
}
