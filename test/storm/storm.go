package storm

import (
	"slices"
	"time"

	"github.com/certfetcher/certfetcher/client"
	"github.com/certfetcher/certfetcher/internal/admission"
	"github.com/certfetcher/certfetcher/internal/sidecar"
)

// Kind is what makes the pods come together.
type Kind string

// The kinds of storms.
const (
	// Start: all pods start within Settings.Within.
	Start Kind = "start"
	// Expired: sidecars try in vain while the CA is down, until their certificates have expired.
	Expired Kind = "expired"
	// Due: the same, and their certificates are valid for a month more.
	Due Kind = "due"
)

// Settings are what a storm meets.
type Settings struct {
	Kind      Kind
	Pods      int
	Within    time.Duration // in which they start
	PerSecond float64       // certificates that the CA issues
	Workers   int           // requests that the CA works on at the same time
	Outage    time.Duration // of the CA, after all pods have started; not for Start

	Replicas     int     // of certservice
	MaxInFlight  int     // MAX_IN_FLIGHT
	MaxPerClient int     // MAX_IN_FLIGHT_PER_CLIENT; 0: a quarter
	MaxQueued    int     // MAX_QUEUED
	Unverified   int     // connections in their handshake
	Handshakes   float64 // that a replica does in a second, with a refusal after each

	Retry   client.Retry  // RETRY_*
	Timeout time.Duration // REQUEST_TIMEOUT
	Seed    uint64
}

// Result is what came of a storm. Times are from when the first pod wanted a certificate and could
// have one.
type Result struct {
	Settings
	Bound     time.Duration   // by when a CA that is never idle has served all, with the same pods
	All       time.Duration   // until the last pod was served
	Median    time.Duration   // until half of them were
	Starved   int             // pods that were not served by one and a half times Bound
	Wasted    int             // certificates that were issued for a pod that did not wait any longer
	Tries     int             // requests of all pods, refused ones among them
	Restarts  int             // of containers
	Closed    int             // connections that were closed for others
	PeakAsked int             // requests to all replicas in the busiest second
	PeakCA    int             // requests to the CA in its busiest second
	MostAtCA  int             // at the same time
	Done      []time.Duration // when each certificate came
}

// Ratio is the time for all, in multiples of the bound.
func (r Result) Ratio() float64 { return float64(r.All) / float64(r.Bound) }

type storm struct {
	*simulation
	settings Settings
	begin    time.Duration // when the CA can issue
	ca       *authority
	replicas []*replica
	pods     []*pod
	left     int
	wasted   int
	tries    int
	restarts int
	done     []time.Duration
}

// horizon ends a simulation that goes on and on.
const horizon = 6 * time.Hour

// Play plays a storm through.
func Play(settings Settings) Result {
	s := &storm{simulation: newSimulation(settings.Seed), settings: settings, left: settings.Pods}
	s.ca = newAuthority(s.simulation, settings.PerSecond, settings.Workers)
	for range settings.Replicas {
		s.replicas = append(s.replicas, &replica{simulation: s.simulation, ca: s.ca,
			handshake: time.Duration(float64(time.Second) / settings.Handshakes), mostOpen: settings.Unverified,
			queue: admission.New[int](admission.Config{
				MaxInFlight: settings.MaxInFlight, MaxPerClient: settings.MaxPerClient, MaxQueued: settings.MaxQueued,
				Now: s.clock, Random: s.random.Float64,
			})})
	}
	for number := range settings.Pods {
		p := &pod{storm: s, number: number}
		s.pods = append(s.pods, p)
		s.after(time.Duration(s.random.Float64()*float64(settings.Within)), p.start)
	}
	if settings.Kind != Start {
		s.begin = settings.Within + settings.Outage
		s.ca.down = true
		s.after(s.begin, func() { s.ca.down = false })
		const life = 90 * 24 * time.Hour
		for _, p := range s.pods {
			end := epoch.Add(settings.Within)
			if settings.Kind == Due {
				end = end.Add(life / 3)
			}
			p.certificate = &sidecar.Certificate{NotBefore: end.Add(-life), NotAfter: end}
		}
	}
	s.run(s.begin+horizon, func() bool { return s.left == 0 })
	s.run(s.now+time.Minute, func() bool { return false }) // what the CA still issues
	return s.result()
}

func (s *storm) result() Result {
	r := Result{Settings: s.settings, Wasted: s.wasted, Tries: s.tries, Restarts: s.restarts,
		PeakCA: slices.Max(append(s.ca.arrived, 0)), MostAtCA: s.ca.most}
	var ready []time.Duration
	for _, p := range s.pods {
		ready = append(ready, p.ready-s.begin)
	}
	slices.Sort(ready)
	each := time.Duration(float64(time.Second) / s.settings.PerSecond)
	for _, at := range ready {
		r.Bound = max(r.Bound, at) + each
	}
	for _, at := range s.done {
		r.Done = append(r.Done, at-s.begin)
	}
	slices.Sort(r.Done)
	if len(r.Done) > 0 {
		r.All, r.Median = r.Done[len(r.Done)-1], r.Done[len(r.Done)/2]
	}
	r.Starved = s.left
	for _, at := range r.Done {
		if float64(at) > 1.5*float64(r.Bound) {
			r.Starved++
		}
	}
	var asked []int
	for _, replica := range s.replicas {
		r.Closed += replica.closed
		for second, n := range replica.asked {
			for len(asked) <= second {
				asked = append(asked, 0)
			}
			asked[second] += n
		}
	}
	r.PeakAsked = slices.Max(append(asked, 0))
	return r
}
