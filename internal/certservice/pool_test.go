package certservice

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// pipe is a connection from the address whose last byte is given.
func pipe(t *testing.T, last byte) *connection {
	t.Helper()
	ours, theirs := net.Pipe()
	t.Cleanup(func() {
		ours.Close()
		theirs.Close()
	})
	c := newConnection(ours)
	c.client = clientKey{address: netip.AddrFrom4([4]byte{192, 0, 2, last})}
	return c
}

// poolOfConns is a pool that connections of the clients have entered in a state.
func poolOfConns(t *testing.T, limit int, budget int64, state connState,
	clients ...byte) (p *pool, conns []*connection) {
	t.Helper()
	p = newPool(limit, budget, func(*connection, lossReason) {})
	for _, client := range clients {
		c := pipe(t, client)
		require.True(t, p.enter(c, c.client, state))
		conns = append(conns, c)
	}
	return p, conns
}

// evicted lists the connections that were.
func evicted(conns []*connection) (gone []int) {
	for i, c := range conns {
		select {
		case <-c.closed:
			gone = append(gone, i)
		default:
		}
	}
	return gone
}

func TestPool_full_closesTheOldestOfTheClientWithMost(t *testing.T) {
	p, conns := poolOfConns(t, 4, 1<<20, connBusy, 1, 2, 2, 2, 3, 4)
	assert.Equal(t, []int{1, 2}, evicted(conns))
	conns[1].Close()
	conns[2].Close()
	assert.Equal(t, share{}, p.evicted)
	assert.EqualValues(t, 4, p.count(connBusy))
}

func TestPool_full_closesAnsweredConnectionsOnlyForAClientWithLess(t *testing.T) {
	p, conns := poolOfConns(t, 2, 1<<20, connActive, 1, 1)
	same, other, third := pipe(t, 1), pipe(t, 2), pipe(t, 3)
	assert.False(t, p.enter(same, same.client, connIdle))
	assert.True(t, p.enter(other, other.client, connActive))
	assert.Equal(t, []int{0}, evicted(conns))
	assert.True(t, p.enter(third, third.client, connActive), "each has one, and this client none")
}

// A client that keeps all its connections busy must not push out those of others that are idle for a moment.
func TestPool_full_leavesTheIdleConnectionsOfOthers(t *testing.T) {
	p, conns := poolOfConns(t, 3, 1<<20, connIdle, 1, 2, 2)
	p.turn(conns[1], connActive)
	p.turn(conns[2], connBusy)
	greedy, more := pipe(t, 2), pipe(t, 2)
	assert.True(t, p.enter(greedy, greedy.client, connActive))
	assert.Equal(t, []int{2}, evicted(conns), "busy, while the other one is answered")
	assert.False(t, p.enter(more, more.client, connIdle))
	assert.Equal(t, []int{2}, evicted(conns))
}

// An evicted connection takes memory until its owner has closed it, so that no number of new ones may wait.
func TestPool_evictedConnections_areBoundedToo(t *testing.T) {
	p, conns := poolOfConns(t, 1, 1<<20, connBusy, 1, 1)
	entered, third := make(chan bool), pipe(t, 1)
	go func() { entered <- p.enter(third, third.client, connBusy) }()
	select {
	case <-entered:
		t.Fatal("one is evicted and open")
	case <-time.After(20 * time.Millisecond):
	}
	conns[0].Close()
	assert.True(t, <-entered)
	assert.Equal(t, []int{0, 1}, evicted(conns))
}

func TestPool_bytes_endTheLargestOfTheClientThatHoldsMost(t *testing.T) {
	p, conns := poolOfConns(t, 10, 1000, connBusy, 1, 1, 2)
	small, large, other := conns[0], conns[1], conns[2]
	assert.True(t, p.hold(small, 300))
	assert.True(t, p.hold(large, 301))
	assert.True(t, p.hold(other, 399), "less than the other client")
	assert.Empty(t, evicted(conns))
	assert.True(t, p.hold(other, 1))
	assert.Equal(t, []int{1}, evicted(conns))
	assert.False(t, p.hold(large, 1), "it may not go on")
	assert.EqualValues(t, 700, p.held)

	p.keep(other, 100)
	p.turn(small, connIdle)
	assert.EqualValues(t, 100, p.held)
	large.Close()
	other.Close()
	assert.Equal(t, share{}, p.evicted)
	assert.Zero(t, p.held)
}

func TestGate_aPlaceGoesToTheAddressWithFewest(t *testing.T) {
	ended, order := make(chan *connection, 10), make(chan *connection, 2)
	g := newGate(2, func(c *connection) { ended <- c })
	soon := time.Now().Add(10 * time.Second)
	first, second, third, other := pipe(t, 1), pipe(t, 1), pipe(t, 1), pipe(t, 2)
	require.True(t, g.enter(first, soon))
	require.True(t, g.enter(second, soon))
	for i, c := range []*connection{third, other} {
		go func() {
			if g.enter(c, soon) {
				order <- c
			}
		}()
		eventually(t, func() bool { g.mu.Lock(); defer g.mu.Unlock(); return len(g.waiting) == i+1 })
	}
	select {
	case <-ended:
		t.Fatal("a handshake that does not wait for its client was ended")
	case <-time.After(3 * lookAgain):
	}

	g.leave(second)
	assert.Same(t, other, <-order, "though it came later")
	first.awaiting.Store(time.Now().Add(-time.Minute).UnixNano())
	assert.Same(t, first, <-ended)
	g.leave(first)
	assert.Same(t, third, <-order)
	g.leave(third)
	g.leave(other)
	assert.Empty(t, g.places)
	assert.Empty(t, g.holders)
}

func TestGate_waiting_endsWithTheConnectionAndAtTheDeadline(t *testing.T) {
	g, c := newGate(0, func(*connection) {}), pipe(t, 1)
	assert.False(t, g.enter(c, time.Now().Add(time.Millisecond)))
	c.shut()
	assert.False(t, g.enter(c, time.Now().Add(time.Hour)))
	assert.Empty(t, g.waiting)
}

func TestNewCapacity_dividesWhatIsAskedFor(t *testing.T) {
	for _, n := range []int{LeastConnections, 1000} {
		c := NewCapacity(n)
		assert.Equal(t, n, c.Connections())
		assert.Positive(t, c.unverified)
		assert.Greater(t, c.verified, c.unverified)
	}
	assert.GreaterOrEqual(t, NewCapacity(0).Connections(), LeastConnections)
}

func TestCgroupLimits_areThoseOfAllGroupsAbove(t *testing.T) {
	const v2, v1 = "/sys/fs/cgroup", "/sys/fs/cgroup/memory"
	for memberships, want := range map[string][]string{
		"0::/kubepods/pod1\n": {v2 + "/kubepods/pod1/memory.max", v2 + "/kubepods/memory.max", v2 + "/memory.max"},
		"0::/\n":              {v2 + "/memory.max"}, // in a container
		"0::/../other\n":      {v2 + "/other/memory.max", v2 + "/memory.max"},
		"5:devices:/x\n4:cpu,memory:/a\n": {
			v1 + "/a/memory.limit_in_bytes", v1 + "/memory.limit_in_bytes",
		},
		"": nil,
	} {
		assert.Equal(t, want, cgroupLimits(memberships), memberships)
	}
}
