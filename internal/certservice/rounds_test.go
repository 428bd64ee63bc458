package certservice

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// counting is a Directory that counts how often it is read.
type counting struct {
	Static
	readings atomic.Int64
}

func (c *counting) Reload(string) error {
	c.readings.Add(1)
	return nil
}

func TestHandler_reload_isReadOnceASecondHoweverManyAsk(t *testing.T) {
	directory := &counting{Static: Static{"RA": goldenAuthority(t)}}
	s := newService(t, nil, func(cfg *HandlerConfig) { cfg.Directory = directory })
	var clients []*http.Client
	for range 16 {
		clients = append(clients, s.from(t, "127.0.0.2"))
	}
	start := time.Now()
	stop := s.flood(t, clients, "/reload", nil)

	time.Sleep(1500 * time.Millisecond)
	stop()

	most := 1 + int64(time.Since(start)/time.Second)
	t.Logf("%d readings in %v", directory.readings.Load(), time.Since(start))
	assert.LessOrEqual(t, directory.readings.Load(), most)
	assert.Positive(t, directory.readings.Load())
	r := s.do(t, s.from(t, "127.0.0.3"), http.MethodGet, "/reload", nil, nil)
	assert.Equal(t, http.StatusOK, r.StatusCode, "another client is served")
	assert.JSONEq(t, `{"status":"RELOADED"}`, r.text)
}

func TestHandler_reload_clientsThatWait_areBounded(t *testing.T) {
	for _, row := range []struct {
		name, address string
	}{
		{"of one client", "127.0.0.2"},
		{"in all", "127.0.0.3"},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := newService(t, goldenAuthority(t), nil)
			inAll, perClient := s.handler.reloads.most, s.handler.reloads.mostPerClient
			s.handler.reloads.waiting = inAll - perClient
			s.handler.reloads.running.Lock() // as while one is under way
			ctx, cancel := context.WithCancel(t.Context())
			var wait sync.WaitGroup
			defer wait.Wait()
			defer cancel()
			defer s.handler.reloads.running.Unlock()
			busy := s.from(t, "127.0.0.2")
			for range perClient {
				wait.Go(func() { s.ask(ctx, busy, "/reload", nil) })
			}
			eventually(t, func() bool {
				s.handler.reloads.mu.Lock()
				defer s.handler.reloads.mu.Unlock()
				return s.handler.reloads.waiting == inAll
			})
			if row.name == "of one client" {
				s.handler.reloads.mu.Lock()
				s.handler.reloads.waiting = perClient
				s.handler.reloads.mu.Unlock()
			}

			r := s.do(t, s.from(t, row.address), http.MethodGet, "/reload", nil, nil)

			assert.Equal(t, http.StatusServiceUnavailable, r.StatusCode)
			assert.NotEmpty(t, r.Header.Get("Retry-After"))
			assert.JSONEq(t, `{"errorMessage":"Too many requests wait for a reload, try again later"}`, r.text)
			assert.Equal(t, "overloaded", s.audit(t)["outcome"])
		})
	}
}

// steps is a reading that the test lets begin and end.
type steps struct{ began, end chan error }

func newSteps() steps { return steps{make(chan error), make(chan error)} }

func (s steps) read() error {
	s.began <- nil
	return <-s.end
}

// ask asks in the background, and returns when the client waits for a reading.
func ask(t *testing.T, r *rounds[struct{}], client clientKey) <-chan error {
	t.Helper()
	waiting := func() int {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.waiting
	}
	before, result := waiting(), make(chan error, 1)
	go func() {
		_, err := r.ask(context.WithoutCancel(t.Context()), client)
		result <- err
	}()
	eventually(t, func() bool { return waiting() == before+1 })
	return result
}

func TestRounds_resultIsOfARoundThatBeganAfterTheCall(t *testing.T) {
	s := newSteps()
	r := newReloads(s.read)
	r.every = time.Millisecond
	first := ask(t, r, key(1))
	<-s.began
	second, third := ask(t, r, key(2)), ask(t, r, key(3)) // while the first one is read

	old, fresh := errors.New("of the first"), errors.New("of the second")
	s.end <- old
	require.ErrorIs(t, <-first, old)
	<-s.began
	s.end <- fresh

	require.ErrorIs(t, <-second, fresh)
	require.ErrorIs(t, <-third, fresh)
	assert.Zero(t, r.waiting)
	assert.Empty(t, r.ofClient)
}

// The others must not wait for ever, and the next reading must take place.
func TestRounds_panic_endsThatRoundAlone(t *testing.T) {
	s := newSteps()
	r := newReloads(func() error {
		if s.read() != nil {
			panic("test")
		}
		return nil
	})
	r.every = time.Millisecond
	panicked := make(chan any, 1)
	go func() {
		defer func() { panicked <- recover() }()
		_, _ = r.ask(context.WithoutCancel(t.Context()), key(1))
	}()
	eventually(t, func() bool { r.mu.Lock(); defer r.mu.Unlock(); return r.next != nil || r.waiting > 0 })
	<-s.began
	s.end <- nil
	assert.Nil(t, <-panicked)

	r.running.Lock() // so that two wait for one reading
	go func() {
		defer func() { panicked <- recover() }()
		_, _ = r.ask(context.WithoutCancel(t.Context()), key(1))
	}()
	eventually(t, func() bool { r.mu.Lock(); defer r.mu.Unlock(); return r.next != nil })
	other := ask(t, r, key(2))
	r.running.Unlock()
	<-s.began
	s.end <- errors.New("panics")

	assert.NotNil(t, <-panicked)
	require.ErrorIs(t, <-other, errRoundPanic)
	next := ask(t, r, key(3))
	<-s.began
	s.end <- nil
	assert.NoError(t, <-next)
}

func TestRounds_clientThatGoes_isNotWaitedFor(t *testing.T) {
	s := newSteps()
	r := newReloads(s.read)
	first := ask(t, r, key(1))
	<-s.began
	ask(t, r, key(2)) // runs the next one
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	go func() {
		_, err := r.ask(ctx, key(3))
		gone <- err
	}()
	eventually(t, func() bool { r.mu.Lock(); defer r.mu.Unlock(); return r.waiting == 3 })

	cancel()

	require.ErrorIs(t, <-gone, context.Canceled)
	s.end <- nil
	require.NoError(t, <-first)
	<-s.began
	s.end <- nil
}

func TestOps_metrics_areWrittenTenTimesASecondHoweverManyAsk(t *testing.T) {
	s := newService(t, goldenAuthority(t), nil)
	var written atomic.Int64
	s.handler.scrapes.do = func() ([]byte, error) {
		written.Add(1)
		return []byte("series"), nil
	}
	plain := httptest.NewServer(s.handler.Ops())
	defer plain.Close()
	start := time.Now()
	var wait sync.WaitGroup
	for range 16 {
		wait.Go(func() {
			for time.Since(start) < 300*time.Millisecond {
				response, err := http.Get(plain.URL + "/metrics")
				if assert.NoError(t, err) {
					response.Body.Close()
					assert.Equal(t, http.StatusOK, response.StatusCode)
				}
			}
		})
	}
	wait.Wait()

	t.Logf("%d in %v", written.Load(), time.Since(start))
	assert.LessOrEqual(t, written.Load(), 1+int64(time.Since(start)/(100*time.Millisecond)))
}
