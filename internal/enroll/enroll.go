// Package enroll knows the order of the stages: key, request, answer, verification, publication. It
// runs them once, start to end, as an enrolment or as a renewal, and says in its errors which of
// them failed. It decides nothing about when to renew; that is package renew's.
package enroll

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/certfetcher/certfetcher/client"
	"github.com/certfetcher/certfetcher/internal/mtls"
	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/internal/requestid"
	"github.com/certfetcher/certfetcher/internal/verify"
	"github.com/certfetcher/certfetcher/keygen"
	"github.com/certfetcher/certfetcher/output"
)

// Settings say what to request, from whom, and where to publish it.
type Settings struct {
	// Request says which CertService and CA are asked, and how patiently an initial enrolment is.
	// Its TLS, Roots, IdentityProblem, UserAgent, Log and Now are set for each request.
	Request     client.Config
	Certificate Certificate
	// Output says what is published, and where. Its NotePending, Done, Log and Now are set when
	// the volume is opened.
	Output output.Config
	// CMP says how certificates are requested by CMP; nil: by the API of a CertService.
	CMP *CMP
	// ForceEnroll requests a certificate even when the volume holds a matching, valid one.
	ForceEnroll bool
	// Renewal is for a sidecar; nil: nothing is renewed later.
	Renewal *Renewal
}

// Certificate is what to request.
type Certificate struct {
	KeyAlgorithm string // in package keygen's terms
	// Template holds the subject, as DER in RawSubject and readable in Subject, and the subject
	// alternative names; nothing else of it is set.
	Template *x509.CertificateRequest
}

// Renewal says how a certificate is renewed. When, package sidecar decides.
type Renewal struct {
	Fallback     bool // enrol where an update is not possible
	ReuseKey     bool
	TrustOverlap time.Duration // negative: until the certificate that came with the trusted ones expires
}

// Enroller runs enrolments for one configuration. Run comes first;
// its methods are called one at a time, but for Obtain, MarkPending
// and MarkNotified, each of which may be called beside the others.
type Enroller struct {
	Config    Settings
	Identity  func() *mtls.Identity // to use for the next request
	UserAgent string
	// NotePending: the application is notified of publications, so note on the volume that a
	// notification is pending.
	NotePending bool
	Log         *slog.Logger
	Now         func() time.Time

	volume *output.Volume
	// what counts on the volume: read from it, or committed last; nil before either
	current atomic.Pointer[output.Bundle]
	nextKey crypto.Signer // made for a renewal that has not succeeded yet
	// enrolDirectly: an update was answered with other names
	// than the requested ones, and so would the next be.
	enrolDirectly bool
	foreignAt     time.Time // when this process met that; zero: one before it
	forced        bool      // FORCE_ENROLL is set, and nothing was enrolled yet
	pending       *Obtained // what could not be published, because the volume failed
	overlap       overlap
	journal       *journal // of the CMP transaction that is not over; nil: none
}

// How a certificate came to be on the volume.
const (
	Kept     = "kept" // it was there
	Enrolled = "enrolled"
	Updated  = "updated" // as the renewal of another
)

// Outcome is what a run left on the volume.
type Outcome struct {
	Bundle output.Bundle
	How    string // Kept, Enrolled or Updated
	Files  []string
	// Changed tells whether files were written.
	Changed bool
	// Adopted says that a restoration found another process's newer certificate, which stays.
	Adopted bool
	// Differences say what was not as it should be on the volume before; see output.Publication.
	Differences []string
	// Pending, of what was kept, tells whether the previous
	// run ended before the application was notified of it.
	Pending bool
	Number  int // for MarkNotified
	// Requested says, of what was kept, in what the configuration requests another certificate
	// now; empty: in nothing.
	Requested string
}

// Run makes sure that the volume holds a matching, valid certificate: it keeps the one that is
// there, or fetches and publishes another. Nothing on the volume changes unless the whole new set
// is verified. An error is always of type *Error.
func (e *Enroller) Run(ctx context.Context) (Outcome, error) {
	var err error
	if e.volume, err = e.openVolume(ctx); err != nil {
		return Outcome{}, err
	}
	if err := e.takeUp(); err != nil {
		return Outcome{}, err
	}
	found := e.keep()
	if found.bundle != nil {
		return e.stay(found)
	}
	a := e.begin(&ctx)
	if found.reason != "" {
		a.log.Info("enrolling", "trigger", found.reason)
	}
	outcome, err := e.enrolAndPublish(ctx, a)
	return outcome, a.name(err)
}

func (e *Enroller) enrolAndPublish(ctx context.Context, a identified) (Outcome, error) {
	bundle, err := e.fetch(ctx, a)
	if err != nil {
		return Outcome{}, err
	}
	e.forced, e.nextKey = false, nil
	if e.Config.Renewal != nil && e.current.Load() != nil {
		bundle = e.withOverlap(bundle, a.log)
	}
	outcome, err := e.publish(bundle, Enrolled, a.log)
	e.endJournal(err)
	return outcome, err
}

// stay keeps what was found, in the configured form: what is on the volume in another one is published again, and
// costs no certificate.
func (e *Enroller) stay(found found) (Outcome, error) {
	leaf := found.bundle.Chain[0]
	e.settleJournal(leaf)
	outcome := Outcome{Bundle: *found.bundle, How: Kept, Files: e.volume.Files()}
	if found.form == "" {
		e.correctModes()
	} else {
		e.Log.Info("the volume holds a certificate in another form than configured: publishing it again", "trigger",
			found.form, "serial", pki.Serial(leaf))
		var err error
		if outcome, err = e.publish(*found.bundle, Kept, e.Log); err != nil && !Committed(err) {
			return Outcome{}, err
		}
	}
	if found.form == "" || found.reason != "" {
		e.reportKept(leaf, found.reason)
	}
	outcome.Pending, outcome.Requested = e.volume.Pending(), found.reason
	return outcome, nil
}

// identified is an attempt to get a certificate. All its requests and log lines have the same id,
// those of further tries and of an enrolment in place of an update among them.
type identified struct {
	id  string
	log *slog.Logger
}

// begin identifies an attempt, by the id of ctx if that has one. ctx has it from then on.
func (e *Enroller) begin(ctx *context.Context) identified {
	id := requestid.From(*ctx)
	if id == "" {
		id = requestid.New()
		*ctx = requestid.With(*ctx, id, "")
	}
	return identified{id, requestid.Bind(*ctx, e.Log)}
}

// name adds the id to the attempt's error.
func (a identified) name(err error) error {
	if failed, ok := errors.AsType[*Error](err); ok {
		failed.RequestID = a.id
	}
	return err
}

// writable comes before anything is asked for: a volume that cannot be written to must not cost a
// certificate at every try.
func (e *Enroller) writable() error {
	if err := e.volume.Writable(); err != nil {
		return fail(outputStage(err), "preparing the output directory: %w", err)
	}
	return nil
}

// publish makes the bundle the set on the volume. Of an error for which Committed is true, the
// outcome has bundle and how.
func (e *Enroller) publish(bundle output.Bundle, how string, log *slog.Logger) (Outcome, error) {
	start := e.Now()
	publication, err := e.volume.Publish(bundle)
	outcome := Outcome{Bundle: bundle, How: how, Files: publication.Files,
		Changed: publication.Changed, Number: publication.Number}
	if err == nil || Committed(err) {
		e.current.Store(&bundle)
	}
	if err != nil {
		return outcome, fail(outputStage(err), "publishing the files: %w", err)
	}
	log.Info("published", "path", e.Config.Output.Dir, "files", publication.Files, "duration", e.since(start))
	return outcome, nil
}

// Committed reports whether the certificate is the one on the volume in spite of an error: its
// files are not all in place yet, and Restore puts them there.
func Committed(err error) bool {
	_, ok := errors.AsType[*output.IncompleteError](err)
	return ok
}

// correctModes makes a kept set as private as is configured now: another configuration or program
// may have published it. A set that is kept and cannot be changed is still better than none.
func (e *Enroller) correctModes() {
	corrected, err := e.volume.CorrectModes()
	if len(corrected) > 0 {
		e.Log.Info("corrected mode or group of published files", "files", corrected)
	}
	if err != nil {
		e.Log.Warn("published files have another mode or group than configured, and cannot be corrected", "error",
			err.Error())
	}
}

func (e *Enroller) openVolume(ctx context.Context) (*output.Volume, error) {
	cfg := e.Config.Output
	cfg.Now, cfg.Log, cfg.NotePending, cfg.Done = e.Now, e.Log, e.NotePending, ctx.Done()
	volume, err := output.Open(cfg)
	if err != nil {
		return nil, fail(outputStage(err), "opening the output directory: %w", err)
	}
	return volume, nil
}

// fetch makes a key and brings a verified certificate for it, if the volume can be written to.
func (e *Enroller) fetch(ctx context.Context, a identified) (output.Bundle, error) {
	issuer, err := e.issuer(e.Config.Request.Retry, a.log)
	if err != nil {
		return output.Bundle{}, err
	}
	// Trying the volume and making the key run beside the TLS handshake, in which nothing is asked for yet.
	issuer.connect(ctx)
	if err := e.writable(); err != nil {
		return output.Bundle{}, err
	}
	key, err := e.upcomingKey(a.log)
	if err != nil {
		return output.Bundle{}, err
	}
	o, err := e.order(key, a.log)
	if err != nil {
		return output.Bundle{}, err
	}
	return issuer.enrol(ctx, o, false)
}

func (e *Enroller) newKey(log *slog.Logger) (crypto.Signer, error) {
	algorithm := e.Config.Certificate.KeyAlgorithm
	start := e.Now()
	key, err := keygen.GenerateKey(algorithm)
	if err != nil {
		return nil, fail(StageKeyGeneration, "making a key pair: %w", err)
	}
	log.Info("made a key pair", "algorithm", algorithm, "duration", e.since(start))
	return key, nil
}

// order is what is requested from an issuer: a certificate for a key.
type order struct {
	*Enroller
	Log *slog.Logger // in place of the Enroller's: with the attempt's id
	key crypto.Signer
	csr *x509.CertificateRequest
}

func (e *Enroller) order(key crypto.Signer, log *slog.Logger) (order, error) {
	start := e.Now()
	csr, err := keygen.CreateCSR(e.Config.Certificate.Template, key)
	if err != nil {
		return order{}, fail(StageCSR, "making the certificate signing request: %w", err)
	}
	log.Info("made the certificate signing request", "subject", pki.DN(csr.RawSubject), "sans",
		pki.RequestNames(csr), "duration", e.since(start))
	return order{e, log, key, csr}, nil
}

// accept turns the certificates that came into what may be published. What is shown of them goes
// through clean.
func (o order) accept(chain, trusted []*x509.Certificate, clean func(string) string) (output.Bundle, error) {
	start := o.Now()
	result, err := verify.Answer(o.csr, chain, trusted, o.Now())
	if err != nil {
		text := "verifying the certificate: " + clean(err.Error())
		if _, ok := errors.AsType[*verify.NamesError](err); ok {
			return output.Bundle{}, fail(StageVerification, "%s; %w", text, errNames)
		}
		return output.Bundle{}, fail(StageVerification, "%s", text)
	}
	for _, warning := range result.Warnings {
		o.Log.Warn("certificate accepted with a warning", "error", clean(warning))
	}
	leaf := result.Chain[0]
	o.Log.Info("verified the certificate", "serial", pki.Serial(leaf), "not_before", leaf.NotBefore,
		"not_after", leaf.NotAfter,
		"issuer", clean(pki.DN(leaf.RawIssuer)), "chain", len(result.Chain), "trusted",
		len(result.Trusted), "duration", o.since(start))
	return output.Bundle{Key: o.key, Chain: result.Chain, Trusted: result.Trusted, Note: o.note(leaf)}, nil
}

func (e *Enroller) since(start time.Time) time.Duration {
	return e.Now().Sub(start).Round(10 * time.Microsecond)
}
