package policy

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Limits counts how often clients use rules. It outlives the policies that are loaded one after
// the other, so that a reload gives no client a full bucket.
type Limits struct {
	mu      sync.Mutex
	buckets map[bucketKey]*rate.Limiter
	sweep   int // at this number of buckets, those that are full are forgotten
}

type bucketKey struct {
	rule   string
	client identity
}

const leastSweep = 1024

// NewLimits returns limits with nothing counted.
func NewLimits() *Limits { return &Limits{buckets: map[bucketKey]*rate.Limiter{}, sweep: leastSweep} }

// take takes one use of a rule for the client, or says how long until there is one.
func (l *Limits) take(r *Rule, q Question) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := bucketKey{r.Name, q.Client.identity()}
	every := rate.Limit(float64(r.rate.PerMinute) / 60)
	bucket, ok := l.buckets[key]
	switch {
	case !ok:
		l.forgetFull(q.At)
		bucket = rate.NewLimiter(every, r.rate.Burst)
		l.buckets[key] = bucket
	case bucket.Limit() != every || bucket.Burst() != r.rate.Burst: // the policy has changed
		bucket.SetLimitAt(q.At, every)
		bucket.SetBurstAt(q.At, r.rate.Burst)
	}
	reserved := bucket.ReserveN(q.At, 1)
	wait := reserved.DelayFrom(q.At)
	if wait > 0 {
		reserved.CancelAt(q.At)
	}
	return wait
}

// forgetFull keeps the memory in proportion to the clients of the last minutes.
func (l *Limits) forgetFull(now time.Time) {
	if len(l.buckets) < l.sweep {
		return
	}
	for key, bucket := range l.buckets {
		if bucket.TokensAt(now) >= float64(bucket.Burst()) {
			delete(l.buckets, key)
		}
	}
	l.sweep = max(leastSweep, 2*len(l.buckets))
}
