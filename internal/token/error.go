package token

import (
	"fmt"
	"time"

	"github.com/certfetcher/certfetcher/internal/pki"
)

// Reason says in one word why a token is refused, for metrics.
type Reason string

// Values of Reason.
const (
	ReasonMalformed   Reason = "malformed"     // not a compact JWS, or what it holds cannot be read
	ReasonAlgorithm   Reason = "algorithm"     // alg is not allowed, or not what the key is for
	ReasonKey         Reason = "key"           // the issuer has no such key, or several may be meant
	ReasonSignature   Reason = "signature"     // made by another key, or for another content
	ReasonIssuer      Reason = "issuer"        // iss is another
	ReasonAudience    Reason = "audience"      // aud has not ours
	ReasonExpired     Reason = "expired"       // exp has passed
	ReasonNotYetValid Reason = "not_yet_valid" // nbf or iat is to come
	ReasonLifetime    Reason = "lifetime"      // exp is too long after iat, or before it
	ReasonClaims      Reason = "claims"        // one is missing, of the wrong type, or contradicts another
	ReasonUnbound     Reason = "unbound"       // not bound to a pod
	ReasonUnavailable Reason = "unavailable"   // the issuer's keys could not be read yet
)

// Reasons are all of them.
var Reasons = []Reason{ReasonMalformed, ReasonAlgorithm, ReasonKey, ReasonSignature, ReasonIssuer, ReasonAudience,
	ReasonExpired, ReasonNotYetValid, ReasonLifetime, ReasonClaims, ReasonUnbound, ReasonUnavailable}

// Error is a token that is refused. Its text says what came, what was expected and what to try. Of
// the token it shows iss, aud, times, alg and kid at most. Most things are judged before the
// signature is verified, so strangers learn from it which issuer and audience are wanted: neither
// is a secret.
type Error struct {
	Reason Reason
	Text   string
	// RetryAfter is when the same token may be accepted, as the issuer's keys are read again until
	// then; 0: waiting does not help.
	RetryAfter time.Duration
}

func (e *Error) Error() string { return e.Text }

func refuse(reason Reason, format string, args ...any) *Error {
	return &Error{Reason: reason, Text: "the token " + fmt.Sprintf(format, args...)}
}

// shorten makes a text from elsewhere fit for a message.
func shorten(text string) string { return fmt.Sprintf("%q", pki.OneLine(text, 100)) }
