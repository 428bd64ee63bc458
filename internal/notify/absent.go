package notify

import (
	"errors"
	"syscall"
	"time"
)

// A sidecar starts before the application: in a fresh pod there is nobody to notify at first, which is no failure.
const (
	// freshFor is how long after its start a Dispatcher takes an application that was never there for one that is still to
	// come. Images are pulled and other containers start meanwhile.
	freshFor = 5 * time.Minute
	// absentPause bounds the waits for it.
	absentPause = 5 * time.Second
)

// absentError is the error of a Notifier that found no application: no such process, or nothing that listens.
type absentError struct{ err error }

func (e *absentError) Error() string { return e.err.Error() }

func (e *absentError) Unwrap() error { return e.err }

// absentIfRefused makes an absentError of the error of a connection that nobody accepts.
func absentIfRefused(err error) error {
	if errors.Is(err, syscall.ECONNREFUSED) {
		return &absentError{err}
	}
	return err
}

// stillToCome tells of a failure whether the application has not been there yet, and may be expected to come.
func (d *Dispatcher) stillToCome(notifier Notifier, err error) bool {
	var absent *absentError
	return errors.As(err, &absent) && !d.reached[notifier] && time.Since(d.started) < freshFor
}
