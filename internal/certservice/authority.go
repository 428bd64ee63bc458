// Package certservice is the CertService: it takes certificate requests over REST and mutual TLS, has
// them signed by a certification authority, and answers with the chain and the roots to trust. Paths,
// headers, statuses and error texts are those of the ONAP CertService API, version 1, so that clients
// written for that one need no change.
//
// The handler knows only the Authority interface; the one behind it speaks CMPv2. The package keeps
// nothing on disk and no state between requests, so any number of replicas may serve. It issues no
// certificate itself, and it does not authorise: every client whose certificate chains to the
// truststore may ask every configured authority.
package certservice

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"strings"
	"time"
)

// Request is what a client asks for. CSR's signature is verified and its public key is Key's.
type Request struct {
	CSR *x509.CertificateRequest
	Key crypto.Signer // for the proof of possession

	// For an update only: the certificate to renew and its private key, which fit each other.
	OldCert  *x509.Certificate
	OldKey   crypto.Signer
	OldChain []*x509.Certificate // what followed OldCert in the header, unverified; often empty
}

// Issued is what an authority answers.
type Issued struct {
	Chain   []*x509.Certificate // the new certificate, then each signer, without the root
	Trusted []*x509.Certificate // roots to trust, the signing one among them
}

// Authority signs certificate requests. Its methods are called concurrently and give up when ctx ends. A refusal by
// the authority is a *RefusedError; any other error, a *BusyError or a *NamesError among them, is a failure on the
// way to it. Their texts reach the client.
type Authority interface {
	Enroll(ctx context.Context, r Request) (Issued, error)
	Update(ctx context.Context, r Request) (Issued, error)
}

// RefusedError says that the authority answered, and that its answer is no.
type RefusedError struct {
	FailInfo []string // the protocol's names of the reasons, such as "badPOP"; may be empty
	Text     string   // the authority's own words; may be empty
	Err      error    // what the log should say; nil: the same
	// Unauthenticated: whoever is on the way to the authority may have said it instead.
	Unauthenticated bool
}

// Error gives the authority's own words, with those of the reasons that they do not name, or "N/A" as the ONAP server
// did where there is neither.
func (e *RefusedError) Error() string {
	var reasons []string
	for _, reason := range e.FailInfo {
		if !strings.Contains(e.Text, reason) {
			reasons = append(reasons, reason)
		}
	}
	text := strings.Join(reasons, ", ")
	switch {
	case e.Text == "" && text == "":
		text = "N/A"
	case text == "":
		text = e.Text
	case e.Text != "":
		text = e.Text + " (" + text + ")"
	}
	if e.Unauthenticated {
		return "(not authenticated) " + text
	}
	return text
}

func (e *RefusedError) Unwrap() error { return e.Err }

// BusyError says that the authority could not be asked and when to try again.
type BusyError struct {
	RetryAfter time.Duration
	Err        error
}

func (e *BusyError) Error() string { return e.Err.Error() }

func (e *BusyError) Unwrap() error { return e.Err }

// FailedError is a failure on the way to the authority of which the client is told less than the log: addresses in
// the operator's network are none of its business.
type FailedError struct {
	Text string // for the client
	Err  error  // for the log, after the text
}

func (e *FailedError) Error() string { return e.Text }

func (e *FailedError) Unwrap() error { return e.Err }

// Directory finds the authority for a CA name.
type Directory interface {
	Lookup(caName string) (Authority, bool)
	// Share says what an authority may have of the requests under way.
	Share(caName string) Share
	// Ready reports whether a valid set of authorities is loaded.
	Ready() bool
	// Reload reads the set again; trigger names the cause for the log. On an error the set stays as it was.
	Reload(trigger string) error
}

// Static is a Directory that never changes.
type Static map[string]Authority

// Lookup returns the authority of that name.
func (s Static) Lookup(caName string) (Authority, bool) {
	a, ok := s[caName]
	return a, ok
}

// Share leaves everything at its default.
func (s Static) Share(string) Share { return Share{Authorities: len(s)} }

// Ready is always true.
func (s Static) Ready() bool { return true }

// Reload has nothing to read and succeeds.
func (s Static) Reload(string) error { return nil }

// failInfoOf returns the reasons of a refusal, "none" where the authority gave none, "not_authenticated" where somebody
// else may have, and nothing for other errors.
func failInfoOf(err error) []string {
	refused, ok := errors.AsType[*RefusedError](err)
	switch {
	case !ok:
		return nil
	case refused.Unauthenticated:
		return []string{"not_authenticated"}
	case len(refused.FailInfo) == 0:
		return []string{"none"}
	default:
		return refused.FailInfo
	}
}
