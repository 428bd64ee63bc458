package load

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/chaos"
	"github.com/certfetcher/certfetcher/test/fixture"
)

// Bounds of what well-behaved clients may see during an attack. Attackers, clients and devca share the machine, in make
// test with other tests as well, and in CI with what else it does.
var (
	mostLatency  = chaos.Amount(10*time.Second, 3*time.Second, time.Second)
	mostFailures = chaos.Amount(0.1, 0.02, 0.01)
)

// onlyInChaos leaves a test to make chaos: what make test runs of this package is enough for a glance.
func onlyInChaos(t *testing.T) {
	t.Helper()
	if chaos.Amount(true, false, false) {
		t.Skip("part of make chaos")
	}
}

// names are those of the attacks that need no certificate.
func names(t *testing.T) (list []string) {
	t.Helper()
	for _, one := range readAttacks(t, allAtOnce) {
		list = append(list, one.Kind)
	}
	return slices.Compact(list)
}

// TestAttack_byStrangers runs each attack by itself, and before that all of them at once.
func TestAttack_byStrangers(t *testing.T) {
	s := start(t)
	calm := s.observe(chaos.Amount(1, 2, 10))
	t.Logf("calm: clients %v; strangers %v", &calm.trusted, &calm.strangers)
	before := s.memory("VmRSS")

	seconds, connections := chaos.Amount(1, 2, 20), chaos.Amount(300, 1000, 2000)
	for _, name := range append([]string{allAtOnce}, chaos.Amount(nil, names(t), names(t))...) {
		w := s.underAttack(seconds, order{Name: name, Connections: connections})
		chaos.Record(t, name, name, connections, seconds, &w.trusted,
			calm.trusted.Quantile(0.99).Milliseconds(), &w.strangers, s.memory("VmHWM")>>10)
	}

	pause := chaos.Amount(0, 10, 300)
	time.Sleep(time.Duration(pause) * time.Second)
	after := s.memory("VmRSS")
	chaos.Record(t, "~memory", pause, float64(before)/1024, float64(after)/1024)
	if chaos.Amount(false, false, true) {
		assert.LessOrEqual(t, after, before*12/10)
	}
}

// Where tokens count, the headers of strangers are kept until it is known whether they have one.
func TestAttack_byStrangers_whereTokensCount(t *testing.T) {
	onlyInChaos(t)
	issuer, keys := fixture.NewIssuer("https://cluster.example.org"), filepath.Join(t.TempDir(), "jwks.json")
	issuer.WriteJWKS(keys)
	s := startWith(t, []string{"CLIENT_CREDENTIALS=any", "TOKEN_ISSUER=" + issuer.URL, "TOKEN_AUDIENCE=certservice",
		"TOKEN_JWKS_PATH=" + keys})
	seconds, connections := chaos.Amount(1, 2, 10), chaos.Amount(300, 1000, 2000)
	for _, name := range append([]string{allAtOnce}, names(t)...) {
		w := s.underAttack(seconds, order{Name: name, Connections: connections})
		t.Logf("%s: clients %v, strangers %v, peak %d MiB", name, &w.trusted, &w.strangers, s.memory("VmHWM")>>10)
	}
}

// TestAttack_byAClient: one that has a certificate may not keep the others out either.
func TestAttack_byAClient(t *testing.T) {
	onlyInChaos(t)
	s := start(t)
	seconds, connections := chaos.Amount(1, 2, 20), chaos.Amount(200, 1000, 2000)
	others := names(t) // but for HTTP/2, which no one has
	for _, name := range append(others[:len(others)-1], "reloads from 16 connections") {
		w := s.underAttack(seconds, order{Name: name, Connections: connections, Identity: s.Dir})
		chaos.Record(t, name, name, connections, seconds, &w.trusted, s.memory("VmHWM")>>10)
	}
}

// One client that has costly keys computed slows down itself.
func TestShare_largeKeysOfOneClient(t *testing.T) {
	onlyInChaos(t)
	s := start(t)
	const name = "requests with RSA-4096 keys from 64 connections"
	seconds := chaos.Amount(1, 4, 10)
	calm := s.observe(seconds)
	w := s.underAttack(seconds, order{Name: name, Connections: 64, Identity: s.Dir})
	chaos.Record(t, "", name, &calm.trusted, &w.trusted)
}

// 2,000 connections, half of them idle and of clients with a certificate, half slow and of strangers.
func TestLoad_manyConnections(t *testing.T) {
	onlyInChaos(t)
	s := start(t)
	const half = 1000
	idle := order{Name: "idle TLS connections", Connections: half, Identity: s.Dir}
	slow := order{Name: "headers that drip", Connections: half}
	// All of them are there after two seconds.
	w := s.underAttack(half/newConnections+chaos.Amount(1, 5, 20), idle, slow)
	chaos.Record(t, "", 2*half, &w.trusted, &w.strangers, s.memory("VmHWM")>>10)
}

// The plain port for probes and metrics has no clients that it knows; what they do must not end certservice either.
func TestAttack_onThePlainPort(t *testing.T) {
	onlyInChaos(t)
	s := start(t)
	probe := fixture.Must(http.NewRequest("GET", "http://"+s.Operations+"/readyz", nil))
	for _, name := range []string{"half-open connections", "headers that drip", "stalled headers of 60 KB",
		"pipelined requests whose answers no one reads", "bodies that never come, or never end"} {
		connections := chaos.Amount(200, 1000, 2000)
		stop := order{Name: name, Connections: connections, Target: s.Operations, Plain: true}.start(t)
		var probes chaos.Latencies
		end := chaos.Repeat(50*time.Millisecond, asking("127.0.1.1", nil, true, probe, 200, &probes))
		time.Sleep(time.Duration(chaos.Amount(1, 3, 10)) * time.Second)
		end()
		stop()
		s.requireAlive(name)
		assert.LessOrEqual(t, len(probes.Failures), len(probes.Took)/20, "%s: %v", name, probes.Few())
		chaos.Record(t, name, name, &probes, s.memory("VmHWM")>>10)
	}
}

// HTTP/2 with its floods (rapid reset, CONTINUATION, SETTINGS, PING, windows that stall) cannot be had.
func TestHTTP2_cannotBeNegotiated(t *testing.T) {
	s := start(t)
	for _, identity := range []*tls.Config{{RootCAs: s.trusted.RootCAs}, s.trusted} {
		dial := func(protocols ...string) (*tls.Conn, error) {
			config := identity.Clone()
			config.NextProtos = protocols
			return tls.Dial("tcp", s.target, config)
		}
		_, err := dial("h2")
		assert.ErrorContains(t, err, "no application protocol")
		conn := fixture.Must(dial("h2", "http/1.1"))
		assert.Equal(t, "http/1.1", conn.ConnectionState().NegotiatedProtocol)
		conn.Close()
		// Without being asked whether it is spoken.
		conn, err = dial()
		require.NoError(t, err)
		_, err = io.WriteString(conn, http2Preface)
		require.NoError(t, err)
		line, _ := bufio.NewReader(conn).ReadString('\n')
		assert.Regexp(t, `^(HTTP/1.1 [45]\d\d .*)?$`, strings.TrimSpace(line))
		conn.Close()
	}
	chaos.Record(t, "")
}

// atRate has clients, each from an address of its own, send that many requests a second in all.
func (s *service) atRate(clients int, perSecond float64, seconds int) *chaos.Latencies {
	seen := &chaos.Latencies{}
	pace := time.Duration(float64(time.Second) * float64(clients) / perSecond)
	chaos.Together(clients, clients, func(i int) {
		client, ticks := newClient(fmt.Sprintf("127.0.1.%d", 1+i), s.trusted, false), time.Tick(pace)
		defer client.CloseIdleConnections()
		for begin := time.Now(); time.Since(begin).Seconds() < float64(seconds); <-ticks {
			seen.Measure(func() error { return chaos.Ask(client, s.enrolment, 200) })
		}
	})
	return seen
}

// A CA that hangs, with 40 clients asking for it, takes nothing from the other.
func TestShare_hangingCA_leavesTheOtherAlone(t *testing.T) {
	s := start(t, "HANGING")
	seconds := chaos.Amount(1, 4, 10)
	const clients = 16
	peak := 400. // the least that any machine can do
	if chaos.Amount(false, true, true) {
		peak = float64(len(s.atRate(clients, 1e6, seconds).Took)) / float64(seconds)
	}
	var calm, hung *chaos.Latencies
	// On a machine that others load as well, one comparison says little: the best of three counts.
	for range chaos.Amount(1, 3, 3) {
		calm = s.atRate(clients, peak/2, seconds)
		ctx, stop := context.WithCancel(context.Background())
		request := chaos.Enrolment(s.URL+"HANGING", "ECDSA-P256").WithContext(ctx)
		var stuck chaos.Latencies
		var ends []func()
		for i := range 320 {
			address := fmt.Sprintf("127.0.8.%d", 1+i/8)
			one := asking(address, s.trusted, false, request, 200, &stuck)
			ends = append(ends, chaos.Repeat(200*time.Millisecond, one))
			time.Sleep(4 * time.Millisecond) // it is not their handshakes that this is about
		}
		time.Sleep(time.Second)
		hung = s.atRate(clients, peak/2, seconds)
		stop()
		for _, end := range ends {
			end()
		}
		if hung.Quantile(0.99) <= 2*calm.Quantile(0.99) {
			break
		}
	}
	assert.Empty(t, hung.Failures)
	if chaos.Amount(false, false, true) {
		assert.LessOrEqual(t, hung.Quantile(0.99), 2*calm.Quantile(0.99))
	}
	assert.Less(t, hung.Quantile(0.99), mostLatency)
	chaos.Record(t, "", clients, peak/2, calm, hung)
}
