package sidecar

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/certfetcher/certfetcher/internal/enroll"
	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/golden"
)

const day = 24 * time.Hour

var birth = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// sentence is a case in words, most of which stand before a value.
type sentence string

func (s sentence) value(word string) string {
	_, rest, _ := strings.Cut(" "+string(s), " "+word+" ")
	value, _, _ := strings.Cut(rest, " ")
	return value
}

func (s sentence) span(word string) time.Duration {
	value := cmp.Or(s.value(word), "0s")
	if days, found := strings.CutSuffix(value, "d"); found {
		return time.Duration(fixture.Must(strconv.Atoi(days))) * day
	}
	return fixture.Must(time.ParseDuration(value))
}

// The bounds are those for every seed: latest without jitter, earliest a tenth of what is then left before.
func TestPolicy_Due_bounds(t *testing.T) {
	for name, text := range golden.Read(t, "due.txt") {
		row := sentence(text)
		policy := Policy{At: 2. / 3, Before: row.span("or-before-its-end")}
		if share := row.value("renewed-at"); share != "2/3" {
			policy.At = fixture.Must(strconv.ParseFloat(share, 64))
		}
		began := birth.Add(-row.span("dated-back"))
		earliest, latest := row.span("after"), row.span("until")
		t.Run(name, func(t *testing.T) {
			c := Certificate{NotBefore: began, NotAfter: began.Add(row.span("life")), Obtained: birth}
			first, last := latest, earliest
			for n := range 500 {
				policy.Seed = fmt.Sprint(n)
				after := policy.Due(c).Sub(birth)
				assert.GreaterOrEqual(t, after, earliest-time.Microsecond)
				assert.LessOrEqual(t, after, latest+time.Microsecond)
				first, last = min(first, after), max(last, after)
			}
			spread := latest - earliest
			assert.Less(t, first, earliest+spread/20, "the jitter reaches the whole way")
			assert.Greater(t, last, latest-spread/20, "and begins at nothing")
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
		assert.LessOrEqual(t, RetryWait(1, enroll.Hint{}, c, birth, rand.Float64), 2*time.Second)
		assert.LessOrEqual(t, RetryWait(1, enroll.Hint{Permanent: true}, c, birth, rand.Float64), 15*time.Minute)
	}
}

func TestWait_bounds(t *testing.T) {
	for name, text := range golden.Read(t, "waits.txt") {
		row := sentence(text)
		failures := fixture.Must(strconv.Atoi(row.value("failures")))
		hint := enroll.Hint{Permanent: row.value("error") == "permanent",
			Wasted: row.value("error") == "wasted", RetryAfter: row.span("retry-after")}
		left, least, most := row.span("left"), row.span("from"), row.span("to")
		t.Run(name, func(t *testing.T) {
			now := birth
			c := Certificate{NotBefore: now.Add(left - row.span("life")), NotAfter: now.Add(left)}
			shortest, longest := most, time.Duration(0)
			for range 1000 {
				chosen := RetryWait(failures, hint, c, now, rand.Float64)
				assert.GreaterOrEqual(t, chosen, least)
				assert.LessOrEqual(t, chosen, most)
				shortest, longest = min(shortest, chosen), max(longest, chosen)
			}
			spread := most - least
			assert.LessOrEqual(t, shortest, least+spread/10, "the whole range is used")
			assert.GreaterOrEqual(t, longest, most-spread/10)
		})
	}
}
