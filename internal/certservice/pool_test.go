package certservice

import (
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestNewCapacity_dividesWhatIsAskedFor(t *testing.T) {
	for _, n := range []int{LeastConnections, 1000} {
		c := NewCapacity(n)
		assert.Equal(t, n, c.Connections())
		assert.Positive(t, c.unverified)
		assert.Greater(t, c.verified, c.unverified)
	}
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(110 << 20)) // as in the chart
	connections := min(1564, openFileLimit()-filesBeside)
	c := NewCapacity(0)
	assert.Equal(t, []int{connections, connections / 3}, []int{c.Connections(), c.unverified})
	assert.Equal(t, []int64{110 << 16, 110 << 20 / 96}, []int64{c.verifiedBytes, c.waiting})
}

func TestCgroupLimits_areThoseOfAllGroupsAbove(t *testing.T) {
	const v2, v1 = "/sys/fs/cgroup", "/sys/fs/cgroup/memory"
	for memberships, want := range map[string][]string{
		"0::/pods/1\n":   {v2 + "/pods/1/memory.max", v2 + "/pods/memory.max", v2 + "/memory.max"},
		"0::/\n":         {v2 + "/memory.max"}, // in a container
		"0::/../other\n": {v2 + "/other/memory.max", v2 + "/memory.max"},
		"5:devices:/x\n4:cpu,memory:/a\n": {
			v1 + "/a/memory.limit_in_bytes", v1 + "/memory.limit_in_bytes",
		},
		"": nil,
	} {
		assert.Equal(t, want, cgroupLimits(memberships), memberships)
	}
}

// As when more clients come in a second than there can be handshakes: each takes ten turns, three newcomers come in
// each, and there is room for twenty.
func TestPool_moreNewcomersThanHandshakes_someGetToTheEnd(t *testing.T) {
	const room, newcomers, takes, turns = 20, 3, 10, 1000
	began, finished := map[*connection]int{}, 0
	p := newPool(room, 1<<20, func(c *connection, _ lossReason) { delete(began, c) })
	for turn := range turns {
		for n := range newcomers {
			c := pipe()
			began[c] = turn
			p.enter(c, clientKey{certificate: [32]byte{byte(turn), byte(turn >> 8), byte(n)}}, connBusy)
		}
		for c := range p.conns {
			if turn-began[c] >= takes {
				finished++
				p.leave(c)
			}
		}
		p.evicted = share{} // their owners have noticed
	}
	assert.Greater(t, finished, turns/2)
}
