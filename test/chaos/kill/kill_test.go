//go:build linux && amd64

package kill

import (
	"errors"
	"fmt"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/chaos"
	"github.com/certfetcher/certfetcher/test/chaos/set"
)

// tally counts what was found after the kills.
type tally struct {
	points, kills, unreached, old, renewed, none, between, careful, careless, mixed int
}

// look reads what a kill left. In the symlink layout it is a whole set, at every moment.
func (s *stage) look(where string, counts *tally) {
	s.t.Helper()
	serial, err := set.Read(s.volume(), s.types)
	switch {
	case errors.Is(err, set.ErrNothing) && s.old == "":
		counts.none++
	case err == nil && serial == s.old:
		counts.old++
	case err == nil:
		counts.renewed++
	default:
		counts.between++
		assert.False(s.t, s.mustStayWhole(), "%s: %v", where, err)
	}
}

// killAt plays the scene and kills at a call.
func (s *stage) killAt(n int, when moment, counts *tally) {
	s.t.Helper()
	var at call
	s.reset()
	readers := (*readers)(nil)
	if len(s.types) == 1 && s.types[0] == "PEM" {
		readers = startReaders(s.volume(), s.layout)
	}
	r := s.play(func(c call) verdict {
		if c.number == n {
			at = c
		}
		return killing(n, when)(c)
	})
	where := fmt.Sprintf("%v, killed %v call %d, %s %s", s.scene, when, n, at.name, at.path)
	if readers != nil {
		readers.end()
		assert.Empty(s.t, readers.faults, where)
		counts.careful += readers.careful
		counts.careless += readers.careless
		counts.mixed += readers.mixed
	}
	if !r.status.Signaled() || r.status.Signal() != syscall.SIGKILL {
		counts.unreached++
		// threads do not always take turns alike, so that the number of calls differs
		require.Greater(s.t, n, len(r.calls)-1, "%s: it was not killed: %s", where, r.output)
		return
	}
	counts.kills++
	s.look(where, counts)
	s.recover(where)
}

// TestKill_atEveryCallThatChangesAFile kills certfetcher before and after each of these calls.
func TestKill_atEveryCallThatChangesAFile(t *testing.T) {
	s := startService(t)
	var sum tally
	played := 0
	for _, sc := range scenes[:chaos.Amount(1, len(scenes), len(scenes))] {
		st := newStage(t, s, sc)
		st.reset()
		counted := st.play(func(call) verdict { return verdict{} })
		require.Contains(t, []int{0, 99}, counted.status.ExitStatus(), counted.output)
		points := len(counted.calls)
		sum.points += points
		step := chaos.Amount(max(1, points/4), max(1, points/14), 1)
		for n := 1; n <= points; n += step {
			for _, when := range []moment{before, after} {
				st.killAt(n, when, &sum)
			}
			if t.Failed() {
				return
			}
		}
		t.Logf("%v: so far %+v", sc, sum)
		played++
	}
	chaos.Record(t, "", sum.kills, sum.points, played, sum.old, sum.renewed, sum.none, sum.between,
		sum.careful, sum.careless, sum.mixed)
}

// TestKill_duringTheRecovery kills the run that would complete, or undo, what another kill left.
func TestKill_duringTheRecovery(t *testing.T) {
	s := startService(t)
	kills, points := 0, 0
	for _, sc := range scenes[:chaos.Amount(1, 4, 4)] {
		st := newStage(t, s, sc)
		st.reset()
		total := len(st.play(func(call) verdict { return verdict{} }).calls)
		// The commits are towards the end.
		for n := max(1, total*chaos.Amount(9, 8, 0)/10); n <= total; n += chaos.Amount(9, 4, 3) {
			st.reset()
			st.play(killing(n, after))
			st.keep("killed")
			points++
			for m, reached := 1, true; reached; m += chaos.Amount(7, 5, 2) {
				st.bring("killed")
				st.force = false
				reached = st.play(killing(m, before)).status.Signaled()
				st.force = true
				if reached {
					kills++
				}
				st.recover(fmt.Sprintf("%v, killed after call %d, and then before call %d of the next start", sc, n, m))
			}
			if t.Failed() {
				return
			}
		}
	}
	assert.Greater(t, kills, points/2)
	chaos.Record(t, "", kills, points)
}

func killing(n int, when moment) func(call) verdict {
	return func(c call) verdict {
		if c.number == n {
			return verdict{kill: when}
		}
		return verdict{}
	}
}
