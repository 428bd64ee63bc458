package storm

import (
	"time"

	"github.com/certfetcher/certfetcher/client"
)

// Defaults are what the programs and the chart certservice have when nothing is set: the chart gives each of two
// replicas memory for 1,564 connections, of which a third may be in their handshake, and a quarter wait for the CA.
func Defaults() Settings {
	return Settings{
		Kind: Start, Within: 10 * time.Second, Outage: 7 * time.Minute,
		Replicas: 2, MaxInFlight: 256, MaxQueued: 1564 / 4, Unverified: 1564 / 3, Handshakes: 1500,
		Retry:   client.Retry{InitialInterval: time.Second, MaxInterval: 30 * time.Second, MaxElapsed: 5 * time.Minute},
		Timeout: 30 * time.Second, Seed: 1,
	}
}

// Scenarios are the storms of docs/storms.md with at most so many pods.
func Scenarios(mostPods int) (all []Settings) {
	for _, kind := range []Kind{Start, Expired, Due} {
		// EJBCA on two processors, and a CA that is as fast as devca.
		for _, ca := range []struct {
			perSecond float64
			workers   int
		}{{25, 2}, {1000, 16}} {
			for pods := 1000; pods <= min(mostPods, 100_000); pods *= 10 {
				s := Defaults()
				s.Kind, s.Pods, s.PerSecond, s.Workers = kind, pods, ca.perSecond, ca.workers
				all = append(all, s)
			}
		}
	}
	return all
}

// Variant is a storm with other settings than the defaults.
type Variant struct {
	Name string
	Settings
}

// Variants are those of docs/storms.md: 10,000 pods that start, at a CA that issues 25 in a second.
func Variants() []Variant {
	with := func(change func(*Settings)) Settings {
		s := Defaults()
		s.Pods, s.PerSecond, s.Workers = 10_000, 25, 2
		change(&s)
		return s
	}
	return []Variant{
		{"1 replica", with(func(s *Settings) { s.Replicas = 1 })},
		{"8 replicas", with(func(s *Settings) { s.Replicas = 8 })},
		{"300 handshakes a second for each replica", with(func(s *Settings) { s.Handshakes = 300 })},
		{"`MAX_QUEUED=0`", with(func(s *Settings) { s.MaxQueued = 0 })},
		{"`REQUEST_TIMEOUT=5s`", with(func(s *Settings) { s.Timeout = 5 * time.Second })},
		{"`RETRY_MAX_ELAPSED=1m`", with(func(s *Settings) { s.Retry.MaxElapsed = time.Minute })},
		{"`RETRY_MAX_ELAPSED=0`", with(func(s *Settings) { s.Retry.MaxElapsed = 0 })},
		{"ONAP's client: one try", with(func(s *Settings) { s.Retry.MaxElapsed = 1 })},
	}
}
