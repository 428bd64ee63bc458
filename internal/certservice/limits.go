package certservice

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// slots bounds the enrolments and updates in progress: in total, for one CA, and for one client.
// It refuses rather than queues: a client that waits in a queue holds a connection, and does not
// learn that another replica has room.
//
// Half of all slots are reserved for the CAs, in equal parts. A CA
// that needs more than its part takes from the other half, the common
// one. So each CA keeps its part, however many of the others hang.
type slots struct {
	total, perClient int // 0: no bound

	mu       sync.Mutex
	taken    int
	ofCA     map[string]int
	ofClient map[clientKey]int
}

// Share is what one authority may have of the requests in progress.
type Share struct {
	MaxInFlight int // 0: half of all where there are several authorities, otherwise all
	Authorities int // that are configured, this one included
}

// limitKind is which of the bounds is reached, as the metrics' label names it.
type limitKind string

const (
	limitTotal  limitKind = "total"
	limitCA     limitKind = "ca"
	limitClient limitKind = "client"
	limitCPU    limitKind = "cpu"
)

// newSlots bounds nothing when total is 0. perClient 0 is a quarter of the total.
func newSlots(total, perClient int) *slots {
	if perClient == 0 && total > 0 {
		perClient = max(1, total/4)
	}
	return &slots{total: total, perClient: perClient, ofCA: map[string]int{}, ofClient: map[clientKey]int{}}
}

// take returns what gives the slot back, or the bound that is reached with the reason for the log.
func (s *slots) take(ca string, may Share, client clientKey) (release func(), limit limitKind, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if limit, reason = s.reachedLimit(ca, may, client); limit != "" {
		return nil, limit, reason
	}
	s.taken++
	s.ofCA[ca]++
	s.ofClient[client]++
	return func() { s.giveBack(ca, client) }, "", ""
}

func (s *slots) reachedLimit(ca string, may Share, client clientKey) (limitKind, string) {
	if s.total == 0 {
		return "", ""
	}
	most, reserved := s.total, 0
	if may.Authorities > 1 {
		most, reserved = max(1, s.total/2), s.total/2/may.Authorities
	}
	if may.MaxInFlight > 0 {
		most = may.MaxInFlight
	}
	switch {
	case s.taken >= s.total:
		return limitTotal, fmt.Sprintf("all %d slots are taken", s.total)
	case s.ofClient[client] >= s.perClient:
		return limitClient, fmt.Sprintf("the client has all %d slots that one may have", s.perClient)
	case s.ofCA[ca] >= most:
		return limitCA, fmt.Sprintf("the CA has all %d slots that it may have", most)
	case s.ofCA[ca] >= reserved && s.common(reserved) >= s.total-reserved*may.Authorities:
		return limitTotal, fmt.Sprintf("all %d slots are taken but those reserved for other CAs", s.total)
	}
	return "", ""
}

// common is how many slots the CAs have beyond their reserved parts.
func (s *slots) common(reserved int) int {
	sum := 0
	for _, taken := range s.ofCA {
		sum += max(0, taken-reserved)
	}
	return sum
}

func (s *slots) giveBack(ca string, client clientKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken--
	lower(s.ofCA, ca)
	lower(s.ofClient, client)
}

// lower keeps no counts of zero: clients come and go.
func lower[K comparable](counts map[K]int, key K) {
	if counts[key]--; counts[key] == 0 {
		delete(counts, key)
	}
}

func (s *slots) count() float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return float64(s.taken)
}

func (s *slots) countOf(ca string) float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return float64(s.ofCA[ca])
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

// overloadAnswer answers a request that exceeds one of the bounds.
func (h *Handler) overloadAnswer(e *event, limit limitKind, reason string) answer {
	e.reason = reason
	h.cfg.Metrics.Counter(overloads, e.caName, limit).Inc()
	return unavailableAnswer(e, outcomeOverloaded, limitMessages[limit])
}

// limitMessages are for clients. They do not tell the numbers.
var limitMessages = map[limitKind]string{
	limitTotal:  "Too many requests in flight, try again later",
	limitCA:     "Too many requests in flight for this CA, try again later",
	limitClient: "Too many requests in flight from this client, try again later",
	limitCPU:    "Too much to compute, try again later",
}
