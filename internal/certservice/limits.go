package certservice

import (
	"math/rand/v2"
	"net/http"
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

// unavailable answers 503 and asks the client to return in 1 to 5 seconds, at random, so that those
// refused together do not come back together.
func unavailable(e *event, outcome outcome, message string) answer {
	e.outcome = outcome
	a := errorAnswer(http.StatusServiceUnavailable, message)
	a.retryAfter = 1 + rand.IntN(5)
	return a
}

// overloaded answers for a request that one of the bounds does not let in.
func (h *Handler) overloaded(e *event, limit limitKind, reason string) answer {
	e.reason = reason
	h.cfg.Metrics.observeOverload(e.caName, limit)
	return unavailable(e, outcomeOverloaded, limitMessages[limit])
}

// limitMessages are for clients. They tell no numbers.
var limitMessages = map[limitKind]string{
	limitTotal:  "Too many requests in flight, try again later",
	limitCA:     "Too many requests in flight for this CA, try again later",
	limitClient: "Too many requests in flight from this client, try again later",
	limitCPU:    "Too much to compute, try again later",
}
