package enroll

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/keygen"
	"github.com/certfetcher/certfetcher/output"
)

// Obtained is a verified certificate that is not published yet.
type Obtained struct {
	bundle output.Bundle
	how    string
	by     identified
}

// Obtain gets a certificate in place of the current one, with one try of
// each request: it asks for an update and, where that is not possible, for a
// new enrolment, unless that is forbidden. Publish must have followed before
// it is called again, unless it failed. An error is always of type *Error.
//
// The id of ctx, if it has one (package requestid), is that of the attempt.
func (e *Enroller) Obtain(ctx context.Context) (Obtained, error) {
	a := e.begin(&ctx)
	obtained, err := e.obtain(ctx, a)
	obtained.by = a
	return obtained, a.name(err)
}

func (e *Enroller) obtain(ctx context.Context, a identified) (Obtained, error) {
	if err := e.writable(); err != nil {
		return Obtained{}, err
	}
	if left := e.leftOver(a.log); left != nil {
		return *left, nil
	}
	issuer, err := e.issuer(nil, a.log)
	if err != nil {
		return Obtained{}, err
	}
	current := e.current.Load()
	key, err := e.renewalKey(current, a.log)
	if err != nil {
		return Obtained{}, err
	}
	o, err := e.order(key, a.log)
	if err != nil {
		return Obtained{}, err
	}
	obtained, err := attempt{o, issuer, current}.obtain(ctx)
	if err == nil {
		e.nextKey = nil
	}
	return obtained, err
}

// leftOver is what an attempt before could not publish, if it is still worth it.
func (e *Enroller) leftOver(log *slog.Logger) *Obtained {
	left := e.pending
	e.pending = nil
	if left == nil || e.whyOutdated(&left.bundle) != "" {
		return nil
	}
	log.Info("publishing the certificate that could not be published before", "serial",
		pki.Serial(left.bundle.Chain[0]))
	return left
}

// Publish replaces what is on the volume by what was obtained. An error
// is always of type *Error. One for which Committed is true comes with
// the outcome; after any other the certificate before stays.
func (e *Enroller) Publish(obtained Obtained) (Outcome, error) {
	outcome, err := e.publish(e.withOverlap(obtained.bundle, obtained.by.log), obtained.how, obtained.by.log)
	e.endJournal(err)
	if err != nil && !Committed(err) {
		e.pending = &obtained
	}
	return outcome, obtained.by.name(err)
}

// withOverlap adds the trusted certificates that are kept for a while.
func (e *Enroller) withOverlap(bundle output.Bundle, log *slog.Logger) output.Bundle {
	merged := bundle
	merged.Trusted = e.overlap.merge(bundle.Trusted, e.current.Load(), e.Config.Renewal.TrustOverlap, e.Now())
	if kept := len(merged.Trusted) - len(bundle.Trusted); kept > 0 {
		log.Info("keeping trusted certificates that the CertService no longer sends", "count", kept)
	}
	return merged
}

// renewalKey is the key for the next certificate. One that was made stays the same until it has a
// certificate: a CertService that is down for days must not cost a key pair at every try.
// REUSE_KEY is for a key of the algorithm that is requested.
func (e *Enroller) renewalKey(current *output.Bundle, log *slog.Logger) (key crypto.Signer, err error) {
	if e.Config.Renewal.ReuseKey {
		has, err := keygen.AlgorithmOf(current.Key.Public())
		if err == nil && has == e.Config.Certificate.KeyAlgorithm {
			return current.Key, nil
		}
	}
	return e.upcomingKey(log)
}

// upcomingKey is the key for the next certificate, which is made once.
func (e *Enroller) upcomingKey(log *slog.Logger) (key crypto.Signer, err error) {
	if e.nextKey == nil {
		e.nextKey, err = e.newKey(log)
	}
	return e.nextKey, err
}

// Restore puts back published files that vanished or were changed. The
// outcome's Changed tells whether any had. Where another process has
// published a newer certificate that fits, that is the one from now on.
func (e *Enroller) Restore() (Outcome, error) {
	other := e.volume.Adopt(e.prefers)
	if other != nil {
		e.Log.Info("keeping a newer certificate published by another process", "serial",
			pki.Serial(other.Chain[0]), "not_after", other.Chain[0].NotAfter)
		e.current.Store(other)
		e.overlap = overlap{} // what came with it counts as brought by the last answer, as at a start
	}
	publication, err := e.volume.Restore()
	if err != nil {
		return Outcome{}, fail(outputStage(err), "putting published files back: %w", err)
	}
	return Outcome{
		Bundle: *e.current.Load(), How: Kept, Files: publication.Files, Changed: publication.Changed,
		Adopted: other != nil, Differences: publication.Differences, Number: publication.Number,
	}, nil
}

// prefers tells whether a set that another process put in the place of the current one is to stay:
// it fits the configuration, is trusted by what is trusted now, and is newer. Of two of the same
// second, any order will do that all processes agree on, or each would put back its own for ever;
// of two with the same certificate it is the one without what the other's overlap was over for.
func (e *Enroller) prefers(other output.Bundle) bool {
	current := e.current.Load()
	leaf, before := other.Chain[0], current.Chain[0]
	newer := leaf.NotBefore.Compare(before.NotBefore)
	if newer == 0 {
		newer = bytes.Compare(leaf.Raw, before.Raw)
	}
	if newer == 0 && subset(other.Trusted, current.Trusted) {
		newer = len(current.Trusted) - len(other.Trusted)
	}
	trusted := other
	trusted.Trusted = current.Trusted
	return newer > 0 && e.whyOutdated(&other) == "" && e.whyOutdated(&trusted) == ""
}

func subset(some, all []*x509.Certificate) bool {
	return !slices.ContainsFunc(some,
		func(cert *x509.Certificate) bool { return !slices.ContainsFunc(all, cert.Equal) })
}

// CleanupDue is when Prune or Restore has something to take away: a trusted certificate whose
// overlap is over, or an old generation of files; zero for never.
func (e *Enroller) CleanupDue() time.Time {
	overlap, old := e.overlap.end(e.current.Load().Trusted), e.volume.OldDue()
	if overlap.IsZero() || !old.IsZero() && old.Before(overlap) {
		return old
	}
	return overlap
}

// Prune publishes the current set without the trusted certificates whose overlap is over, if there
// are any. Its errors are like those of Publish.
func (e *Enroller) Prune() (Outcome, error) {
	pruned := *e.current.Load()
	pruned.Trusted = e.overlap.prune(pruned.Trusted, e.Now())
	if len(pruned.Trusted) == len(e.current.Load().Trusted) {
		return Outcome{}, nil
	}
	e.Log.Info("publishing without the trusted certificates that the CertService has not sent "+
		"for the time of the overlap",
		"count", len(e.current.Load().Trusted)-len(pruned.Trusted))
	return e.publish(pruned, Kept, e.Log)
}

// MarkPending notes that the application has to be notified of something else than a publication.
// The number is for MarkNotified.
func (e *Enroller) MarkPending() (int, error) { return e.volume.MarkPending() }

// MarkNotified says that the application was notified of the publication with this number.
func (e *Enroller) MarkNotified(number int) error { return e.volume.MarkNotified(number) }

// Check says why what the volume of a configuration holds is not a complete set with a certificate
// that is valid now; nil when it is. It changes nothing.
func Check(cfg Settings, now time.Time) error {
	current, err := output.Read(cfg.Output)
	if err != nil {
		return fmt.Errorf("reading the volume: %w", err)
	}
	return valid(current, now)
}

// Changed says in what a configuration requests another certificate than the one on its volume;
// empty when it does not, or when nothing can be read there. It changes nothing.
func Changed(cfg Settings) string {
	current, err := output.Read(cfg.Output)
	if err != nil {
		return ""
	}
	return (&Enroller{Config: cfg}).changed(current)
}

// overlap remembers until when trusted certificates are kept that answers no longer bring, by the
// digest of the certificate. It is forgotten with the process; then what is on the volume counts
// as brought by the last answer.
type overlap struct {
	until map[[sha256.Size]byte]time.Time
}

// merge returns the trusted certificates of the answer, and after them those of the set before
// that are to be kept: as long as the certificate that they came with may be in use with peers, or
// as configured. Expired ones go.
func (o *overlap) merge(answered []*x509.Certificate, before *output.Bundle,
	configured time.Duration, now time.Time) []*x509.Certificate {
	if o.until == nil {
		o.until = map[[sha256.Size]byte]time.Time{}
	}
	merged := slices.Clone(answered)
	until := before.Chain[0].NotAfter
	if configured >= 0 {
		until = now.Add(configured)
	}
	for _, anchor := range before.Trusted {
		digest := sha256.Sum256(anchor.Raw)
		if slices.ContainsFunc(answered, anchor.Equal) {
			delete(o.until, digest)
			continue
		}
		if _, known := o.until[digest]; !known {
			o.until[digest] = until
		}
		if now.Before(o.until[digest]) && now.Before(anchor.NotAfter) {
			merged = append(merged, anchor)
		} else {
			delete(o.until, digest)
		}
	}
	return merged
}

// end is when the first of the trusted certificates that are
// kept has to go; zero when none is kept.
func (o *overlap) end(trusted []*x509.Certificate) (first time.Time) {
	for _, anchor := range trusted {
		end, kept := o.until[sha256.Sum256(anchor.Raw)]
		if kept && anchor.NotAfter.Before(end) {
			end = anchor.NotAfter
		}
		if kept && (first.IsZero() || end.Before(first)) {
			first = end
		}
	}
	return first
}

// prune returns the trusted certificates without those whose time is over.
func (o *overlap) prune(trusted []*x509.Certificate, now time.Time) []*x509.Certificate {
	return slices.DeleteFunc(slices.Clone(trusted), func(anchor *x509.Certificate) bool {
		end := o.end([]*x509.Certificate{anchor})
		return !end.IsZero() && !now.Before(end)
	})
}
