package enroll

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/certfetcher/certfetcher/client"
	"github.com/certfetcher/certfetcher/internal/certinfo"
	"github.com/certfetcher/certfetcher/internal/config"
	"github.com/certfetcher/certfetcher/keygen"
	"github.com/certfetcher/certfetcher/output"
)

// Obtained is a verified certificate that is not published yet.
type Obtained struct {
	bundle output.Bundle
	how    string
}

// Obtain gets a certificate in place of the current one, with one try of each request: it asks for an update and,
// where that is no way, for a new enrolment, unless that is forbidden. Publish must have followed before it is called
// again, unless it failed. An error is always of type *Error.
func (e *Enroller) Obtain(ctx context.Context) (Obtained, error) {
	if err := e.writable(); err != nil {
		return Obtained{}, err
	}
	if left := e.leftOver(); left != nil {
		return *left, nil
	}
	service, err := e.client(nil)
	if err != nil {
		return Obtained{}, err
	}
	current := e.current.Load()
	key, err := e.renewalKey(current)
	if err != nil {
		return Obtained{}, err
	}
	a := attempt{Enroller: e, service: service, key: key, current: current}
	if a.csr, a.request, err = e.request(key); err != nil {
		return Obtained{}, err
	}
	obtained, err := a.obtain(ctx)
	if err == nil {
		e.nextKey = nil
	}
	return obtained, err
}

// leftOver is what an attempt before could not publish, if it is still worth it.
func (e *Enroller) leftOver() *Obtained {
	left := e.pending
	e.pending = nil
	if left == nil || e.outdated(&left.bundle) != "" {
		return nil
	}
	e.Log.Info("publishing the certificate that could not be published before", "serial", certinfo.Serial(left.bundle.Chain[0]))
	return left
}

// Publish replaces what is on the volume by what was obtained. An error is always of type *Error. One for which
// Committed is true comes with the outcome; after any other the certificate before stays.
func (e *Enroller) Publish(obtained Obtained) (Outcome, error) {
	outcome, err := e.publish(e.withOverlap(obtained.bundle), obtained.how)
	if err != nil && !Committed(err) {
		e.pending = &obtained
	}
	return outcome, err
}

// withOverlap adds the trusted certificates that are kept for a while.
func (e *Enroller) withOverlap(bundle output.Bundle) output.Bundle {
	merged := bundle
	merged.Trusted = e.overlap.merge(bundle.Trusted, e.current.Load(), e.Config.Sidecar.TrustOverlap, e.Now())
	if kept := len(merged.Trusted) - len(bundle.Trusted); kept > 0 {
		e.Log.Info("keeping trusted certificates that the CertService no longer sends", "count", kept)
	}
	return merged
}

// renewalKey is the key for the next certificate. One that was made stays the same until it has a certificate: a
// CertService that is down for days must not cost a key pair at every try. REUSE_KEY is for a key of the algorithm
// that is requested.
func (e *Enroller) renewalKey(current *output.Bundle) (key crypto.Signer, err error) {
	if e.Config.Sidecar.ReuseKey {
		has, err := keygen.AlgorithmOf(current.Key.Public())
		if err == nil && has == e.Config.Certificate.KeyAlgorithm {
			return current.Key, nil
		}
	}
	if e.nextKey == nil {
		e.nextKey, err = e.newKey()
	}
	return e.nextKey, err
}

// attempt is one try to get a certificate in place of the current one.
type attempt struct {
	*Enroller
	service *client.Client
	key     crypto.Signer
	csr     *x509.CertificateRequest
	request client.Request
	current *output.Bundle
}

// obtain asks for an update or, where that is no way, for an enrolment.
func (a attempt) obtain(ctx context.Context) (Obtained, error) {
	changed := a.changed(a.current)
	if a.forced {
		changed = "FORCE_ENROLL is set"
	}
	if changed != "" {
		a.enrolDirectly = false // that was about another request
		a.Log.Info("enrolling", "because", changed)
		return a.enrol(ctx)
	}
	leaf, mayEnrol := a.current.Chain[0], a.Config.Sidecar.Fallback
	var because string
	var err error
	switch {
	case !a.Now().Before(leaf.NotAfter):
		because = "it expired at " + leaf.NotAfter.UTC().Format(time.RFC3339)
		err = failed(StageOther, "the certificate cannot be renewed: %s, and %w", because, errForbidden)
	case a.enrolDirectly && mayEnrol:
		a.Log.Info("enrolling", "because", "the CA answered an earlier update with other names than the requested ones")
		return a.enrol(ctx)
	default:
		var obtained Obtained
		if obtained, err = a.update(ctx); err == nil {
			return obtained, nil
		}
		because = a.noWay(ctx, err)
	}
	if because == "" || !mayEnrol {
		return Obtained{}, err
	}
	a.Log.Warn("the certificate cannot be renewed, enrolling anew", "because", because)
	return a.enrol(ctx)
}

// noWay says why another try of an update that failed would not do better, or comes too late; empty when it may.
func (a attempt) noWay(ctx context.Context, err error) string {
	if foreignNames(err) {
		a.enrolDirectly = true // each further update would have the CA issue one more certificate for nothing
	}
	because := refusal(err)
	if because == "" && ctx.Err() == nil && a.elsewhere(err) && a.nearlyExpired(a.current.Chain[0]) {
		because = "less than a tenth of its life is left, and the update fails: " + err.Error()
	}
	return because
}

func (a attempt) update(ctx context.Context) (Obtained, error) {
	start := a.Now()
	request := a.request
	var err error
	if request.OldKey, err = keygen.PrivateKeyPEM(a.current.Key); err != nil {
		return Obtained{}, failed(StageKeyEncoding, "preparing the OLD_PK header: %w", err)
	}
	for _, cert := range a.current.Chain {
		request.OldCert = append(request.OldCert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})...)
	}
	answer, err := a.service.Update(ctx, request)
	if err != nil {
		return Obtained{}, a.requestFailed(ctx, "asking the CertService to renew a certificate", err)
	}
	bundle, err := a.accept(a.key, a.csr, answer)
	if err != nil {
		return Obtained{}, err
	}
	a.Log.Info("the CertService renewed the certificate", "ca", a.Config.Request.CAName, "duration", a.since(start))
	return Obtained{bundle, Updated}, nil
}

func (a attempt) enrol(ctx context.Context) (Obtained, error) {
	start := a.Now()
	answer, err := a.service.Enroll(ctx, a.request)
	if err != nil {
		return Obtained{}, a.requestFailed(ctx, "asking the CertService for a certificate", err)
	}
	a.Log.Info("the CertService answered", "ca", a.Config.Request.CAName, "duration", a.since(start))
	bundle, err := a.accept(a.key, a.csr, answer)
	if err == nil {
		a.forced = false
	}
	return Obtained{bundle, Enrolled}, err
}

// caRefused is how the CertService API begins the message of a 500 that tells a CA's refusal, as opposed to
// a CA that could not be reached.
const caRefused = "CMPv2 server returned following error"

// refusal says why an update is no way with this CertService or this certificate; empty when the same
// would meet an enrolment, or passes.
func refusal(err error) string {
	var status *client.StatusError
	var answer *client.AnswerError
	var connection *client.ConnectionError
	switch {
	case StageOf(err) == StageKeyEncoding:
		return "the key on the volume cannot be sent: " + err.Error()
	case foreignNames(err):
		return "the CA answers the update with other names than the requested ones: " + err.Error()
	case wasted(err):
		return "" // an enrolment would most likely meet the same
	case errors.As(err, &status):
		switch code := status.StatusCode; {
		case code == http.StatusNotImplemented, code == http.StatusInternalServerError && strings.HasPrefix(status.Message, caRefused):
		case code == http.StatusUnauthorized, code == http.StatusRequestTimeout, code == http.StatusTooEarly, code == http.StatusTooManyRequests, code >= 500:
			return ""
		}
		return "the update was refused: " + status.Error()
	case errors.As(err, &answer):
		return "the update is not served: " + answer.Error()
	case errors.As(err, &connection), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return ""
	}
	return err.Error()
}

// errNames is what to do about a certificate with other names than the requested ones.
var errNames = errors.New("at the CA, have the certificate profile take the names from the request " +
	`(EJBCA: "Allow Extension Override"), or give each replica a subject of its own`)

// foreignNames tells of an error whether a certificate was issued with other names than the requested ones. EJBCA
// does so where two holders of one subject have different names: it answers an update with those that it registered
// last.
func foreignNames(err error) bool {
	var status *client.StatusError
	return errors.Is(err, errNames) || errors.As(err, &status) && status.Reason == client.ReasonNames
}

// wasted tells of an error whether a certificate was issued that nobody can use.
func wasted(err error) bool {
	stage := StageOf(err)
	return stage == StageVerification || stage == StageConversion || foreignNames(err)
}

// errForbidden is the failure of an update that nothing but an enrolment could make good.
var errForbidden = errors.New("RENEW_FALLBACK forbids to enrol anew")

// forbiddenWait is how long to wait where only an operator can help: no try asks anybody.
const forbiddenWait = 15 * time.Minute

// elsewhere tells of an error that is no refusal whether an enrolment may not meet it: it is of the endpoint for
// updates, and not, as a port where nothing listens, of the host that has both.
func (e *Enroller) elsewhere(err error) bool {
	var status *client.StatusError
	var connection *client.ConnectionError
	var timeout interface{ Timeout() bool }
	switch {
	case errors.As(err, &status):
		return status.StatusCode >= 500
	case errors.As(err, &connection):
		return e.Config.Sidecar.UpdateURL != "" || errors.As(err, &timeout) && timeout.Timeout()
	}
	return false
}

// nearlyExpired tells whether less than a tenth of a certificate's life is left.
func (e *Enroller) nearlyExpired(leaf *x509.Certificate) bool {
	return e.Now().After(certinfo.Moment(leaf.NotBefore, leaf.NotAfter, 0.9))
}

// Restore puts back published files that vanished or were changed. The outcome's Changed tells whether any had.
// Where another process has published a newer certificate that fits, that is the one from now on.
func (e *Enroller) Restore() (Outcome, error) {
	other := e.volume.Adopt(e.prefers)
	if other != nil {
		e.Log.Info("somebody else has published a newer certificate, which stays", "serial", certinfo.Serial(other.Chain[0]), "not_after", other.Chain[0].NotAfter)
		e.current.Store(other)
		e.overlap = overlap{} // what came with it counts as brought by the last answer, as at a start
	}
	publication, err := e.volume.Restore()
	if err != nil {
		return Outcome{}, failed(outputStage(err), "putting published files back: %w", err)
	}
	return Outcome{
		Bundle: *e.current.Load(), How: Kept, Files: publication.Files, Changed: publication.Changed,
		Adopted: other != nil, Differences: publication.Differences, Number: publication.Number,
	}, nil
}

// prefers tells whether a set that somebody else put in the place of the current one is to stay: it fits the
// configuration, is trusted by what is trusted now, and is newer. Of two of the same second, any
// order will do that all processes agree on, or each would put back its own for ever; of two with the same
// certificate it is the one without what the other's overlap was over for.
func (e *Enroller) prefers(other output.Bundle) bool {
	current := e.current.Load()
	leaf, before := other.Chain[0], current.Chain[0]
	newer := leaf.NotBefore.Compare(before.NotBefore)
	if newer == 0 {
		newer = bytes.Compare(leaf.Raw, before.Raw)
	}
	if newer == 0 && subset(other.Trusted, current.Trusted) {
		newer = len(current.Trusted) - len(other.Trusted)
	}
	trusted := other
	trusted.Trusted = current.Trusted
	return newer > 0 && e.outdated(&other) == "" && e.outdated(&trusted) == ""
}

func subset(some, all []*x509.Certificate) bool {
	return !slices.ContainsFunc(some, func(cert *x509.Certificate) bool { return !slices.ContainsFunc(all, cert.Equal) })
}

// OverlapEnd is when Prune has something to do; zero for never.
func (e *Enroller) OverlapEnd() time.Time { return e.overlap.end(e.current.Load().Trusted) }

// Prune publishes the current set without the trusted certificates whose overlap is over, if there are any. Its
// errors are like those of Publish.
func (e *Enroller) Prune() (Outcome, error) {
	pruned := *e.current.Load()
	pruned.Trusted = e.overlap.prune(pruned.Trusted, e.Now())
	if len(pruned.Trusted) == len(e.current.Load().Trusted) {
		return Outcome{}, nil
	}
	e.Log.Info("publishing without the trusted certificates that the CertService has not sent for the time of the overlap",
		"count", len(e.current.Load().Trusted)-len(pruned.Trusted))
	return e.publish(pruned, Kept)
}

// Owe notes that the application is to be told of something else than a publication; the number is for Told.
func (e *Enroller) Owe() (int, error) { return e.volume.Owe() }

// Told says that the application knows of the publication with this number.
func (e *Enroller) Told(number int) error { return e.volume.Told(number) }

// Next is what an error of Obtain or Publish means for the next try.
type Next struct {
	Permanent bool          // somebody has to repair something first
	Wasted    bool          // a certificate was issued for nothing, and would be at each try
	After     time.Duration // how long to wait at the least, mostly because the CertService asks for it; 0: nobody does
}

// Retry says what an error of Obtain or Publish means for the next try.
func Retry(err error) Next {
	var status *client.StatusError
	var connection *client.ConnectionError
	switch {
	case errors.Is(err, errForbidden):
		return Next{Permanent: true, After: forbiddenWait}
	case errors.As(err, &status):
		permanent := status.StatusCode == http.StatusUnauthorized || status.StatusCode < 500 && refusal(err) != ""
		return Next{Permanent: permanent || foreignNames(err), Wasted: foreignNames(err), After: status.RetryAfter}
	case errors.As(err, &connection):
		return Next{Permanent: connection.Permanent}
	}
	// A CA that issues what was not asked for would do so at every try.
	return Next{Permanent: wasted(err), Wasted: wasted(err)}
}

// Check says why what the volume of a configuration holds is not a complete set with a certificate that is
// valid now; nil when it is. It changes nothing.
func Check(cfg *config.Fetcher, now time.Time) error {
	current, err := output.Read(outputConfig(cfg))
	if err != nil {
		return fmt.Errorf("reading the volume: %w", err)
	}
	return valid(current, now)
}

// Changed says in what a configuration requests another certificate than the one on its volume; empty when it does
// not, or when nothing can be read there. It changes nothing.
func Changed(cfg *config.Fetcher) string {
	current, err := output.Read(outputConfig(cfg))
	if err != nil {
		return ""
	}
	return (&Enroller{Config: cfg}).changed(current)
}
