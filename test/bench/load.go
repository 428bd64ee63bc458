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
	_, loader := profiled()
	s := fixture.Must(profile.StartStack("bin", "bin", b.dir))
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
	var started atomic.Int64
	enrol(s, chaos.Kept(s.Dir, manyAtOnce), http.StatusOK, func() bool { return started.Add(1) <= int64(enrolments) })
	text += fmt.Sprintf("\nResident memory of certservice, devca: %s, and after another %s enrolments %s.\n", before,
		report.Thousands(enrolments), residentMemory(s))
	b.write("load", text)
}

// enrol sends a request on many connections at once, for as long as more says so. All answers have the status; it
// returns their number.
func enrol(s *fixture.Stack, client *http.Client, status int, more func() bool) int {
	request := chaos.Enrolment(s.URL+fixture.CAName, "ECDSA-P256")
	seen := &chaos.Latencies{}
	chaos.Together(manyAtOnce, manyAtOnce, func(int) {
		for more() {
			seen.Measure(func() error { return chaos.Ask(client, request, status) })
		}
	})
	if len(seen.Failures) > 0 {
		panic(seen.Failures[0])
	}
	return len(seen.Took)
}

// residentMemory is how much memory the two servers hold.
func residentMemory(s *fixture.Stack) string {
	certservice := chaos.Memory(s.CertService.Process.Pid, "VmRSS")
	devca := chaos.Memory(s.DevCA.Process.Pid, "VmRSS")
	return fmt.Sprintf("%.1f MiB, %.1f MiB", float64(certservice)/1024, float64(devca)/1024)
}
