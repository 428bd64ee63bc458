package enroll

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/output"
)

// Stage is the step of an enrolment that failed. Its number is the process's exit code, and the
// numbers 1 to 10 and 99 are those of the ONAP client.
type Stage int

// The stages; stages below says what an operator knows when one fails.
const (
	StageClientConfiguration Stage = 1
	StageCSRConfiguration    Stage = 2
	StageKeyGeneration       Stage = 3
	StageCSR                 Stage = 4
	StageCertService         Stage = 5
	StageConnection          Stage = 6
	StageConversion          Stage = 7
	StageKeyEncoding         Stage = 8
	StageTLSConfiguration    Stage = 9
	StageFile                Stage = 10
	StageVerification        Stage = 11
	StageOther               Stage = 99
)

// stages names each stage, as metrics label it, and words it for --help and the README.
var stages = []struct {
	stage         Stage
	name, meaning string
}{
	{StageClientConfiguration, "client_configuration", "a variable of the request or the output is wrong"},
	{StageCSRConfiguration, "csr_configuration", "a variable of the certificate's subject or names is wrong"},
	{StageKeyGeneration, "key_generation", "no key pair could be made"},
	{StageCSR, "csr", "no certificate signing request could be made"},
	{StageCertService, "certservice", "the CertService or the CA answered with an error, or its response is invalid"},
	{StageConnection, "connection",
		"the CertService or the CA could not be reached, its certificate is not trusted, or it refuses ours (401)"},
	{StageConversion, "conversion", "the certificates could not be read, or a store could not be built"},
	{StageKeyEncoding, "key_encoding", "the private key could not be encoded"},
	{StageTLSConfiguration, "tls_configuration", "the mutual TLS material is missing or unusable"},
	{StageFile, "file", "a file could not be written"},
	{StageVerification, "verification", "the issued certificate does not match the request"},
	{StageOther, "other", "anything else, such as an interruption"},
}

// Stages are all there are, in the order of their numbers.
func Stages() []Stage {
	var all []Stage
	for _, row := range stages {
		all = append(all, row.stage)
	}
	return all
}

func (s Stage) String() string {
	if name, _ := s.describe(); name != "" {
		return name
	}
	return fmt.Sprintf("stage %d", int(s))
}

// Meaning is what an operator knows when the stage fails.
func (s Stage) Meaning() string {
	_, meaning := s.describe()
	return meaning
}

// describe returns what stages has about a stage; nothing when there is no such stage.
func (s Stage) describe() (name, meaning string) {
	for _, row := range stages {
		if row.stage == s {
			return row.name, row.meaning
		}
	}
	return "", ""
}

// ExitCode is the process's exit code when this stage failed.
func (s Stage) ExitCode() int { return int(s) }

// Error is a failed enrolment.
type Error struct {
	Stage Stage
	Err   error
	// RequestID is the id of the attempt that failed; empty: none had begun.
	RequestID string
}

func (e *Error) Error() string { return e.Err.Error() }

// Unwrap gives the stage's own error.
func (e *Error) Unwrap() error { return e.Err }

func fail(stage Stage, format string, args ...any) error {
	return &Error{Stage: stage, Err: fmt.Errorf(format, args...)}
}

// StageOf tells the stage of an error that came from this package.
func StageOf(err error) Stage {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Stage
	}
	return StageOther
}

// RequestIDOf tells the id of the attempt that an error of this package ended; empty: of none.
func RequestIDOf(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.RequestID
	}
	return ""
}

// outputStage sorts an error of package output.
func outputStage(err error) Stage {
	var encoding *output.EncodeError
	switch {
	case errors.Is(err, context.Canceled):
		return StageOther
	case errors.As(err, &encoding) && encoding.Key:
		return StageKeyEncoding
	case errors.As(err, &encoding):
		return StageConversion
	}
	return StageFile
}

// WriteExitCodes prints what each exit code means.
func WriteExitCodes(w io.Writer) error {
	text := "\nExit codes\n   0  success\n"
	for _, row := range stages {
		text += fmt.Sprintf("  %2d  %s\n", row.stage.ExitCode(), row.meaning)
	}
	_, err := io.WriteString(w, text)
	return err
}

// verdict is what an error of a request means, in whatever protocol it was made.
type verdict struct {
	stage Stage
	// refused says why an update is not possible with this issuer or this certificate; empty when
	// an enrolment would meet the same, or this passes.
	refused   string
	permanent bool // an operator has to repair something first
	foreign   bool // a certificate was issued with other names than the requested ones
	elsewhere bool // of an update: an enrolment goes another way, and may not meet it
	// ofHost: that other way does not help where both lead to the same host.
	ofHost     bool
	retryAfter time.Duration // what the issuer asks for
}

// judge judges an error of an issuer; ok is false for one that did not come from a request.
func judge(err error) (v verdict, ok bool) {
	if v, ok = judgeClient(err); !ok {
		v, ok = judgeCMP(err)
	}
	if !ok {
		v.stage = StageOf(err)
	}
	return v, ok
}

// refusal says why an update is not possible with this issuer or this certificate; empty when the
// same would meet an enrolment, or passes.
func refusal(err error) string {
	switch {
	case StageOf(err) == StageKeyEncoding:
		return "the key on the volume cannot be sent: " + err.Error()
	case foreignNames(err):
		return "the CA answers the update with other names than the requested ones: " + err.Error()
	case isWasted(err):
		return "" // an enrolment would most likely meet the same
	}
	if v, ok := judge(err); ok {
		return v.refused
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return ""
	}
	return err.Error()
}

// errNames is what to do about a certificate with other names than the requested ones.
var errNames = errors.New("at the CA, have the certificate profile take the names from the request " +
	`(EJBCA: "Allow Extension Override"), or give each replica a subject of its own`)

// foreignNames reports of an error whether a certificate was issued with other names than the
// requested ones. EJBCA does so where two holders of one subject have different names: it answers
// an update with those that it registered last.
func foreignNames(err error) bool {
	v, _ := judge(err)
	return v.foreign || errors.Is(err, errNames)
}

// isWasted reports of an error whether a certificate was issued that cannot be used.
func isWasted(err error) bool {
	stage := StageOf(err)
	return stage == StageVerification || stage == StageConversion || foreignNames(err)
}

// errForbidden is the failure of an update that nothing but an enrolment could make good.
var errForbidden = errors.New("RENEW_FALLBACK is false, which forbids to enrol again")

// forbiddenWait is how long to wait where only an operator can help: no try asks anybody.
const forbiddenWait = 15 * time.Minute

// elsewhere reports of an error that is not a refusal whether an
// enrolment may not meet it: it is of the endpoint for updates, and
// not, as a port where nothing listens, of the host that has both.
func (e *Enroller) elsewhere(err error) bool {
	v, _ := judge(err)
	return v.elsewhere && !(v.ofHost && e.Config.Request.UpdateURL == "")
}

// isNearlyExpired tells whether less than a tenth of a certificate's life is left.
func (e *Enroller) isNearlyExpired(leaf *x509.Certificate) bool {
	return e.Now().After(pki.Moment(leaf.NotBefore, leaf.NotAfter, 0.9))
}

// Hint is what an error of Obtain or Publish means for the next try.
type Hint struct {
	// Permanent: an operator has to repair something first. It is tried again slowly.
	Permanent bool
	// Wasted: a certificate was issued for nothing, and
	// would be at each try. It is tried again very slowly.
	Wasted bool
	// RetryAfter is how long to wait at the least, mostly
	// because the CertService asks for it; 0: it does not.
	RetryAfter time.Duration
}

// HintOf says what an error of Obtain or Publish means for the next try.
func HintOf(err error) Hint {
	if errors.Is(err, errForbidden) {
		return Hint{Permanent: true, RetryAfter: forbiddenWait}
	}
	v, _ := judge(err)
	// A CA that issues what was not asked for would do so at every try.
	wasted := isWasted(err)
	return Hint{Permanent: v.permanent || wasted, Wasted: wasted, RetryAfter: v.retryAfter}
}
