package enroll

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/certfetcher/certfetcher/client"
	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/internal/mtls"
	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/internal/program"
	"github.com/certfetcher/certfetcher/output"
)

// CMP says how certificates are requested by CMP, from a CA or from a CertService that acts as its
// registration authority. The private key stays here.
type CMP struct {
	URL       string // http:// or https://
	Recipient string // the CA's DN after RFC 4514; empty: the subject of the trust anchor
	Reference string // names the secret
	// Secret is shared with the CA; SecretFile, where it is not empty, is read for it each time.
	Secret, SecretFile string
	Protection         cmp.Protection
	// Anchors is the store of those who may sign answers, and whose certificates are accepted.
	// Its path is empty where the secret vouches for them.
	Anchors         mtls.Files
	PollFor         time.Duration // 0: as long as it takes
	Profile         string        // id-it-certProfile; empty: none
	ImplicitConfirm *bool         // nil: for updates only, which EJBCA cannot confirm
	AllowModified   bool
}

// words name what package client calls CertService and REQUEST_URL.
var words = strings.NewReplacer("CertService or its CA is slow", "the CA is slow", "CertService", "the CMP server",
	"REQUEST_URL: CertService has 8443 for its API", "CMP_URL", "REQUEST_URL", "CMP_URL")

// cmpIssuer is the issuer behind a CMP server.
type cmpIssuer struct {
	*CMP
	carrier  *client.Carrier
	retry    *client.Retry
	identity *mtls.Identity
	secret   string
	anchors  []*x509.Certificate
}

func (e *Enroller) cmpIssuer(retry *client.Retry) (issuer, error) {
	i := &cmpIssuer{CMP: e.Config.CMP, retry: retry, identity: e.Identity(), secret: e.Config.CMP.Secret}
	var err error
	if i.carrier, err = client.NewCarrier(CarrierConfig(e.Config, i.identity, e.UserAgent, e.Now)); err != nil {
		return nil, fail(StageClientConfiguration, "preparing the request: %w", err)
	}
	if i.SecretFile != "" {
		if i.secret, err = program.ReadSecret(i.SecretFile); err != nil {
			return nil, fail(StageClientConfiguration, "reading CMP_SECRET_FILE: %w", err)
		}
	}
	if i.anchors, err = i.LoadAnchors(); err != nil {
		return nil, fail(StageTLSConfiguration, "%w", err)
	}
	return i, nil
}

// CarrierConfig is the way to the CMP server of a configuration. A nil identity leaves TLS out.
func CarrierConfig(cfg Settings, identity *mtls.Identity, userAgent string, now func() time.Time) client.Config {
	return ClientConfig(client.Config{URL: cfg.CMP.URL, Timeout: cfg.Request.Timeout, UserAgent: userAgent,
		TokenPath: cfg.Request.TokenPath, Words: words}, identity, now)
}

// AskCMP asks the CMP server for the CA's certificates, which costs none.
func AskCMP(ctx context.Context, cfg Settings, way client.Config,
	identity *mtls.Identity) ([]*x509.Certificate, error) {
	e := &Enroller{Config: cfg, Identity: func() *mtls.Identity { return identity },
		Log: slog.New(slog.DiscardHandler), Now: way.Now}
	asking, err := e.cmpIssuer(nil)
	if err != nil {
		return nil, err
	}
	i := asking.(*cmpIssuer)
	if i.carrier, err = client.NewCarrier(way); err != nil {
		return nil, err
	}
	defer i.carrier.CloseIdleConnections()
	c, err := i.client(order{Enroller: e, Log: e.Log}, i.first(), nil)
	if err != nil {
		return nil, err
	}
	return c.CACerts(ctx)
}

// LoadAnchors reads CMP_TRUST_ANCHORS; there are none where that is not set.
func (c *CMP) LoadAnchors() ([]*x509.Certificate, error) {
	if c.Anchors.TruststorePath == "" {
		return nil, nil
	}
	identity, err := mtls.LoadRoots(c.Anchors)
	if err != nil {
		return nil, errors.New(anchorWords.Replace(err.Error()))
	}
	return identity.Roots, nil
}

// anchorWords name what package mtls knows by the variables of mutual TLS.
var anchorWords = strings.NewReplacer("TRUSTSTORE_PATH", "CMP_TRUST_ANCHORS",
	"TRUSTSTORE_PASSWORD", "CMP_TRUST_ANCHORS_PASSWORD")

// way is one of the requests by which a CA may be asked.
type way struct {
	request    string // ir, cr or kur
	protection cmp.Protection
	signer     *cmp.Signer         // where the protection is a signature
	anchors    []*x509.Certificate // of the answer
	old        *cmp.Signer         // the certificate that is replaced; nil: none
}

// client makes the client that goes a way. accept is asked about the certificate.
func (i *cmpIssuer) client(o order, w way, accept func(cmp.Result) error) (*cmp.Client, error) {
	cfg := cmp.Config{
		URL: i.URL, Recipient: i.Recipient, Protection: w.protection, Reference: i.Reference, Secret: []byte(i.secret),
		TrustAnchors: w.anchors, CertProfile: i.Profile, AllowModified: i.AllowModified,
		ImplicitConfirm: w.old != nil, Accept: accept, MaxPollWait: i.PollFor, MessageTimeout: forEver,
		HTTPClient: &http.Client{Transport: i.carrier}, Now: o.Now, Log: o.Log,
	}
	if i.ImplicitConfirm != nil {
		cfg.ImplicitConfirm = *i.ImplicitConfirm
	}
	if i.PollFor == 0 {
		cfg.MaxPollWait = forEver
	}
	if cfg.Recipient == "" && len(w.anchors) > 0 {
		cfg.RecipientName = w.anchors[0].RawSubject
	}
	if w.protection == cmp.ProtectionSignature {
		cfg.Signer = w.signer
	}
	if u, err := url.Parse(i.URL); err == nil && u.Scheme == "https" && i.identity != nil {
		cfg.ServerAnchors, cfg.ServerName = i.identity.Roots, u.Hostname()
	}
	return cmp.New(cfg)
}

// forEver is a time that no process sees the end of.
const forEver = 100 * 365 * 24 * time.Hour

// signerOf is the identity of KEYSTORE_PATH as who signs messages; nil when there is none.
func signerOf(identity *mtls.Identity) *cmp.Signer {
	if identity == nil || identity.Certificate.Leaf == nil {
		return nil
	}
	key, ok := identity.Certificate.PrivateKey.(crypto.Signer)
	if !ok {
		return nil
	}
	s := &cmp.Signer{Key: key, Certificate: identity.Certificate.Leaf}
	for _, der := range identity.Certificate.Certificate[1:] {
		if issuer, err := pki.Parse(der); err == nil {
			s.Chain = append(s.Chain, issuer)
		}
	}
	return s
}

func (i *cmpIssuer) connect(ctx context.Context) { i.carrier.Connect(ctx) }

// first is the way to a certificate as configured.
func (i *cmpIssuer) first() way {
	return way{request: "ir", protection: i.Protection, signer: signerOf(i.identity), anchors: i.anchors}
}

// enrol sends ir. Where there is a certificate that cannot be updated, cr signed by the identity
// comes first: the CA knows us. Without protection, the server knows it by other means. A request
// that is under way goes on.
func (i *cmpIssuer) enrol(ctx context.Context, o order, again bool) (output.Bundle, error) {
	defer i.carrier.CloseIdleConnections()
	known := i.first()
	known.request = "cr"
	unprotected := i.Protection == cmp.ProtectionNone
	if !unprotected {
		known.protection = cmp.ProtectionSignature
	}
	if pending := o.journal.request(); pending != "" && pending != "kur" {
		again = pending == "cr"
	}
	if again && (known.signer != nil || unprotected) {
		bundle, err := i.transact(ctx, o, known)
		if err == nil || i.secret == "" {
			return bundle, err
		}
		because := refusal(err)
		if because == "" {
			return bundle, err
		}
		o.Log.Warn("the identity in KEYSTORE_PATH cannot enrol, using the secret", "error", because)
	}
	return i.transact(ctx, o, i.first())
}

// update sends kur, signed by the certificate on the volume. Where nothing else says who may sign
// the answer, the roots do that came with it.
func (i *cmpIssuer) update(ctx context.Context, o order, current *output.Bundle) (output.Bundle, error) {
	defer i.carrier.CloseIdleConnections()
	w := i.first()
	w.request = "kur"
	w.old = &cmp.Signer{Key: current.Key, Certificate: current.Chain[0], Chain: current.Chain[1:]}
	w.signer = w.old
	if len(w.anchors) == 0 {
		w.anchors = current.Trusted
	}
	return i.transact(ctx, o, w)
}

// transact goes a way to its end, or on with what the journal has of it.
func (i *cmpIssuer) transact(ctx context.Context, o order, w way) (output.Bundle, error) {
	j, err := o.journalFor(w.request, w.old)
	if err != nil {
		return output.Bundle{}, err
	}
	var bundle output.Bundle
	c, err := i.client(o, w, func(r cmp.Result) (err error) {
		bundle, err = i.accept(o, r)
		return err
	})
	if err != nil {
		return output.Bundle{}, fail(StageClientConfiguration, "preparing the request: %w", err)
	}
	start := o.Now()
	err = i.send(ctx, o, j, func() error {
		_, err := c.Enrol(ctx, cmp.Request{CSR: o.csr, Key: o.key}, w.old, &j.Pending, j)
		return err
	})
	if status, ok := errors.AsType[*cmp.StatusError](err); ok && status.Status == cmp.StatusWaiting {
		err = fmt.Errorf("%w: the CA has not decided within CMP_POLL_FOR, which is %s", err, i.PollFor)
		j.abandon(err)
		j.remove()
	} else if err != nil && (!j.Pending.Sent || ctx.Err() == nil && j.isOver(err)) {
		j.remove()
	}
	if err != nil {
		if _, says := errors.AsType[*client.StatusError](err); !says {
			err = fmt.Errorf("%w%s", err, client.AskAbout(i.carrier.RequestID()))
		}
		return output.Bundle{}, o.explainRequest(ctx, fmt.Sprintf("requesting a certificate by %s from %s", w.request,
			i.URL), err)
	}
	o.Log.Info("the CA issued a certificate", "request", w.request, "transaction_id", j.id(),
		"duration", o.since(start))
	return bundle, nil
}

// send makes tries until the transaction has an outcome. An answer that is lost is asked for once
// more; then a new transaction begins, with the same key.
func (i *cmpIssuer) send(ctx context.Context, o order, j *journal, request func() error) error {
	again := client.Retrying{Retry: i.retry, Now: o.Now, Judge: mayPassCMP,
		Failed: func(try int, err error, wait time.Duration) {
			o.Log.Warn("CMP request failed, trying again", "request", j.Pending.Request, "try", try,
				"error", err.Error(), "next_in", wait)
		}}
	try := func() (struct{}, error) {
		resumed := j.resume()
		err := request()
		if err != nil && resumed && j.isForgotten(err) {
			j.restart(err)
			err = request()
		}
		return struct{}{}, err
	}
	if i.retry != nil && j.Pending.Waiting {
		again.Retry = i.patience()
	}
	_, err := client.Try(ctx, again, try)
	if passes, _ := mayPassCMP(err); err != nil && passes && i.retry != nil && j.Pending.Waiting && ctx.Err() == nil {
		again.Retry = i.patience() // RETRY_MAX_ELAPSED is for a CA that has not said that it will decide
		_, err = client.Try(ctx, again, try)
	}
	return err
}

// patience is how long a CA that has not decided yet is tried again where it cannot be polled.
func (i *cmpIssuer) patience() *client.Retry {
	patient := *i.retry
	patient.MaxElapsed = i.PollFor
	return &patient
}

// accept turns what was issued into what may be published, before it is confirmed.
func (i *cmpIssuer) accept(o order, r cmp.Result) (output.Bundle, error) {
	if i.AllowModified { // names were not compared, and are not to be
		leaf := r.Chain[0]
		csr := *o.csr
		csr.RawSubject, csr.Subject = leaf.RawSubject, leaf.Subject
		csr.DNSNames, csr.IPAddresses, csr.EmailAddresses, csr.URIs = nil, nil, nil, nil
		csr.Extensions = nil
		o.csr = &csr
	}
	return o.accept(r.Chain, r.Trusted, func(text string) string { return text })
}

// mayPassCMP tells whether another try may succeed.
func mayPassCMP(err error) (bool, time.Duration) {
	v, ok := judge(err)
	return ok && !v.permanent && v.refused == "" && !v.foreign && v.stage != StageVerification, v.retryAfter
}

// certificateChecks are those of cmp.CheckError that are about the certificate itself.
var certificateChecks = []string{"certificate", "public key", "basicConstraints", "keyUsage", "validity", "subject",
	"subjectAltName", "chain"}

// judgeCMP judges the errors of package cmp.
func judgeCMP(err error) (verdict, bool) {
	var status *cmp.StatusError
	var check *cmp.CheckError
	var transport *cmp.TransportError
	switch {
	case errors.As(err, &status):
		v := verdict{stage: StageCertService}
		passing := status.FailInfo.Has(cmp.FailSystemUnavail) || status.FailInfo.Has(cmp.FailSystemFailure)
		switch {
		case status.Status == cmp.StatusWaiting:
			v.permanent = true // the time for it is over
		case isRevoked(status):
			v.permanent = true // and not refused: see isRevoked
		case !passing:
			v.permanent, v.refused = true, "the update was refused: "+status.Error()
		}
		return v, true
	case errors.As(err, &check):
		if slices.Contains(certificateChecks, check.Check) {
			foreign := check.Check == "subject" || check.Check == "subjectAltName"
			return verdict{stage: StageVerification, permanent: true, foreign: foreign}, true
		}
		return verdict{stage: StageCertService, permanent: true,
			refused: "the answer to the update cannot be trusted: " + check.Error()}, true
	case errors.As(err, &transport):
		v := verdict{stage: StageConnection, retryAfter: transport.RetryAfter}
		switch code := transport.StatusCode; {
		case code == 0:
		case code == http.StatusUnauthorized || code == http.StatusForbidden:
			v.permanent = true
		case code == http.StatusRequestTimeout, code == http.StatusTooEarly, code == http.StatusTooManyRequests,
			code >= 500:
			v.stage = StageCertService
		default:
			v.stage, v.permanent, v.refused = StageCertService, true, "the update is not served: "+transport.Error()
		}
		return v, true
	}
	return verdict{stage: StageOther}, false
}

// isRevoked tells that the CA refuses because the certificate is revoked: then no other way leads
// to a new one either, or a revocation would be without effect. EJBCA says so in words only.
func isRevoked(status *cmp.StatusError) bool {
	return status.FailInfo.Has(cmp.FailCertRevoked) || strings.Contains(strings.ToLower(status.Text), "revoked")
}
