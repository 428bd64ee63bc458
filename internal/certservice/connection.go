package certservice

import (
	"bytes"
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/certfetcher/certfetcher/internal/program"
)

// connState is what a connection is doing. When there are
// too many, those with the highest state are closed first.
type connState int

const (
	connActive connState = iota // a request is being answered
	connBusy                    // a handshake or a request is being received
	connIdle                    // nothing was received since the last answer
)

// connection is a client's connection below TLS. It belongs to one pool at a time, which bounds
// how many there are and how much they hold.
type connection struct {
	net.Conn
	pool   *pool
	allow  int64 // bytes that may still be read; a negative number: no bound
	peeked []byte
	// In a handshake, each Read then waits for its turn to
	// compute, until the deadline at most; nil: it does not.
	compute  *gate
	deadline time.Time
	// awaiting is the time since when a Read has waited for
	// the client, in Unix nanoseconds; 0: it does not wait.
	awaiting atomic.Int64
	closed   chan struct{}

	// The rest belongs to the pool's lock.
	client  clientKey
	state   connState
	since   time.Time // of the state
	held    int64     // bytes received that may still be in memory
	left    bool      // the owner has closed it
	evicted bool
}

// receiveBuffer is how many bytes the kernel keeps until they are read; they count towards the
// limit of the cgroup. The kernel takes twice as much for its own needs.
const receiveBuffer = 32 << 10

func newConnection(conn net.Conn) *connection {
	c := &connection{Conn: conn, allow: -1, closed: make(chan struct{})}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetReadBuffer(receiveBuffer)
	}
	c.client.address = program.ClientAddress(conn.RemoteAddr().String())
	return c
}

var (
	errTooMuch = errors.New("more than 64 KiB in one handshake or request without a verified client certificate")
	errHeld    = errors.New("too many bytes of requests wait in memory")
)

// peek waits for the first byte, which the next Read returns again.
func (c *connection) peek() error {
	first := make([]byte, 1)
	n, err := c.Read(first)
	c.peeked = first[:n]
	return err
}

func (c *connection) Read(p []byte) (int, error) {
	if len(c.peeked) > 0 {
		n := copy(p, c.peeked)
		c.peeked = c.peeked[n:]
		return n, nil
	}
	if c.compute != nil {
		c.compute.leave(c)
	}
	c.awaiting.Store(time.Now().UnixNano())
	n, err := c.Conn.Read(p)
	c.awaiting.Store(0)
	if n == 0 {
		return 0, err
	}
	if c.allow >= 0 {
		if c.allow -= int64(n); c.allow < 0 {
			return 0, errTooMuch
		}
	}
	if !c.pool.hold(c, int64(n)) {
		return 0, errHeld
	}
	if c.compute != nil && !c.compute.enter(c, c.deadline) {
		return 0, errNoPlace
	}
	return n, err
}

// Close is the owner's; the pool evicts a connection by closing what is below.
func (c *connection) Close() error {
	c.pool.leave(c)
	return c.Conn.Close()
}

// shut ends it from outside: its owner gets an error from reading or writing, and then closes it.
func (c *connection) shut() {
	close(c.closed)
	_ = c.Conn.Close()
}

// served is a connection as the HTTP server sees it; Request.TLS comes from its ConnectionState.
type served struct {
	*tls.Conn
	below *connection
	first []byte // what was read before the server got it, and comes first
}

// lineBytes is what a header takes in memory beside its text.
const lineBytes = 128

func (s *served) Read(p []byte) (n int, err error) {
	if len(s.first) > 0 {
		n = copy(p, s.first)
		if s.first = s.first[n:]; !s.below.pool.hold(s.below, int64(n)) {
			return 0, errHeld
		}
	} else {
		n, err = s.Conn.Read(p)
	}
	// Many short headers count as much as they take.
	if lines := bytes.Count(p[:n], []byte("\n")); lines > 0 && !s.below.pool.hold(s.below, int64(lines)*lineBytes) {
		return 0, errHeld
	}
	return n, err
}

// patience is how long a handshake may wait for its client while another waits for a place: not
// for long where its address has more places than the other's.
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

// gate bounds how many handshakes have a place. Those that wait for one cost almost nothing. A
// place goes to the address that has fewest, and is made free by ending a handshake that has
// waited too long for its client.
type gate struct {
	limit int
	end   func(*connection) // ends a handshake

	mu      sync.Mutex
	holders map[*connection]struct{} // of places
	places  map[clientKey]int
	waiting []waiter // the first has waited longest
}

type waiter struct {
	*connection
	enter chan struct{}
}

func newGate(limit int, end func(*connection)) *gate {
	return &gate{limit: limit, end: end, holders: map[*connection]struct{}{}, places: map[clientKey]int{}}
}

// enter waits for a place. It returns false if the
// connection is closed in the meantime, or at the deadline.
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

// leave gives the place back, or stops waiting for one.
func (g *gate) leave(c *connection) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, ok := g.holders[c]; ok {
		delete(g.holders, c)
		lower(g.places, c.client)
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
		if len(g.holders) >= g.limit {
			if slow := g.slowest(w.client); slow != nil {
				g.end(slow) // and its goroutine leaves
			}
			return
		}
		g.waiting = slices.Delete(g.waiting, next, next+1)
		g.holders[w.connection] = struct{}{}
		g.places[w.client]++
		close(w.enter)
	}
}

// slowest is the handshake that has waited longest for its
// client, of those that may be ended for the other client.
func (g *gate) slowest(other clientKey) (found *connection) {
	now, longest := time.Now(), int64(0)
	for c := range g.holders {
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
