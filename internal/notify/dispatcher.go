package notify

import (
	"context"
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

// Config says whom a Dispatcher tells, and how it reports.
type Config struct {
	// Notifiers are run one after the other, in this order: a command may prepare what a signal then
	// makes the application load. One that fails does not keep the next from being run.
	Notifiers []Notifier
	// Prepare runs before them, and also for a certificate that was kept; nil for nothing to prepare.
	Prepare Notifier
	// Verify runs after them, and also for a certificate that was kept; nil for no verification.
	Verify Notifier

	// RetryInitial is the wait after the first failure, about; it doubles, with jitter, up to RetryMax.
	// 0 means 1 second and 5 minutes.
	RetryInitial, RetryMax time.Duration

	// Observe is called with the outcome of each try, on the Dispatcher's goroutine; nil for nobody. A try that finds
	// no application in a fresh pod, where it starts later, has no outcome. For kind verify, success means that the
	// application serves the certificate published last.
	Observe func(kind string, outcome Outcome)
	Log     *slog.Logger
}

// Tells says whether anybody is told of a publication.
func (c Config) Tells() bool { return c.Prepare != nil || len(c.Notifiers) > 0 }

// Kinds are those of all that is configured, as Observe gets them.
func (c Config) Kinds() (kinds []string) {
	for _, notifier := range c.notifiers(Event{}) {
		kinds = append(kinds, notifier.Kind())
	}
	return kinds
}

// Dispatcher runs the notifications for one event after the other, in the background.
type Dispatcher struct {
	config Config

	started time.Time         // when Run began
	reached map[Notifier]bool // those that have found the application

	dispatching sync.Mutex
	events      chan Event // holds at most the newest event that was not begun
}

// NewDispatcher makes a Dispatcher, which does nothing before Run.
func NewDispatcher(config Config) *Dispatcher {
	if config.RetryInitial == 0 {
		config.RetryInitial = time.Second
	}
	if config.RetryMax == 0 {
		config.RetryMax = 5 * time.Minute
	}
	if config.Observe == nil {
		config.Observe = func(string, Outcome) {}
	}
	return &Dispatcher{config: config, reached: map[Notifier]bool{}, events: make(chan Event, 1)}
}

// Dispatch has the application told of event, and returns at once. Retries for an older event end:
// what the application needs to know is what is on the volume now. A command, signal or request that
// is under way for the older event is first let finish, since half a reload may be worse than two.
func (d *Dispatcher) Dispatch(event Event) {
	d.dispatching.Lock()
	defer d.dispatching.Unlock()
	select {
	case <-d.events:
	default:
	}
	d.events <- event
}

// Run delivers events until ctx is done. It is called once.
func (d *Dispatcher) Run(ctx context.Context) {
	d.started = time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case event := <-d.events:
			for newer := &event; newer != nil; {
				newer = d.deliver(ctx, *newer)
			}
		}
	}
}

// deliver runs all notifications, and those that failed again and again, until all have succeeded
// or ctx is done. It returns early with an event that is newer.
func (d *Dispatcher) deliver(ctx context.Context, event Event) *Event {
	pending := d.config.notifiers(event)
	waits := backoff.NewExponentialBackOff(backoff.WithInitialInterval(d.config.RetryInitial), backoff.WithMultiplier(2),
		backoff.WithMaxInterval(d.config.RetryMax), backoff.WithMaxElapsedTime(0))
	told := event.Told == nil
	for try := 1; ; try++ {
		retryIn := waits.NextBackOff()
		var failed []Notifier
		absent := true // all that failed
		for i, notifier := range pending {
			newer, err := d.try(ctx, notifier, event)
			if ctx.Err() != nil {
				return nil
			}
			if newer != nil {
				if err == nil || notifier != d.config.Verify {
					d.report(notifier, event, try, 0, err)
				}
				d.reportSuperseded(event, *newer)
				return newer
			}
			d.report(notifier, event, try, retryIn, err)
			if err != nil {
				failed = append(failed, notifier)
				absent = absent && d.stillToCome(notifier, err)
				continue
			}
			told = told || d.told(event, slices.Concat(failed, pending[i+1:]))
		}
		if pending = failed; len(pending) == 0 {
			return nil
		}
		if absent {
			retryIn = min(retryIn, absentPause)
		}
		if newer := d.wait(ctx, retryIn); newer != nil {
			d.reportSuperseded(event, *newer)
			return newer
		}
		if ctx.Err() != nil {
			return nil
		}
	}
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

// told calls event.Told when, of those that are left, none is to tell anything.
func (d *Dispatcher) told(event Event, left []Notifier) bool {
	if slices.ContainsFunc(left, func(n Notifier) bool { return n != d.config.Verify }) {
		return false
	}
	event.Told()
	return true
}

// try runs notifier once. A verification is cut off by a newer event, because the serial number that
// it looks for is not wanted any more.
func (d *Dispatcher) try(ctx context.Context, notifier Notifier, event Event) (newer *Event, err error) {
	if notifier != d.config.Verify {
		err = notifier.Notify(ctx, event)
		select {
		case e := <-d.events:
			newer = &e
		default:
		}
		return newer, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- notifier.Notify(ctx, event) }()
	select {
	case err = <-done:
	case e := <-d.events:
		newer = &e
		cancel()
		err = <-done
	}
	return newer, err
}

// wait returns when the time is over, ctx is done, or there is a newer event.
func (d *Dispatcher) wait(ctx context.Context, duration time.Duration) *Event {
	timer := time.NewTimer(duration)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case newer := <-d.events:
		return &newer
	}
	return nil
}

// report counts the outcome of a try and then logs it, so that who has read the line finds it counted. A
// retryIn of 0 means that there will be no retry.
func (d *Dispatcher) report(notifier Notifier, event Event, try int, retryIn time.Duration, err error) {
	attributes := []any{"kind", notifier.Kind(), "reason", event.Reason, "serial", event.Serial, "try", try}
	done, failed := "told the application", "telling the application failed"
	switch notifier {
	case d.config.Verify:
		done, failed = "the application serves the new certificate", "the application is not seen to serve the new certificate"
	case d.config.Prepare:
		done, failed = "prepared what the application reads", "preparing what the application reads failed"
	}
	if err != nil && d.stillToCome(notifier, err) {
		if try == 1 {
			d.config.Log.Info("the application is not there yet, trying again until it is", append(attributes, "error", err)...)
		}
		return
	}
	if err != nil {
		attributes = append(attributes, "error", err)
		if retryIn > 0 {
			attributes = append(attributes, "retry_in", retryIn.Round(time.Millisecond).String())
		}
		d.config.Observe(notifier.Kind(), OutcomeFailure)
		d.config.Log.Error(failed, attributes...)
		return
	}
	d.reached[notifier] = true
	d.config.Observe(notifier.Kind(), OutcomeSuccess)
	d.config.Log.Info(done, attributes...)
}

func (d *Dispatcher) reportSuperseded(older, newer Event) {
	d.config.Log.Info("telling the application of a newer certificate instead", "serial", older.Serial, "newer_serial", newer.Serial)
}
