package main

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/certfetcher/certfetcher/test/bench/profile"
	"github.com/certfetcher/certfetcher/test/bench/report"
	"github.com/certfetcher/certfetcher/test/chaos"
	"github.com/certfetcher/certfetcher/test/fixture"
)

const manyAtOnce = 32 // connections

// load measures certservice with devca behind it, over mutual TLS on connections that are kept. The process that makes
// the load runs on the same processors.
func (b *bench) load() {
	_, loader := b.profiled()
	limits := []string{"MAX_IN_FLIGHT=512", "MAX_IN_FLIGHT_PER_CLIENT=512"} // there is one client
	s := fixture.Must(fixture.StartStack("bin", b.dir, limits...))
	b.atEnd(s.Stop)
	var rows [][]string
	for _, o := range []profile.Options{
		{Key: "ECDSA-P256", Connections: 1}, {Key: "ECDSA-P256", Connections: manyAtOnce},
		{Key: "ECDSA-P256", Connections: 256}, {Key: "RSA-2048", Connections: manyAtOnce},
		{Key: "Ed25519", Connections: manyAtOnce},
	} {
		o.For = either(b, time.Second, 5*time.Second)
		seen := fixture.Must(profile.Measured(loader, s, o))
		rows = append(rows, []string{o.Key, fmt.Sprint(o.Connections), report.Thousands(int(seen.Rate())),
			inMilliseconds(seen.P50), inMilliseconds(seen.P99), inMilliseconds(seen.Max),
			fmt.Sprintf("%d µs", seen.CPUEach().Microseconds())})
		if seen.Enrolments == 0 {
			b.fault("certservice: no enrolment of %s at %d connections", o.Key, o.Connections)
		}
	}
	text := report.Table([]string{"key", "connections", "enrolments a second", "median", "p99", "most",
		"processor of certservice, each"}, rows)
	enrolments := either(b, 1000, 50_000)
	before := residentMemory(s)
	enrol(s, "ECDSA-P256", manyAtOnce, func(started int) bool { return started <= enrolments })
	text += fmt.Sprintf("\nResident memory of certservice, devca: %s, and after another %s enrolments %s.\n", before,
		report.Thousands(enrolments), residentMemory(s))
	b.write("load", text)
}

// enrol sends a request on so many connections at once, for as long as more says so.
func enrol(s *fixture.Stack, key string, connections int, more func(started int) bool) *chaos.Latencies {
	request := chaos.Enrolment(s.URL+fixture.CAName, key)
	client := keptConnections(s, connections)
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

// keptConnections is a client of certservice.
func keptConnections(s *fixture.Stack, connections int) *http.Client {
	return &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: connections,
		TLSClientConfig: chaos.Identity(s.Dir)}}
}

// residentMemory is how much memory the two servers hold.
func residentMemory(s *fixture.Stack) string {
	certservice := chaos.Memory(s.CertService.Process.Pid, "VmRSS")
	devca := chaos.Memory(s.DevCA.Process.Pid, "VmRSS")
	return fmt.Sprintf("%.1f MiB, %.1f MiB", float64(certservice)/1024, float64(devca)/1024)
}
