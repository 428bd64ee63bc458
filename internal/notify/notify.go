// Package notify notifies the application that a new certificate is on the volume: by a command,
// by a signal, by an HTTP request; and finds out afterwards, by dialling the application with TLS,
// whether it serves that certificate.
//
// A Dispatcher runs what is configured, beside the renewal loop: the loop never waits for an
// application, and nothing that goes wrong here touches the certificate. The package publishes
// nothing and reads no published file; all it knows of a publication is in the Event.
//
// To add a notifier, write its type in a file of its own, and add its row to Kinds and its
// variables to Settings.
package notify

import (
	"context"
	"crypto/x509"
	"log/slog"
	"slices"
	"time"

	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/internal/program"
)

// Settings are the values of all variables NOTIFY_*, as New
// and Conflict check them. What is empty is not done.
type Settings struct {
	// Exec is a command line, as parseCommand reads it.
	Exec string
	// Signal is a signal's name, with or without SIG and in any case, or its number. Process or
	// PIDFile, or both, say which processes get it; see signaller.
	Signal, Process, PIDFile string
	// URL is an absolute http or https URL. A user name and password in it are sent, and not shown.
	URL string
	// AllowRemote allows URL to lead to other addresses than loopback ones. Without it, the
	// address that is dialled is checked, so that a name cannot lead elsewhere.
	AllowRemote bool
	// Verify is a host and a port, where TLS begins with the first byte; or a scheme of protocols,
	// ://, a host and, unless it is the protocol's own, a port.
	Verify string
	// VerifyServerName is the name to ask for (SNI). Empty: the host of Verify when the new
	// certificate vouches for it, otherwise the first name that it does vouch for.
	VerifyServerName string
	// VerifyFor bounds one verification: how long the
	// application may take to serve the new certificate.
	VerifyFor time.Duration
	// Timeout bounds each run of the command, and each request.
	Timeout time.Duration
}

// Options are what notifiers need besides the settings.
type Options struct {
	UserAgent string // of requests
	// Environ is certfetcher's own environment, as os.Environ returns it.
	Environ []string
	Log     *slog.Logger
}

// The kinds of notification, as metrics and logs name them.
const (
	KindExec   = "exec"
	KindSignal = "signal"
	KindURL    = "url"
	KindVerify = "verify"
)

// Kind is one way to notify the application.
type Kind struct {
	Name      string   // in metrics and logs
	Variables []string // that it depends on; the first asks for it
	Check     string   // its name in the doctor's report
	// create returns nil when the settings do not ask for it. An error is about the first variable.
	create func(Settings, Options) (Notifier, error)
}

// Kinds are all ways, in the order in which they run: a command may prepare what a signal then
// makes the application load. Verify, which notifies no one, comes last.
var Kinds = []Kind{
	{KindExec, []string{"NOTIFY_EXEC"}, "notify command", newCommand},
	{KindSignal, []string{"NOTIFY_SIGNAL", "NOTIFY_PROCESS", "NOTIFY_PID_FILE"}, "notify signal", newSignaller},
	{KindURL, []string{"NOTIFY_URL", "NOTIFY_URL_ALLOW_REMOTE"}, "notify url", newWebhook},
	{KindVerify, []string{"NOTIFY_VERIFY"}, "notify verify", newVerifier},
}

// New makes the notifiers that the settings ask for. The
// faults are about values that cannot be used.
func New(settings Settings, options Options) (Config, []program.Fault) {
	config := Config{Log: options.Log}
	var faults []program.Fault
	for _, kind := range Kinds {
		notifier, err := kind.create(settings, options)
		switch {
		case err != nil:
			faults = append(faults, program.Fault{
				Variable: kind.Variables[0], Problem: "cannot be used: " + err.Error(),
			})
		case notifier == nil:
		case kind.Name == KindVerify:
			config.Verify = notifier
		default:
			config.Notifiers = append(config.Notifiers, notifier)
		}
	}
	return config, faults
}

// Event is a publication that the application is notified of. It holds no secret.
type Event struct {
	// Reason is why the certificate was published, in few words, such as "renewed".
	Reason string
	// Serial is the leaf's serial number as openssl prints it: upper-case hexadecimal, an even
	// number of digits, no separators.
	Serial              string
	NotBefore, NotAfter time.Time
	// Dir is the volume's directory, and Paths are the files that were published, absolute.
	Dir   string
	Paths []string

	// Names are what the leaf vouches for, DNS names before
	// IP addresses. Verify asks for one of them.
	Names []string
	// Trusted are the anchors that were published with the certificate; may be empty.
	Trusted []*x509.Certificate

	// Kept says that nothing was published: the certificate was there at the start. No one is
	// notified of that, but Config.Prepare and Config.Verify are run.
	Kept bool
	// Notified, unless nil, is called when all notifications have succeeded, Verify having no part
	// in it. Should there be a newer event by then, it may be called or not.
	Notified func()
}

// NewEvent describes the publication of leaf.
func NewEvent(reason, dir string, paths []string, leaf *x509.Certificate, trusted []*x509.Certificate) Event {
	event := Event{
		Reason: reason, Serial: pki.Serial(leaf), NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter,
		Dir: dir, Paths: paths, Names: slices.Clone(leaf.DNSNames), Trusted: trusted,
	}
	for _, ip := range leaf.IPAddresses {
		event.Names = append(event.Names, ip.String())
	}
	return event
}

// Notifier is one configured way to notify the application, or to look at it. Notify tries once
// (Verify: for a while) and returns within a bounded time, or soon after ctx is done. It must not
// be called twice at a time.
type Notifier interface {
	Kind() string
	Notify(ctx context.Context, event Event) error
}

// Checker is a Notifier that can find out whether it would work now,
// without any effect on the application. All that New makes are
// Checkers. names are those that the certificate will vouch for.
type Checker interface {
	Check(ctx context.Context, names []string) Finding
}

// Finding is what a Checker found.
type Finding struct {
	Found  string
	Err    error  // the rest of Found, if not nil
	Advice string // what to do about it; empty when all is well
	// Fatal says that it can never work. Otherwise the application may only not be up yet.
	Fatal bool
}
