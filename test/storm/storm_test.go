package storm

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/certfetcher/certfetcher/client"
)

func TestX(t *testing.T) {
	for _, kind := range strings.Fields(os.Getenv("KINDS")) {
		for _, rate := range []float64{25, 1000} {
			for _, pods := range []int{1000, 10000, 100000} {
				workers := 2
				if rate > 100 {
					workers = 16
				}
				for _, reps := range []int{1, 2, 4} {
					began := time.Now()
					r := Play(Settings{Kind: Kind(kind), Pods: pods, Within: 10 * time.Second, PerSecond: rate, Workers: workers,
						Outage: 20 * time.Minute, Replicas: reps, MaxInFlight: 256, MaxQueued: 391, Unverified: 521, Handshakes: 1500,
						Retry: client.Retry{InitialInterval: time.Second, MaxInterval: 30 * time.Second, MaxElapsed: 5 * time.Minute},
						Timeout: 30 * time.Second, Seed: 1})
					t.Logf("%v rate %v pods %d reps %d: bound %.1f all %.1f ratio %.3f starved %d wasted %d tries %d restarts %d closed %d peakasked %d peakca %d most %d; took %.1f",
						kind, rate, pods, reps, r.Bound.Seconds(), r.All.Seconds(), r.Ratio(), r.Starved, r.Wasted, r.Tries, r.Restarts, r.Closed, r.PeakAsked, r.PeakCA, r.MostAtCA, time.Since(began).Seconds())
				}
			}
		}
	}
}
