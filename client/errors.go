package client

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/certfetcher/certfetcher/internal/pki"
)

// StatusError is CertService, or something in its place, answering with an error status (4xx, 5xx).
type StatusError struct {
	StatusCode int
	// Message is the errorMessage of the answer, on one line and bounded; where none came, a note of
	// what came instead.
	Message string
	// Reason is what the answer says for programs beside its message, such as ReasonNames; empty when it says nothing.
	Reason string
	// RetryAfter is how long the server asks to wait, at most a day. Zero: it did not say.
	RetryAfter time.Duration
	// URL is what was asked for.
	URL string
	// IdentityProblem is what is known here to be wrong with the client's certificate; empty for nothing.
	IdentityProblem string
}

// ReasonNames is the Reason of an answer 500 for a certificate that the CA issued with another subject or other names
// than the requested ones. Each further try would have it issue one more.
const ReasonNames = "unexpectedNames"

func (e *StatusError) Error() string {
	text := fmt.Sprintf("CertService answered %d %s: %s", e.StatusCode, http.StatusText(e.StatusCode), e.Message)
	switch e.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		if e.IdentityProblem != "" {
			return text + ": " + e.IdentityProblem + ": " + replaceIdentity
		}
		return text + ": check that CertService trusts the CA of the client certificate in KEYSTORE_PATH"
	case http.StatusNotFound:
		return text + " (GET " + e.URL + "): check CA_NAME and REQUEST_URL, for renewals UPDATE_URL"
	case http.StatusRequestHeaderFieldsTooLarge:
		return text + ": raise the server's (or a proxy's) limit for headers, or take a smaller key"
	}
	return text
}

// mayPass tells the statuses that another try may get past.
func (e *StatusError) mayPass() bool {
	switch e.StatusCode {
	case http.StatusInternalServerError:
		return e.Reason != ReasonNames
	case http.StatusRequestTimeout, http.StatusTooManyRequests,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// AnswerError is an answer that CertService cannot have given: a redirect, HTML, nothing, other JSON, too
// much. The request is not repeated.
type AnswerError struct {
	// Reason says what came and what was expected, on one line.
	Reason string
}

func (e *AnswerError) Error() string { return "this is no answer of CertService: " + e.Reason }

// ConnectionError is a request that got no whole answer: name, TCP, TLS, trust, host name, time-out.
type ConnectionError struct {
	// Err says on one line what failed and what to try, and wraps the error of the network or TLS.
	Err error
	// Permanent is set where another try cannot help: one side does not trust the other.
	Permanent bool

	text string // of Err, made fit to be shown
}

// maxConnectionText bounds, in characters, the text of a ConnectionError, which tells of certificates too.
const maxConnectionText = 2000

func (e *ConnectionError) Error() string {
	if e.text == "" {
		return pki.OneLine(e.Err.Error(), maxConnectionText)
	}
	return e.text
}

// Unwrap gives the reason. Its text may hold whatever a server sent.
func (e *ConnectionError) Unwrap() error { return e.Err }

// mayPass reports whether another try may succeed where this error came.
func mayPass(err error) bool {
	var status *StatusError
	var conn *ConnectionError
	switch {
	case errors.As(err, &status):
		return status.mayPass()
	case errors.As(err, &conn):
		return !conn.Permanent
	}
	return false
}

// bodyError is an answer whose body broke off; the connection is to blame.
type bodyError struct{ err error }

func (e *bodyError) Error() string { return e.err.Error() }
