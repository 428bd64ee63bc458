package certservice

import (
	"math/rand/v2"
	"net/http"
	"sync/atomic"
)

// MaxHeaderBytes is what a request's headers may take in all. An update with RSA-4096 keys needs 20 KiB;
// the room above it is for old certificates with their chain and for what proxies add.
const MaxHeaderBytes = 64 << 10

// hardHeaderBytes is where the HTTP server reads no further, and answers 431 in words of its own. Up to there the
// handler answers, in JSON.
const hardHeaderBytes = 2 * MaxHeaderBytes

const messageTooLarge = "The headers of the request take more than 64 KiB"

// headerBytes is what the head of a request takes, as HTTP/1.1 writes it.
func headerBytes(r *http.Request) int {
	total := len(r.Method) + len(r.RequestURI) + len(r.Host)
	for name, values := range r.Header {
		for _, value := range values {
			total += len(name) + len(": ") + len(value) + len("\r\n")
		}
	}
	return total
}

// limiter bounds what runs at the same time. It refuses rather than queues: a client that waits in a
// queue holds a connection, and does not learn that another replica has room.
type limiter struct {
	max     int64 // 0: no bound
	running atomic.Int64
}

func newLimiter(limit int) *limiter { return &limiter{max: int64(limit)} }

func (l *limiter) acquire() bool {
	if n := l.running.Add(1); l.max > 0 && n > l.max {
		l.running.Add(-1)
		return false
	}
	return true
}

func (l *limiter) release() { l.running.Add(-1) }

func (l *limiter) count() float64 { return float64(l.running.Load()) }

// unavailable answers 503 and asks the client to return in 1 to 5 seconds, at random, so that those
// refused together do not come back together.
func unavailable(e *event, outcome outcome, message string) answer {
	e.outcome = outcome
	a := errorAnswer(http.StatusServiceUnavailable, message)
	a.retryAfter = 1 + rand.IntN(5)
	return a
}
