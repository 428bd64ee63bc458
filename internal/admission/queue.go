// Package admission decides which requests are sent to a certification authority now, which wait
// for that, and which are refused, with the time after which to come back. Its aims are that a CA
// never waits for requests while there are any, that it gets none whose client will have gone
// before the answer, and that no client and no CA takes what others need.
//
// A CA is measured: how many requests it answers in a second. From that follows how long a request
// would wait, and when those that cannot wait so long are to come back: one after the other, as
// fast as the CA answers. Nobody is remembered for that beyond a few minutes, and replicas need not
// know of each other: each measures its own share of the CA.
//
// The package knows neither HTTP nor CMP. Clock and randomness are given.
package admission

import (
	"fmt"
	"math"
	"slices"
	"sync"
	"time"
)

// DefaultPatience is how long a client waits for its answer when it does not say so: that is the
// default of REQUEST_TIMEOUT of certfetcher and of the ONAP client.
const DefaultPatience = 30 * time.Second

// Of a client's patience, a request may be expected to take two thirds, the CA's part included: the
// rest is for the connection, the answer, and expectations that were wrong. It is sent to the CA
// where nine tenths are enough by then.
const (
	expectedShare = 2. / 3
	latestShare   = 0.9
)

// A CA may have in progress what it answers in inProgressFor, but no more than mostInProgress, and
// mostAtFirst until it is known how much that is. The other requests wait here, where they can leave
// without a trace, and where they are sent in their order: of several hundred that a CA has at once,
// some take twice as long as others. A CA that is slow because it is far away, and not because it has
// much to do, is one whose quickest answer took long: what it answers in that time is added, so that
// it gets more and more.
const (
	inProgressFor  = 5 * time.Second
	mostAtFirst    = 32
	mostInProgress = 64
)

// soon is the longest time to come back after, in seconds, where nothing better is known.
const soon = 5

// Config bounds a Queue.
type Config struct {
	MaxInFlight  int // requests in progress at the same time; 0: no bound
	MaxPerClient int // those of one client, and for how many it may be asked to come back; 0: a quarter
	MaxQueued    int // requests that wait, a quarter of them of one client; 0: none waits
	Now          func() time.Time
	Random       func() float64 // from 0 up to 1, without 1 itself
}

// Queue is what the requests for all CAs go through. K tells clients apart.
type Queue[K comparable] struct {
	cfg Config

	mu            sync.Mutex
	slots, places *slots[K] // of requests in progress, and of those that wait
	cas           map[string]*authority[K]
}

// authority is what is known of a CA.
type authority[K comparable] struct {
	rate     rate
	quickest time.Duration // answer since there was last nothing in progress; 0: none yet
	bookings *bookings[K]
	waiting  []*Ticket[K] // the first has waited longest
}

// New returns an empty queue.
func New[K comparable](cfg Config) *Queue[K] {
	return &Queue[K]{cfg: cfg, slots: newSlots[K]("slots", cfg.MaxInFlight, cfg.MaxPerClient),
		places: newSlots[K]("places to wait", cfg.MaxQueued, 0), cas: map[string]*authority[K]{}}
}

// Request is what asks to be sent to a CA.
type Request[K comparable] struct {
	CA       string
	Share    Share
	Client   K
	Patience time.Duration // how long the client waits for the answer; 0: DefaultPatience
	// Urgent goes on with what has begun at the CA: it comes before all others.
	Urgent bool
	// Turn is called once, under the queue's lock: with true when the request may be sent, maybe
	// before Ask returns; with false when it has waited too long for that, and is Refused.
	Turn func(send bool)
}

// Ticket is a request that was not refused. Whoever has it gives it back to Leave.
type Ticket[K comparable] struct {
	Request[K]
	since, latest time.Time
	sent          time.Time // to the CA
	state         state
}

// Latest is when waiting has become useless: the client will have gone before the answer.
func (t *Ticket[K]) Latest() time.Time { return t.latest }

type state int

const (
	stateWaiting state = iota
	stateInProgress
	stateLeft
)

// Refusal says why a request is not to be sent, and when to come back.
type Refusal struct {
	Limit      Limit
	Reason     string // for the log
	RetryAfter int    // seconds, 1 or more
}

// Ask takes a request, or refuses it.
func (q *Queue[K]) Ask(r Request[K]) (*Ticket[K], *Refusal) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.cfg.Now()
	if r.Patience <= 0 {
		r.Patience = DefaultPatience
	}
	ca := q.authority(r.CA, now)
	t := &Ticket[K]{Request: r, since: now, latest: now.Add(share(r.Patience, latestShare))}
	if !r.Urgent && q.slots.ofCA[r.CA] >= busy {
		wait := ca.time(q.slots.ofCA[r.CA] + len(ca.waiting) + 1)
		// A CA that is far away takes its time also when it has little to do.
		most := max(share(r.Patience, expectedShare), min(2*ca.quickest, share(r.Patience, latestShare)))
		if wait > most {
			return nil, q.refuse(r, LimitWait, fmt.Sprintf("the answer would take %s, and the client waits for %s",
				wait.Round(time.Second), r.Patience.Round(time.Second)))
		}
	}
	limit, reason := q.slots.reached(r.CA, r.Share, r.Client, ca.most())
	if limit == "" {
		q.send(t)
		return t, nil
	}
	if q.cfg.MaxQueued > 0 {
		var full string
		if limit, full = q.places.reached(r.CA, r.Share.waiting(), r.Client, math.MaxInt); limit == "" {
			q.places.take(r.CA, r.Client)
			if r.Urgent {
				ca.waiting = slices.Insert(ca.waiting, 0, t)
			} else {
				ca.waiting = append(ca.waiting, t)
			}
			return t, nil
		}
		reason += ", and " + full
	}
	return nil, q.refuse(r, limit, reason)
}

// waiting is the share of the places to wait: its own bound is for what is in progress.
func (s Share) waiting() Share { return Share{Authorities: s.Authorities} }

// Leave ends a request, whether it was sent or waits. answered says that the CA has answered it,
// whatever the answer.
func (q *Queue[K]) Leave(t *Ticket[K], answered bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	ca := q.authority(t.CA, q.cfg.Now())
	switch t.state {
	case stateWaiting:
		ca.waiting = slices.DeleteFunc(ca.waiting, func(other *Ticket[K]) bool { return other == t })
		q.places.giveBack(t.CA, t.Client)
	case stateInProgress:
		if answered {
			ca.answered(q.cfg.Now().Sub(t.sent), q.slots.ofCA[t.CA])
		}
		q.slots.giveBack(t.CA, t.Client)
	}
	t.state = stateLeft
	q.grant()
}

// Late refuses a request that has waited for too long.
func (q *Queue[K]) Late(t *Ticket[K]) *Refusal {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.cfg.Now()
	q.authority(t.CA, now)
	return q.refuse(t.Request, LimitWait, fmt.Sprintf("it has waited for %s, and would not be answered in time",
		now.Sub(t.since).Round(time.Millisecond)))
}

func (q *Queue[K]) refuse(r Request[K], limit Limit, reason string) *Refusal {
	ca := q.cas[r.CA]
	refusal := &Refusal{limit, reason, 1 + int(q.cfg.Random()*soon)}
	// What one client has too much is for it to wait for, and not for the others.
	if limit != LimitClient && ca.rate.known {
		several := q.slots.ofClient[r.Client]+q.places.ofClient[r.Client] > 0
		perSecond := max(leastRate, overbooked*ca.rate.perSecond())
		refusal.RetryAfter = ca.bookings.book(r.Client, several, perSecond, ca.rate.at, q.cfg.Random())
	}
	return refusal
}

// authority is the CA, with its time passed up to now.
func (q *Queue[K]) authority(name string, now time.Time) *authority[K] {
	ca, ok := q.cas[name]
	if !ok {
		ca = &authority[K]{bookings: newBookings[K](max(1, q.slots.perClient))}
		q.cas[name] = ca
	}
	ca.rate.pass(now, q.slots.ofCA[name])
	return ca
}

// time is how long the CA takes for so many requests; 0 where it is not known.
func (a *authority[K]) time(requests int) time.Duration {
	perSecond := a.rate.perSecond()
	if !a.rate.known {
		return 0
	}
	return time.Duration(min(float64(requests)/max(perSecond, 1e-3), 1e6) * float64(time.Second))
}

// most is how many requests the CA may have in progress.
func (a *authority[K]) most() int {
	perSecond := a.rate.perSecond()
	most := min(inProgressFor.Seconds()*perSecond, mostInProgress) + a.quickest.Seconds()*perSecond
	return max(mostAtFirst, int(min(most, 1e9)))
}

// answered counts an answer that took so long, while so many were in progress.
func (a *authority[K]) answered(took time.Duration, inProgress int) {
	a.rate.answered(inProgress)
	if a.quickest == 0 || took < a.quickest {
		a.quickest = took
	}
}

func share(of time.Duration, part float64) time.Duration { return time.Duration(float64(of) * part) }

// send sends a request to its CA.
func (q *Queue[K]) send(t *Ticket[K]) {
	if q.slots.ofCA[t.CA] == 0 {
		q.cas[t.CA].quickest = 0
	}
	q.slots.take(t.CA, t.Client)
	t.state, t.sent = stateInProgress, q.cfg.Now()
	t.Turn(true)
}

// grant sends requests that wait, as long as there are slots for them.
func (q *Queue[K]) grant() {
	for {
		t := q.next()
		if t == nil {
			return
		}
		ca := q.authority(t.CA, q.cfg.Now())
		ca.waiting = slices.DeleteFunc(ca.waiting, func(other *Ticket[K]) bool { return other == t })
		q.places.giveBack(t.CA, t.Client)
		inProgress := q.slots.ofCA[t.CA]
		if inProgress >= busy && ca.rate.at.Add(ca.time(inProgress)).After(t.latest) {
			t.state = stateLeft
			t.Turn(false)
			continue
		}
		q.send(t)
	}
}

// next is the request that may be sent and has waited longest; nil: there is none.
func (q *Queue[K]) next() (found *Ticket[K]) {
	for name, ca := range q.cas {
		for _, t := range ca.waiting {
			limit, _ := q.slots.reached(name, t.Share, t.Client, ca.most())
			if limit == LimitClient {
				continue // others of this CA need not wait for it
			}
			if limit == "" && (found == nil || t.Urgent && !found.Urgent ||
				t.Urgent == found.Urgent && t.since.Before(found.since)) {
				found = t
			}
			break
		}
	}
	return found
}

// InProgress is how many requests are in progress, and InProgressOf and WaitingFor how many of a CA
// are, or wait.
func (q *Queue[K]) InProgress() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.slots.taken
}

// InProgressOf is how many requests for a CA are in progress.
func (q *Queue[K]) InProgressOf(ca string) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.slots.ofCA[ca]
}

// WaitingFor is how many requests wait for a CA.
func (q *Queue[K]) WaitingFor(ca string) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.places.ofCA[ca]
}

// Rate is how many requests a CA answers in a second; 0: not known.
func (q *Queue[K]) Rate(ca string) float64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	if a, ok := q.cas[ca]; ok {
		return a.rate.perSecond()
	}
	return 0
}
