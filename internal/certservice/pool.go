package certservice

import (
	"math"
	"math/rand/v2"
	"os"
	"path"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Capacity is how many connections are open at the same time, and how many bytes from their
// clients may wait in memory. Those without a verified client certificate have a small share of
// their own, so that they cannot take what the others need.
type Capacity struct {
	verified, unverified   int   // connections
	verifiedBytes, waiting int64 // bytes of requests under way, and of handshakes and requests without a certificate
}

// LeastConnections is the smallest number that NewCapacity can divide.
const LeastConnections = 16

const (
	// memoryPerConnection is the memory limit's share for each connection. One that is idle takes
	// half of it; the rest is for requests, for garbage, and for the program itself.
	memoryPerConnection = 72 << 10
	// memoryWithoutLimit is used where there is no limit.
	memoryWithoutLimit = 512 << 20
	mostConnections    = 1 << 16
	// filesBeside are the descriptors left for everything except connections of clients:
	// connections to CAs, for example.
	filesBeside = 320
)

// NewCapacity divides a number of connections, from LeastConnections; 0 derives it from the memory
// that this process may use and the files it may open.
func NewCapacity(connections int) Capacity {
	memory := memoryLimit()
	if connections == 0 {
		connections = min(mostConnections, int(memory/memoryPerConnection), openFileLimit()-filesBeside)
		connections = max(connections, LeastConnections)
	}
	unverified := connections / 3
	return Capacity{
		verified: connections - unverified, unverified: unverified,
		// What was sent takes up to three times its size as
		// headers, ten times as certificates of a handshake.
		verifiedBytes: max(memory/16, 2*hardHeaderBytes), waiting: max(memory/96, 2*handshakeBytes),
	}
}

// Connections is how many are open at the same time.
func (c Capacity) Connections() int { return c.verified + c.unverified }

// Queued is how many requests may wait for their CA: a quarter of the connections, as each has one
// and takes more memory than an idle one.
func (c Capacity) Queued() int { return c.Connections() / 4 }

// memoryLimit is the smallest of GOMEMLIMIT and the limits
// of the cgroups that this process is in, in bytes.
func memoryLimit() int64 {
	if limit := limitedMemory(); limit <= mostLimit {
		return limit
	}
	return memoryWithoutLimit
}

// mostLimit is more than any machine has. Where nothing is limited, version 1 of cgroups has a
// number close to the largest.
const mostLimit = 1 << 50

func limitedMemory() int64 {
	limit := int64(math.MaxInt64)
	memberships, _ := os.ReadFile("/proc/self/cgroup") // on Linux only
	for _, file := range cgroupLimits(string(memberships)) {
		limit = min(limit, numberIn(file))
	}
	return min(limit, debug.SetMemoryLimit(-1))
}

// cgroupLimits returns the files that may hold a limit for a process with the memberships, which
// are the text of /proc/PID/cgroup: those of its cgroup for memory, of version 2 or 1, and of all
// above it. In a container, which mostly sees its own as the root, some do not exist.
func cgroupLimits(memberships string) []string {
	var files []string
	for line := range strings.Lines(memberships) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) != 3 {
			continue
		}
		root, name := "/sys/fs/cgroup", "memory.max"
		switch {
		case slices.Contains(strings.Split(fields[1], ","), "memory"):
			root, name = "/sys/fs/cgroup/memory", "memory.limit_in_bytes"
		case fields[1] != "":
			continue
		}
		for dir := path.Join("/", fields[2]); ; dir = path.Dir(dir) {
			files = append(files, path.Join(root, dir, name))
			if dir == "/" {
				break
			}
		}
	}
	return files
}

// numberIn reads a number from one of the kernel's files. No
// file and no number, such as "max", are not a limit.
func numberIn(file string) int64 {
	text, err := os.ReadFile(file)
	n, parseErr := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil || parseErr != nil || n <= 0 {
		return math.MaxInt64
	}
	return n
}

// openFileLimit is how many files this process may have open.
func openFileLimit() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur > math.MaxInt32 {
		return math.MaxInt32
	}
	return int(limit.Cur)
}

// pool bounds the connections of one kind, and the bytes that they hold. It shares both fairly:
// where there are too many, it closes one of the client that has most, so that no client can keep
// the others out, and none is refused while there is room.
type pool struct {
	limit  int
	budget int64                         // bytes
	lost   func(*connection, lossReason) // called for each connection closed for another

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
	p := &pool{limit: limit, budget: budget, lost: lost, conns: map[*connection]struct{}{},
		shares: map[clientKey]share{}}
	p.leaving = sync.NewCond(&p.mu)
	return p
}

// lossReason is why a connection was closed, as the metrics' label names it.
type lossReason string

const (
	lostToNumber lossReason = "connections" // too many are open
	lostToBytes  lossReason = "bytes"       // too much received data waits in memory
	lostToQueue  lossReason = "handshakes"  // its handshake stalled while others waited
)

// enter adds a connection of the client, and evicts another if there is no room: one of the client
// that has most, which may be this client. It returns false where it is this client, and all its
// connections are being answered.
func (p *pool) enter(c *connection, client clientKey, state connState) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	// An evicted connection takes memory until its owner has noticed.
	for p.evicted.conns >= p.limit {
		p.leaving.Wait()
	}
	c.pool, c.client, c.state, c.since, c.held, c.left, c.evicted = p, client, state, time.Now(), 0, false, false
	p.conns[c] = struct{}{}
	p.add(c, share{conns: 1})
	if len(p.conns) <= p.limit {
		return true
	}
	victim := p.first(c, p.before)
	if victim.client == client && victim.state == connActive {
		p.remove(c)
		c.left = true
		p.lost(c, lostToNumber)
		return false
	}
	p.evict(victim, lostToNumber)
	return true
}

// first is the first connection in an order, except for one; nil: for none. Of several it is any.
func (p *pool) first(except *connection, before func(a, b *connection) bool) (found *connection) {
	equal := 0
	for c := range p.conns {
		switch {
		case c == except:
		case found == nil || before(c, found):
			found, equal = c, 1
		case !before(found, c):
			if equal++; rand.IntN(equal) == 0 {
				found = c
			}
		}
	}
	return found
}

// before orders connections by how many their client has, the most first; then idle ones before
// those that send before those that are answered; then by how long they have been in that state.
//
// Those that send have no order: were it the oldest one that goes, then with more newcomers in a
// second than handshakes nobody would get to the end of one.
func (p *pool) before(a, b *connection) bool {
	if more, less := p.shares[a.client].conns, p.shares[b.client].conns; more != less {
		return more > less
	}
	if a.state != b.state {
		return a.state > b.state
	}
	return a.state != connBusy && a.since.Before(b.since)
}

// evict closes the connection below its owner, which then notices and closes it as well.
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

// leave forgets the connection, which its owner closes or moves to another pool. It returns false
// where it was evicted.
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

// hold counts bytes that the connection received. When all together hold too much, one of the
// client that holds most is evicted; it returns false if that is this one.
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
		p.evict(p.first(nil, p.heavier), lostToBytes)
	}
	// Memory that is not free yet is not a reason to close a
	// connection whose client has less than its part.
	if p.evicted.held > p.budget && !c.evicted && p.shares[c.client].held*int64(len(p.shares)) > p.budget {
		p.evict(c, lostToBytes)
	}
	return !c.evicted
}

// heavier orders connections by how many bytes their client holds, the most first; then those that
// are answered last; then by how many bytes they hold themselves.
func (p *pool) heavier(a, b *connection) bool {
	if more, less := p.shares[a.client].held, p.shares[b.client].held; more != less {
		return more > less
	}
	if (a.state == connActive) != (b.state == connActive) {
		return b.state == connActive
	}
	return a.held > b.held
}

// keep sets how many bytes the connection still holds: fewer than before, as some were processed.
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

// turn sets what the connection does now. One that has become idle holds nothing.
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

// count returns how many connections are in the state.
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
