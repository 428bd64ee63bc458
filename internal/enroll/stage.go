package enroll

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/certfetcher/certfetcher/client"
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
	{StageCertService, "certservice", "the CertService answered with an error, or its response is invalid"},
	{StageConnection, "connection",
		"the CertService could not be reached, its certificate is not trusted, or it does not accept ours (401)"},
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
	for _, row := range stages {
		if row.stage == s {
			return row.name
		}
	}
	return fmt.Sprintf("stage %d", int(s))
}

// Meaning is what an operator knows when the stage fails.
func (s Stage) Meaning() string {
	for _, row := range stages {
		if row.stage == s {
			return row.meaning
		}
	}
	return ""
}

// ExitCode is the process's exit code when this stage failed.
func (s Stage) ExitCode() int { return int(s) }

// Error is a failed enrolment.
type Error struct {
	Stage Stage
	Err   error
}

func (e *Error) Error() string { return e.Err.Error() }

// Unwrap gives the stage's own error.
func (e *Error) Unwrap() error { return e.Err }

func fail(stage Stage, format string, args ...any) error {
	return &Error{Stage: stage, Err: fmt.Errorf(format, args...)}
}

// StageOf tells the stage of an error that came from this package.
func StageOf(err error) Stage {
	var e *Error
	if errors.As(err, &e) {
		return e.Stage
	}
	return StageOther
}

// requestStage sorts an error of package client.
func requestStage(err error) Stage {
	var status *client.StatusError
	var answer *client.AnswerError
	var connection *client.ConnectionError
	switch {
	case errors.As(err, &status) && status.StatusCode == http.StatusUnauthorized:
		// It is about our identity in TLS: a server that demands it in the handshake would have refused that.
		return StageConnection
	case errors.As(err, &status), errors.As(err, &answer):
		return StageCertService
	case errors.As(err, &connection):
		return StageConnection
	}
	return StageOther
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
