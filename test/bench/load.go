package main

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/certfetcher/certfetcher/keygen"
	"github.com/certfetcher/certfetcher/test/fixture"
)

const (
	loadTime   = 5 * time.Second // at each number of connections
	manyInAll  = 50_000          // enrolments between the two looks at the memory
	manyAtOnce = 32
)

// load measures certservice with devca behind it: P-256 leaves, mutual TLS, connections that are kept.
// The client that makes the load runs on the same processors.
func load(dir string) error {
	s, err := fixture.StartStack("bin", dir, "MAX_IN_FLIGHT=512", "MAX_IN_FLIGHT_PER_CLIENT=512") // there is one client
	if err != nil {
		return err
	}
	defer s.Stop()
	request, err := enrolment(s)
	if err != nil {
		return err
	}
	fmt.Printf("\ncertservice and devca, P-256\n%-12s %12s %12s %12s %12s\n", "connections",
		"enrolments/s", "median", "p99", "max")
	for _, connections := range []int{1, 32, 256} {
		r, err := enrol(s, request, connections, func(_ int, elapsed time.Duration) bool { return elapsed < loadTime })
		if err != nil {
			return fmt.Errorf("%d connections: %w", connections, err)
		}
		fmt.Printf("%-12d %12.0f %9.1f ms %9.1f ms %9.1f ms\n", connections, r.rate(),
			milliseconds(r.quantile(0.5)), milliseconds(r.quantile(0.99)), milliseconds(r.quantile(1)))
	}
	before, err := residentMemory(s)
	if err != nil {
		return err
	}
	if _, err := enrol(s, request, manyAtOnce, func(started int,
		_ time.Duration) bool {
		return started <= manyInAll
	}); err != nil {
		return err
	}
	after, err := residentMemory(s)
	if err != nil {
		return err
	}
	fmt.Printf("resident memory of certservice, devca: %s before and %s after another %d enrolments\n", before, after,
		manyInAll)
	return nil
}

// enrolment makes the one request that is sent again and again: the client's key generation is not what
// is measured.
func enrolment(s *fixture.Stack) (*http.Request, error) {
	key, err := keygen.GenerateKey("ECDSA-P256")
	if err != nil {
		return nil, err
	}
	subject, err := x509.CreateCertificateRequest(rand.Reader,
		&x509.CertificateRequest{Subject: pkix.Name{CommonName: "load.example.org"}}, key)
	if err != nil {
		return nil, err
	}
	template, err := x509.ParseCertificateRequest(subject)
	if err != nil {
		return nil, err
	}
	template.DNSNames = []string{"load.example.org"}
	csr, err := keygen.CreateCSR(template, key)
	if err != nil {
		return nil, err
	}
	keyPEM, err := keygen.PrivateKeyPEM(key)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequest(http.MethodGet, s.URL+fixture.CAName, nil)
	if err != nil {
		return nil, err
	}
	request.Header["CSR"] = []string{base64.StdEncoding.EncodeToString(keygen.CSRPEM(csr))}
	request.Header["PK"] = []string{base64.StdEncoding.EncodeToString(keyPEM)}
	return request, nil
}

// result is one measurement.
type result struct {
	elapsed   time.Duration
	latencies []time.Duration // sorted
}

func (r result) rate() float64 { return float64(len(r.latencies)) / r.elapsed.Seconds() }

func (r result) quantile(q float64) time.Duration {
	return r.latencies[int(q*float64(len(r.latencies)-1))]
}

// enrol sends the request on so many connections at once, for as long as more says so.
func enrol(s *fixture.Stack, request *http.Request, connections int,
	more func(started int, elapsed time.Duration) bool) (result, error) {
	identity, err := tls.LoadX509KeyPair(filepath.Join(s.Dir, "client.pem"), filepath.Join(s.Dir, "client.pem"))
	if err != nil {
		return result{}, err
	}
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		MaxIdleConnsPerHost: connections,
		TLSClientConfig:     &tls.Config{Certificates: []tls.Certificate{identity}, RootCAs: s.Roots()},
	}}
	defer client.CloseIdleConnections()

	var started atomic.Int64
	var wait sync.WaitGroup
	latencies := make([][]time.Duration, connections)
	failures := make([]error, connections)
	begin := time.Now()
	for i := range connections {
		wait.Go(func() {
			for more(int(started.Add(1)), time.Since(begin)) {
				start := time.Now()
				if failures[i] = once(client, request); failures[i] != nil {
					return
				}
				latencies[i] = append(latencies[i], time.Since(start))
			}
		})
	}
	wait.Wait()
	r := result{elapsed: time.Since(begin), latencies: slices.Sorted(slices.Values(slices.Concat(latencies...)))}
	return r, errors.Join(failures...)
}

func once(client *http.Client, request *http.Request) error {
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %s: %s", response.Status, body)
	}
	return err
}

// residentMemory reads how much memory the two servers hold, from /proc.
func residentMemory(s *fixture.Stack) (string, error) {
	var texts []string
	for _, p := range []*fixture.Process{s.CertService, s.DevCA} {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Process.Pid))
		if err != nil {
			return "", err
		}
		_, rest, _ := strings.Cut(string(status), "VmRSS:")
		kib, err := strconv.Atoi(strings.Fields(rest)[0])
		if err != nil {
			return "", err
		}
		texts = append(texts, fmt.Sprintf("%.1f MiB", float64(kib)/1024))
	}
	return strings.Join(texts, ", "), nil
}
