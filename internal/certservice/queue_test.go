package certservice

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// busyAuthority answers nothing until it is released.
type busyAuthority struct {
	asked    atomic.Int32
	released chan struct{}
}

func (a *busyAuthority) Enroll(ctx context.Context, _ Request) (Issued, error) {
	a.asked.Add(1)
	select {
	case <-a.released:
		return Issued{}, &RefusedError{Text: "released"}
	case <-ctx.Done():
		return Issued{}, ctx.Err()
	}
}

func (a *busyAuthority) Update(ctx context.Context, r Request) (Issued, error) {
	return a.Enroll(ctx, r)
}

// newBusyService has one slot, which is taken, and places to wait.
func newBusyService(t *testing.T) (s *service, ca *busyAuthority, first chan response) {
	ca = &busyAuthority{released: make(chan struct{})}
	s = newService(t, ca, func(cfg *HandlerConfig) {
		cfg.MaxInFlight, cfg.MaxQueued, cfg.Timeout = 1, 8, time.Minute
	})
	first = make(chan response, 1)
	header := enrollHeader(t)
	go func() { first <- s.get(enrollPath, header) }()
	eventually(t, func() bool { return ca.asked.Load() == 1 })
	return s, ca, first
}

func TestQueue_clientThatHasGone_isNotSentToTheCA(t *testing.T) {
	s, ca, first := newBusyService(t)
	ctx, hangUp := context.WithCancel(t.Context())
	gone := must(http.NewRequestWithContext(ctx, http.MethodGet, s.url+enrollPath, nil))
	gone.Header = enrollHeader(t)
	ended := make(chan error, 1)
	go func() {
		_, err := s.client.Do(gone)
		ended <- err
	}()
	eventually(t, func() bool { return s.handler.admission.WaitingFor("RA") == 1 })
	hangUp()
	assert.ErrorIs(t, <-ended, context.Canceled)
	eventually(t, func() bool { return s.handler.admission.WaitingFor("RA") == 0 })
	close(ca.released)
	(<-first).is(http.StatusInternalServerError, "CMPv2 server returned following error: released")
	s.enroll().is(http.StatusInternalServerError, "CMPv2 server returned following error: released")
	assert.EqualValues(t, 2, ca.asked.Load())
	var reasons []any
	for _, line := range s.lines("request") {
		if line["outcome"] == string(outcomeOverloaded) {
			reasons = append(reasons, line["error"])
		}
	}
	assert.Equal(t, []any{"the client went away while it waited for the CA"}, reasons)
}

// As long as a CA that hangs answers nobody, those who wait are told before they go.
func TestQueue_CAHangs_clientsAreToldInTheTimeThatTheyWait(t *testing.T) {
	s, ca, first := newBusyService(t)
	header := enrollHeader(t)
	header.Set("Prefer", "wait=1")
	begin := time.Now()
	answer := s.get(enrollPath, header)
	answer.is(http.StatusServiceUnavailable, "The CA has more to do than it can in time, try again later")
	assert.Less(t, time.Since(begin), time.Second)
	assert.Regexp(t, `^[1-5]$`, answer.Header.Get("Retry-After"))
	assert.EqualValues(t, 1, ca.asked.Load())
	close(ca.released)
	<-first
}
