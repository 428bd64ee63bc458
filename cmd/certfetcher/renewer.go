package main

import (
	"context"
	"runtime/debug"
	"time"

	"github.com/certfetcher/certfetcher/internal/enroll"
	"github.com/certfetcher/certfetcher/internal/notify"
	"github.com/certfetcher/certfetcher/internal/renew"
)

// The reasons of a publication, as the application is told.
const (
	reasonEnrolled = "enrolled"
	reasonRenewed  = "renewed"
	reasonRestored = "restored"
	reasonPruned   = "pruned"
)

// kept begins with a certificate that was on the volume. The application is told of it only when a process before
// this one did not get as far.
func (c *sidecar) kept(outcome enroll.Outcome) {
	event := c.event(outcome, reasonRestored)
	if event.Kept = !outcome.Untold; outcome.Untold {
		c.log.Info("the process before this one did not get as far as telling of what is on the volume; telling now")
	}
	c.dispatcher.Dispatch(event)
}

// Obtain is one attempt of the loop.
func (c *sidecar) Obtain(ctx context.Context, reason string) (publish func() (renew.Certificate, error), err error) {
	c.log.Info("renewing", "because", reason)
	// A renewal needs some megabytes for some milliseconds, once in days or months.
	defer debug.FreeOSMemory()
	obtained, err := c.enroller.Obtain(ctx)
	if err != nil {
		return nil, c.failed(ctx, err)
	}
	return func() (renew.Certificate, error) {
		defer debug.FreeOSMemory()
		outcome, err := c.enroller.Publish(obtained)
		if err != nil && !enroll.Committed(err) {
			return renew.Certificate{}, c.failed(ctx, err)
		}
		c.metrics.CountRenewal(outcome.How)
		reason := reasonRenewed
		if outcome.How == enroll.Enrolled {
			reason = reasonEnrolled
		}
		current := c.published(outcome, reason)
		c.owed = ""
		if err != nil {
			c.owed = reason
			c.log.Error("the new certificate is the one on the volume, but its files are not complete; completing them", "reason", err.Error())
			c.metrics.SetVolume(err)
			c.disturb()
		}
		return current, nil
	}, nil
}

// failed counts a failed attempt, and tells the loop what it means.
func (c *sidecar) failed(ctx context.Context, err error) error {
	stage := enroll.StageOf(err).String()
	if ctx.Err() == nil {
		c.metrics.CountFailure(stage)
	}
	next := enroll.Retry(err)
	hint := renew.Hint{Permanent: next.Permanent, Wasted: next.Wasted, RetryAfter: next.After}
	return &renew.Failure{Hint: hint, Stage: stage, Err: err}
}

// Restore puts published files back, completes a publication that failed after its commit, and takes away trusted
// certificates that were kept long enough.
func (c *sidecar) Restore() (current renew.Certificate, changed bool, err error) {
	outcome, err := c.enroller.Restore()
	c.metrics.SetVolume(err)
	switch {
	case err != nil:
		return renew.Certificate{}, false, err
	case outcome.Changed:
		return c.restored(outcome), true, nil
	case c.merged.Load():
		c.tellOfMerging(outcome)
	default:
		err = c.prune()
	}
	return renew.Certificate{}, false, err
}

func (c *sidecar) restored(outcome enroll.Outcome) renew.Certificate {
	reason := reasonRestored
	switch {
	case c.owed != "":
		reason, c.owed = c.owed, ""
		c.log.Info("the new files are complete", "path", c.config.Output.Dir, "files", outcome.Files)
	case !outcome.Adopted:
		c.metrics.CountRestoration()
		c.log.Warn("published files had vanished or changed, they are put back", "path", c.config.Output.Dir, "differences", outcome.Differences)
	}
	return c.published(outcome, reason)
}

// tellOfMerging has the application told that truststores changed, though nothing was published.
func (c *sidecar) tellOfMerging(outcome enroll.Outcome) {
	var err error
	if outcome.Number, err = c.enroller.Owe(); err != nil {
		c.log.Warn("the application is to be told, but that cannot be noted on the volume: if this process ends before, nobody tells it", "error", err.Error())
	}
	c.merged.Store(false)
	c.dispatcher.Dispatch(c.event(outcome, reasonRestored))
}

// prune takes away trusted certificates whose overlap is over, if there are any.
func (c *sidecar) prune() error {
	outcome, err := c.enroller.Prune()
	switch {
	case enroll.Committed(err):
		c.owed = reasonPruned
	case outcome.Changed:
		c.published(outcome, reasonPruned)
	default:
		c.awaitCleanup()
	}
	return err
}

// awaitCleanup has the loop look when something on the volume has to go: see enroll.Enroller.CleanupDue. A timer knows
// nothing of a clock that was set, so it is set again as often as there was nothing to take away yet.
func (c *sidecar) awaitCleanup() {
	if c.cleanup != nil {
		c.cleanup.Stop()
	}
	if due := c.enroller.CleanupDue(); !due.IsZero() {
		c.cleanup = time.AfterFunc(max(time.Until(due), 100*time.Millisecond), c.disturb)
	}
}

// published tells everybody who wants to know, and the loop when the certificate was had.
func (c *sidecar) published(outcome enroll.Outcome, reason string) renew.Certificate {
	leaf := outcome.Bundle.Chain[0]
	c.metrics.SetCertificate(leaf)
	c.metrics.SetVolume(nil)
	current := renew.Certificate{NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter}
	if outcome.How != enroll.Kept {
		current.Obtained = time.Now()
	}
	if outcome.Changed {
		c.merged.Store(false) // told along with it
		c.dispatcher.Dispatch(c.event(outcome, reason))
	}
	c.awaitCleanup()
	return current
}

// event is what the application is told of what is on the volume.
func (c *sidecar) event(outcome enroll.Outcome, reason string) notify.Event {
	event := notify.NewEvent(reason, c.config.Output.Dir, outcome.Files, outcome.Bundle.Chain[0], outcome.Bundle.Trusted)
	event.Notified = c.told(outcome.Number)
	return event
}

// told notes that the application knows of a publication.
func (c *sidecar) told(number int) func() {
	return func() {
		if err := c.enroller.Told(number); err != nil {
			c.log.Warn("the application was told, but that cannot be noted on the volume: the next start tells it again", "error", err.Error())
		}
	}
}
