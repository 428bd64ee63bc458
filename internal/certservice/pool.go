package certservice

import (
	"sync"
	"time"
)

// pool bounds the connections of one kind, and the bytes that they hold. It shares both out: where there are too many,
// one of the client that has most is closed, so that no client can keep the others out, and none is refused while
// there is room.
type pool struct {
	limit  int
	budget int64                         // bytes
	lost   func(*connection, lossReason) // told of each connection closed for another

	mu      sync.Mutex
	leaving *sync.Cond // a connection has left
	conns   map[*connection]struct{}
	shares  map[clientKey]share
	held    int64 // bytes in all
	evicted share // what was evicted and has not left yet
}

// share is how many connections there are, and how many bytes they hold.
type share struct {
	conns int
	held  int64
}

func newPool(limit int, budget int64, lost func(*connection, lossReason)) *pool {
	p := &pool{limit: limit, budget: budget, lost: lost, conns: map[*connection]struct{}{}, shares: map[clientKey]share{}}
	p.leaving = sync.NewCond(&p.mu)
	return p
}

// lossReason is why a connection was closed, as the metrics' label names it.
type lossReason string

const (
	lostToNumber lossReason = "connections" // too many are open
	lostToBytes  lossReason = "bytes"       // too much of what clients sent waits in memory
	lostToQueue  lossReason = "handshakes"  // its handshake stood still while others waited
)

// enter takes a connection in as that of the client, and evicts another if there is no room: one of the client that has
// most, this one included. It returns false where that client has nothing to spare but what is being answered, and it is
// this one.
func (p *pool) enter(c *connection, client clientKey, state connState) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	// What was evicted takes memory until its owner has noticed.
	for p.evicted.conns >= p.limit {
		p.leaving.Wait()
	}
	c.pool, c.client, c.state, c.since, c.held, c.left, c.evicted = p, client, state, time.Now(), 0, false, false
	p.conns[c] = struct{}{}
	p.add(c, share{conns: 1})
	if len(p.conns) <= p.limit {
		return true
	}
	victim := p.victim(c)
	if victim.client == client && victim.state == connActive {
		p.remove(c)
		c.left = true
		p.lost(c, lostToNumber)
		return false
	}
	p.evict(victim, lostToNumber)
	return true
}

// victim is a connection other than newest, of the client that has most: an idle one before one that sends before one
// that is answered; and of these the one that has been so for longest.
func (p *pool) victim(newest *connection) (found *connection) {
	for c := range p.conns {
		if c != newest && (found == nil || p.before(c, found)) {
			found = c
		}
	}
	return found
}

func (p *pool) before(a, b *connection) bool {
	if more, less := p.shares[a.client].conns, p.shares[b.client].conns; more != less {
		return more > less
	}
	if a.state != b.state {
		return a.state > b.state
	}
	return a.since.Before(b.since)
}

// evict closes the connection; its owner then closes it for itself.
func (p *pool) evict(c *connection, reason lossReason) {
	p.remove(c)
	c.evicted = true
	p.evicted.conns++
	p.evicted.held += c.held
	p.lost(c, reason)
	c.shut()
}

func (p *pool) remove(c *connection) {
	delete(p.conns, c)
	p.add(c, share{-1, -c.held})
}

// add changes the share of the connection's client.
func (p *pool) add(c *connection, more share) {
	p.held += more.held
	of := p.shares[c.client]
	of.conns += more.conns
	of.held += more.held
	if of.conns == 0 {
		delete(p.shares, c.client)
		return
	}
	p.shares[c.client] = of
}

// drop evicts the connection if it is still there.
func (p *pool) drop(c *connection, reason lossReason) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.conns[c]; ok {
		p.evict(c, reason)
	}
}

// leave forgets the connection, which its owner closes or hands to another pool. It returns false where it was evicted.
func (p *pool) leave(c *connection) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.left {
		return false
	}
	c.left = true
	if c.evicted {
		p.evicted.conns--
		p.evicted.held -= c.held
		p.leaving.Broadcast()
		return false
	}
	p.remove(c)
	return true
}

// hold counts bytes that the connection received. When all hold too much, one of the client that holds most is evicted;
// false says that it is this one.
func (p *pool) hold(c *connection, n int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.left || c.evicted {
		return false
	}
	if c.state == connIdle {
		c.state, c.since = connBusy, time.Now()
	}
	c.held += n
	p.add(c, share{held: n})
	for p.held > p.budget && !c.evicted {
		p.evict(p.heaviest(), lostToBytes)
	}
	// Memory that is not free yet is no reason to close one whose client has less than its part.
	if p.evicted.held > p.budget && !c.evicted && p.shares[c.client].held*int64(len(p.shares)) > p.budget {
		p.evict(c, lostToBytes)
	}
	return !c.evicted
}

// heaviest is the connection that holds most of the client that holds most; one that is answered only if that client has
// no other.
func (p *pool) heaviest() (found *connection) {
	for c := range p.conns {
		if found == nil || p.heavier(c, found) {
			found = c
		}
	}
	return found
}

func (p *pool) heavier(a, b *connection) bool {
	if more, less := p.shares[a.client].held, p.shares[b.client].held; more != less {
		return more > less
	}
	if (a.state == connActive) != (b.state == connActive) {
		return b.state == connActive
	}
	return a.held > b.held
}

// keep sets what the connection still holds: less than before, as what it received was used.
func (p *pool) keep(c *connection, held int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.setHeld(c, held)
}

func (p *pool) setHeld(c *connection, held int64) {
	if c.left || c.evicted {
		return
	}
	p.add(c, share{held: held - c.held})
	c.held = held
}

// turn notes what the connection does now. One that has become idle holds nothing.
func (p *pool) turn(c *connection, state connState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if state == connIdle {
		p.setHeld(c, 0)
	}
	c.state, c.since = state, time.Now()
}

// shut closes all connections from outside.
func (p *pool) shut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Conn.Close()
	}
}

// count returns how many connections do that.
func (p *pool) count(state connState) float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for c := range p.conns {
		if c.state == state {
			n++
		}
	}
	return float64(n)
}
