package enroll

import (
	"crypto/sha256"
	"crypto/x509"
	"slices"
	"time"

	"github.com/certfetcher/certfetcher/output"
)

// overlap remembers until when trusted certificates are kept that answers no longer bring, by the digest
// of the certificate. It is forgotten with the process; then what is on the volume counts as brought by
// the last answer.
type overlap struct {
	until map[[sha256.Size]byte]time.Time
}

// merge returns the trusted certificates of the answer, and after them those of the set before that are
// to be kept: as long as the certificate that they came with may be in use with peers, or as
// configured. Expired ones go.
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

// end is when the first of the trusted certificates that are kept has to go; zero when none is kept.
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
