package load

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/chaos"
)

// addHangingCA adds a CA that takes connections and never answers to cmpServers.json, which is read again by itself.
func (s *service) addHangingCA() {
	s.t.Helper()
	path := s.dir + "/cmpServers.json"
	text, err := os.ReadFile(path)
	require.NoError(s.t, err)
	var file map[string][]map[string]any
	require.NoError(s.t, json.Unmarshal(text, &file))
	hanging := maps.Clone(file["cmpv2Servers"][0])
	hanging["caName"], hanging["url"] = "HANGING", "http://"+chaos.Silent(s.t)+"/pkix/"
	file["cmpv2Servers"] = append(file["cmpv2Servers"], hanging)
	text, err = json.Marshal(file)
	require.NoError(s.t, err)
	require.NoError(s.t, os.WriteFile(path+".new", text, 0o600))
	require.NoError(s.t, os.Rename(path+".new", path))
	unknown := newClient(from("127.0.1.99"), s.clientTLS(), true, 400, 0)
	request, err := http.NewRequest("GET", s.URL+"HANGING", nil)
	require.NoError(s.t, err)
	require.Eventually(s.t, func() bool { return unknown.once(request) == "" }, 20*time.Second,
		50*time.Millisecond, "it is configured")
}

// atRate has clients, each from an address of its own, send that many requests a second in all.
func (s *service) atRate(clients int, perSecond float64, seconds int) *observed {
	ctx, stop := context.WithTimeout(context.Background(), time.Duration(seconds)*time.Second)
	defer stop()
	request := enrolment(s.t, s.URL+"RA", "ECDSA-P256")
	seen := &observed{}
	var running sync.WaitGroup
	for i := range clients {
		c := newClient(from(fmt.Sprintf("127.0.1.%d", 1+i)), s.clientTLS(), false, 200, 0)
		ticks := time.Tick(time.Duration(float64(time.Second) * float64(clients) / perSecond))
		running.Go(func() { c.run(ctx, request, seen, ticks) })
	}
	running.Wait()
	return seen
}

// A CA that hangs, with 40 clients asking for it, takes nothing from the other.
func TestShare_hangingCA_leavesTheOtherAlone(t *testing.T) {
	s := start(t)
	s.addHangingCA()
	seconds := chaos.Amount(1, 4, 10)
	const clients = 16
	peak := 400. // the least that any machine can do
	if chaos.Amount(false, true, true) {
		peak = float64(len(s.atRate(clients, 1e6, seconds).latencies)) / float64(seconds)
	}
	var calm, hung *observed
	// On a machine that others load as well, one comparison says little: the best of three counts.
	for range chaos.Amount(1, 3, 3) {
		calm = s.atRate(clients, peak/2, seconds)
		ctx, stop := context.WithCancel(context.Background())
		var stuck observed
		var asking sync.WaitGroup
		request := enrolment(t, s.URL+"HANGING", "ECDSA-P256").WithContext(ctx)
		for i := range 40 {
			for range 8 {
				c := newClient(from(fmt.Sprintf("127.0.8.%d", 1+i)), s.clientTLS(), false,
					200, 200*time.Millisecond)
				asking.Go(func() { c.run(ctx, request, &stuck) })
			}
		}
		time.Sleep(time.Second)
		hung = s.atRate(clients, peak/2, seconds)
		stop()
		asking.Wait()
		if hung.quantile(0.99) <= 2*calm.quantile(0.99) {
			break
		}
	}
	assert.Empty(t, hung.failures)
	if chaos.Amount(false, false, true) {
		assert.LessOrEqual(t, hung.quantile(0.99), 2*calm.quantile(0.99))
	}
	assert.Less(t, hung.quantile(0.99), mostLatency)
	chaos.Record(t, "", clients, peak/2, calm, hung)
}

// One client that has costly keys computed slows down itself.
func TestShare_largeKeysOfOneClient(t *testing.T) {
	onlyInChaos(t)
	s := start(t)
	seconds := chaos.Amount(1, 4, 10)
	calm := s.observe(nil, seconds)
	var request bytes.Buffer
	require.NoError(t, enrolment(t, s.URL+"RA", "RSA-4096").Write(&request))
	file := t.TempDir() + "/request"
	require.NoError(t, os.WriteFile(file, request.Bytes(), 0o600))
	w := s.observe(func() func() {
		return largeKeys.start(s, s.Dir+"/client.pem", 64, "LOAD_REQUEST="+file)
	}, seconds)
	s.requireAlive(largeKeys.name)
	s.assertServed(largeKeys.name, w)
	chaos.Record(t, "", largeKeys.name, &calm.trusted, &w.trusted)
}

// 2,000 connections, half of them idle and of clients with a certificate, half slow and of strangers.
func TestLoad_manyConnections(t *testing.T) {
	onlyInChaos(t)
	s := start(t)
	half := chaos.Amount(150, 1000, 1000)
	seconds := chaos.Amount(1, 5, 20)
	w := s.observe(func() func() {
		stopIdle := attacks[0].start(s, s.Dir+"/client.pem", half)
		stopSlow := attacks[3].start(s, "", half)
		time.Sleep(time.Duration(half/newConnections+1) * time.Second)
		return func() { stopIdle(); stopSlow() }
	}, seconds)
	s.requireAlive("many connections")
	s.assertServed("many connections", w)
	chaos.Record(t, "", 2*half, &w.trusted, &w.strangers, s.peak()>>10)
}

// The plain port for probes and metrics has no clients that it knows; what they do must not end certservice either.
func TestAttack_onThePlainPort(t *testing.T) {
	onlyInChaos(t)
	s := start(t)
	plain := *s
	plain.target = s.Operations
	probe, err := http.NewRequest("GET", "http://"+s.Operations+"/readyz", nil)
	require.NoError(t, err)
	for _, one := range []attack{attacks[1], attacks[3], attacks[4], attacks[8], attacks[9]}[:chaos.Amount(1, 5, 5)] {
		stop := one.start(&plain, "", chaos.Amount(200, 1000, 2000), "LOAD_PLAIN=yes")
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(chaos.Amount(1, 3, 10))*time.Second)
		var probes observed
		newClient(from("127.0.1.1"), nil, true, 200, 50*time.Millisecond).run(ctx, probe, &probes)
		cancel()
		stop()
		s.requireAlive(one.name)
		assert.LessOrEqual(t, len(probes.failures), len(probes.latencies)/20, "%s: %v, such as %s",
			one.name, &probes, first(probes.failures))
		chaos.Record(t, one.name, one.name, &probes, s.peak()>>10)
	}
}
