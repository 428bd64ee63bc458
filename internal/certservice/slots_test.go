package certservice

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// hanging is a CA that never answers.
var hanging = funcAuthority(func(ctx context.Context, _ Request) (Issued, error) {
	<-ctx.Done()
	return Issued{}, ctx.Err()
})

// from returns a client with the service's trusted certificate at another address: all of 127.0.0.0/8 is this host.
func (s *service) from(t testing.TB, address string) *http.Client {
	t.Helper()
	transport := s.client.Transport.(*http.Transport).Clone()
	transport.DialContext = (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}).DialContext
	transport.MaxIdleConnsPerHost = 100
	t.Cleanup(transport.CloseIdleConnections)
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

// measure has certificates enrolled one after the other; it returns how many were served, the median and the 99th
// percentile.
func (s *service) measure(t testing.TB, client *http.Client, header http.Header, count int) (
	served int, p50, p99 time.Duration) {
	var took []time.Duration
	for range count {
		time.Sleep(2 * time.Millisecond) // in one burst they would all be scheduled alike
		start := time.Now()
		if s.ask(t.Context(), client, "/v1/certificate/RA", header) == http.StatusOK {
			served++
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	return served, took[count/2], took[count*99/100]
}

// flood has clients send the same request until the end of the test or the call of stop. Each comes back soon from
// what is refused.
func (s *service) flood(t testing.TB, clients []*http.Client, path string, header http.Header) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	for _, client := range clients {
		wait.Go(func() {
			for ctx.Err() == nil {
				if s.ask(ctx, client, path, header) != http.StatusOK {
					time.Sleep(50 * time.Millisecond)
				}
			}
		})
	}
	stop = sync.OnceFunc(func() { cancel(); wait.Wait() })
	t.Cleanup(stop)
	return stop
}

func TestHandler_hangingCAs_leaveTheOthersTheirPart(t *testing.T) {
	for _, row := range []struct {
		name    string
		hanging []string
	}{
		{"one of two", []string{"HANGS"}},
		{"two of three", []string{"HANGS", "HANGS2"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			directory := Static{"RA": goldenAuthority(t)}
			for _, name := range row.hanging {
				directory[name] = hanging
			}
			s := newService(t, nil, func(cfg *HandlerConfig) {
				cfg.Directory, cfg.MaxInFlight, cfg.Timeout = directory, 12, time.Minute
			})
			const tries = 20
			healthy := s.from(t, "127.0.0.1")
			_, p50, p99 := s.measure(t, healthy, enrollHeader(t), tries)
			t.Logf("without the attack: median %v, p99 %v", p50, p99)

			for i, name := range row.hanging {
				var clients []*http.Client
				for n := range 12 {
					clients = append(clients, s.from(t, fmt.Sprintf("127.0.%d.%d", i+1, n+1)))
				}
				defer s.flood(t, clients, "/v1/certificate/"+name, enrollHeader(t))()
			}
			eventually(t, func() bool { // they have all that they get
				full := map[any]bool{}
				for _, line := range s.lines(t, "request") {
					full[line["ca"]] = full[line["ca"]] || line["outcome"] == "overloaded"
				}
				return len(full) == len(directory) && !slices.ContainsFunc(row.hanging, func(ca string) bool { return !full[ca] })
			})
			served, p50, p99 := s.measure(t, healthy, enrollHeader(t), tries)
			t.Logf("with it: %d of %d served, median %v, p99 %v", served, tries, p50, p99)
			assert.Equal(t, tries, served)
		})
	}
}

func TestHandler_oneClient_cannotTakeAllSlots(t *testing.T) {
	entered := make(chan struct{}, 100)
	s := newService(t, funcAuthority(func(ctx context.Context, _ Request) (Issued, error) {
		entered <- struct{}{}
		return hanging(ctx, Request{})
	}), func(cfg *HandlerConfig) { cfg.MaxInFlight = 8 })
	greedy, other := s.from(t, "127.0.0.2"), s.from(t, "127.0.0.3")
	header := enrollHeader(t)
	ctx, cancel := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	defer wait.Wait()
	defer cancel()
	for range 2 { // a quarter of 8
		wait.Go(func() { s.ask(ctx, greedy, "/v1/certificate/RA", header) })
		<-entered
	}

	r := s.do(t, greedy, http.MethodGet, "/v1/certificate/RA", header, nil)

	assert.Equal(t, http.StatusServiceUnavailable, r.StatusCode)
	assert.NotEmpty(t, r.Header.Get("Retry-After"))
	assert.JSONEq(t, `{"errorMessage":"Too many requests in flight from this client, try again later"}`, r.text)
	line := s.audit(t)
	assert.Equal(t, "overloaded", line["outcome"])
	assert.Equal(t, "the client has all 2 slots that one may have", line["reason"])
	wait.Go(func() { s.ask(ctx, other, "/v1/certificate/RA", header) })
	<-entered // another one is served
}

func key(n byte) (k clientKey) {
	k.certificate[0] = n
	return k
}

// takeAll takes slots until one is refused, each as another client, and returns their number and the reason.
func takeAll(s *slots, ca string, may Share) (taken int, limit limitKind, reason string) {
	for ; taken < 10_000; taken++ {
		var client clientKey
		client.certificate[0], client.certificate[1], client.certificate[2] = byte(taken), byte(taken>>8), ca[0]
		if _, limit, reason = s.take(ca, may, client); limit != "" {
			return taken, limit, reason
		}
	}
	return taken, "", ""
}

func TestSlots_shares(t *testing.T) {
	type want struct {
		ca    string
		taken int
		limit limitKind
	}
	for _, row := range []struct {
		name  string
		total int
		may   Share
		wants []want // in this order
	}{
		{"one CA has all", 8, Share{Authorities: 1}, []want{{"a", 8, limitTotal}}},
		{"one slot", 1, Share{Authorities: 1}, []want{{"a", 1, limitTotal}}},
		{"one slot for two CAs", 1, Share{Authorities: 2}, []want{{"a", 1, limitTotal}, {"b", 0, limitTotal}}},
		{"half for one of two", 256, Share{Authorities: 2}, []want{{"a", 128, limitCA}, {"b", 128, limitTotal}}},
		// 42 are reserved for each, and 130 common.
		{"two of three hang", 256, Share{Authorities: 3},
			[]want{{"a", 128, limitCA}, {"b", 86, limitTotal}, {"c", 42, limitTotal}}},
		{"more than its half was given", 256, Share{Authorities: 3, MaxInFlight: 1000},
			[]want{{"a", 172, limitTotal}, {"b", 42, limitTotal}, {"c", 42, limitTotal}}},
		{"less was given", 256, Share{Authorities: 2, MaxInFlight: 5}, []want{{"a", 5, limitCA}, {"b", 5, limitCA}}},
		{"no bound", 0, Share{Authorities: 2}, []want{{"a", 10_000, ""}}},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := newSlots(row.total, 0)
			for _, want := range row.wants {
				taken, limit, reason := takeAll(s, want.ca, row.may)
				assert.Equal(t, want.taken, taken, want.ca)
				assert.Equal(t, want.limit, limit, reason)
			}
		})
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

func TestConfiguration_share_isWhatTheEntrySays(t *testing.T) {
	c, path, _ := newConfiguration(t, serversFile("RA"))
	assert.Equal(t, Share{}, c.Share("RA"))
	require.NoError(t, c.Reload("start"))
	assert.Equal(t, Share{Authorities: 1}, c.Share("RA"))

	writeFile(t, path, strings.Replace(serversFile("RA"), `"url"`, `"maxInFlight": 7, "url"`, 1))
	require.NoError(t, c.Reload("request"))
	assert.Equal(t, Share{MaxInFlight: 7, Authorities: 1}, c.Share("RA"))
}

// A reload may change how many CAs there are while requests are under way.
func TestSlots_neverMoreThanTheTotal(t *testing.T) {
	s := newSlots(16, 16)
	var wait sync.WaitGroup
	var most atomic.Int64
	for n := range 32 {
		wait.Go(func() {
			for i := range 500 {
				may := Share{Authorities: 1 + (i+n)%5}
				release, limit, _ := s.take(string(rune('a'+(i*n)%7)), may, key(byte(n)))
				if limit != "" {
					continue
				}
				most.Store(max(most.Load(), int64(s.count())))
				release()
			}
		})
	}
	wait.Wait()
	assert.LessOrEqual(t, most.Load(), int64(16))
	assert.Zero(t, s.taken)
}
