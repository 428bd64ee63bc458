package enroll

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/certfetcher/certfetcher/client"
	"github.com/certfetcher/certfetcher/internal/certinfo"
	"github.com/certfetcher/certfetcher/internal/config"
	"github.com/certfetcher/certfetcher/internal/verify"
	"github.com/certfetcher/certfetcher/keygen"
	"github.com/certfetcher/certfetcher/output"
)

// Renew replaces the certificate, with one try of each request: it asks for an update and, where that is
// no way, for a new enrolment, unless that is forbidden. What is on the volume stays until the whole
// new set is verified. An error is always of type *Error.
func (e *Enroller) Renew(ctx context.Context) (Outcome, error) {
	// Before anything is asked for: a volume that cannot be written to must not cost a certificate at every try.
	if err := e.volume.Writable(); err != nil {
		return Outcome{}, failed(outputStage(err), "opening the output directory: %w", err)
	}
	if left := e.leftOver(); left != nil {
		return e.publishRenewed(left.bundle, left.how)
	}
	service, err := e.client(nil)
	if err != nil {
		return Outcome{}, err
	}
	key, err := e.renewalKey()
	if err != nil {
		return Outcome{}, err
	}
	csr, request, err := e.request(key)
	if err != nil {
		return Outcome{}, err
	}
	answer, how, err := e.ask(ctx, service, request)
	if err != nil {
		return Outcome{}, err
	}
	bundle, err := e.accept(key, csr, answer)
	if err != nil {
		return Outcome{}, err
	}
	e.nextKey = nil
	return e.publishRenewed(bundle, how)
}

// unpublished is a certificate that could not be published, because the volume failed.
type unpublished struct {
	bundle output.Bundle
	how    string
}

// leftOver is what an attempt before could not publish, if it is still worth it.
func (e *Enroller) leftOver() *unpublished {
	left := e.pending
	e.pending = nil
	if left == nil || e.outdated(&left.bundle) != "" {
		return nil
	}
	e.Log.Info("publishing the certificate that could not be published before", "serial", certinfo.Serial(left.bundle.Chain[0]))
	return left
}

func (e *Enroller) publishRenewed(bundle output.Bundle, how string) (Outcome, error) {
	merged := bundle
	merged.Trusted = e.overlap.merge(bundle.Trusted, e.current, e.Config.Sidecar.TrustOverlap, e.Now())
	if kept := len(merged.Trusted) - len(bundle.Trusted); kept > 0 {
		e.Log.Info("keeping trusted certificates that the CertService no longer sends", "count", kept)
	}
	outcome, err := e.publish(merged, how)
	if err != nil {
		e.pending = &unpublished{bundle, how}
	}
	return outcome, err
}

// renewalKey is the key for the next certificate. One that was made stays the same until it has a certificate:
// a CertService that is down for days must not cost a key pair at every try.
func (e *Enroller) renewalKey() (key crypto.Signer, err error) {
	if e.Config.Sidecar.ReuseKey {
		return e.current.Key, nil
	}
	if e.nextKey == nil {
		e.nextKey, err = e.newKey()
	}
	return e.nextKey, err
}

// ask sends the request for an update, or, where that is no way, the one for an enrolment.
func (e *Enroller) ask(ctx context.Context, service *client.Client, request client.Request) (answer client.Answer, how string, err error) {
	start := e.Now()
	leaf, because := e.current.Chain[0], ""
	if e.Now().Before(leaf.NotAfter) {
		if answer, err = e.update(ctx, service, request); err == nil {
			e.Log.Info("the CertService renewed the certificate", "ca", e.Config.Request.CAName, "duration", e.since(start))
			return answer, Updated, nil
		}
		because = refusal(err)
	} else {
		because = "it expired at " + leaf.NotAfter.UTC().Format(time.RFC3339)
		err = failed(StageOther, "the certificate cannot be renewed: %s, and RENEW_FALLBACK forbids to enrol anew", because)
	}
	if because == "" || !e.Config.Sidecar.Fallback {
		return client.Answer{}, "", err
	}
	e.Log.Warn("the certificate cannot be renewed, enrolling anew", "because", because)
	start = e.Now()
	if answer, err = service.Enroll(ctx, request); err != nil {
		return client.Answer{}, "", e.requestFailed(ctx, "asking the CertService for a certificate", err)
	}
	e.Log.Info("the CertService answered", "ca", e.Config.Request.CAName, "duration", e.since(start))
	return answer, Enrolled, nil
}

func (e *Enroller) update(ctx context.Context, service *client.Client, request client.Request) (client.Answer, error) {
	var err error
	if request.OldKey, err = keygen.PrivateKeyPEM(e.current.Key); err != nil {
		return client.Answer{}, failed(StageKeyEncoding, "preparing the OLD_PK header: %w", err)
	}
	for _, cert := range e.current.Chain {
		request.OldCert = append(request.OldCert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})...)
	}
	answer, err := service.Update(ctx, request)
	if err != nil {
		return client.Answer{}, e.requestFailed(ctx, "asking the CertService to renew a certificate", err)
	}
	return answer, nil
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

// Restore puts back published files that vanished or were changed. The outcome's Changed tells whether any had.
func (e *Enroller) Restore() (Outcome, error) {
	publication, err := e.volume.Restore()
	if err != nil {
		return Outcome{}, failed(outputStage(err), "putting published files back: %w", err)
	}
	return Outcome{Bundle: *e.current, How: Kept, Files: publication.Files, Changed: publication.Changed}, nil
}

// Retry says what an error of Renew means for the next try: whether somebody has to mend something first,
// and how long the CertService asks to wait, 0 when it did not say.
func Retry(err error) (permanent bool, after time.Duration) {
	var status *client.StatusError
	var connection *client.ConnectionError
	switch {
	case errors.As(err, &status):
		return status.StatusCode == http.StatusUnauthorized || status.StatusCode < 500 && refusal(err) != "", status.RetryAfter
	case errors.As(err, &connection):
		return connection.Permanent, 0
	}
	// A CA that issues what was not asked for would do so at every try.
	stage := StageOf(err)
	return stage == StageVerification || stage == StageConversion, 0
}

// Check says why what the volume of a configuration holds is not a complete set with a certificate that is
// valid now; nil when it is. It changes nothing.
func Check(cfg *config.Fetcher, now time.Time) error {
	current, err := output.Read(outputConfig(cfg))
	if err != nil {
		return fmt.Errorf("reading the volume: %w", err)
	}
	// Asked of itself, a leaf has the right key and names; what is left are order, dates and anchors.
	leaf := current.Chain[0]
	_, err = verify.Answer(&x509.CertificateRequest{
		PublicKey: leaf.PublicKey, RawSubject: leaf.RawSubject, Subject: leaf.Subject,
		DNSNames: leaf.DNSNames, EmailAddresses: leaf.EmailAddresses, IPAddresses: leaf.IPAddresses, URIs: leaf.URIs,
	}, current.Chain, current.Trusted, now)
	return err
}
