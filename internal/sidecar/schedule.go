// Package renew decides when a certificate is renewed, and keeps on trying until it is. The Loop knows neither
// HTTP nor files: what renews and what puts files back are a Renewer's methods, whatever asks for a renewal
// now comes through a channel, and time comes from a clock that is handed in.
//
// All decisions are made on wall-clock time and made again at least once a minute, so that a machine that
// was suspended, or whose clock was set, renews as soon as it is due.
package sidecar

import (
	"crypto/sha256"
	"encoding/binary"
	"time"

	"github.com/certfetcher/certfetcher/internal/pki"
)

// Certificate is what the schedule needs to know of a certificate.
type Certificate struct {
	NotBefore, NotAfter time.Time
	// Obtained is when it was issued to this process; zero when it was found on the volume.
	Obtained time.Time
}

// Policy says when to renew.
type Policy struct {
	// At is the share of the certificate's life that may pass; more than 0 and less than 1.
	At float64
	// Before, when not 0, is how long before the end to renew, in place of At.
	Before time.Duration
	// Seed makes the jitter: the same for the same seed, different for different ones.
	Seed string
}

// jitterShare is the part of the life left at the renewal by which it may come earlier.
const jitterShare = 0.1

// Due tells when the certificate is to be renewed: at the policy's moment, less a jitter of up to a tenth
// of the life that would then be left, but at most half of the time until then. The jitter depends on the
// seed alone, so a restart changes nothing.
//
// A certificate that would be due in the first tenth of the time for which this process can have it, because
// Before is about as long as its life, or because the CA dates certificates back, is treated as if its life
// began when it was obtained, and as if there were no Before. Otherwise one renewal would follow the other.
func (p Policy) Due(c Certificate) time.Time {
	due := pki.Moment(c.NotBefore, c.NotAfter, p.At)
	if p.Before > 0 {
		due = c.NotAfter.Add(-p.Before)
	}
	had := c.Obtained
	if had.IsZero() {
		had = c.NotBefore
	}
	if due.Before(pki.Moment(had, c.NotAfter, 0.1)) {
		due = pki.Moment(had, c.NotAfter, p.At)
	}
	// Where a difference is more than a time.Duration holds, its largest one does: the jitter is smaller then.
	spread := min(jitterShare*float64(c.NotAfter.Sub(due)), float64(due.Sub(had))/2)
	return due.Add(-time.Duration(p.jitter() * spread))
}

// jitter is evenly spread over 0 to 1 for different seeds.
func (p Policy) jitter() float64 {
	sum := sha256.Sum256([]byte(p.Seed))
	return float64(binary.BigEndian.Uint64(sum[:])>>11) / (1 << 53)
}
