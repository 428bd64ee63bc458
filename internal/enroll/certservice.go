package enroll

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/certfetcher/certfetcher/client"
	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/internal/mtls"
	"github.com/certfetcher/certfetcher/keygen"
	"github.com/certfetcher/certfetcher/output"
)

// issuer is who certificates are requested from, over one protocol. What an error of its means for
// the next step, judge says.
type issuer interface {
	// connect may set up ahead what the next request needs.
	connect(ctx context.Context)
	// enrol requests a certificate by itself; again says that there is one, which is not updated.
	enrol(ctx context.Context, o order, again bool) (output.Bundle, error)
	// update requests one in place of the current one, whose key proves who asks.
	update(ctx context.Context, o order, current *output.Bundle) (output.Bundle, error)
}

// issuer is that of the configuration, with the identity of now. A nil retry is for one try.
func (e *Enroller) issuer(retry *client.Retry, log *slog.Logger) (issuer, error) {
	if e.Config.CMP != nil {
		return e.cmpIssuer(retry)
	}
	cfg := ClientConfig(e.Config.Request, e.Identity(), e.Now)
	cfg.Retry, cfg.UserAgent, cfg.Log = retry, e.UserAgent, log
	service, err := client.New(cfg)
	if err != nil {
		return nil, fail(StageClientConfiguration, "preparing the request: %w", err)
	}
	return certService{service}, nil
}

// ClientConfig completes how an enrolment reaches the CertService. A nil identity leaves TLS out.
func ClientConfig(cfg client.Config, identity *mtls.Identity, now func() time.Time) client.Config {
	if identity != nil {
		cfg.TLS, cfg.Roots = identity.ClientConfig(), identity.Roots
		cfg.IdentityProblem = func() string { return strings.Join(identity.Problems(now()), "; ") }
	}
	cfg.Now = now
	return cfg
}

// certService is the issuer behind a CertService's REST API.
type certService struct{ service *client.Client }

func (s certService) connect(ctx context.Context) { s.service.Connect(ctx) }

func (s certService) enrol(ctx context.Context, o order, _ bool) (output.Bundle, error) {
	request, err := newRequest(o)
	if err != nil {
		return output.Bundle{}, err
	}
	start := o.Now()
	answer, err := s.service.Enroll(ctx, request)
	if err != nil {
		return output.Bundle{}, o.explainRequest(ctx,
			fmt.Sprintf("asking the CertService for a certificate of CA %q", o.Config.Request.CAName), err)
	}
	o.Log.Info("the CertService answered", "ca", o.Config.Request.CAName, "duration", o.since(start))
	return acceptAnswer(o, answer)
}

func (s certService) update(ctx context.Context, o order, current *output.Bundle) (output.Bundle, error) {
	start := o.Now()
	request, err := newRequest(o)
	if err != nil {
		return output.Bundle{}, err
	}
	if request.OldKey, err = keygen.PrivateKeyPEM(current.Key); err != nil {
		return output.Bundle{}, fail(StageKeyEncoding, "preparing the OLD_PK header: %w", err)
	}
	for _, cert := range current.Chain {
		request.OldCert = append(request.OldCert,
			pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})...)
	}
	answer, err := s.service.Update(ctx, request)
	if err != nil {
		return output.Bundle{}, o.explainRequest(ctx,
			fmt.Sprintf("asking the CertService to renew a certificate of CA %q", o.Config.Request.CAName), err)
	}
	bundle, err := acceptAnswer(o, answer)
	if err == nil {
		o.Log.Info("the CertService renewed the certificate", "ca", o.Config.Request.CAName,
			"duration", o.since(start))
	}
	return bundle, err
}

// newRequest encodes an order for the API, in which the private key proves its possession.
func newRequest(o order) (client.Request, error) {
	key, err := keygen.PrivateKeyPEM(o.key)
	if err != nil {
		return client.Request{}, fail(StageKeyEncoding, "preparing the PK header: %w", err)
	}
	return client.Request{CSR: keygen.CSRPEM(o.csr), Key: key}, nil
}

func acceptAnswer(o order, answer client.Answer) (output.Bundle, error) {
	chain, trusted, err := answer.Certificates()
	if err != nil {
		return output.Bundle{}, fail(StageConversion, "reading the CertService's answer: %w", err)
	}
	return o.accept(chain, trusted, answer.Clean)
}

// explainRequest adds the stage. An interruption is not the
// issuer's fault, whatever the last try met.
func (o order) explainRequest(ctx context.Context, doing string, err error) error {
	if ctx.Err() != nil {
		return fail(StageOther, "interrupted while %s: %w", doing, err)
	}
	v, _ := judge(err)
	if v.foreign {
		return fail(v.stage, "%s: %w; %w", doing, err, errNames)
	}
	return fail(v.stage, "%s: %w%s", doing, err, o.keyAdvice(err)+policyAdvice(err))
}

// policyAdvice is what to do where a CertService refuses by a CMP message what its policy does not
// allow. Where it does by a status, the error says so itself.
func policyAdvice(err error) string {
	if status, ok := errors.AsType[*cmp.StatusError](err); ok && strings.Contains(status.Text, client.PolicyRefusal) {
		return ": " + client.PolicyAdvice
	}
	return ""
}

// keyAdvice is what to do where an ONAP CertService refuses a key that is not RSA: it says no more
// than that the key is in a wrong format.
func (o order) keyAdvice(err error) string {
	algorithm := o.Config.Certificate.KeyAlgorithm
	var status *client.StatusError
	refused := errors.As(err, &status) && strings.Contains(status.Message, "Wrong key (PK) format")
	if !refused || strings.HasPrefix(algorithm, "RSA") {
		return ""
	}
	return fmt.Sprintf(": ONAP's CertService takes RSA keys only, and KEY_ALGORITHM is %s: set KEY_ALGORITHM=RSA-2048",
		algorithm)
}

// caRefused is how the CertService API begins the message of a 500 that tells a CA's refusal, as
// opposed to a CA that could not be reached.
const caRefused = "CMPv2 server returned following error"

// judgeClient judges the errors of package client.
func judgeClient(err error) (verdict, bool) {
	var status *client.StatusError
	var answer *client.AnswerError
	var connection *client.ConnectionError
	var token *client.TokenError
	var timeout interface{ Timeout() bool }
	switch {
	case errors.As(err, &status):
		v := verdict{stage: StageCertService, foreign: status.Reason == client.ReasonNames,
			elsewhere: status.StatusCode >= 500, retryAfter: status.RetryAfter}
		switch code := status.StatusCode; {
		case code == http.StatusUnauthorized:
			// It is about who asks. Of our identity in TLS, a server that demands it in the
			// handshake would have refused that.
			v.stage, v.permanent = StageConnection, !status.MayPass()
		case code == http.StatusNotImplemented,
			code == http.StatusInternalServerError && strings.HasPrefix(status.Message, caRefused):
			v.refused = "the update was refused: " + status.Error()
		case code == http.StatusRequestTimeout, code == http.StatusTooEarly,
			code == http.StatusTooManyRequests, code >= 500:
		default:
			v.refused, v.permanent = "the update was refused: "+status.Error(), true
		}
		return v, true
	case errors.As(err, &answer):
		return verdict{stage: StageCertService, refused: "the update is not served: " + answer.Error()}, true
	case errors.As(err, &connection):
		timedOut := errors.As(err, &timeout) && timeout.Timeout()
		return verdict{stage: StageConnection, permanent: connection.Permanent,
			ofHost: !timedOut, elsewhere: true}, true
	case errors.As(err, &token):
		return verdict{stage: StageTLSConfiguration, permanent: token.Permanent}, true
	}
	return verdict{stage: StageOther}, false
}
