package certservice

import (
	"context"
	"crypto"
	"crypto/rand"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

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

func TestHandler_noProcessorInTime_is503(t *testing.T) {
	s := newService(t, goldenAuthority(t), func(cfg *HandlerConfig) { cfg.Timeout = 20 * time.Millisecond })
	s.handler.cfg.CPU.free = 0
	r := s.enroll()
	r.is(503, "Too much to compute, try again later")
	assert.NotEmpty(t, r.Header.Get("Retry-After"))
	assert.Equal(t, "waiting for a processor: context deadline exceeded", s.audit()["error"])
}
