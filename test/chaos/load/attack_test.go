package load

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/chaos"
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

// TestAttack_byStrangers runs each attack by itself, and then all of them at once.
func TestAttack_byStrangers(t *testing.T) {
	s := start(t)
	calm := s.observe(nil, chaos.Amount(1, 2, 10))
	t.Logf("calm: clients %v; strangers %v", &calm.trusted, &calm.strangers)
	before := s.resident()

	seconds := chaos.Amount(1, 2, 20)
	list := append([]attack{together}, attacks...)[:chaos.Amount(1, 1+len(attacks), 1+len(attacks))]
	for _, one := range list {
		scale := chaos.Amount(300, 1000, 2000)
		w := s.observe(func() func() { return one.start(s, "", scale) }, seconds)
		s.requireAlive(one.name)
		s.assertServed(one.name, w)
		chaos.Record(t, one.name, one.name, scale, seconds, &w.trusted,
			calm.trusted.quantile(0.99).Milliseconds(), &w.strangers, s.peak()>>10)
	}

	pause := chaos.Amount(0, 10, 300)
	time.Sleep(time.Duration(pause) * time.Second)
	after := s.resident()
	chaos.Record(t, "~memory", pause, float64(before)/1024, float64(after)/1024)
	if chaos.Amount(false, false, true) {
		assert.LessOrEqual(t, after, before*12/10)
	}
}

// observe has well-behaved clients work for some seconds during an attack; nil for none.
func (s *service) observe(attack func() (stop func()), seconds int) *wellBehaved {
	s.t.Helper()
	if attack != nil {
		defer attack()()
		time.Sleep(500 * time.Millisecond) // the attack first
	}
	w := s.wellBehaved()
	time.Sleep(time.Duration(seconds) * time.Second)
	w.end()
	require.NotEmpty(s.t, w.trusted.latencies)
	return w
}

func (s *service) assertServed(name string, w *wellBehaved) {
	s.t.Helper()
	for kind, seen := range map[string]*observed{"clients": &w.trusted, "strangers": &w.strangers} {
		failed := float64(len(seen.failures)) / float64(len(seen.latencies))
		assert.LessOrEqual(s.t, failed, mostFailures, "%s, %s: %v, such as %v", name, kind, seen, first(seen.failures))
		assert.Less(s.t, seen.quantile(0.99), mostLatency, "%s, %s: %v", name, kind, seen)
	}
}

func first(texts []string) string { return append(texts, "")[0] }

// TestAttack_byAClient: one that has a certificate may not keep the others out either.
func TestAttack_byAClient(t *testing.T) {
	onlyInChaos(t)
	s := start(t)
	seconds := chaos.Amount(1, 2, 20)
	list := attacks[:chaos.Amount(1, len(attacks)-1, len(attacks)-1)]
	for _, one := range append(list, reloads) {
		scale := chaos.Amount(200, 1000, 2000)
		w := s.observe(func() func() { return one.start(s, s.Dir+"/client.pem", scale) }, seconds)
		s.requireAlive(one.name)
		s.assertServed(one.name, w)
		chaos.Record(t, one.name, one.name, scale, seconds, &w.trusted, s.peak()>>10)
	}
}
