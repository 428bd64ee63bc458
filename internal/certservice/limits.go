package certservice

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/certfetcher/certfetcher/internal/admission"
)

// lower keeps no counts of zero: clients come and go.
func lower[K comparable](counts map[K]int, key K) {
	if counts[key]--; counts[key] == 0 {
		delete(counts, key)
	}
}

// perLane is how many requests of one client are worked on at the same time, not counting those
// that wait for a CA. It is plenty for work that takes less than a millisecond, and few enough
// that other clients find a processor soon.
const perLane = 16

// lanes makes the requests of each client wait for one another: requests beyond perLane, and
// answers that the client does not read, delay only that client.
type lanes struct {
	mu sync.Mutex
	of map[clientKey]*lane
}

type lane struct {
	room  chan struct{} // holds perLane
	users int           // requests in it and waiting for it
}

// enter waits for room, and returns a function that makes room again, once, or the error of ctx.
func (l *lanes) enter(ctx context.Context, client clientKey) (leave func(), err error) {
	mine := l.join(client)
	select {
	case mine.room <- struct{}{}:
	case <-ctx.Done():
		l.part(client, mine)
		return nil, ctx.Err()
	}
	return sync.OnceFunc(func() {
		<-mine.room
		l.part(client, mine)
	}), nil
}

func (l *lanes) join(client clientKey) *lane {
	l.mu.Lock()
	defer l.mu.Unlock()
	mine, ok := l.of[client]
	if !ok {
		mine = &lane{room: make(chan struct{}, perLane)}
		l.of[client] = mine
	}
	mine.users++
	return mine
}

func (l *lanes) part(client clientKey, mine *lane) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if mine.users--; mine.users == 0 {
		delete(l.of, client)
	}
}

// rounds runs something costly for clients: at most once in each
// interval, however many ask. Each client gets the result of a round
// that began after it asked, so that no earlier change is missed.
type rounds[T any] struct {
	do            func() (T, error)
	every         time.Duration // from the end of a round to the next
	most          int           // that wait; 0: no bound
	mostPerClient int

	running sync.Mutex // held from the wait for the next round to its end
	ended   time.Time  // of the last round

	mu       sync.Mutex
	next     *round[T]
	waiting  int
	ofClient map[clientKey]int
}

// round is one that has not begun, or its result.
type round[T any] struct {
	done   chan struct{}
	result T
	err    error
}

var (
	errRoundFull  = errors.New("too many clients wait for it")
	errRoundPanic = errors.New("internal server error")
)

// newReloads reads the configuration for clients. The interval is short enough for those who wait,
// and long enough that reading costs nothing. Clients beyond the bounds are asked to try again, as
// each that waits holds a connection: a deployment has one client that reloads, seldom more.
func newReloads(read func() error) *rounds[struct{}] {
	return &rounds[struct{}]{
		do: func() (struct{}, error) { return struct{}{}, read() }, every: time.Second,
		most: 64, mostPerClient: 4, ofClient: map[clientKey]int{},
	}
}

// newScrapes writes the metrics for clients, which takes a millisecond and needs no certificate.
func newScrapes(write func() []byte) *rounds[[]byte] {
	return &rounds[[]byte]{
		do: func() ([]byte, error) { return write(), nil }, every: 100 * time.Millisecond,
		ofClient: map[clientKey]int{},
	}
}

// ask returns the result of the next round, errRoundFull
// when too many wait for it, or the error of ctx.
func (r *rounds[T]) ask(ctx context.Context, client clientKey) (result T, err error) {
	mine, first, ok := r.join(client)
	if !ok {
		return result, errRoundFull
	}
	defer r.part(client)
	if first {
		r.run(mine) // whether or not this client stays: others may have joined
	}
	select {
	case <-mine.done:
		return mine.result, mine.err
	case <-ctx.Done():
		return result, ctx.Err()
	}
}

// join returns the next round, and whether the caller is the one to run it.
func (r *rounds[T]) join(client clientKey) (mine *round[T], first, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.most > 0 && (r.waiting >= r.most || r.ofClient[client] >= r.mostPerClient) {
		return nil, false, false
	}
	r.waiting++
	r.ofClient[client]++
	if r.next == nil {
		r.next, first = &round[T]{done: make(chan struct{}), err: errRoundPanic}, true
	}
	return r.next, first, true
}

func (r *rounds[T]) part(client clientKey) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting--
	lower(r.ofClient, client)
}

func (r *rounds[T]) run(mine *round[T]) {
	r.running.Lock()
	defer r.running.Unlock()
	time.Sleep(time.Until(r.ended.Add(r.every)))
	r.mu.Lock()
	r.next = nil // clients that come from here on must not get this result
	r.mu.Unlock()
	defer func() {
		r.ended = time.Now()
		close(mine.done)
	}()
	mine.result, mine.err = r.do()
}

// MaxHeaderBytes is what a request's headers may take in all. An update with RSA-4096 keys needs
// 20 KiB; the room above it is for old certificates with their chain and for what proxies add.
const MaxHeaderBytes = 64 << 10

// hardHeaderBytes is where the HTTP server reads no further, and answers 431 in words of its own.
// Up to there the handler answers, in JSON.
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

// unavailableAnswer answers 503 and asks the client to try again in 1 to 5 seconds, at random, so
// that clients refused together do not come back together.
func unavailableAnswer(e *event, outcome outcome, message string) answer {
	e.outcome = outcome
	a := errorAnswer(http.StatusServiceUnavailable, message)
	a.header["Retry-After"] = strconv.Itoa(1 + rand.IntN(5))
	return a
}

// limitCPU is the bound of what certservice itself can compute.
const limitCPU admission.Limit = "cpu"

// overloadAnswer answers a request that exceeds one of the bounds.
func (h *Handler) overloadAnswer(e *event, limit admission.Limit, reason string) answer {
	e.reason = reason
	h.cfg.Metrics.Counter(overloads, e.caName, limit).Inc()
	return unavailableAnswer(e, outcomeOverloaded, limitMessages[limit])
}

// refusalAnswer answers a request that the queue refuses.
func (h *Handler) refusalAnswer(e *event, refused *admission.Refusal) answer {
	a := h.overloadAnswer(e, refused.Limit, refused.Reason)
	a.header["Retry-After"] = strconv.Itoa(refused.RetryAfter)
	return a
}

// limitMessages are for clients. They do not tell the numbers.
var limitMessages = map[admission.Limit]string{
	admission.LimitTotal:  "Too many requests in flight, try again later",
	admission.LimitCA:     "Too many requests in flight for this CA, try again later",
	admission.LimitClient: "Too many requests in flight from this client, try again later",
	admission.LimitWait:   "The CA has more to do than it can in time, try again later",
	limitCPU:              "Too much to compute, try again later",
}

// place is a request in the queue for its CA.
type place struct {
	h      *Handler
	ticket *admission.Ticket[clientKey]
	turn   chan bool // false: it is refused after all
}

// errLate is a place whose turn did not come in time.
var errLate = errors.New("waiting for the CA")

// queue takes a place for a request. An urgent one goes on with what the CA has begun.
func (h *Handler) queue(caName string, share admission.Share, client clientKey, patience time.Duration,
	urgent bool) (*place, *admission.Refusal) {
	p := &place{h: h, turn: make(chan bool, 1)}
	if h.cfg.Timeout > 0 {
		patience = min(cmp.Or(patience, admission.DefaultPatience), h.cfg.Timeout)
	}
	ticket, refused := h.admission.Ask(admission.Request[clientKey]{CA: caName, Share: share, Client: client,
		Patience: patience, Urgent: urgent, Turn: func(send bool) { p.turn <- send }})
	p.ticket = ticket
	return p, refused
}

// await waits until the request may be sent to the CA. The error is errLate, or that of ctx: then
// the client has gone, and the request must not be sent any more.
func (p *place) await(ctx context.Context) error {
	latest := time.NewTimer(time.Until(p.ticket.Latest()))
	defer latest.Stop()
	select {
	case send := <-p.turn:
		if !send {
			return errLate
		}
		return ctx.Err()
	case <-latest.C: // as where the CA hangs, and nothing moves
		return errLate
	case <-ctx.Done():
		return ctx.Err()
	}
}

// tooLate answers a request that waited in vain, with the error of await. A client that has gone
// is not waited for.
func (p *place) tooLate(e *event, err error) answer {
	if err != errLate {
		return p.h.overloadAnswer(e, admission.LimitWait, "the client went away while it waited for the CA")
	}
	return p.h.refusalAnswer(e, p.h.admission.Late(p.ticket))
}

// leave gives the place back. answered says that the CA has answered.
func (p *place) leave(answered bool) { p.h.admission.Leave(p.ticket, answered) }

// preferWait is how long the client says it waits for an answer (RFC 7240, 4.3); 0: it does not.
func preferWait(header http.Header) time.Duration {
	for _, value := range header.Values("Prefer") {
		for preference := range strings.FieldsFuncSeq(value, func(r rune) bool { return r == ',' || r == ';' }) {
			name, seconds, _ := strings.Cut(strings.TrimSpace(preference), "=")
			n, err := strconv.ParseUint(strings.TrimSpace(seconds), 10, 31)
			if strings.EqualFold(strings.TrimSpace(name), "wait") && err == nil {
				return time.Duration(n) * time.Second
			}
		}
	}
	return 0
}
