package certservice

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/internal/requestid"
)

// cmpAuthority is an Authority behind a CMPv2 server.
type cmpAuthority struct {
	client          *cmp.Client
	cfg             cmp.Config          // that client's
	learned         *learned            // nil: signed answers are verified as configured
	timeout         time.Duration       // for one transaction; 0: the request's own
	additionalRoots []*x509.Certificate // handed out beside the signing root
	// warnModified: a certificate with another subject or
	// other names is taken only because ONAP took it.
	warnModified bool
	about        authorityFacts
	log          *slog.Logger
	now          func() time.Time
}

// CMPOptions hold for every CMP server of a Configuration.
type CMPOptions struct {
	Connections int // kept open to one server between requests
	// ResponseTrust for servers that name none and have no trust anchors: "" or TrustAnchored for
	// refusing their signed answers, or TrustONAP.
	ResponseTrust string
	// RequestTimeout is what the caller gives one enrolment; 0: no bound. A server's longer
	// timeout leaves a warning.
	RequestTimeout time.Duration
	CPU            *CPU // shared with HandlerConfig; nil: what a CA makes costly to verify waits for nothing
	Log            *slog.Logger
}

// CMPBuilder returns a function that makes the authority for one server of a Configuration. What
// it makes for the same host with the same TLS settings shares its connections, also over reloads.
func CMPBuilder(options CMPOptions) func(Server) (Authority, error) {
	clients, store := newHTTPClients(options.Connections), newLearnedStore()
	return func(s Server) (Authority, error) {
		if s.ResponseTrust == "" {
			s.ResponseTrust = options.ResponseTrust
		}
		log := requestid.Logger(options.Log).With("ca", s.CAName)
		if options.RequestTimeout > 0 && s.Timeout > options.RequestTimeout {
			log.Warn("the timeout of this CMP server is longer than REQUEST_TIMEOUT, which ends the request before it",
				"timeout", s.Timeout, "request_timeout", options.RequestTimeout)
		}
		return newCMPAuthority(s, clients.of(s), store, options.CPU, log)
	}
}

func newCMPAuthority(s Server, client *http.Client, store *learnedStore, cpu *CPU,
	log *slog.Logger) (*cmpAuthority, error) {
	lax := s.ResponseTrust == TrustONAP
	trust := cmp.ResponseTrustAnchored
	if lax {
		trust = cmp.ResponseTrustONAP
	}
	recipient := s.IssuerDN
	if s.RecipientDN != "" {
		recipient = s.RecipientDN
	}
	a := &cmpAuthority{
		cfg: cmp.Config{
			URL:             s.URL,
			Recipient:       recipient,
			IssuerDN:        s.IssuerDN,
			SignerDN:        s.SignerDN,
			SenderReference: s.SenderReference,
			Protection:      cmp.Protection(s.Protection),
			Secret:          s.IAK.Reveal(),
			Reference:       string(s.RV.Reveal()),
			Signer:          s.Signer.cmp(),
			TrustAnchors:    s.TrustAnchors,
			ResponseTrust:   trust,
			ImplicitConfirm: !s.ExplicitConfirm, // as the ONAP server asks, and one exchange fewer
			AllowModified:   lax || s.AllowModified,
			MessageTimeout:  s.Timeout, // 0 is the default there, too
			Answers:         cmp.NewAnswers(cmp.DefaultAnswerBytes),
			Derive:          cpu.deriver(s.CAName),
			HTTPClient:      client,
			Log:             log,
		},
		timeout: s.Timeout, additionalRoots: s.AdditionalRoots, warnModified: lax && !s.AllowModified,
		about: factsOf(s), log: log, now: time.Now,
	}
	var err error
	if a.client, err = cmp.New(a.cfg); err != nil {
		return nil, err
	}
	if len(s.TrustAnchors) == 0 && !lax {
		a.learned = store.of(s)
		log.Warn("this CMP server has neither trustAnchors nor responseTrust \"onap\": its " +
			"signed answers will be refused, " +
			"except answers to updates that chain to a root which it sent under a MAC; " +
			"certificates whose root it does not " +
			"send under a MAC will be refused as well")
	}
	return a, nil
}

// Enroll sends an initialization request.
func (a *cmpAuthority) Enroll(ctx context.Context, r Request) (Issued, error) {
	return a.underSecret(ctx, r, (*cmp.Client).Initialize)
}

// Update sends a key update request signed with the old key where the request asks for what the old
// certificate has. Otherwise it sends a certification request, authenticated by the shared secret.
//
// The answer to a key update may be signed. Where no root is known yet to verify it with, a
// certification request is sent as well: the client has proven that it holds the old key, and the
// secret authenticates enrolments too.
func (a *cmpAuthority) Update(ctx context.Context, r Request) (Issued, error) {
	if !sameSubjectAndNames(r.CSR, r.OldCert) {
		return a.underSecret(ctx, r, (*cmp.Client).Certify)
	}
	if a.learned == nil {
		return a.transact(ctx, r, a.keyUpdate(a.client, r))
	}
	roots := a.learned.trusted(a.now())
	if len(roots) == 0 {
		if !a.learned.signsAt(a.now()) {
			a.log.WarnContext(ctx, "update sent as a certification request under the shared secret, as no "+
				"root of this CA is known yet: "+
				"the CA cannot check whether the old certificate is revoked; with trustAnchors "+
				"in cmpServers.json it is a key update",
				"old_serial", pki.Serial(r.OldCert))
		}
		return a.underSecret(ctx, r, (*cmp.Client).Certify)
	}
	client, err := a.verifiedBy(roots)
	if err != nil {
		return Issued{}, err
	}
	issued, err := a.transact(ctx, r, a.keyUpdate(client, r))
	if isOutdated(err) {
		a.learned.forgetRoots()
	}
	return issued, err
}

// exchange is one transaction of a CMP client, and method one of any client.
type (
	exchange func(context.Context, cmp.Request) (cmp.Result, error)
	method   func(*cmp.Client, context.Context, cmp.Request) (cmp.Result, error)
)

func (a *cmpAuthority) keyUpdate(client *cmp.Client, r Request) exchange {
	return func(ctx context.Context, request cmp.Request) (cmp.Result, error) {
		return client.UpdateKey(ctx, request, cmp.Signer{Key: r.OldKey, Certificate: r.OldCert, Chain: r.OldChain})
	}
}

// underSecret sends a request that the shared secret authenticates, and learns from the answer. A
// CA that is known to sign its answers where nothing can verify them is not asked.
func (a *cmpAuthority) underSecret(ctx context.Context, r Request, send method) (Issued, error) {
	if a.learned != nil && a.learned.signsAt(a.now()) {
		return Issued{}, &FailedError{Text: errSigns.Error(),
			Err: errors.New("nothing was sent, as it did so minutes ago")}
	}
	return a.transact(ctx, r, func(ctx context.Context, request cmp.Request) (cmp.Result, error) {
		result, err := send(a.client, ctx, request)
		if a.learned == nil {
			return result, err
		}
		if err != nil {
			return result, a.noteUnanchored(err)
		}
		a.learned.learn(result.Vouched)
		return result, nil
	})
}

// sameSubjectAndNames reports whether the request asks for the subject and the subject alternative
// names that the certificate has, in any order. Then an update is a key update (RFC 4210, 5.3.5);
// otherwise it is a request for another certificate, which the old one's key must not authorise.
func sameSubjectAndNames(csr *x509.CertificateRequest, cert *x509.Certificate) bool {
	return cmp.SameAlternativeNames(csr.Extensions, cert.Extensions) && pki.SameName(csr.RawSubject, cert.RawSubject)
}

func (a *cmpAuthority) transact(ctx context.Context, r Request, send exchange) (Issued, error) {
	bounded := ctx
	if a.timeout > 0 {
		var cancel context.CancelFunc
		bounded, cancel = context.WithTimeout(ctx, a.timeout)
		defer cancel()
	}
	csr, dropped := withoutForbiddenUsages(r.CSR)
	if len(dropped) > 0 {
		a.log.WarnContext(ctx, "key usages that a certificate with such a key must not have are not requested",
			"subject", truncate(pki.DN(csr.RawSubject)), "dropped", strings.Join(dropped, ", "))
	}
	result, err := a.sendAgain(bounded, cmp.Request{CSR: csr, Key: r.Key}, send)
	if err != nil {
		return Issued{}, a.failure(ctx, bounded, err)
	}
	if a.warnModified && len(result.Chain) > 0 && !sameSubjectAndNames(r.CSR, result.Chain[0]) {
		a.log.WarnContext(ctx, "CMP answer accepted as the ONAP server did",
			"error", "the certificate has another subject or other names than requested")
	}
	trusted := slices.Clone(result.Trusted)
	for _, root := range a.additionalRoots {
		if !slices.ContainsFunc(trusted, root.Equal) {
			trusted = append(trusted, root)
		}
	}
	return Issued{Chain: result.Chain, Trusted: trusted}, nil
}

// sendAgain sends a request, and once more, in a transaction of its own, when the server failed as
// EJBCA does at concurrent updates of one subject: with HTTP status 500 and no CMP message, with
// its own transaction rolled back. A server that got further answers with a CMP message (RFC 9811,
// 3.1). One that issued a certificate all the same issues one more, as it would when the client
// asks again. Gateways answer with other statuses, and may still be waiting for the CA.
func (a *cmpAuthority) sendAgain(ctx context.Context, request cmp.Request, send exchange) (cmp.Result, error) {
	result, err := send(ctx, request)
	transport, ok := errors.AsType[*cmp.TransportError](err)
	if !ok || transport.StatusCode != http.StatusInternalServerError || transport.RetryAfter > 0 || transport.Answered {
		return result, err
	}
	// At random, so that requests which collided do not collide again.
	pause := time.NewTimer(100*time.Millisecond + rand.N(400*time.Millisecond))
	defer pause.Stop()
	select {
	case <-ctx.Done():
		return result, err
	case <-pause.C:
	}
	a.log.WarnContext(ctx, "the CMP server failed, sending the request once more", "error", err.Error())
	return send(ctx, request)
}

// failure turns an error of the CMP client into one of Authority. A decision that did not come in
// time is a failure, not a refusal. request is the context of the whole request, and bounded the
// one with this server's timeout.
func (a *cmpAuthority) failure(request, bounded context.Context, err error) error {
	if status, ok := errors.AsType[*cmp.StatusError](err); ok {
		if status.Status == cmp.StatusWaiting {
			return fmt.Errorf(
				"%w; raise REQUEST_TIMEOUT, and the timeout of this CA in cmpServers.json where it has one", err)
		}
		refused := refusedError(status)
		refused.Err = err
		return refused
	}
	check, ok := errors.AsType[*cmp.CheckError](err)
	if ok && (check.Check == "subject" || check.Check == "subjectAltName") {
		return &FailedError{Err: err, Reason: ReasonNames}
	}
	transport, ok := errors.AsType[*cmp.TransportError](err)
	if !ok {
		return err
	}
	noAnswer := func(within time.Duration) error {
		return &FailedError{Err: err,
			Text: fmt.Sprintf(
				"no answer from the CMP server within %s; raise the timeout of this CA in cmpServers.json", within)}
	}
	_, fromNetwork := errors.AsType[net.Error](err)
	switch {
	case transport.RetryAfter > 0:
		return &FailedError{Err: err, RetryAfter: transport.RetryAfter}
	case errors.Is(request.Err(), context.DeadlineExceeded):
		return &FailedError{Err: err,
			Text: "no answer from the CMP server within the time of one request; raise REQUEST_TIMEOUT"}
	case request.Err() != nil:
		return &FailedError{Err: err, Text: "the client disconnected before the CMP server answered"}
	case bounded.Err() != nil:
		return noAnswer(a.timeout)
	case transport.Limit > 0:
		return noAnswer(transport.Limit)
	case fromNetwork:
		text := "the CMP server could not be reached"
		if errors.Is(err, io.EOF) {
			text = "the CMP server did not answer" // and closed the connection
		} else if _, untrusted := errors.AsType[*tls.CertificateVerificationError](err); untrusted {
			text += ": its TLS certificate is not trusted: check tlsTrust of this CA in cmpServers.json"
		} else if alert, refused := alertOf(err); refused {
			text += ": it refuses our TLS client certificate (" + alert +
				"): check tlsIdentity of this CA in cmpServers.json"
		} else if errno, ok := errors.AsType[syscall.Errno](err); ok {
			text += ": " + errno.Error() // such as "connection refused", which tells no address
		}
		return &FailedError{Err: err, Text: text + "; the log of the CertService has more"}
	case transport.URL != "":
		return &FailedError{Err: fmt.Errorf("the server's URL is %q", transport.URL), Text: err.Error()}
	}
	return err
}

// alertOf finds the TLS alert (RFC 8446, 6.2) about our certificate with which the CMP server
// ended the connection.
func alertOf(err error) (text string, ok bool) {
	op, ok := errors.AsType[*net.OpError](err)
	if !ok || op.Op != "remote error" {
		return "", false
	}
	text = strings.TrimPrefix(op.Err.Error(), "tls: ")
	return text, strings.Contains(text, "certificate")
}
