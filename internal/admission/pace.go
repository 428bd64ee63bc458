package admission

import (
	"hash/maphash"
	"math"
	"time"
)

const (
	// memory is over how much time a CA's rate is measured.
	memory = 10 * time.Second
	// enough answers make a rate.
	enough = 8
	// busy is how many requests a CA has in progress when its rate is measured. Fewer are always
	// sent to it, so that a CA that comes back is noticed.
	busy = 8
)

// rate is how many requests a CA answers in a second while it has enough to do. Older answers count
// less. It stands still while the CA has little to do: then nobody has to know.
type rate struct {
	answers float64 // each counts less with time
	seconds float64 // with enough in progress, which count less likewise
	at      time.Time
	known   bool
}

// pass lets time pass, with so many requests in progress since the last time.
func (r *rate) pass(now time.Time, inProgress int) {
	if took := now.Sub(r.at); took > 0 && inProgress >= busy && !r.at.IsZero() {
		less := math.Exp(-took.Seconds() / memory.Seconds())
		r.answers *= less
		r.seconds = r.seconds*less + memory.Seconds()*(1-less)
	}
	r.at = now
}

// answered counts an answer while so many were in progress.
func (r *rate) answered(inProgress int) {
	if inProgress >= busy {
		r.answers++
		r.known = r.known || r.answers >= enough
	}
}

// perSecond is 0 until there were enough answers.
func (r *rate) perSecond() float64 {
	if !r.known || r.seconds == 0 {
		return 0
	}
	return r.answers / r.seconds
}

// horizon is the latest time that a client is asked to come back after, in seconds. certfetcher,
// which gives up after five minutes unless it is told otherwise, obeys that.
const horizon = 240

const (
	// leastRate is what a CA is booked for in a second when it answers less, or hangs: it may soon
	// be better.
	leastRate = 10
	// overbooked is by how much more is booked than the CA answers: some come later than they were
	// asked to, or not at all, and a CA should not wait for them. Those for whom it is too much
	// find a place in the queue.
	overbooked = 1.1
)

// mostBooked bounds the clients that are remembered, in memory.
const mostBooked = 100_000

// bookings are the clients that were asked to come back, by the second in which they are to. Their
// hashes are kept: two that have the same one, which is unlikely, are one client here.
type bookings[K comparable] struct {
	perClient int
	seed      maphash.Seed
	from      int64 // the last second that has passed, in Unix time
	clients   [horizon + 1][]uint64
	of        map[uint64]booked
}

// booked is what one client has.
type booked struct {
	seconds int
	last    int64
}

func newBookings[K comparable](perClient int) *bookings[K] {
	return &bookings[K]{perClient: perClient, seed: maphash.MakeSeed(), of: map[uint64]booked{}}
}

// book finds the first second in which fewer than so many are to come, and returns the seconds
// until then. Where there is none, it is some time in the later half, at random.
//
// A client that comes too early, such as one that was started again, keeps its second. Where one
// address stands for many clients, they have several.
func (b *bookings[K]) book(client K, several bool, perSecond float64, now time.Time, random float64) int {
	b.forget(now.Unix())
	hash := maphash.Comparable(b.seed, client)
	has := b.of[hash]
	if has.seconds > 0 && !several {
		return int(has.last - b.from)
	}
	if has.seconds < b.perClient && len(b.of) < mostBooked {
		for second := b.from + 1; second <= b.from+horizon; second++ {
			at := b.at(second)
			if float64(len(*at)) < perSecond {
				*at = append(*at, hash)
				b.of[hash] = booked{has.seconds + 1, second}
				return int(second - b.from)
			}
		}
	}
	return horizon/2 + 1 + int(random*horizon/2)
}

func (b *bookings[K]) at(second int64) *[]uint64 { return &b.clients[second%int64(len(b.clients))] }

// forget forgets what was booked until now, this second included.
func (b *bookings[K]) forget(now int64) {
	for second := max(b.from, now-horizon) + 1; second <= now; second++ {
		at := b.at(second)
		for _, client := range *at {
			has := b.of[client]
			if has.seconds--; has.seconds == 0 {
				delete(b.of, client)
			} else {
				b.of[client] = has
			}
		}
		*at = nil
	}
	b.from = max(b.from, now)
}
