// Package storm plays start storms through: many pods that want a certificate at the same time, of
// a CA that issues few in a second. The clock is virtual, and everything is drawn from a seed, so
// that an hour of a hundred thousand pods takes seconds and is the same each time.
//
// What decides is the programs' own: the waits between tries (client.Waits, sidecar.RetryWait,
// which errors may pass) and which requests certservice sends to the CA, queues or refuses
// (admission.Queue). Modelled are the CA, the handshakes, the kubelet and the network in between.
package storm

import (
	"container/heap"
	"math/rand/v2"
	"time"
)

// simulation is a virtual clock and what is to happen.
type simulation struct {
	now    time.Duration // since the beginning
	random *rand.Rand
	events events
	count  uint64
}

type event struct {
	at    time.Duration
	order uint64 // of those at the same time, the first that was planned comes first
	do    func()
}

func (e event) before(other event) bool {
	return e.at < other.at || e.at == other.at && e.order < other.order
}

func newSimulation(seed uint64) *simulation {
	return &simulation{random: rand.New(rand.NewPCG(seed, seed))}
}

// epoch is when simulations begin.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// clock is the time for the programs' code.
func (s *simulation) clock() time.Time { return epoch.Add(s.now) }

func (s *simulation) after(wait time.Duration, do func()) {
	s.count++
	heap.Push(&s.events, event{s.now + max(0, wait), s.count, do})
}

// run lets everything happen until the end, or until nothing more does.
func (s *simulation) run(end time.Duration, done func() bool) {
	for len(s.events) > 0 && s.events[0].at <= end && !done() {
		next := heap.Pop(&s.events).(event)
		s.now = next.at
		next.do()
	}
}

// events is a heap.
type events []event

func (e events) Len() int           { return len(e) }
func (e events) Less(i, j int) bool { return e[i].before(e[j]) }
func (e events) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }

// Push is of heap.Interface.
func (e *events) Push(x any) { *e = append(*e, x.(event)) }

// Pop is of heap.Interface.
func (e *events) Pop() any {
	last := len(*e) - 1
	x := (*e)[last]
	(*e)[last] = event{} // so that what it refers to can be freed
	*e = (*e)[:last]
	return x
}
