package notify

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"
)

// Outcome is how one try of a notification ended.
type Outcome string

// The outcomes. A try that the end of the process or a newer event cut off has none.
const (
	OutcomeSuccess Outcome = "success"
	OutcomeFailure Outcome = "failure"
)

const (
	// retryInitial is the wait after the first failure,
	// about; it doubles, with jitter, up to retryMax.
	retryInitial, retryMax = time.Second, 5 * time.Minute
	// freshFor is how long after its start a Dispatcher takes an application that was never there
	// for one that is still to come: a sidecar starts before the application. Images are pulled
	// and other containers start meanwhile.
	freshFor = 5 * time.Minute
	// absentPause bounds the waits for it.
	absentPause = 5 * time.Second
)

// Config says what a Dispatcher runs, and how it reports.
type Config struct {
	// Notifiers run one after the other, in this order. One
	// that fails does not keep the next from being run.
	Notifiers []Notifier
	// Prepare runs before them, and also for a certificate
	// that was kept; nil for nothing to prepare.
	Prepare Notifier
	// Verify runs after them, and also for a certificate that was kept; nil for no verification.
	Verify Notifier

	// Observe, unless nil, is called with the outcome of each try, on the Dispatcher's goroutine.
	// A try that finds no application in a fresh pod, where it starts later, has no outcome. For
	// kind verify, success means that the application serves the certificate published last.
	Observe func(kind string, outcome Outcome)
	Log     *slog.Logger
}

// Notifies says whether anything is to be done after a publication, but to verify.
func (c Config) Notifies() bool { return c.Prepare != nil || len(c.Notifiers) > 0 }

// Kinds are those of all that is configured, as Observe gets them.
func (c Config) Kinds() (kinds []string) {
	for _, notifier := range c.notifiers(Event{}) {
		kinds = append(kinds, notifier.Kind())
	}
	return kinds
}

// Checker returns what is configured of a kind, nil for nothing.
func (c Config) Checker(kind string) Checker {
	for _, notifier := range c.notifiers(Event{}) {
		if checker, ok := notifier.(Checker); ok && notifier.Kind() == kind {
			return checker
		}
	}
	return nil
}

// notifiers are those to run for event, in their order.
func (c Config) notifiers(event Event) (list []Notifier) {
	if c.Prepare != nil {
		list = append(list, c.Prepare)
	}
	if !event.Kept {
		list = append(list, c.Notifiers...)
	}
	if c.Verify != nil {
		list = append(list, c.Verify)
	}
	return list
}

// Dispatcher runs the notifications for one event after the other, in the background.
type Dispatcher struct {
	config Config

	started time.Time         // when Run began
	reached map[Notifier]bool // those that have found the application

	mu        sync.Mutex
	newest    Event
	supersede func()        // ends the delivery of an older event
	pending   chan struct{} // has an element while newest is not begun
}

// NewDispatcher makes a Dispatcher, which does nothing before Run.
func NewDispatcher(config Config) *Dispatcher {
	return &Dispatcher{
		config: config, reached: map[Notifier]bool{}, supersede: func() {}, pending: make(chan struct{}, 1),
	}
}

// Dispatch has the application notified of event, and returns at once. Retries
// for an older event end: what the application needs to know is what is on the
// volume now. A command, signal or request that is under way for the older
// event first ends by itself, since half a reload may be worse than two.
func (d *Dispatcher) Dispatch(event Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.newest = event
	d.supersede()
	select {
	case d.pending <- struct{}{}:
	default:
	}
}

// Run delivers events until ctx is done. It is called once.
func (d *Dispatcher) Run(ctx context.Context) {
	d.started = time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.pending:
		}
		d.mu.Lock()
		select { // there may be a newer one since
		case <-d.pending:
		default:
		}
		event := d.newest
		current, cancel := context.WithCancel(ctx)
		d.supersede = cancel
		d.mu.Unlock()
		d.deliver(ctx, current, event)
		cancel()
	}
}

// deliver runs all notifications, and those that failed again and again, until all have succeeded,
// ctx is done, or current is, which ends with a newer event.
func (d *Dispatcher) deliver(ctx, current context.Context, event Event) {
	todo := d.config.notifiers(event)
	waits := backoff.NewExponentialBackOff(backoff.WithInitialInterval(retryInitial), backoff.WithMultiplier(2),
		backoff.WithMaxInterval(retryMax), backoff.WithMaxElapsedTime(0))
	notified := event.Notified == nil
	for try := 1; len(todo) > 0; try++ {
		retryIn := waits.NextBackOff()
		var failed []Notifier
		absent := true // all that failed
		for i, notifier := range todo {
			limit := ctx
			if notifier == d.config.Verify {
				limit = current // the serial number that it looks for is not wanted any more
			}
			err := notifier.Notify(limit, event)
			switch {
			case ctx.Err() != nil:
				return
			case current.Err() != nil:
				if err == nil || limit == ctx { // else it was cut off
					d.report(notifier, event, try, 0, err)
				}
				d.reportSuperseded(event)
				return
			}
			d.report(notifier, event, try, retryIn, err)
			if err != nil {
				failed = append(failed, notifier)
				absent = absent && d.isStillToCome(notifier, err)
			} else if !notified && !d.notifies(failed) && !d.notifies(todo[i+1:]) {
				event.Notified()
				notified = true
			}
		}
		if todo = failed; len(todo) == 0 {
			return
		}
		if absent {
			retryIn = min(retryIn, absentPause)
		}
		select {
		case <-time.After(retryIn):
		case <-current.Done():
			if ctx.Err() == nil {
				d.reportSuperseded(event)
			}
			return
		}
	}
}

// notifies says whether any of the notifiers does more than verify.
func (d *Dispatcher) notifies(list []Notifier) bool {
	return slices.ContainsFunc(list, func(n Notifier) bool { return n != d.config.Verify })
}

// report counts the outcome of a try and then logs it, so that anyone who has read the line finds
// it counted. A retryIn of 0 means that there will be no retry.
func (d *Dispatcher) report(notifier Notifier, event Event, try int, retryIn time.Duration, err error) {
	log := d.config.Log.With("kind", notifier.Kind(), "trigger", event.Reason, "serial", event.Serial, "try", try)
	done, failed := "notified the application", "notifying the application failed"
	switch notifier {
	case d.config.Verify:
		done, failed = "the application serves the new certificate",
			"the application is not seen to serve the new certificate"
	case d.config.Prepare:
		done, failed = "prepared what the application reads", "preparing what the application reads failed"
	}
	outcome := OutcomeSuccess
	if err != nil {
		log, outcome = log.With("error", err), OutcomeFailure
		if d.isStillToCome(notifier, err) {
			if try == 1 {
				log.Info("the application is not there yet, trying again until it is")
			}
			return
		}
	}
	if d.config.Observe != nil {
		d.config.Observe(notifier.Kind(), outcome)
	}
	switch {
	case err == nil:
		d.reached[notifier] = true
		log.Info(done)
	case retryIn > 0:
		log.Error(failed, "retry_in", retryIn.Round(time.Millisecond))
	default:
		log.Error(failed)
	}
}

func (d *Dispatcher) reportSuperseded(older Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.config.Log.Info("notifying the application of a newer certificate instead",
		"serial", older.Serial, "newer_serial", d.newest.Serial)
}

// absentError is the error of a Notifier that found no
// application: no such process, or nothing that listens.
type absentError struct{ err error }

func (e *absentError) Error() string { return e.err.Error() }

func (e *absentError) Unwrap() error { return e.err }

// absentIf makes an absentError of an error with a certain cause.
func absentIf(cause, err error) error {
	if errors.Is(err, cause) {
		return &absentError{err}
	}
	return err
}

// isStillToCome says of a failure whether the application
// has not been there yet, and may be expected to come.
func (d *Dispatcher) isStillToCome(notifier Notifier, err error) bool {
	_, absent := errors.AsType[*absentError](err)
	return absent && !d.reached[notifier] && time.Since(d.started) < freshFor
}
