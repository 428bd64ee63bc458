package sidecar

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/certfetcher/certfetcher/internal/enroll"
)

const (
	day  = 24 * time.Hour
	year = 365 * day
)

var birth = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// The bounds are those for every seed: latest without jitter, earliest a tenth of what is then left before.
func TestPolicy_Due_bounds(t *testing.T) {
	for name, row := range map[string]struct {
		policy           Policy
		life             time.Duration
		backdated        time.Duration // how long before it was obtained the certificate's life began
		earliest, latest time.Duration // after the certificate was obtained
	}{
		"two thirds of 90 days": {Policy{At: 2. / 3}, 90 * day, 0, 57 * day, 60 * day},
		"two thirds of 30 seconds": {Policy{At: 2. / 3}, 30 * time.Second, 0,
			19 * time.Second, 20 * time.Second},
		"two thirds of 30 years":  {Policy{At: 2. / 3}, 30 * year, 0, 19 * year, 20 * year},
		"half of an hour":         {Policy{At: 0.5}, time.Hour, 0, 27 * time.Minute, 30 * time.Minute},
		"nine tenths of 100 days": {Policy{At: 0.9}, 100 * day, 0, 89 * day, 90 * day},
		"a twentieth of 100 days": {Policy{At: 0.05}, 100 * day, 0, 60 * time.Hour, 5 * day},
		"a month before the end of a year": {Policy{At: 2. / 3, Before: 30 * day}, year, 0,
			332 * day, 335 * day},
		"a month before the end of a month": {Policy{At: 2. / 3, Before: 30 * day}, 30 * day,
			0, 19 * day, 20 * day},
		"a month before the end of a day": {Policy{At: 2. / 3, Before: 30 * day}, day, 0,
			15*time.Hour + 12*time.Minute, 16 * time.Hour},
		"just less than its life before its end": {Policy{At: 2. / 3, Before: 29 * day}, 30 * day,
			0, 19 * day, 20 * day},
		"a second before the end of a day": {Policy{At: 2. / 3, Before: time.Second}, day,
			0, day - 1100*time.Millisecond, day - time.Second},
		"dated back by an hour of 90 days": {Policy{At: 2. / 3}, 90 * day, time.Hour,
			57*day - time.Hour, 60*day - time.Hour},
		"dated back by a minute of a minute and 3": {Policy{At: 2. / 3}, 63 * time.Second,
			time.Minute, 1900 * time.Millisecond, 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			c := Certificate{NotBefore: birth.Add(-row.backdated),
				NotAfter: birth.Add(row.life - row.backdated), Obtained: birth}
			first, last := row.latest, row.earliest
			for n := range 500 {
				row.policy.Seed = fmt.Sprint(n)
				after := row.policy.Due(c).Sub(birth)
				assert.GreaterOrEqual(t, after, row.earliest-time.Microsecond)
				assert.LessOrEqual(t, after, row.latest+time.Microsecond)
				first, last = min(first, after), max(last, after)
			}
			spread := row.latest - row.earliest
			assert.Less(t, first, row.earliest+spread/20, "the jitter reaches the whole way")
			assert.Greater(t, last, row.latest-spread/20, "and begins at nothing")
		})
	}
}

// Found on the volume, a certificate is due when it would have been for the process that obtained it.
func TestPolicy_Due_isTheSameAfterARestart(t *testing.T) {
	policy := Policy{At: 2. / 3, Seed: "pod"}
	obtained := Certificate{NotBefore: birth, NotAfter: birth.Add(90 * day), Obtained: birth.Add(3 * time.Second)}
	found := obtained
	found.Obtained = time.Time{}
	assert.Equal(t, policy.Due(obtained), policy.Due(found))
	assert.Equal(t, policy.Due(obtained), policy.Due(obtained))
	assert.NotEqual(t, policy.Due(obtained), Policy{At: 2. / 3, Seed: "another"}.Due(obtained))
}

// RFC 5280, 4.1.2.5: a certificate without a planned end is valid to the last second of the year 9999.
func TestPolicy_certificateForThousandsOfYears_isDueAtItsShare(t *testing.T) {
	c := Certificate{NotBefore: time.Date(1950, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)}
	for _, obtained := range []time.Time{{}, birth} {
		c.Obtained = obtained
		for at, want := range map[float64]int{2. / 3: 7316, 0.5: 5974, 0.9999999999999999: 9999} {
			due := Policy{At: at, Seed: "pod"}.Due(c)
			assert.InDelta(t, want, due.Year(), 30, "at %v, obtained at %v", at, obtained)
		}
		assert.InDelta(t, 9999, Policy{At: 0.5, Before: 30 * day, Seed: "pod"}.Due(c).Year(), 1)
		assert.LessOrEqual(t, retryWait(1, enroll.Hint{}, c, birth), 2*time.Second)
		assert.LessOrEqual(t, retryWait(1, enroll.Hint{Permanent: true}, c, birth), 15*time.Minute)
	}
}

func TestWait_bounds(t *testing.T) {
	permanent, wasted := enroll.Hint{Permanent: true}, enroll.Hint{Wasted: true}
	for name, row := range map[string]struct {
		failures    int
		hint        enroll.Hint
		life, left  time.Duration
		least, most time.Duration
	}{
		"first": {1, enroll.Hint{}, 90 * day, 30 * day, time.Second, 2 * time.Second},
		"third": {3, enroll.Hint{}, 90 * day, 30 * day, time.Second, 8 * time.Second},
		"a hundredth": {100, enroll.Hint{}, 90 * day, 30 * day,
			time.Second, 15 * time.Minute},
		"a hundredth, an hour left": {100, enroll.Hint{}, 90 * day, time.Hour,
			time.Second, 3 * time.Minute},
		"a hundredth, a minute left": {100, enroll.Hint{}, 90 * day, time.Minute,
			time.Second, 3 * time.Second},
		"expired": {100, enroll.Hint{}, 90 * day, -day, time.Second, time.Minute},
		"first after 30 seconds of life": {1, enroll.Hint{}, 30 * time.Second,
			10 * time.Second, 300 * time.Millisecond, 500 * time.Millisecond},
		"a hundredth after 30 seconds of life": {100, enroll.Hint{}, 30 * time.Second,
			10 * time.Second, 300 * time.Millisecond, 500 * time.Millisecond},
		"expired after 30 seconds of life": {100, enroll.Hint{}, 30 * time.Second,
			-time.Hour, 300 * time.Millisecond, 1500 * time.Millisecond},
		"refused": {1, permanent, 90 * day, 30 * day,
			450 * time.Second, 15 * time.Minute},
		"refused, an hour left": {1, permanent, 90 * day, time.Hour,
			90 * time.Second, 3 * time.Minute},
		"wasted a certificate":             {1, wasted, 90 * day, 30 * day, 12 * time.Hour, day},
		"wasted a certificate, a day left": {3, wasted, 90 * day, day, 3 * time.Hour, 6 * time.Hour},
		"wasted a certificate, expired":    {3, wasted, 90 * day, -day, 450 * time.Second, 15 * time.Minute},
		"asked to wait": {1, enroll.Hint{RetryAfter: 5 * time.Minute},
			90 * day, 30 * day, 5 * time.Minute, 5*time.Minute + 30*time.Second},
		"asked to wait less than it would": {1, enroll.Hint{RetryAfter: time.Millisecond},
			90 * day, 30 * day, time.Second, 2 * time.Second},
		"asked to wait past the end": {1, enroll.Hint{RetryAfter: 10 * time.Minute},
			90 * day, 5 * time.Minute, time.Second, 2 * time.Second},
		"asked to wait after the end": {1, enroll.Hint{RetryAfter: 5 * time.Minute},
			90 * day, -day, 5 * time.Minute, 5*time.Minute + 30*time.Second},
		"asked to wait long after the end": {1, enroll.Hint{RetryAfter: day}, 90 * day, -day,
			15 * time.Minute, 15 * time.Minute},
		"asked to wait for hours": {1, enroll.Hint{RetryAfter: 10 * time.Hour},
			90 * day, 30 * day, 10 * time.Hour, 11 * time.Hour},
		"refused and asked to wait, with an hour": {1, enroll.Hint{Permanent: true, RetryAfter: 10 * time.Minute},
			90 * day, time.Hour, 10 * time.Minute, 11 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			now := birth
			c := Certificate{NotBefore: now.Add(row.left - row.life), NotAfter: now.Add(row.left)}
			shortest, longest := row.most, time.Duration(0)
			for range 1000 {
				chosen := retryWait(row.failures, row.hint, c, now)
				assert.GreaterOrEqual(t, chosen, row.least)
				assert.LessOrEqual(t, chosen, row.most)
				shortest, longest = min(shortest, chosen), max(longest, chosen)
			}
			spread := row.most - row.least
			assert.LessOrEqual(t, shortest, row.least+spread/10, "the whole range is used")
			assert.GreaterOrEqual(t, longest, row.most-spread/10)
		})
	}
}
