// Package storm plays start storms through: many pods that want a certificate at the same time, of
// a CA that issues few in a second. The clock is virtual, and everything is drawn from a seed, so
// that an hour of a hundred thousand pods takes seconds and is the same each time.
//
// What decides is the programs' own: the waits between tries (client.Waits, sidecar.RetryWait,
// which errors may pass) and which requests certservice sends to the CA, queues or refuses
// (admission.Queue). Modelled are the CA, the handshakes, the kubelet and the network in between.
package storm

import (
	"math/rand/v2"
	"time"
)

// simulation is a virtual clock and what is to happen.
type simulation struct {
	now    time.Duration // since the beginning
	random *rand.Rand
	events []event // a heap
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
	s.events = append(s.events, event{s.now + max(0, wait), s.count, do})
	for i := len(s.events) - 1; i > 0; {
		parent := (i - 1) / 2
		if !s.events[i].before(s.events[parent]) {
			break
		}
		s.events[i], s.events[parent] = s.events[parent], s.events[i]
		i = parent
	}
}

// run lets everything happen until the end, or until nothing more does.
func (s *simulation) run(end time.Duration, done func() bool) {
	for len(s.events) > 0 && s.events[0].at <= end && !done() {
		next := s.pop()
		s.now = next.at
		next.do()
	}
}

func (s *simulation) pop() event {
	first, last := s.events[0], len(s.events)-1
	s.events[0], s.events[last] = s.events[last], event{}
	s.events = s.events[:last]
	for i := 0; ; {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < last; child++ {
			if s.events[child].before(s.events[least]) {
				least = child
			}
		}
		if least == i {
			return first
		}
		s.events[i], s.events[least] = s.events[least], s.events[i]
		i = least
	}
}
