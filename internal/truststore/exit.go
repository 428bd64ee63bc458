package truststore

import (
	"errors"
	"fmt"

	"github.com/certfetcher/certfetcher/internal/program"
)

// The exit codes of the ONAP post-processor, which name the step that failed.
const (
	codePaths          = 1
	codeConfiguration  = 2
	codePair           = 3
	codePassword       = 4
	codeBackup         = 5
	codeFormat         = 6
	codeUnreadable     = 7
	codeOperation      = 8
	codeNoCertificates = 9
	codeAlias          = 10
	codeSave           = 11
	codeCopy           = 12
	codeMissing        = 13
	codeOther          = 99
)

// exitCodes words them for WriteUsage.
var exitCodes = []struct {
	code    int
	meaning string
}{
	{0, "success, whether or not anything had to be changed"},
	{codePaths, "a variable holds something that is no absolute path of a file"},
	{codeConfiguration, "a variable is missing, two lists differ in length, or a file would be written twice"},
	{codePair, "a truststore does not exist"},
	{codePassword, "a password file is missing or cannot be read"},
	{codeBackup, "a backup could not be made"},
	{codeFormat, "a truststore is neither JKS nor PKCS#12 nor PEM, and its name says nothing either"},
	{codeUnreadable, "a truststore cannot be read: damaged, of another format, or the password is wrong"},
	{codeOperation, "the merged truststore could not be built"},
	{codeNoCertificates, "a truststore holds no trusted certificate"},
	{codeAlias, "not used: an alias that is taken gets a number, where the ONAP post-processor gave up"},
	{codeSave, "the merged truststore could not be saved"},
	{codeCopy, "a keystore could not be copied"},
	{codeMissing, "a keystore to copy does not exist"},
	{codeOther, "anything else"},
}

// Error is a step that failed, with the exit code that stands for it.
type Error struct {
	Code int
	Err  error
}

func (e *Error) Error() string { return e.Err.Error() }

// Unwrap gives the step's own error.
func (e *Error) Unwrap() error { return e.Err }

// ExitCode is the process's exit code when this step failed.
func (e *Error) ExitCode() int { return e.Code }

func failed(code int, format string, args ...any) *Error {
	return &Error{Code: code, Err: fmt.Errorf(format, args...)}
}

// Fault is one thing wrong with the environment.
type Fault struct {
	Code     int // the exit code that stands for it
	Variable string
	Problem  string // the rest of a sentence that begins with the variable's name
}

func (f Fault) Error() string { return f.Variable + " " + f.Problem }

// Faults are all things wrong with the environment, in the order in which the ONAP post-processor
// came across them.
type Faults []Fault

func (f Faults) Error() string { return program.JoinFaults(f) }

// ExitCode is that of the first fault.
func (f Faults) ExitCode() int { return f[0].Code }

// ExitCode tells the exit code for what Load or Run returned: 0 for nil, 99 for an error of others.
func ExitCode(err error) int {
	if err == nil {
		return 0
	}
	var coded interface {
		error
		ExitCode() int
	}
	if errors.As(err, &coded) {
		return coded.ExitCode()
	}
	return codeOther
}
