package cmp

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/certfetcher/certfetcher/internal/pki"
)

// StatusError is the CA's refusal, or a decision that it did not make in time (Status is then StatusWaiting).
type StatusError struct {
	Status   PKIStatus
	FailInfo PKIFailureInfo
	Text     string // the server's own words, fit for a log line; empty when it gave none
	// Authenticated says that the answer's protection was verified. Any attacker on the path can make one that
	// is not, so the only consequence of it may be to fail.
	Authenticated bool
}

func (e *StatusError) Error() string {
	var s strings.Builder
	if e.Status == StatusWaiting {
		s.WriteString("CA has not decided in time")
	} else {
		s.WriteString("CA refused")
	}
	if !e.Authenticated {
		s.WriteString(" (in an answer that is not authenticated)")
	}
	fmt.Fprintf(&s, ": %s", e.Status)
	if names := e.FailInfo.Names(); len(names) > 0 {
		fmt.Fprintf(&s, ", %s", strings.Join(names, ", "))
	}
	if e.Text != "" {
		fmt.Fprintf(&s, ": %q", e.Text)
	}
	return s.String()
}

// ErrNoAnchors is wrapped by the error for an answer that is signed although nothing was configured that could
// verify a signature.
var ErrNoAnchors = errors.New("no trust anchors are configured for signed answers")

// CheckError is an answer that must not be trusted, or a certificate that must not be used.
type CheckError struct {
	Check string // which check failed, such as "transactionID"
	Got   string
	Want  string
	Err   error // for errors.Is; may be nil
}

func (e *CheckError) Error() string {
	return fmt.Sprintf("checking %s of the CMP answer: has %s, want %s", e.Check, show(e.Got), show(e.Want))
}

func (e *CheckError) Unwrap() error { return e.Err }

// maxShownText is how many characters of a peer's text are shown: in one field of an error, or in one warning.
const maxShownText = 1000

// show makes text that may hold a peer's words or names safe for an error or a log: a peer can send a megabyte of
// them.
func show(text string) string { return pki.OneLine(text, maxShownText) }

// TransportError is an HTTP exchange that brought no CMP message.
type TransportError struct {
	StatusCode int           // HTTP status; 0: there was no answer
	URL        string        // of the server that answered, without a password, for logs; else it is in Err
	RetryAfter time.Duration // what the server asked for; 0: nothing
	Timeout    bool          // a deadline passed, the message's, the caller's or the network's
	Limit      time.Duration // MessageTimeout when it passed; 0: it did not
	Answered   bool          // an earlier message of the transaction was answered
	Err        error         // may name the server by its URL and addresses
}

func (e *TransportError) Error() string {
	if e.StatusCode != 0 {
		return fmt.Sprintf("sending CMP request: HTTP status %d: %v", e.StatusCode, e.Err)
	}
	return fmt.Sprintf("sending CMP request: %v", e.Err)
}

func (e *TransportError) Unwrap() error { return e.Err }
