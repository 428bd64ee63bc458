package certservice

import (
	"errors"

	"github.com/certfetcher/certfetcher/internal/cmp"
)

// NamesError is a certificate that the authority issued with another subject or other names than the requested ones.
type NamesError struct{ Err error }

func (e *NamesError) Error() string { return e.Err.Error() }

func (e *NamesError) Unwrap() error { return e.Err }

// reasonNames is the reason in an answer for a NamesError. It is for programs: a client that repeats an update after it
// only makes the authority issue one more certificate.
const reasonNames = "unexpectedNames"

// reasonOf is what an error answer says for programs; empty for nothing.
func reasonOf(err error) string {
	if _, ok := errors.AsType[*NamesError](err); ok {
		return reasonNames
	}
	return ""
}

// namesError is the error of a check of package cmp in the terms of Authority, if the check is about names.
func namesError(err error) error {
	check, ok := errors.AsType[*cmp.CheckError](err)
	if ok && (check.Check == "subject" || check.Check == "subjectAltName") {
		return &NamesError{err}
	}
	return err
}
