package certservice

import (
	"slices"
	"sync"
	"time"
)

// patience is how long a handshake may wait for its client when another waits for a place: not for long where its
// address has more places than the other's.
func patience(places, others int) time.Duration {
	switch {
	case places > others+1:
		return 100 * time.Millisecond
	case places > others:
		return 500 * time.Millisecond
	}
	return 3 * time.Second
}

// lookAgain is how often the handshakes that wait look for one that has waited for too long.
const lookAgain = 50 * time.Millisecond

// gate bounds how many handshakes have a place. Those that wait for one cost next to nothing. A
// place goes to the address that has fewest, and is made by ending a handshake that has waited for its client for long.
type gate struct {
	limit int
	end   func(*connection) // ends a handshake

	mu      sync.Mutex
	under   map[*connection]struct{} // way
	places  map[clientKey]int
	waiting []waiter // longest first
}

type waiter struct {
	*connection
	enter chan struct{}
}

func newGate(limit int, end func(*connection)) *gate {
	return &gate{limit: limit, end: end, under: map[*connection]struct{}{}, places: map[clientKey]int{}}
}

// enter waits for a place. It returns false where the connection was closed meanwhile, or at the deadline.
func (g *gate) enter(c *connection, deadline time.Time) bool {
	w := waiter{c, make(chan struct{})}
	g.mu.Lock()
	g.waiting = append(g.waiting, w)
	g.admit()
	g.mu.Unlock()
	select {
	case <-w.enter:
		return true
	default:
	}
	timeout := time.NewTimer(time.Until(deadline))
	defer timeout.Stop()
	again := time.NewTicker(lookAgain)
	defer again.Stop()
	for {
		select {
		case <-w.enter:
			return true
		case <-again.C:
			g.mu.Lock()
			g.admit()
			g.mu.Unlock()
			continue
		case <-c.closed:
		case <-timeout.C:
		}
		g.leave(c)
		return false
	}
}

// leave gives the place back, or waits no longer for one.
func (g *gate) leave(c *connection) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, ok := g.under[c]; ok {
		delete(g.under, c)
		if g.places[c.client]--; g.places[c.client] == 0 {
			delete(g.places, c.client)
		}
	}
	g.waiting = slices.DeleteFunc(g.waiting, func(w waiter) bool { return w.connection == c })
	g.admit()
}

// admit gives places to those that wait, and makes one if there is none.
func (g *gate) admit() {
	for len(g.waiting) > 0 {
		next := 0
		for i, w := range g.waiting {
			if g.places[w.client] < g.places[g.waiting[next].client] {
				next = i
			}
		}
		w := g.waiting[next]
		if len(g.under) >= g.limit {
			if slow := g.slowest(w.client); slow != nil {
				g.end(slow) // and its goroutine leaves
			}
			return
		}
		g.waiting = slices.Delete(g.waiting, next, next+1)
		g.under[w.connection] = struct{}{}
		g.places[w.client]++
		close(w.enter)
	}
}

// slowest is the handshake that waits for its client for longest, of those that may be ended for the other client.
func (g *gate) slowest(other clientKey) (found *connection) {
	now, longest := time.Now(), int64(0)
	for c := range g.under {
		since := c.awaiting.Load()
		waits := now.Sub(time.Unix(0, since))
		if since == 0 || waits < patience(g.places[c.client], g.places[other]) {
			continue
		}
		if longest == 0 || since < longest {
			found, longest = c, since
		}
	}
	return found
}
