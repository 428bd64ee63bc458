package sidecar

import (
	"crypto/sha256"
	"encoding/binary"
	"time"

	"github.com/certfetcher/certfetcher/client"
	"github.com/certfetcher/certfetcher/internal/enroll"
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

// Due tells when the certificate is to be renewed: at the policy's moment, less a jitter of up to
// a tenth of the life that would then be left, but at most half of the time until then. The jitter
// depends on the seed alone, so a restart changes nothing.
//
// A certificate that would be due in the first tenth of the time for which this process can have
// it, because Before is about as long as its life, or because the CA dates certificates back, is
// treated as if its life began when it was obtained, and as if there were no Before. Otherwise one
// renewal would follow the other.
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
	// Where a difference is more than a time.Duration holds,
	// its largest one does: the jitter is smaller then.
	spread := min(jitterShare*float64(c.NotAfter.Sub(due)), float64(due.Sub(had))/2)
	return due.Add(-time.Duration(p.jitter() * spread))
}

// jitter is evenly spread over 0 to 1 for different seeds.
func (p Policy) jitter() float64 {
	sum := sha256.Sum256([]byte(p.Seed))
	return float64(binary.BigEndian.Uint64(sum[:])>>11) / (1 << 53)
}

const (
	// firstWait bounds the wait after a first failure; the bound doubles with each further one.
	firstWait = 2 * time.Second
	// longestWait bounds all waits but those that a Retry-After asks for.
	longestWait = 15 * time.Minute
	// longestExpired bounds the waits once the certificate has expired and the application is down.
	longestExpired = time.Minute
	// longestWasted bounds the waits where each try has the
	// CA issue a certificate that cannot be used.
	longestWasted = 24 * time.Hour
	// shortestWait keeps a try from following the other at
	// once; certificates that live for seconds have less.
	shortestWait = time.Second
)

// RetryWait is how long to wait after the given number of failures in a row, 1 or more. random
// returns a number from 0 up to 1, without 1 itself.
//
// The wait is drawn evenly from almost nothing to a bound that doubles each time (full jitter), so
// that the pods that met the same outage do not come back together. The bound ends at 15 minutes
// and at a twentieth of the time left to expiry; after a permanent failure it is there at once.
// After expiry it ends at a minute, or a twentieth of the certificate's life. Where each try costs
// a certificate, it ends at a day and at a quarter of the time left, and after expiry at 15
// minutes.
//
// A Retry-After is obeyed, a little later than asked (client.SpreadRetryAfter), unless the certificate would expire
// meanwhile, and for 15 minutes at most once it has.
func RetryWait(failures int, hint enroll.Hint, c Certificate, now time.Time, random func() float64) time.Duration {
	life, left := c.NotAfter.Sub(c.NotBefore), c.NotAfter.Sub(now)
	shortest := min(shortestWait, life/100)
	bound := min(longestWait, left/20)
	if left <= 0 {
		bound = min(longestExpired, life/20)
	}
	if hint.Wasted {
		bound = min(longestWasted, left/4)
		if left <= 0 {
			bound = min(longestWait, life)
		}
	}
	bound = max(bound, shortest)
	spread := bound
	if !hint.Permanent {
		spread = min(bound, min(firstWait, life/50)<<min(failures-1, 20))
	}
	chosen := between(shortest, spread, random)
	if hint.Permanent || hint.Wasted {
		chosen = between(bound/2, bound, random)
	}
	if hint.RetryAfter <= 0 {
		return chosen
	}
	asked := client.SpreadRetryAfter(hint.RetryAfter, random)
	if left <= 0 {
		asked = min(asked, longestWait)
	} else if asked >= left {
		return chosen
	}
	return max(chosen, asked)
}

// between draws evenly; the least when there is nothing between.
func between(least, most time.Duration, random func() float64) time.Duration {
	return least + time.Duration(random()*float64(max(0, most-least)))
}

const (
	// firstPause is how long published files that were just put back are left as they are when
	// they change again; it doubles with each further time, up to longestExpired.
	firstPause = 500 * time.Millisecond
	// calm is how long nothing must have been put back until the pauses begin again.
	calm = 5 * time.Minute
	// suspicious is how many times in a row are not an accident.
	suspicious = 3
)

// pace keeps from fighting with a process that changes published files
// whenever they are put back, such as a hook that changes their modes:
// each round has the application notified, which is what runs the hook.
type pace struct {
	rounds int       // since it was calm
	last   time.Time // when files were put back
}

// next is the earliest moment to put files back again.
func (p *pace) next() time.Time { return p.last.Add(p.pause()) }

func (p *pace) pause() time.Duration {
	if p.rounds == 0 {
		return 0
	}
	return min(longestExpired, firstPause<<min(p.rounds-1, 20))
}

// restored counts that files were put back. It tells, once,
// when that happens too often for an accident.
func (p *pace) restored(now time.Time) (suspected bool) {
	if now.Sub(p.last) > calm {
		p.rounds = 0
	}
	p.rounds++
	p.last = now
	return p.rounds == suspicious
}
