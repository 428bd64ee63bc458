package client

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/certfetcher/certfetcher/internal/pki"
)

// StatusError is CertService, or something in its place, answering with an error status (4xx, 5xx).
type StatusError struct {
	StatusCode int
	// Message is the errorMessage of the answer, on one line and bounded; where none came, a note
	// of what came instead.
	Message string
	// Reason is what the answer says for programs beside its message: ReasonNames or, of a 401, the
	// word for why the token is refused; empty when it says nothing.
	Reason string
	// RetryAfter is how long the server asks to wait, at most a day. Zero: it did not say.
	RetryAfter time.Duration
	// RequestID is what the server calls the request in its log (X-Request-Id); empty: it did not say.
	RequestID string
	// URL is what was asked for.
	URL string
	// IdentityProblem is what is known here to be wrong with
	// the client's certificate; empty for nothing.
	IdentityProblem string
	// TokenAdvice is what to do about a token that a 401 refuses; empty where none was sent.
	TokenAdvice string
}

// ReasonNames is the Reason of an answer 500 for a certificate that the CA issued with another
// subject or other names than the requested ones. Each further try would have it issue one more.
const ReasonNames = "unexpectedNames"

func (e *StatusError) Error() string {
	text := "CertService answered " + e.Status()
	if e.StatusCode == http.StatusNotFound {
		text += " (GET " + e.URL + ")"
	}
	if advice := e.Advice(); advice != "" {
		text += ": " + advice
	}
	return text + AskAbout(e.RequestID)
}

// AskAbout ends an error with what the server calls the request; with nothing where it did not say.
func AskAbout(requestID string) string {
	if requestID == "" {
		return ""
	}
	return " (for the operator of CertService, this is request " + requestID + ")"
}

// Advice is what to try; empty where there is none.
func (e *StatusError) Advice() string {
	switch {
	case e.OfPolicy():
		return PolicyAdvice
	case e.TokenAdvice != "":
		return e.TokenAdvice
	case e.Unsent() && e.IdentityProblem != "":
		return e.IdentityProblem + ": " + replaceIdentity
	case e.Unsent():
		return "check that CertService trusts the CA of the client certificate in KEYSTORE_PATH"
	case e.StatusCode == http.StatusNotFound:
		return "check CA_NAME and REQUEST_URL, for renewals UPDATE_URL"
	case e.StatusCode == http.StatusRequestHeaderFieldsTooLarge:
		return "raise the server's (or a proxy's) limit for headers, or take a smaller key"
	}
	return ""
}

// Status is the status as text, with the message.
func (e *StatusError) Status() string {
	return fmt.Sprintf("%d %s: %s", e.StatusCode, http.StatusText(e.StatusCode), e.Message)
}

// A CertService that refuses a request for its policy begins with PolicyRefusal, and PolicyAdvice is
// what to do about it.
const (
	PolicyRefusal = "Not allowed by the policy"
	PolicyAdvice  = "have its policy extended for this client, or request what it allows (SANS, COMMON_NAME and the " +
		"other variables of the certificate, CA_NAME); certservice policy check tries a policy"
)

// OfPolicy tells a request that the policy of a CertService does not allow.
func (e *StatusError) OfPolicy() bool {
	return e.StatusCode == http.StatusForbidden && strings.HasPrefix(e.Message, PolicyRefusal)
}

// Unsent tells that the CA got nothing of the request.
func (e *StatusError) Unsent() bool {
	return e.StatusCode == http.StatusUnauthorized || e.StatusCode == http.StatusForbidden
}

// MayPass tells the answers that another try may get past.
func (e *StatusError) MayPass() bool {
	switch e.StatusCode {
	case http.StatusUnauthorized:
		return e.Reason != "" && strings.Contains(passingReasons, " "+e.Reason+" ")
	case http.StatusInternalServerError:
		return e.Reason != ReasonNames
	case http.StatusRequestTimeout, http.StatusTooManyRequests,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// AnswerError is an answer that CertService cannot have given: a redirect, HTML, nothing, other
// JSON, too much. The request is not repeated.
type AnswerError struct {
	// Reason says what came and what was expected, on one line.
	Reason string
}

func (e *AnswerError) Error() string { return "invalid CertService response: " + e.Reason }

// ConnectionError is a request that got no whole answer:
// name, TCP, TLS, trust, host name, time-out.
type ConnectionError struct {
	// Err says on one line what failed and what to try, and wraps the error of the network or TLS.
	Err error
	// Problem and Advice are what Err says failed, and what to try.
	Problem, Advice string
	// Permanent is set where another try cannot help: one side does not trust the other.
	Permanent bool

	text string // of Err, made fit to be shown
}

// maxConnectionText bounds, in characters, the text of a
// ConnectionError, which describes certificates too.
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
	var token *TokenError
	switch {
	case errors.As(err, &status):
		return status.MayPass()
	case errors.As(err, &conn):
		return !conn.Permanent
	case errors.As(err, &token):
		return !token.Permanent
	}
	return false
}

// bodyError is an answer whose body broke off; the connection is to blame.
type bodyError struct{ err error }

func (e *bodyError) Error() string { return e.err.Error() }

// maxMessage bounds, in characters, what a server can put into our errors and logs.
const maxMessage = 1000

// errorMessage finds the text of an error answer: errorMessage where it is CertService's own, else
// a note of what came, since proxies answer in its place with pages of their own.
func errorMessage(contentType string, body []byte) string {
	var doc struct {
		ErrorMessage string `json:"errorMessage"`
	}
	if json.Unmarshal(body, &doc) == nil && strings.TrimSpace(doc.ErrorMessage) != "" {
		return doc.ErrorMessage
	}
	return "no errorMessage but " + bodyNote(contentType, body)
}

// errorReason is what an error answer says for programs, if it is a reason that this package knows.
func errorReason(body []byte) string {
	var doc struct {
		Reason string `json:"reason"`
	}
	if json.Unmarshal(body, &doc) == nil && doc.Reason == ReasonNames {
		return ReasonNames
	}
	return ""
}

// bodyNote describes a body that is not the expected one by type, size and beginning.
func bodyNote(contentType string, body []byte) string {
	if len(bytes.TrimSpace(body)) == 0 {
		return "an empty body"
	}
	if contentType == "" {
		contentType = "no Content-Type"
	}
	const shown = 160
	beginning := pki.OneLine(string(body[:min(len(body), 4096)]), shown)
	if title := htmlTitle(body); title != "" {
		return fmt.Sprintf("%s, %d bytes, titled %q", contentType, len(body), pki.OneLine(title, shown))
	}
	return fmt.Sprintf("%s, %d bytes, beginning %q", contentType, len(body), beginning)
}

func htmlTitle(body []byte) string {
	found := regexp.MustCompile(`(?is)<title>(.*?)</title>`).FindSubmatch(body[:min(len(body), 4096)])
	if found == nil {
		return ""
	}
	return string(found[1])
}

// echo is the shortest piece of a secret that is recognised when a server sends it back.
const echo = 16

// foreign makes text of a server fit for our errors and logs. The text is cut before it is searched
// as well, so that a long one costs no time.
func (h secretHeaders) foreign(s string, limit int) string {
	return pki.OneLine(h.redact(pki.OneLine(s, 4*limit)), limit)
}

// clean makes what a try failed with fit for our errors and logs: whatever a server said is in its
// text, and some quote a header that they do not like.
func (h secretHeaders) clean(err error) error {
	var status *StatusError
	var not *AnswerError
	var broken *ConnectionError
	switch {
	case errors.As(err, &status):
		status.Message = h.foreign(status.Message, maxMessage)
		if status.RequestID != h.redact(status.RequestID) {
			status.RequestID = "" // it repeats a piece of the request
		}
	case errors.As(err, &not):
		not.Reason = h.foreign(not.Reason, maxMessage)
	case errors.As(err, &broken):
		broken.text = h.foreign(broken.Err.Error(), maxConnectionText)
	}
	return err
}

// redact takes out what a server quotes of our own headers:
// some put the offending value into their error.
func (h secretHeaders) redact(s string) string {
	var text strings.Builder
	for s != "" {
		run, other := s, ""
		if end := strings.IndexFunc(s, notBase64); end >= 0 {
			run, other = s[:end], s[end:]
		}
		if h.isEcho(run) {
			run = "[left out: part of the request]"
		}
		next := strings.IndexFunc(other, isBase64)
		if next < 0 {
			next = len(other)
		}
		text.WriteString(run)
		text.WriteString(other[:next])
		s = other[next:]
	}
	return text.String()
}

// isBase64 tells whether a header's value, as it is or as a URL has it, may have a character.
func isBase64(c rune) bool {
	return c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || strings.ContainsRune("+/=._-", c)
}

func notBase64(c rune) bool { return !isBase64(c) }

// isEcho tells whether a run of characters has a piece of our headers in it.
func (h secretHeaders) isEcho(run string) bool {
	if len(run) < echo {
		return false
	}
	for _, secret := range h {
		encoded := base64.StdEncoding.EncodeToString(secret.pem)
		lines := strings.Join(strings.Fields(string(secret.pem)), "")
		for i := 0; i+echo <= len(run); i++ {
			if piece := run[i : i+echo]; strings.Contains(encoded, piece) || strings.Contains(lines, piece) {
				return true
			}
		}
	}
	return false
}
