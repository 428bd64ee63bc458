package sidecar

import (
	"math/rand/v2"
	"time"

	"github.com/certfetcher/certfetcher/internal/enroll"
)

const (
	// firstWait bounds the wait after a first failure; the bound doubles with each further one.
	firstWait = 2 * time.Second
	// longestWait bounds all waits but those that a Retry-After asks for.
	longestWait = 15 * time.Minute
	// longestExpired bounds the waits once the certificate has expired and the application is down.
	longestExpired = time.Minute
	// longestWasted bounds the waits where each try has the CA issue a certificate that nobody can use.
	longestWasted = 24 * time.Hour
	// shortestWait keeps a try from following the other at once; certificates that live for seconds have less.
	shortestWait = time.Second
)

// retryWait is how long to wait after the given number of failures in a row, 1 or more. It is drawn evenly from almost
// nothing to a bound that doubles each time (full jitter), so that the pods that met the same outage do not come back
// together. The bound ends at 15 minutes and at a twentieth of the time left to expiry; after a permanent failure it
// is there at once. After expiry it ends at a minute, or a twentieth of the certificate's life. Where each try costs
// a certificate, it ends at a day and at a quarter of the time left, and after expiry at 15 minutes.
//
// A Retry-After is obeyed, up to a tenth later than asked, unless the certificate would expire meanwhile, and for
// 15 minutes at most once it has.
func retryWait(failures int, hint enroll.Hint, c Certificate, now time.Time) time.Duration {
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
	chosen := between(shortest, spread)
	if hint.Permanent || hint.Wasted {
		chosen = between(bound/2, bound)
	}
	asked := between(hint.RetryAfter, hint.RetryAfter+hint.RetryAfter/10)
	if left <= 0 {
		asked = min(asked, longestWait)
	} else if asked >= left {
		return chosen
	}
	return max(chosen, asked)
}

// between draws evenly; the least when there is nothing between.
func between(least, most time.Duration) time.Duration {
	if most <= least {
		return least
	}
	return least + rand.N(most-least)
}
