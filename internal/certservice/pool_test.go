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

func evicted(c *connection) bool {
	select {
	case <-c.closed:
		return true
	default:
		return false
	}
}

func TestPool_full_closesTheOldestOfTheClientWithMost(t *testing.T) {
	p := newPool(4, 1<<20, func(*connection, lossReason) {})
	conns := []*connection{pipe(t, 1), pipe(t, 2), pipe(t, 2), pipe(t, 2), pipe(t, 3), pipe(t, 4)}
	for _, c := range conns {
		require.True(t, p.enter(c, c.client, connBusy))
	}

	var gone []int
	for i, c := range conns {
		if evicted(c) {
			gone = append(gone, i)
		}
	}
	assert.Equal(t, []int{1, 2}, gone)
	conns[1].Close()
	conns[2].Close()
	assert.Equal(t, share{}, p.evicted)
	assert.EqualValues(t, 4, p.count(connBusy))
}

func TestPool_full_closesWhatIsAnsweredOnlyForAClientWithLess(t *testing.T) {
	p := newPool(2, 1<<20, func(*connection, lossReason) {})
	first, second, same, other, third := pipe(t, 1), pipe(t, 1), pipe(t, 1), pipe(t, 2), pipe(t, 3)
	require.True(t, p.enter(first, first.client, connActive))
	require.True(t, p.enter(second, second.client, connActive))

	assert.False(t, p.enter(same, same.client, connIdle))
	assert.True(t, p.enter(other, other.client, connActive))
	assert.True(t, evicted(first))
	assert.True(t, p.enter(third, third.client, connActive), "each has one, and this client none")
}

// A client that keeps all its connections busy must not push out those of others that are idle for a moment.
func TestPool_full_leavesTheIdleConnectionsOfOthers(t *testing.T) {
	p := newPool(3, 1<<20, func(*connection, lossReason) {})
	idle, greedy := pipe(t, 1), []*connection{pipe(t, 2), pipe(t, 2), pipe(t, 2), pipe(t, 2)}
	require.True(t, p.enter(idle, idle.client, connIdle))
	require.True(t, p.enter(greedy[0], greedy[0].client, connActive))
	require.True(t, p.enter(greedy[1], greedy[1].client, connBusy))
	assert.True(t, p.enter(greedy[2], greedy[2].client, connActive))
	assert.True(t, evicted(greedy[1]), "busy, while the other one is answered")
	assert.False(t, p.enter(greedy[3], greedy[3].client, connIdle))
	assert.False(t, evicted(idle))
}

// What was evicted takes memory until its owner has closed it, so that no number of new connections may be waiting.
func TestPool_evictedConnections_areBoundedToo(t *testing.T) {
	p := newPool(1, 1<<20, func(*connection, lossReason) {})
	conns := []*connection{pipe(t, 1), pipe(t, 1), pipe(t, 1)}
	require.True(t, p.enter(conns[0], conns[0].client, connBusy))
	require.True(t, p.enter(conns[1], conns[1].client, connBusy))
	entered := make(chan bool)
	go func() { entered <- p.enter(conns[2], conns[2].client, connBusy) }()
	select {
	case <-entered:
		t.Fatal("one is evicted and open")
	case <-time.After(20 * time.Millisecond):
	}

	conns[0].Close()

	assert.True(t, <-entered)
	assert.True(t, evicted(conns[1]))
}

func TestPool_bytes_endTheLargestOfTheClientThatHoldsMost(t *testing.T) {
	p := newPool(10, 1000, func(*connection, lossReason) {})
	small, large, other := pipe(t, 1), pipe(t, 1), pipe(t, 2)
	for _, c := range []*connection{small, large, other} {
		require.True(t, p.enter(c, c.client, connBusy))
	}
	assert.True(t, p.hold(small, 300))
	assert.True(t, p.hold(large, 301))
	assert.True(t, p.hold(other, 399), "less than the other client")
	assert.False(t, evicted(large))
	assert.True(t, p.hold(other, 1))
	assert.True(t, evicted(large))
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

func waiting(g *gate) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.waiting)
}

func TestGate_aPlaceGoesToTheAddressWithFewest(t *testing.T) {
	ended := make(chan *connection, 10)
	g := newGate(2, func(c *connection) { ended <- c })
	soon := time.Now().Add(10 * time.Second)
	first, second, third, other := pipe(t, 1), pipe(t, 1), pipe(t, 1), pipe(t, 2)
	require.True(t, g.enter(first, soon))
	require.True(t, g.enter(second, soon))
	order := make(chan *connection, 2)
	go func() {
		if g.enter(third, soon) {
			order <- third
		}
	}()
	eventually(t, func() bool { return waiting(g) == 1 })
	go func() {
		if g.enter(other, soon) {
			order <- other
		}
	}()
	eventually(t, func() bool { return waiting(g) == 2 })
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
	assert.Empty(t, g.under)
}

func TestGate_waiting_endsWithTheConnectionAndAtTheDeadline(t *testing.T) {
	g := newGate(0, func(*connection) {})
	c := pipe(t, 1)
	assert.False(t, g.enter(c, time.Now().Add(time.Millisecond)))
	c.shut()
	assert.False(t, g.enter(c, time.Now().Add(time.Hour)))
	assert.Empty(t, g.waiting)
}

func TestNewCapacity_sharesOutWhatIsAskedFor(t *testing.T) {
	for _, n := range []int{LeastConnections, 1000} {
		c := NewCapacity(n)
		assert.Equal(t, n, c.Connections())
		assert.Positive(t, c.unverified)
		assert.Greater(t, c.verified, c.unverified)
	}
	assert.GreaterOrEqual(t, NewCapacity(0).Connections(), LeastConnections)
}

func TestCgroupLimits_areThoseOfAllGroupsAbove(t *testing.T) {
	for name, row := range map[string]struct {
		memberships string
		want        []string
	}{
		"version 2": {"0::/kubepods/pod1\n", []string{
			"/sys/fs/cgroup/kubepods/pod1/memory.max", "/sys/fs/cgroup/kubepods/memory.max", "/sys/fs/cgroup/memory.max",
		}},
		"version 2 in a container": {"0::/\n", []string{"/sys/fs/cgroup/memory.max"}},
		"version 2 below another":  {"0::/../other\n", []string{"/sys/fs/cgroup/other/memory.max", "/sys/fs/cgroup/memory.max"}},
		"version 1": {"5:devices:/x\n4:cpu,memory:/a\n", []string{
			"/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.limit_in_bytes",
		}},
		"nothing": {"", nil},
	} {
		assert.Equal(t, row.want, cgroupLimits(row.memberships), name)
	}
}
