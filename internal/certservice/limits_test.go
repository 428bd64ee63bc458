package certservice

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// from returns a client with the service's trusted certificate at another address: all of 127.0.0.0/8 is this host.
func (s *service) from(address string) *http.Client {
	transport := s.client.Transport.(*http.Transport).Clone()
	transport.DialContext = (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}).DialContext
	transport.MaxIdleConnsPerHost = 100
	s.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// ask sends one request and returns the status, 0 for none.
func (s *service) ask(ctx context.Context, client *http.Client, path string, header http.Header) int {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+path, nil)
	if err != nil {
		return 0
	}
	request.Header = header
	response, err := client.Do(request)
	if err != nil {
		return 0
	}
	response.Body.Close()
	return response.StatusCode
}

// measure enrols one certificate after the other; it returns how many were served, and the median.
func (s *service) measure(client *http.Client, header http.Header, count int) (served int, median time.Duration) {
	var took []time.Duration
	for range count {
		time.Sleep(2 * time.Millisecond) // in one burst they would all be scheduled alike
		start := time.Now()
		if s.ask(s.t.Context(), client, enrollPath, header) == http.StatusOK {
			served++
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	return served, took[count/2]
}

// background runs something several times until the end of the test or the call of stop.
func background(t testing.TB, times int, run func(ctx context.Context, i int)) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	for i := range times {
		wait.Go(func() { run(ctx, i) })
	}
	stop = sync.OnceFunc(func() { cancel(); wait.Wait() })
	t.Cleanup(stop)
	return stop
}

// flood has clients send the same request again and again. Each tries again soon after a refusal.
func (s *service) flood(clients []*http.Client, path string, header http.Header) (stop func()) {
	return background(s.t, len(clients), func(ctx context.Context, i int) {
		for ctx.Err() == nil {
			if s.ask(ctx, clients[i], path, header) != http.StatusOK {
				time.Sleep(50 * time.Millisecond)
			}
		}
	})
}

func TestHandler_requestsBeyondTheBounds_areRefused(t *testing.T) {
	for _, row := range []struct {
		most, cas       int
		clients         []byte // of the requests that fill the slots, and of the one that is refused
		message, reason string
		other           string // another request that is served
	}{
		{8, 1, []byte{1, 1, 1}, " from this client", "the client has all 2 slots that one may have",
			"/v1/certificate/CA0"},
		{4, 2, []byte{1, 2, 3}, " for this CA", "the CA has all 2 slots that it may have", "/v1/certificate/CA1"},
		{1, 1, []byte{1, 1}, "", "all 1 slots are taken", ""},
	} {
		entered, leave, directory := make(chan struct{}, 100), make(chan struct{}), static{}
		for i := range row.cas {
			directory[fmt.Sprint("CA", i)] = funcAuthority(func(ctx context.Context, r Request) (Issued, error) {
				entered <- struct{}{}
				<-leave
				return goldenAuthority(t).Enroll(ctx, r)
			})
		}
		s := newService(t, nil, func(cfg *HandlerConfig) { cfg.Directory, cfg.MaxInFlight = directory, row.most })
		header, statuses, last := enrollHeader(t), make(chan int, 10), len(row.clients)-1
		release := sync.OnceFunc(func() { close(leave) })
		t.Cleanup(release)
		client := func(n byte) *http.Client {
			client := s.from(fmt.Sprintf("127.0.0.%d", n+1))
			client.Timeout = 20 * time.Second // where one that is to be refused is not
			return client
		}
		hang := func(n byte, path string) {
			go func() { statuses <- s.ask(t.Context(), client(n), path, header) }()
			<-entered
		}
		for _, n := range row.clients[:last] {
			hang(n, "/v1/certificate/CA0")
		}

		r := s.do(client(row.clients[last]), http.MethodGet, "/v1/certificate/CA0", header, "")
		r.is(503, "Too many requests in flight"+row.message+", try again later")
		seconds, err := strconv.Atoi(r.Header.Get("Retry-After"))
		assert.True(t, err == nil && seconds >= 1 && seconds <= 5, "Retry-After is %d", seconds)
		line := s.audit()
		assert.Equal(t, []any{"overloaded", row.reason}, []any{line["outcome"], line["error"]})
		s.get("/ready", nil).is(200) // probes are not counted
		if row.other != "" {
			hang(9, row.other)
			last++
		}
		release()
		for range last {
			assert.Equal(t, http.StatusOK, <-statuses)
		}
		s.get("/v1/certificate/CA0", header).is(200) // the slots are free again
	}
}

func key(n byte) (k clientKey) {
	k.certificate[0] = n
	return k
}

func TestSlots_shares(t *testing.T) {
	type want struct {
		ca    string
		taken int
		limit limitKind
	}
	for name, row := range map[string]struct {
		total int
		may   Share
		wants []want // in this order
	}{
		"one CA has all":       {8, Share{Authorities: 1}, []want{{"a", 8, limitTotal}}},
		"one slot":             {1, Share{Authorities: 1}, []want{{"a", 1, limitTotal}}},
		"one slot for two CAs": {1, Share{Authorities: 2}, []want{{"a", 1, limitTotal}, {"b", 0, limitTotal}}},
		"half for one of two":  {256, Share{Authorities: 2}, []want{{"a", 128, limitCA}, {"b", 128, limitTotal}}},
		// 42 are reserved for each, and 130 common.
		"two of three hang": {256, Share{Authorities: 3},
			[]want{{"a", 128, limitCA}, {"b", 86, limitTotal}, {"c", 42, limitTotal}}},
		"more than its half was given": {256, Share{Authorities: 3, MaxInFlight: 1000},
			[]want{{"a", 172, limitTotal}, {"b", 42, limitTotal}, {"c", 42, limitTotal}}},
		"less was given": {256, Share{Authorities: 2, MaxInFlight: 5}, []want{{"a", 5, limitCA}, {"b", 5, limitCA}}},
		"no bound":       {0, Share{Authorities: 2}, []want{{"a", 10_000, ""}}},
	} {
		s := newSlots(row.total, 0)
		for _, want := range row.wants {
			taken, limit := 0, limitKind("")
			for ; taken < 10_000; taken++ { // each as another client
				client := clientKey{certificate: [32]byte{byte(taken), byte(taken >> 8), want.ca[0]}}
				if _, limit, _ = s.take(want.ca, row.may, client); limit != "" {
					break
				}
			}
			assert.Equal(t, want.taken, taken, name)
			assert.Equal(t, want.limit, limit, name)
		}
	}
}

func TestSlots_giveBack_keepsNothing(t *testing.T) {
	s := newSlots(4, 1)
	release, limit, _ := s.take("a", Share{Authorities: 1}, key(1))
	require.Empty(t, limit)
	_, limit, _ = s.take("a", Share{Authorities: 1}, key(1))
	assert.Equal(t, limitClient, limit)
	release()
	assert.Zero(t, s.taken)
	assert.Empty(t, s.ofCA)
	assert.Empty(t, s.ofClient)
}

// A reload may change how many CAs there are while requests are in progress.
func TestSlots_neverMoreThanTheTotal(t *testing.T) {
	s, most := newSlots(16, 16), atomic.Int64{}
	var wait sync.WaitGroup
	for n := range 32 {
		wait.Go(func() {
			for i := range 500 {
				may := Share{Authorities: 1 + (i+n)%5}
				if release, limit, _ := s.take(string(rune('a'+(i*n)%7)), may, key(byte(n))); limit == "" {
					most.Store(max(most.Load(), int64(s.count())))
					release()
				}
			}
		})
	}
	wait.Wait()
	assert.LessOrEqual(t, most.Load(), int64(16))
	assert.Zero(t, s.taken)
}

func TestLanes_requestsBeyondRoom_waitForThoseOfTheSameClient(t *testing.T) {
	l, ctx := lanes{of: map[clientKey]*lane{}}, t.Context()
	var leave []func()
	for range perLane {
		done := must(l.enter(ctx, key(1)))
		leave = append(leave, done)
	}
	ended, end := context.WithCancel(ctx)
	end()
	_, err := l.enter(ended, key(1))
	assert.ErrorIs(t, err, context.Canceled)
	other, err := l.enter(ctx, key(2))
	require.NoError(t, err, "another client has a lane of its own")

	entered := make(chan func())
	go func() {
		done, _ := l.enter(ctx, key(1))
		entered <- done
	}()
	leave[0]()
	leave[0]() // makes room once
	(<-entered)()
	for _, done := range append(leave[1:], other) {
		done()
	}
	assert.Empty(t, l.of, "nothing is kept of clients that are gone")
}

func TestHandler_reload_clientsThatWait_areBounded(t *testing.T) {
	for _, address := range []string{"127.0.0.2", "127.0.0.3"} { // of one client, and in total
		s := newService(t, goldenAuthority(t), nil)
		r := s.handler.reloads
		r.waiting = r.most - r.mostPerClient
		r.running.Lock() // as while one is in progress
		busy := s.from("127.0.0.2")
		background(t, r.mostPerClient, func(ctx context.Context, _ int) { s.ask(ctx, busy, "/reload", nil) })
		defer r.running.Unlock()
		eventually(t, func() bool { return waitingFor(r) == r.most })
		if address == "127.0.0.2" {
			r.mu.Lock()
			r.waiting = r.mostPerClient
			r.mu.Unlock()
		}
		refused := s.do(s.from(address), http.MethodGet, "/reload", nil, "")
		refused.is(503, "Too many requests wait for a reload, try again later")
		assert.NotEmpty(t, refused.Header.Get("Retry-After"))
		assert.Equal(t, "overloaded", s.audit()["outcome"])
	}
}

func waitingFor[T any](r *rounds[T]) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.waiting
}

// steps is a reading that the test lets begin and end.
type steps struct{ began, end chan error }

func newSteps() steps { return steps{make(chan error), make(chan error)} }

func (s steps) read() error {
	s.began <- nil
	return <-s.end
}

// ask asks in the background, and returns when the client waits for a reading.
func ask(t *testing.T, ctx context.Context, r *rounds[struct{}], client clientKey) <-chan error {
	t.Helper()
	before, result := waitingFor(r), make(chan error, 1)
	go func() {
		defer func() {
			if v := recover(); v != nil {
				result <- fmt.Errorf("panic: %v", v)
			}
		}()
		_, err := r.ask(ctx, client)
		result <- err
	}()
	eventually(t, func() bool { return waitingFor(r) == before+1 })
	return result
}

func TestRounds_resultIsOfARoundThatBeganAfterTheCall(t *testing.T) {
	s, ctx := newSteps(), context.Background()
	r := newReloads(s.read)
	r.every = time.Millisecond
	first := ask(t, ctx, r, key(1))
	<-s.began
	second, third := ask(t, ctx, r, key(2)), ask(t, ctx, r, key(3)) // while the first one is read
	leaving, cancel := context.WithCancel(ctx)
	gone := ask(t, leaving, r, key(4))
	cancel()
	require.ErrorIs(t, <-gone, context.Canceled, "and does not wait")

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
	s, ctx := newSteps(), context.Background()
	r := newReloads(func() error {
		if s.read() != nil {
			panic("test")
		}
		return nil
	})
	r.every = time.Millisecond
	r.running.Lock() // so that two wait for one reading
	first, other := ask(t, ctx, r, key(1)), ask(t, ctx, r, key(2))
	r.running.Unlock()
	<-s.began
	s.end <- errors.New("panics")
	assert.EqualError(t, <-first, "panic: test")
	require.ErrorIs(t, <-other, errRoundPanic)
	next := ask(t, ctx, r, key(3))
	<-s.began
	s.end <- nil
	assert.NoError(t, <-next)
}

// hammer has many clients ask for rounds for 15 seconds, and counts these.
func hammer[T any](t *testing.T, r *rounds[T]) (done int) {
	synctest.Test(t, func(t *testing.T) {
		r.do = func() (result T, err error) { done++; return result, nil }
		r.ended = time.Time{}
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second-time.Millisecond)
		defer cancel()
		background(t, 16, func(_ context.Context, i int) {
			for n := 0; n < 1000 && ctx.Err() == nil; n++ { // where nothing makes it wait, no time passes
				_, _ = r.ask(ctx, key(byte(i)))
			}
		})
		<-ctx.Done()
	})
	return done
}

func TestRounds_areFewHoweverManyAsk(t *testing.T) {
	h := newService(t, goldenAuthority(t), nil).handler
	assert.Equal(t, 16, hammer(t, h.reloads), "15, and the one that begins then")
	assert.Equal(t, 151, hammer(t, h.scrapes))
	h.scrapes.do = func() ([]byte, error) { return []byte("series"), nil }
	w := httptest.NewRecorder()
	h.Ops().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	assert.Equal(t, "series", w.Body.String())
}
