package certservice

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/certfetcher/certfetcher/internal/cmp"
)

// cmpAuthority is an Authority behind a CMPv2 server.
type cmpAuthority struct {
	client  *cmp.Client
	timeout time.Duration // for one transaction; 0: the request's own
	// warnModified: a certificate with another subject or other names is taken only because ONAP took it.
	warnModified bool
	log          *slog.Logger
}

// CMPOptions hold for every CMP server of a Configuration.
type CMPOptions struct {
	Connections int // kept open to one server between requests
	// ResponseTrust for servers that name none and have no trust anchors: "" or TrustAnchored for refusing
	// their signed answers, or TrustONAP.
	ResponseTrust string
	Log           *slog.Logger
}

// CMPBuilder returns a function that makes the authority for one server of a Configuration. All that it
// makes share their connections, also over reloads.
func CMPBuilder(options CMPOptions) func(Server) (Authority, error) {
	client := &http.Client{Transport: &http.Transport{
		// No proxy from the environment: the ONAP server used none, and a CA's server is seldom beyond one.
		DialContext:         (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout: 10 * time.Second,
		ForceAttemptHTTP2:   true,
		MaxIdleConnsPerHost: options.Connections,
		// Shorter than servers keep theirs: a CMP request is not sent twice, so none must meet a connection
		// that the server is about to close.
		IdleConnTimeout: 10 * time.Second,
	}}
	return func(s Server) (Authority, error) {
		if s.ResponseTrust == "" {
			s.ResponseTrust = options.ResponseTrust
		}
		return newCMPAuthority(s, client, options.Log)
	}
}

func newCMPAuthority(s Server, client *http.Client, log *slog.Logger) (*cmpAuthority, error) {
	log = log.With("ca", s.CAName)
	lax := s.ResponseTrust == TrustONAP
	trust := cmp.ResponseTrustAnchored
	if lax {
		trust = cmp.ResponseTrustONAP
	}
	c, err := cmp.New(cmp.Config{
		URL:             s.URL,
		Recipient:       s.IssuerDN,
		Protection:      cmp.Protection(s.Protection),
		Secret:          s.IAK.Reveal(),
		Reference:       string(s.RV.Reveal()),
		TrustAnchors:    s.TrustAnchors,
		ResponseTrust:   trust,
		ImplicitConfirm: true, // as the ONAP server asks, and one exchange fewer
		AllowModified:   lax || s.AllowModified,
		HTTPClient:      client,
		Log:             log,
	})
	if err != nil {
		return nil, err
	}
	if len(s.TrustAnchors) == 0 && !lax {
		log.Warn("this CMP server has neither trustAnchors nor the responseTrust \"onap\": its signed answers will be refused, " +
			"and certificates whose root it does not send under a MAC")
	}
	return &cmpAuthority{client: c, timeout: s.Timeout, warnModified: lax && !s.AllowModified, log: log}, nil
}

// Enroll sends an initialization request.
func (a *cmpAuthority) Enroll(ctx context.Context, r Request) (Issued, error) {
	return a.transact(ctx, r, a.client.Initialize)
}

// Update sends a key update request signed with the old key where the request asks for what the old
// certificate has. Else it sends a certification request, authenticated by the shared secret.
func (a *cmpAuthority) Update(ctx context.Context, r Request) (Issued, error) {
	if !sameSubjectAndNames(r.CSR, r.OldCert) {
		return a.transact(ctx, r, a.client.Certify)
	}
	return a.transact(ctx, r, func(ctx context.Context, request cmp.Request) (cmp.Result, error) {
		return a.client.UpdateKey(ctx, request, cmp.Signer{Key: r.OldKey, Certificate: r.OldCert, Chain: r.OldChain})
	})
}

func (a *cmpAuthority) transact(ctx context.Context, r Request, send func(context.Context, cmp.Request) (cmp.Result, error)) (Issued, error) {
	if a.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, a.timeout)
		defer cancel()
	}
	result, err := send(ctx, cmp.Request{CSR: r.CSR, Key: r.Key})
	if err != nil {
		return Issued{}, authorityError(err)
	}
	if a.warnModified && len(result.Chain) > 0 && !sameSubjectAndNames(r.CSR, result.Chain[0]) {
		a.log.Warn("CMP answer accepted as the ONAP server did",
			"warning", "the certificate has another subject or other names than asked for")
	}
	return Issued{Chain: result.Chain, Trusted: result.Trusted}, nil
}

// authorityError puts an error of the CMP client into the terms of Authority. A decision that did not
// come in time is a failure, not a refusal.
func authorityError(err error) error {
	if status, ok := errors.AsType[*cmp.StatusError](err); ok && status.Status != cmp.StatusWaiting {
		return &RefusedError{FailInfo: status.FailInfo.Names(), Text: status.Text, Err: err}
	}
	if transport, ok := errors.AsType[*cmp.TransportError](err); ok && transport.RetryAfter > 0 {
		return &BusyError{RetryAfter: transport.RetryAfter, Err: err}
	}
	return err
}
