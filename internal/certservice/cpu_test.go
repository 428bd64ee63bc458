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

	"github.com/certfetcher/certfetcher/test/ca"
)

// proving is an authority that signs with the client's key, as a proof of possession is made. It counts the calls.
func proving(t testing.TB, calls *atomic.Int64) Authority {
	golden := goldenAuthority(t)
	return funcAuthority(func(ctx context.Context, r Request) (Issued, error) {
		calls.Add(1)
		if _, err := r.Key.Sign(rand.Reader, make([]byte, crypto.SHA256.Size()), crypto.SHA256); err != nil {
			return Issued{}, err
		}
		return golden.Enroll(ctx, r)
	})
}

// A client with many connections and large keys must wait for itself alone.
func TestHandler_largeKeysOfOneClient_slowDownThatClient(t *testing.T) {
	var calls atomic.Int64
	s := newService(t, proving(t, &calls), func(cfg *HandlerConfig) {
		cfg.MaxInFlight, cfg.MaxRSABits = 256, MostMaxRSABits
	})
	large := ca.LargeRSA()
	costly := headerOf(t, newCSR(t, large), large)
	greedy, other := s.from(t, "127.0.0.2"), s.from(t, "127.0.0.3")
	const tries = 10
	_, one, _ := s.measure(t, greedy, costly, 3)
	_, before, _ := s.measure(t, other, enrollHeader(t), tries)
	calls.Store(0)

	stop := s.flood(t, slices.Repeat([]*http.Client{greedy}, 64), "/v1/certificate/RA", costly)
	eventually(t, func() bool { return calls.Load() >= 64 }) // all of them compute, or wait for their turn
	served, during, _ := s.measure(t, other, enrollHeader(t), tries)
	stop()

	t.Logf("median of the other client: %v before, %v during the flood; a request of the flood alone: %v",
		before, during, one)
	assert.Equal(t, tries, served)
	assert.Less(t, during, 2*one)
}

// oneProcessor lets one computation in at a time, and holds it until release is called.
func oneProcessor(t *testing.T) (c *CPU, release func()) {
	t.Helper()
	c = NewCPU()
	c.free = 1
	leave, err := c.enter(t.Context(), key(0), false)
	require.NoError(t, err)
	return c, leave
}

// queue waits for a turn in the background, and then tells its name and takes some time.
func queue(t *testing.T, c *CPU, client clientKey, name string, heavy bool, order chan<- string) {
	t.Helper()
	waiting := func() (n int) {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, a := range c.account {
			n += len(a.waiting)
		}
		return n
	}
	before := waiting()
	go func() {
		leave, err := c.enter(context.WithoutCancel(t.Context()), client, heavy)
		if err == nil {
			order <- name
			time.Sleep(time.Millisecond)
			leave()
		}
	}()
	eventually(t, func() bool { return waiting() == before+1 })
}

func TestCPU_whoUsedLeast_comesFirst(t *testing.T) {
	c, release := oneProcessor(t)
	order := make(chan string, 100)
	for range 20 {
		queue(t, c, key(1), "greedy", false, order)
	}
	queue(t, c, key(2), "other", false, order)

	release()

	var got []string
	for range 21 {
		got = append(got, <-order)
	}
	assert.Contains(t, got[:2], "other", "it came last and is served at once")
	eventually(t, func() bool { c.mu.Lock(); defer c.mu.Unlock(); return len(c.account) == 0 && c.free == 1 })
}

func TestCPU_heavyOnes_leaveRoomForOthers(t *testing.T) {
	c := NewCPU()
	require.Less(t, c.heavy, c.free)
	c.heavy = 1
	leave, err := c.enter(t.Context(), key(1), true)
	require.NoError(t, err)
	order := make(chan string, 10)
	queue(t, c, key(2), "heavy", true, order)

	another, err := c.enter(t.Context(), key(2), false) // past the heavy one of the same client
	require.NoError(t, err)
	another()
	assert.Empty(t, order)

	leave()
	assert.Equal(t, "heavy", <-order)
}

func TestCPU_contextThatEnds_givesUpThePlace(t *testing.T) {
	c, release := oneProcessor(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()

	_, err := c.enter(ctx, key(1), false)

	require.ErrorIs(t, err, context.DeadlineExceeded)
	assert.NotContains(t, c.account, key(1))
	release()
	leave, err := c.enter(t.Context(), key(2), false)
	require.NoError(t, err)
	leave()
	assert.Empty(t, c.account)
	assert.Equal(t, 1, c.free)
}

func TestHandler_noProcessorInTime_is503(t *testing.T) {
	s := newService(t, goldenAuthority(t), func(cfg *HandlerConfig) { cfg.Timeout = 20 * time.Millisecond })
	s.handler.cfg.CPU.free = 0

	r := s.get(t, "/v1/certificate/RA", enrollHeader(t))

	assert.Equal(t, http.StatusServiceUnavailable, r.StatusCode)
	assert.NotEmpty(t, r.Header.Get("Retry-After"))
	assert.JSONEq(t, `{"errorMessage":"Too much to compute, try again later"}`, r.text)
	assert.Equal(t, "waiting for a processor: context deadline exceeded", s.audit(t)["reason"])
}

// A CA may make its answers costly to verify, and so may whoever is on the way to it.
func TestCMPBuilder_costlyKeysOfAnswers_takeTurns(t *testing.T) {
	c := NewCPU()
	build := CMPBuilder(CMPOptions{CPU: c, Log: slog.New(slog.DiscardHandler)})
	authority, err := build(Server{CAName: "RA", URL: "http://ca", IssuerDN: "CN=ca", IAK: "i", RV: "r"})
	require.NoError(t, err)
	derive := authority.(*cmpAuthority).cfg.Derive
	require.NotNil(t, derive)
	var others []func() // heavy ones
	for range c.heavy {
		leave, err := c.enter(t.Context(), key(1), true)
		require.NoError(t, err)
		others = append(others, leave)
	}
	derived := make(chan error, 1)
	go func() { derived <- derive(func() {}) }()
	eventually(t, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.account) == 2
	})
	assert.Empty(t, derived)

	for _, leave := range others {
		leave()
	}

	assert.NoError(t, <-derived)
	eventually(t, func() bool { c.mu.Lock(); defer c.mu.Unlock(); return len(c.account) == 0 })
	assert.Nil(t, (*CPU)(nil).deriver("RA"))
}
