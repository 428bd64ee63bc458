// Package notify tells the application that a new certificate is on the volume: by a command, by a
// signal, by an HTTP request; and finds out afterwards, by dialling the application with TLS, whether
// it serves that certificate.
//
// A Dispatcher runs what is configured, beside the renewal loop: the loop never waits for an
// application, and nothing that goes wrong here touches the certificate. The package publishes
// nothing and reads no published file; all it knows of a publication is in the Event.
package notify

import (
	"context"
	"crypto/x509"
	"time"

	"github.com/certfetcher/certfetcher/internal/pki"
)

// The kinds of notification, as metrics and logs name them.
const (
	KindExec   = "exec"
	KindSignal = "signal"
	KindURL    = "url"
	KindVerify = "verify"
)

// Event is a publication that the application is told of. It holds no secret.
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

	// Names are what the leaf vouches for, DNS names before IP addresses. Verify asks for one of them.
	Names []string
	// Trusted are the anchors that were published with the certificate; may be empty.
	Trusted []*x509.Certificate

	// Kept says that nothing was published: the certificate was there at the start. Nobody is told of that, but
	// Config.Prepare and Config.Verify are run.
	Kept bool
	// Told, unless nil, is called when all have been told, Verify having no part in it. Should there be a newer
	// event by then, it may be called or not.
	Told func()
}

// NewEvent describes the publication of leaf.
func NewEvent(reason, dir string, paths []string, leaf *x509.Certificate, trusted []*x509.Certificate) Event {
	event := Event{
		Reason: reason, Serial: pki.Serial(leaf), NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter,
		Dir: dir, Paths: paths, Names: leaf.DNSNames, Trusted: trusted,
	}
	for _, ip := range leaf.IPAddresses {
		event.Names = append(event.Names[:len(event.Names):len(event.Names)], ip.String())
	}
	return event
}

// Notifier is one way of telling, or asking, the application. Notify tries once (Verify: for a
// while) and returns within a bounded time, or soon after ctx is done. It must not be called twice
// at a time.
type Notifier interface {
	Kind() string
	Notify(ctx context.Context, event Event) error
}
