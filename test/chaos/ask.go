package chaos

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/certfetcher/certfetcher/test/fixture"
)

// Enrolment makes the one request that clients send again and again: making keys is not what is measured.
func Enrolment(url, algorithm string) *http.Request {
	csr, key := Request(algorithm)
	request := fixture.Must(http.NewRequest(http.MethodGet, url, nil))
	request.Header["CSR"] = []string{base64.StdEncoding.EncodeToString(csr)}
	request.Header["PK"] = []string{base64.StdEncoding.EncodeToString(key)}
	return request
}

// Kept is a client with an identity that fixture.WriteIdentity wrote to dir, which keeps so many connections.
func Kept(dir string, connections int) *http.Client {
	return &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: connections,
		TLSClientConfig: Identity(dir)}}
}

// Ask sends a request, whose answer should have the status.
func Ask(client *http.Client, request *http.Request, status int) error {
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != status {
		err = fmt.Errorf("status %s: %s", response.Status, body)
	}
	return err
}

// Send sends a request without a body, and returns what is answered; 0 and the error where no one answers.
func Send(method, url string) (status int, body string) {
	response, err := (&http.Client{Timeout: Deadline}).Do(fixture.Must(http.NewRequest(method, url, nil)))
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(response.Body)
	return response.StatusCode, string(text)
}

// Latencies are what clients saw of their requests.
type Latencies struct {
	mu       sync.Mutex
	Took     []time.Duration
	Failures []error
}

// Measure takes the time of a request.
func (l *Latencies) Measure(request func() error) {
	began := time.Now()
	err := request()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.Took = append(l.Took, time.Since(began))
	if err != nil {
		l.Failures = append(l.Failures, err)
	}
}

// Quantile is 0 where nothing was measured.
func (l *Latencies) Quantile(q float64) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	sorted := append(slices.Sorted(slices.Values(l.Took)), 0)
	return sorted[int(q*float64(max(0, len(sorted)-2)))]
}

// Few are the first failures.
func (l *Latencies) Few() []error { return l.Failures[:min(3, len(l.Failures))] }

func (l *Latencies) String() string {
	return fmt.Sprintf("%d requests, %d failed, p50 %d ms, p99 %d ms", len(l.Took), len(l.Failures),
		l.Quantile(0.5).Milliseconds(), l.Quantile(0.99).Milliseconds())
}
