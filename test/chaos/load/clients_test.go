package load

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/certfetcher/certfetcher/test/chaos"
	"github.com/stretchr/testify/require"
)

// from makes connections from an address on loopback, which stand for another machine.
func from(address string) *net.Dialer {
	return &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}, Timeout: 10 * time.Second}
}

// client sends requests one after the other with pauses, and measures.
type client struct {
	http  *http.Client
	fresh bool // a new connection for each request
	want  int  // status
	pause time.Duration
}

// observed is what clients saw.
type observed struct {
	mu        sync.Mutex
	latencies []time.Duration
	failures  []string
}

func (o *observed) add(latency time.Duration, failure string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.latencies = append(o.latencies, latency)
	if failure != "" {
		o.failures = append(o.failures, failure)
	}
}

func (o *observed) quantile(q float64) time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.latencies) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(o.latencies))
	return sorted[int(q*float64(len(sorted)-1))]
}

func (o *observed) String() string {
	return fmt.Sprintf("%d requests, %d failed, p50 %d ms, p99 %d ms", len(o.latencies), len(o.failures),
		o.quantile(0.5).Milliseconds(), o.quantile(0.99).Milliseconds())
}

// enrolment makes the one request that all clients send: making keys is not what is measured.
func enrolment(t *testing.T, url, algorithm string) *http.Request {
	t.Helper()
	csr, key := chaos.Request(t, algorithm)
	request, err := http.NewRequest("GET", url, nil)
	require.NoError(t, err)
	request.Header["CSR"] = []string{base64.StdEncoding.EncodeToString(csr)}
	request.Header["PK"] = []string{base64.StdEncoding.EncodeToString(key)}
	return request
}

func newClient(dialer *net.Dialer, config *tls.Config, fresh bool, want int, pause time.Duration) *client {
	transport := &http.Transport{DialContext: dialer.DialContext, TLSClientConfig: config,
		DisableKeepAlives: fresh, MaxIdleConnsPerHost: 1}
	return &client{http: &http.Client{Transport: transport, Timeout: 30 * time.Second},
		fresh: fresh, want: want, pause: pause}
}

// run sends requests with pauses until ctx ends; each tick, when there are ticks, is one.
func (c *client) run(ctx context.Context, request *http.Request, seen *observed, ticks ...<-chan time.Time) {
	defer c.http.CloseIdleConnections()
	for next := append(ticks, time.After(0))[0]; ; {
		select {
		case <-ctx.Done():
			return
		case <-next:
		}
		began := time.Now()
		failure := c.once(request)
		seen.add(time.Since(began), failure)
		if len(ticks) == 0 {
			next = time.After(c.pause)
		}
	}
}

func (c *client) once(request *http.Request) (failure string) {
	response, err := c.http.Do(request)
	if err != nil {
		return err.Error()
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err.Error()
	}
	if response.StatusCode != c.want {
		return fmt.Sprintf("status %s: %s", response.Status, body)
	}
	return ""
}

// wellBehaved are clients as they should be, some with a kept connection and some with one for each request, and some
// without a certificate.
type wellBehaved struct {
	trusted, strangers observed
	stop               context.CancelFunc
	running            sync.WaitGroup
}

func (s *service) wellBehaved() *wellBehaved {
	ctx, stop := context.WithCancel(context.Background())
	w := &wellBehaved{stop: stop}
	request := enrolment(s.t, s.URL+"RA", "ECDSA-P256")
	for i := range 8 {
		c := newClient(from(fmt.Sprintf("127.0.1.%d", 1+i)), s.clientTLS(), i%4 == 3, 200,
			100*time.Millisecond)
		w.running.Go(func() { c.run(ctx, request, &w.trusted) })
	}
	for i := range 2 {
		c := newClient(from(fmt.Sprintf("127.0.2.%d", 1+i)), &tls.Config{RootCAs: s.Roots()}, true,
			401, 250*time.Millisecond)
		w.running.Go(func() { c.run(ctx, request, &w.strangers) })
	}
	return w
}

// end waits for the clients; their observations are complete then.
func (w *wellBehaved) end() {
	w.stop()
	w.running.Wait()
}
