package certservice

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/internal/policy"
	"github.com/certfetcher/certfetcher/internal/token"
)

// outcome is how a request ended, as the audit line and the metrics' label name it.
type outcome string

const (
	outcomeOK           outcome = "ok"
	outcomeIssued       outcome = "issued"
	outcomeRefused      outcome = "refused"      // by the authority
	outcomeFailed       outcome = "failed"       // the authority could not be reached, or its answer not be used
	outcomeForbidden    outcome = "forbidden"    // by the policy
	outcomeLimited      outcome = "limited"      // by the policy's rate
	outcomeBadRequest   outcome = "bad_request"  // headers missing or not readable
	outcomeMalformed    outcome = "malformed"    // not a request, from a client without a trusted certificate
	outcomeUnauthorized outcome = "unauthorized" // no client certificate or token, or not a trusted one
	outcomeUnknownCA    outcome = "unknown_ca"
	outcomeNotFound     outcome = "not_found"
	outcomeBadMethod    outcome = "bad_method"
	outcomeTooLarge     outcome = "headers_too_large"
	outcomeBodyTooLarge outcome = "message_too_large"
	outcomeNotReady     outcome = "not_ready"  // no valid configuration loaded
	outcomeOverloaded   outcome = "overloaded" // more requests in progress than allowed
	outcomePanic        outcome = "panic"
)

// event is what is remembered of one request, for its audit line and the metrics. It holds no
// header value and no key.
type event struct {
	method, path, remote string
	operation            string // "" for a path that does not exist
	probe                bool
	trial                bool // by certfetcher doctor, which sends requests that must be refused
	caName               string
	message, transaction string // of a CMP message: its kind and transactionID
	caKnown              bool
	client               *x509.Certificate
	account              *token.Claims // of the client's token
	who                  policy.Client // the authenticated client
	decision             *policy.Decision
	from                 clientKey // the client that it counts for
	csr                  *x509.CertificateRequest
	issued               *x509.Certificate
	outcome              outcome
	reason               string
	told                 string // what a client is told of an error of the CA, without addresses
	status               int
	duration             time.Duration
	writeErr             error
	leaveLane            func() // before waiting for anything but the client; see lanes
	requestID            string
}

// maxLoggedNames and maxLoggedText bound what a client can make us log.
const (
	maxLoggedNames = 100
	maxLoggedText  = 512
)

// log writes the one line of a request: Info when it was served, Warn when not or when the policy
// warns, and Debug for a probe that was served. A trial is Info however it ends.
func (e *event) log(ctx context.Context, log *slog.Logger, texts *texts) {
	level := slog.LevelWarn
	switch {
	case e.decision != nil && e.decision.Warned:
	case e.outcome == outcomeOK && e.probe:
		level = slog.LevelDebug
	case e.outcome == outcomeOK, e.outcome == outcomeIssued, e.trial:
		level = slog.LevelInfo
	}
	if !log.Enabled(ctx, level) {
		return
	}
	attrs := make([]slog.Attr, 0, 12)
	attrs = append(attrs, slog.String("outcome", string(e.outcome)), slog.Int("status", e.status))
	if e.operation == "" || e.outcome == outcomeBadMethod {
		attrs = append(attrs, slog.String("method", truncate(e.method)), slog.String("path", truncate(e.path)))
	}
	if e.operation != "" {
		attrs = append(attrs, slog.String("operation", e.operation))
	}
	if e.trial {
		attrs = append(attrs, slog.Bool("doctor", true))
	}
	if e.caName != "" {
		attrs = append(attrs, slog.String("ca", truncate(e.caName)))
	}
	if e.message != "" {
		attrs = append(attrs, slog.String("request", e.message), slog.String("transaction_id", truncate(e.transaction)))
	}
	if e.reason != "" {
		attrs = append(attrs, slog.String("error", truncate(e.reason)))
	}
	attrs = append(attrs, slog.String("remote", e.remote))
	if e.client != nil {
		attrs = append(attrs, texts.client(e))
	}
	if e.account != nil {
		attrs = append(attrs, slog.Group("token",
			"namespace", truncate(e.account.Namespace),
			"service_account", truncate(e.account.ServiceAccount),
			"pod", truncate(e.account.Pod),
			"pod_uid", truncate(e.account.PodUID)))
	}
	if e.decision != nil {
		attrs = append(attrs, e.decisionAttrs())
	}
	if e.csr != nil {
		attrs = append(attrs, slog.Group("requested",
			"subject", truncate(pki.DN(e.csr.RawSubject)),
			"sans", boundNames(pki.RequestNames(e.csr))))
	}
	if e.issued != nil {
		attrs = append(attrs, slog.Group("issued",
			"serial", pki.Serial(e.issued),
			"not_after", e.issued.NotAfter.UTC()))
	}
	if e.writeErr != nil {
		attrs = append(attrs, slog.String("undelivered", e.writeErr.Error()))
	}
	attrs = append(attrs, slog.Duration("duration", e.duration))
	log.LogAttrs(ctx, level, "request", attrs...)
}

// client describes a client's certificate. Only those of clients that are authenticated are kept, so that strangers
// do not fill the memory.
func (t *texts) client(e *event) slog.Attr {
	describe := func() slog.Attr {
		return slog.Group("client",
			"subject", truncate(pki.DN(e.client.RawSubject)),
			"sans", boundNames(pki.Names(e.client)),
			"serial", pki.Serial(e.client))
	}
	if e.who.Certificate == nil {
		return describe()
	}
	return t.clients.get(e.from.certificate, describe)
}

// boundNames shortens a list of names, and each of them.
func boundNames(names []string) []string {
	if more := len(names) - maxLoggedNames; more > 0 {
		names = append(names[:maxLoggedNames], fmt.Sprintf("and %d more", more))
	}
	for i, name := range names {
		names[i] = truncate(name)
	}
	return names
}

func truncate(s string) string {
	if len(s) <= maxLoggedText {
		return s
	}
	return strings.ToValidUTF8(s[:maxLoggedText], "") + "…"
}
