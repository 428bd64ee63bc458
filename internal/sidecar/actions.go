package sidecar

import (
	"context"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/certfetcher/certfetcher/internal/enroll"
	"github.com/certfetcher/certfetcher/internal/notify"
	"github.com/certfetcher/certfetcher/internal/requestid"
	"github.com/certfetcher/certfetcher/internal/truststore"
)

// The reasons of a publication, as the application gets them.
const (
	reasonEnrolled = "enrolled"
	reasonRenewed  = "renewed"
	reasonRestored = "restored"
	reasonPruned   = "pruned"
)

// notifyOfKept begins with a certificate that was on the volume. The application is notified of it
// only when the previous run ended before it was.
func (s *Sidecar) notifyOfKept(outcome enroll.Outcome) {
	event := s.event(outcome, reasonRestored)
	if event.Kept = !outcome.Pending; outcome.Pending {
		s.Log.Info("the previous run ended before the application was notified; notifying now")
	}
	s.dispatcher.Dispatch(event)
}

// Obtain is one attempt of the loop.
func (s *Sidecar) Obtain(ctx context.Context, reason string) (publish func() (Certificate, error), err error) {
	id := requestid.New()
	ctx = requestid.With(ctx, id, "")
	s.Log.Info("renewing", "trigger", reason, requestid.LogKey, id)
	// A renewal needs some megabytes for some milliseconds, once in days or months.
	defer debug.FreeOSMemory()
	obtained, err := s.Certificates.Obtain(ctx)
	if err != nil {
		return nil, s.countFailure(ctx, err)
	}
	return func() (Certificate, error) {
		defer debug.FreeOSMemory()
		outcome, err := s.Certificates.Publish(obtained)
		if err != nil && !enroll.Committed(err) {
			return Certificate{}, s.countFailure(ctx, err)
		}
		s.metrics.CountRenewal(outcome.How)
		reason := reasonRenewed
		if outcome.How == enroll.Enrolled {
			reason = reasonEnrolled
		}
		current := s.adopt(outcome, reason)
		s.incomplete = ""
		if err != nil {
			s.incomplete = reason
			s.Log.Error(
				"the new certificate is the one on the volume, but its files are not complete; completing them",
				"error", err.Error(), requestid.LogKey, id)
			s.metrics.SetVolume(err)
			s.disturb()
		}
		return current, nil
	}, nil
}

// countFailure counts a failed attempt, unless the end of the process made it fail.
func (s *Sidecar) countFailure(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		s.metrics.CountFailure(enroll.StageOf(err).String())
	}
	return err
}

// Restore puts published files back, completes a publication that failed after its commit, and
// takes away trusted certificates that were kept long enough.
func (s *Sidecar) Restore() (current Certificate, changed bool, err error) {
	outcome, err := s.Certificates.Restore()
	s.metrics.SetVolume(err)
	switch {
	case err != nil:
		return Certificate{}, false, err
	case outcome.Changed:
		return s.adoptRestored(outcome), true, nil
	case s.merged.Load():
		s.notifyOfMerging(outcome)
	default:
		err = s.prune()
	}
	return Certificate{}, false, err
}

func (s *Sidecar) adoptRestored(outcome enroll.Outcome) Certificate {
	reason := reasonRestored
	switch {
	case s.incomplete != "":
		reason, s.incomplete = s.incomplete, ""
		s.Log.Info("the new files are complete", "path", s.Dir, "files", outcome.Files)
	case !outcome.Adopted:
		s.metrics.CountRestoration()
		s.Log.Warn("published files had vanished or changed; restored them", "path", s.Dir,
			"differences", outcome.Differences)
	}
	return s.adopt(outcome, reason)
}

// notifyOfMerging notifies the application that truststores changed, though nothing was published.
func (s *Sidecar) notifyOfMerging(outcome enroll.Outcome) {
	var err error
	if outcome.Number, err = s.Certificates.MarkPending(); err != nil {
		s.Log.Warn("the application will be notified, but that cannot be noted on the volume: "+
			"if this process ends before, it will not be", "error", err.Error())
	}
	s.merged.Store(false)
	s.dispatcher.Dispatch(s.event(outcome, reasonRestored))
}

// prune takes away trusted certificates whose overlap is over, if there are any.
func (s *Sidecar) prune() error {
	outcome, err := s.Certificates.Prune()
	switch {
	case enroll.Committed(err):
		s.incomplete = reasonPruned
	case outcome.Changed:
		s.adopt(outcome, reasonPruned)
	default:
		s.awaitCleanup()
	}
	return err
}

// awaitCleanup has the loop look when something on the volume has to go: see
// enroll.Enroller.CleanupDue. A timer knows nothing of a clock that was set, so it is set again as
// often as there was nothing to take away yet.
func (s *Sidecar) awaitCleanup() {
	if s.cleanup != nil {
		s.cleanup.Stop()
	}
	if due := s.Certificates.CleanupDue(); !due.IsZero() {
		s.cleanup = time.AfterFunc(max(time.Until(due), 100*time.Millisecond), s.disturb)
	}
}

// adopt takes what is on the volume now as current: for the metrics, the application and the Loop.
func (s *Sidecar) adopt(outcome enroll.Outcome, reason string) Certificate {
	leaf := outcome.Bundle.Chain[0]
	s.metrics.SetCertificate(leaf)
	s.metrics.SetVolume(nil)
	current := Certificate{NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter}
	if outcome.How != enroll.Kept {
		current.Obtained = time.Now()
	}
	if outcome.Changed {
		s.merged.Store(false) // notified of along with it
		s.dispatcher.Dispatch(s.event(outcome, reason))
	}
	s.awaitCleanup()
	return current
}

// event describes to the application what is on the volume.
func (s *Sidecar) event(outcome enroll.Outcome, reason string) notify.Event {
	event := notify.NewEvent(reason, s.Dir, outcome.Files, outcome.Bundle.Chain[0], outcome.Bundle.Trusted)
	event.Notified = s.markNotified(outcome.Number)
	return event
}

// markNotified returns what notes that the application was notified of a publication.
func (s *Sidecar) markNotified(number int) func() {
	return func() {
		if err := s.Certificates.MarkNotified(number); err != nil {
			s.Log.Warn("the application was notified, but that cannot be noted on the volume: "+
				"the next start notifies it again", "error", err.Error())
		}
	}
}

// merging does the post-processor's work after each publication, before the application is
// notified, and at a start at which nothing was published: a truststore on a volume that lives no
// longer than the container would miss it otherwise.
type merging struct {
	config truststore.Config
	log    *slog.Logger
	// changed is called when there was something to do though nothing was published.
	changed func()
}

// Kind is how logs and metrics call it.
func (*merging) Kind() string { return "postprocess" }

// Notify merges; with nothing to do it changes nothing.
func (m *merging) Notify(_ context.Context, event notify.Event) error {
	result, err := truststore.Run(m.config, m.log)
	if event.Kept && result.Changed() {
		m.changed()
	}
	return err
}
