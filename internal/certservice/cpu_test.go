package certservice

import (
	"context"
	"crypto"
	"crypto/rand"
	"log/slog"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

// A client with many connections and large keys must wait for itself alone.
func TestHandler_largeKeysOfOneClient_slowDownThatClient(t *testing.T) {
	var calls atomic.Int64
	issuing := goldenAuthority(t)
	// as for a proof of possession
	s := newService(t, funcAuthority(func(ctx context.Context, r Request) (Issued, error) {
		calls.Add(1)
		if _, err := r.Key.Sign(rand.Reader, make([]byte, crypto.SHA256.Size()), crypto.SHA256); err != nil {
			return Issued{}, err
		}
		return issuing.Enroll(ctx, r)
	}), func(cfg *HandlerConfig) { cfg.MaxInFlight, cfg.MaxRSABits = 256, MostMaxRSABits })
	large := fixture.LargeRSA()
	costly := headerOf(t, newCSR(t, large), large)
	greedy, other := s.from("127.0.0.2"), s.from("127.0.0.3")
	_, one := s.measure(greedy, costly, 3)
	calls.Store(0)

	stop := s.flood(slices.Repeat([]*http.Client{greedy}, 64), enrollPath, costly)
	eventually(t, func() bool { return calls.Load() >= 64 }) // all of them compute, or wait for their turn
	served, during := s.measure(other, enrollHeader(t), 10)
	stop()

	t.Logf("median of the other client during the flood: %v; a request of the flood alone: %v", during, one)
	assert.Equal(t, 10, served)
	assert.Less(t, during, 2*one)
}

// clients is how many compute or wait, and waiting how many tickets wait.
func (c *CPU) clients() (clients, waiting int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range c.account {
		waiting += len(a.waiting)
	}
	return len(c.account), waiting
}

// enterNow enters, which must not wait.
func enterNow(t *testing.T, c *CPU, client clientKey, heavy bool) (leave func()) {
	t.Helper()
	return must(c.enter(t.Context(), client, heavy))
}

// queue waits for a turn in the background, and then sends its name and takes some time.
func queue(t *testing.T, c *CPU, client clientKey, name string, heavy bool, order chan<- string) {
	t.Helper()
	_, before := c.clients()
	go func() {
		leave, err := c.enter(context.Background(), client, heavy)
		if err == nil {
			order <- name
			time.Sleep(time.Millisecond)
			leave()
		}
	}()
	eventually(t, func() bool { _, waiting := c.clients(); return waiting == before+1 })
}

func TestCPU_clientThatUsedLeast_comesFirst(t *testing.T) {
	c := NewCPU()
	c.free = 1
	release := enterNow(t, c, key(0), false)
	order := make(chan string, 100)
	for range 20 {
		queue(t, c, key(1), "greedy", false, order)
	}
	queue(t, c, key(2), "other", false, order)

	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err := c.enter(ctx, key(3), false)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	assert.NotContains(t, c.account, key(3), "it gave up its place")
	release()
	var got []string
	for range 21 {
		got = append(got, <-order)
	}
	assert.Contains(t, got[:2], "other", "it came last and is served at once")
	eventually(t, func() bool { clients, _ := c.clients(); return clients == 0 })
	enterNow(t, c, key(4), false)()
	assert.Equal(t, 1, c.free)
}

func TestCPU_heavyOnes_leaveRoomForOthers(t *testing.T) {
	c := NewCPU()
	require.Less(t, c.heavy, c.free)
	c.heavy = 1
	leave := enterNow(t, c, key(1), true)
	order := make(chan string, 10)
	queue(t, c, key(2), "heavy", true, order)
	enterNow(t, c, key(2), false)() // past the heavy one of the same client
	assert.Empty(t, order)
	leave()
	assert.Equal(t, "heavy", <-order)
}

func TestHandler_noProcessorInTime_is503(t *testing.T) {
	s := newService(t, goldenAuthority(t), func(cfg *HandlerConfig) { cfg.Timeout = 20 * time.Millisecond })
	s.handler.cfg.CPU.free = 0
	r := s.enroll()
	r.is(503, "Too much to compute, try again later")
	assert.NotEmpty(t, r.Header.Get("Retry-After"))
	assert.Equal(t, "waiting for a processor: context deadline exceeded", s.audit()["error"])
}

// A CA may make its answers costly to verify, and so may an attacker on the path to it.
func TestCMPBuilder_costlyKeysOfAnswers_takeTurns(t *testing.T) {
	c := NewCPU()
	build := CMPBuilder(CMPOptions{CPU: c, Log: slog.New(slog.DiscardHandler)})
	authority := must(build(exampleEntry))
	var others []func() // heavy ones
	for range c.heavy {
		others = append(others, enterNow(t, c, key(1), true))
	}
	derived := make(chan error, 1)
	go func() { derived <- authority.(*cmpAuthority).cfg.Derive(func() {}) }()
	eventually(t, func() bool { clients, _ := c.clients(); return clients == 2 })
	assert.Empty(t, derived)
	for _, leave := range others {
		leave()
	}
	assert.NoError(t, <-derived)
	eventually(t, func() bool { clients, _ := c.clients(); return clients == 0 })
}
