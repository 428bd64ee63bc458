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
