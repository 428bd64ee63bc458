package certservice

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/certfetcher/certfetcher/internal/policy"
	"github.com/certfetcher/certfetcher/internal/token"
)

// Credentials are what a client shows who it is with.
type Credentials string

// With AnyCredential a client shows a certificate, or a token, or both: then both must be valid, and
// the certificate is the identity.
const (
	CertificateCredential Credentials = "certificate"
	TokenCredential       Credentials = "token"
	AnyCredential         Credentials = "any"
)

// TokenVerifier verifies tokens of service accounts. Its errors are *token.Error.
type TokenVerifier interface {
	Verify(text string) (token.Claims, error)
}

// Authentication is who a client is, or why it is not authenticated.
type Authentication struct {
	certificate *x509.Certificate // as it was shown, trusted or not; nil: none
	account     *token.Claims     // of a token that was verified; nil: none
	reason      string            // why the client is refused, for the audit line; "": it is not
	fault       *token.Error      // of the token that was shown
	tokens      bool              // tokens count, and the answer says so
	// undecided: the client has shown nothing yet, and the headers may have a token.
	undecided bool
}

// Messages of the answer 401. They do not say which of the two it is, nor why a chain does not
// verify: that would help an attacker who probes the truststore. The audit line tells them apart.
const (
	messageUnauthorized = "Client certificate is missing or not trusted"
	messageUnknown      = "Client certificate or token is missing or not trusted"
	messageNoTokenKeys  = "The keys of the token issuer are not available, try again later"
)

// Authenticate says who the client of a connection is. header is that of a request; nil: none was
// read yet. Each request is authenticated once more: truststores change, and certificates and tokens
// expire.
func (h *Handler) Authenticate(state *tls.ConnectionState, header http.Header) Authentication {
	by := h.cfg.Credentials
	a := Authentication{tokens: by == TokenCredential || by == AnyCredential}
	shown := state != nil && len(state.PeerCertificates) > 0
	if by != TokenCredential && (shown || by != AnyCredential) {
		a.certificate, a.reason = h.clients.verify(state, h.cfg.ClientRoots(), h.now())
		if a.reason != "" || by != AnyCredential {
			return a
		}
	}
	if header == nil {
		a.undecided = a.certificate == nil
		return a
	}
	switch shown := bearer(header); {
	case len(shown) == 0 && a.certificate != nil:
	case len(shown) == 0 && by == TokenCredential:
		a.reason = "client token is missing"
	case len(shown) == 0:
		a.reason = "client certificate and token are missing"
	case len(shown) > 1: // which of them counts is not for us to guess
		a.reason = "client shows more than one token"
		a.fault = &token.Error{Reason: token.ReasonMalformed}
	default:
		a.verifyToken(shown[0], h.cfg.Tokens)
	}
	return a
}

func (a *Authentication) verifyToken(text string, tokens TokenVerifier) {
	claims, err := tokens.Verify(text)
	if err == nil {
		a.account = &claims
		return
	}
	a.reason = "client token is not valid: " + err.Error()
	if fault, ok := errors.AsType[*token.Error](err); ok {
		a.fault = fault
	}
}

// bearer returns the tokens of a request (RFC 6750, 2.1), which has one at most.
func bearer(header http.Header) (tokens []string) {
	for _, value := range header.Values("Authorization") {
		scheme, text, _ := strings.Cut(value, " ")
		if strings.EqualFold(scheme, "Bearer") {
			tokens = append(tokens, strings.TrimSpace(text))
		}
	}
	return tokens
}

// refused says whether the client is not authenticated.
func (a *Authentication) refused() bool { return a.reason != "" }

// client is who asks, for the policy.
func (a *Authentication) client() policy.Client {
	c := policy.Client{Certificate: a.certificate}
	if a.account != nil {
		c.Account = &policy.ServiceAccount{Namespace: a.account.Namespace, Name: a.account.ServiceAccount}
	}
	return c
}

// key tells clients apart where they share something: pods of an account by the pod.
func (a *Authentication) key(of clientKey) clientKey {
	if a.certificate == nil && a.account != nil && !a.refused() {
		of.certificate = sha256.Sum256([]byte(a.account.Subject() + " " + a.account.PodUID))
	}
	return of
}

// refuseClient answers a client that is not authenticated.
func (h *Handler) refuseClient(a *Authentication, e *event) answer {
	e.outcome, e.reason = outcomeUnauthorized, a.reason
	if a.fault != nil {
		h.cfg.Metrics.Counter(tokenRejections, a.fault.Reason).Inc()
		if a.fault.RetryAfter > 0 { // not 401: a client takes that as final, and this is temporary
			response := unavailableAnswer(e, outcomeUnauthorized, messageNoTokenKeys)
			response.header["Connection"] = "close"
			response.header["Retry-After"] = seconds(a.fault.RetryAfter)
			return response
		}
	}
	message := messageUnauthorized
	if a.tokens {
		message = messageUnknown
	}
	response := errorAnswer(http.StatusUnauthorized, message)
	response.header["Connection"] = "close"
	switch {
	case a.fault != nil: // RFC 6750, 3: without it no one finds out why a pod cannot start
		response.header["WWW-Authenticate"] = fmt.Sprintf(`Bearer error="invalid_token", error_description="%s"`,
			a.fault.Reason)
	case a.tokens:
		response.header["WWW-Authenticate"] = "Bearer"
	}
	return response
}
