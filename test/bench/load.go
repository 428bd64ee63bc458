package main

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/certfetcher/certfetcher/test/chaos"
	"github.com/certfetcher/certfetcher/test/fixture"
)

const (
	loadTime   = 5 * time.Second // at each number of connections
	manyInAll  = 50_000          // enrolments between the two looks at the memory
	manyAtOnce = 32
)

// load measures certservice with devca behind it: P-256 leaves, mutual TLS, connections that are kept.
// The client that makes the load runs on the same processors.
func load(dir string) {
	limits := []string{"MAX_IN_FLIGHT=512", "MAX_IN_FLIGHT_PER_CLIENT=512"} // there is one client
	s := fixture.Must(fixture.StartStack("bin", dir, limits...))
	defer s.Stop()
	fmt.Printf("\ncertservice and devca, P-256\n%-12s %12s %12s %12s %12s\n", "connections",
		"enrolments/s", "median", "p99", "max")
	for _, connections := range []int{1, 32, 256} {
		begin := time.Now()
		seen := enrol(s, connections, func(int) bool { return time.Since(begin) < loadTime })
		fmt.Printf("%-12d %12.0f %9.1f ms %9.1f ms %9.1f ms\n", connections,
			float64(len(seen.Took))/time.Since(begin).Seconds(), milliseconds(seen.Quantile(0.5)),
			milliseconds(seen.Quantile(0.99)), milliseconds(seen.Quantile(1)))
	}
	before := residentMemory(s)
	enrol(s, manyAtOnce, func(started int) bool { return started <= manyInAll })
	fmt.Printf("resident memory of certservice, devca: %s before and %s after another %d enrolments\n",
		before, residentMemory(s), manyInAll)
}

// enrol sends a request on so many connections at once, for as long as more says so.
func enrol(s *fixture.Stack, connections int, more func(started int) bool) *chaos.Latencies {
	request := chaos.Enrolment(s.URL+fixture.CAName, "ECDSA-P256")
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		MaxIdleConnsPerHost: connections, TLSClientConfig: chaos.Identity(s.Dir)}}
	defer client.CloseIdleConnections()
	var started atomic.Int64
	seen := &chaos.Latencies{}
	chaos.Together(connections, connections, func(int) {
		for more(int(started.Add(1))) {
			seen.Measure(func() error { return chaos.Ask(client, request, http.StatusOK) })
		}
	})
	if len(seen.Failures) > 0 {
		panic(seen.Failures[0])
	}
	return seen
}

// residentMemory is how much memory the two servers hold.
func residentMemory(s *fixture.Stack) string {
	certservice := chaos.Memory(s.CertService.Process.Pid, "VmRSS")
	devca := chaos.Memory(s.DevCA.Process.Pid, "VmRSS")
	return fmt.Sprintf("%.1f MiB, %.1f MiB", float64(certservice)/1024, float64(devca)/1024)
}
