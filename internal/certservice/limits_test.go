package certservice

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
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
