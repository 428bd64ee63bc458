package certservice

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/internal/policy"
)

// messageNoPolicy: no request may be answered as if there were no policy.
const messageNoPolicy = "No valid policy is loaded"

var errNoPolicy = errors.New("POLICY_PATH is set, and no version of it could be loaded")

// authorize asks the policy whether the client may do what it asks for. asked is nil for messages
// that ask for no certificate. The decision is remembered for the audit line, and counted. Without a
// policy everything is allowed but what needs one.
func (h *Handler) authorize(e *event, operation policy.Operation, asked *policy.Asked) (policy.Decision, error) {
	if h.cfg.Policy == nil {
		return h.decideWithoutPolicy(e, operation), nil
	}
	d, err := h.judge(e, operation, asked, h.cfg.Policy.limits)
	if err == nil {
		e.decision = &d
		h.cfg.Metrics.observeDecision(operation, d)
	}
	return d, err
}

func (h *Handler) judge(e *event, operation policy.Operation, asked *policy.Asked,
	limits *policy.Limits) (policy.Decision, error) {
	rules := h.cfg.Policy.Current()
	if rules == nil {
		return policy.Decision{}, errNoPolicy
	}
	return rules.Decide(policy.Question{Client: e.who, CA: e.caName, Operation: operation, Asked: asked, At: h.now()},
		limits), nil
}

// decideWithoutPolicy: as the ONAP server, everyone may have certificates. A reload can be used to
// slow the service down, and a revocation takes a certificate from its holder.
func (h *Handler) decideWithoutPolicy(e *event, operation policy.Operation) policy.Decision {
	switch {
	case operation == policy.Revoke:
		return policy.Decision{Reason: "revocations are passed on only where a policy allows them"}
	case operation == policy.Reload && !h.mayReload(e):
		return policy.Decision{
			Reason: "without a policy only the service's own certificate and ADMIN_CLIENTS may have it reload"}
	}
	return policy.Decision{Allowed: true}
}

// mayReload: the service's own certificate, or one of ADMIN_CLIENTS.
func (h *Handler) mayReload(e *event) bool {
	if e.client == nil {
		return false
	}
	if own := h.cfg.Identity().Leaf; own != nil && own.Equal(e.client) {
		return true
	}
	for _, admin := range h.cfg.Admins {
		if pki.SameName(admin, e.client.RawSubject) {
			return true
		}
	}
	return false
}

// forbid answers a request that the policy does not allow; ok for one that it does.
func (h *Handler) forbid(e *event, operation policy.Operation, asked *policy.Asked) (a answer, ok bool) {
	d, err := h.authorize(e, operation, asked)
	switch {
	case err != nil:
		e.reason = err.Error()
		return unavailableAnswer(e, outcomeNotReady, messageNoPolicy), false
	case d.Allowed:
		return answer{}, true
	case d.Wait > 0:
		return limitedAnswer(e, d), false
	}
	e.outcome, e.reason = outcomeForbidden, d.Reason
	return errorAnswer(http.StatusForbidden, h.forbiddenText(d)), false
}

// forbiddenText is for the client. It names the rule, which is about this client.
func (h *Handler) forbiddenText(d policy.Decision) string {
	switch {
	case h.cfg.Policy == nil:
		return "Not allowed: " + d.Reason
	case d.Rule == "":
		return "Not allowed by the policy: " + d.Reason
	}
	return fmt.Sprintf("Not allowed by the policy: %s (rule %q)", d.Reason, d.Rule)
}

// limitedAnswer answers a client that asks too often.
func limitedAnswer(e *event, d policy.Decision) answer {
	e.outcome, e.reason = outcomeLimited, d.Reason
	a := errorAnswer(http.StatusTooManyRequests, "Too many requests from this client: "+d.Reason)
	a.header["Retry-After"] = seconds(d.Wait)
	return a
}

// decisionAttrs are the policy's part of an audit line.
func (e *event) decisionAttrs() slog.Attr {
	attrs := []any{slog.String("decision", DecisionWord(*e.decision)), slog.String("rule", e.decision.Rule)}
	if e.decision.Warned {
		attrs = append(attrs, slog.String("warning", truncate(e.decision.Reason)))
	}
	return slog.Group("policy", attrs...)
}

// DecisionWord is what came of a request, as logs and metrics name it.
func DecisionWord(d policy.Decision) string {
	switch {
	case d.Warned:
		return "warned"
	case d.Allowed:
		return "allowed"
	case d.Wait > 0:
		return "limited"
	}
	return "refused"
}
