//go:build linux && amd64

package kill

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/chaos"
	"github.com/certfetcher/certfetcher/test/chaos/set"
	"github.com/certfetcher/certfetcher/test/service"
)

// tally counts what was found after the kills, and by the readers meanwhile.
type tally struct {
	points, kills, played int
	left                  map[string]int
	careful, careless     reads
}

// reads are those of a reader that found something.
type reads struct {
	n      int
	faults []error
}

func (r *reads) add(err error) {
	if errors.Is(err, set.ErrNothing) || errors.Is(err, fs.ErrNotExist) {
		return
	}
	r.n++
	if err != nil {
		r.faults = append(r.faults, err)
	}
}

// look tells what a kill or an error left. In the symlink layout it is a whole set, at every moment.
func (s *stage) look(where string) string {
	s.t.Helper()
	serial, err := set.Read(s.Path, s.Types)
	switch {
	case errors.Is(err, set.ErrNothing) && s.old == "":
		return "none"
	case err == nil && serial == s.old:
		return "old"
	case err == nil:
		return "new"
	}
	require.False(s.t, s.whole, "%s: %v", where, err)
	if errors.Is(err, set.ErrNothing) {
		return "gone"
	}
	return "between"
}

// killAt plays the scene and kills at a call.
func (s *stage) killAt(n int, when string, sum *tally) {
	s.t.Helper()
	r := s.play("before", n, fate{kill: when}, sum)
	where := fmt.Sprintf("%v, killed %s call %d, %v", s.scene, when, n, r.met)
	assert.Empty(s.t, sum.careful.faults, where)
	if r.status.Signal() != syscall.SIGKILL {
		// threads do not always take turns alike, so that the number of calls differs
		require.Greater(s.t, n, r.calls-1, "%s: it was not killed: %s", where, r.output)
		return
	}
	sum.kills++
	sum.left[s.look(where)]++
	s.recover(where)
}

// TestKill_atEveryCallThatChangesAFile kills certfetcher before and after each of these calls.
func TestKill_atEveryCallThatChangesAFile(t *testing.T) {
	s := service.Run(t, service.Options{})
	sum := tally{left: map[string]int{}}
	for _, scene := range scenes[:chaos.Amount(1, len(scenes), len(scenes))] {
		st := newStage(t, s, scene)
		for n := 1; n <= st.points; n += max(1, chaos.Amount(st.points/4, st.points/14, 1)) {
			st.killAt(n, "before", &sum)
			st.killAt(n, "after", &sum)
			if t.Failed() {
				return
			}
		}
		sum.points += st.points
		sum.played++
		t.Logf("%s: so far %+v", scene, sum)
	}
	chaos.Record(t, "", sum.kills, sum.points, sum.played, sum.left["old"], sum.left["new"], sum.left["none"],
		sum.left["between"]+sum.left["gone"], sum.careful.n, sum.careless.n, len(sum.careless.faults))
}

// TestKill_duringTheRecovery kills the run that would complete, or undo, what another kill left.
func TestKill_duringTheRecovery(t *testing.T) {
	s := service.Run(t, service.Options{})
	kills, points := 0, 0
	for _, scene := range scenes[:chaos.Amount(1, 4, 4)] {
		st := newStage(t, s, scene)
		// The commits are towards the end.
		for n := max(1, st.points*chaos.Amount(9, 8, 0)/10); n <= st.points; n += chaos.Amount(9, 4, 3) {
			st.play("before", n, fate{kill: "after"})
			st.keep("killed")
			points++
			for m, reached := 1, true; reached; m += chaos.Amount(7, 5, 2) {
				if reached = st.play("killed", m, fate{kill: "before"}).status.Signaled(); reached {
					kills++
				}
				st.recover(fmt.Sprintf("%v, killed after call %d, and before call %d of the next start", scene, n, m))
			}
			if t.Failed() {
				return
			}
		}
	}
	assert.Greater(t, kills, points/2)
	chaos.Record(t, "", kills, points)
}

// exitPublish is the exit code of a run that could not write to its volume.
const exitPublish = 10

// TestErrors_ofEveryCallThatChangesAFile makes each of these calls fail once, as a broken or full disk does. The run
// ends with a whole set, or with the exit code for that and the set before.
func TestErrors_ofEveryCallThatChangesAFile(t *testing.T) {
	s := service.Run(t, service.Options{})
	injected, codes := 0, map[int]int{}
	kinds := []syscall.Errno{syscall.EIO, syscall.ENOSPC, syscall.EROFS, syscall.EDQUOT,
		syscall.EINTR, syscall.EACCES}
	for _, scene := range scenes[:chaos.Amount(1, 4, len(scenes))] {
		if strings.HasPrefix(scene, "sidecar") {
			continue
		}
		st := newStage(t, s, scene)
		for n := 1; n <= st.points; n += max(1, chaos.Amount(st.points/3, st.points/8, 1)) {
			for _, errno := range kinds[:chaos.Amount(1, 2, len(kinds))] {
				r := st.play("before", n, fate{errno: errno})
				if r.met.name == "" {
					continue
				}
				injected++
				where := fmt.Sprintf("%s, call %d, %v fails with %v: %s", scene, n, r.met, errno, r.output)
				require.True(t, r.status.Exited(), where)
				code := r.status.ExitStatus()
				codes[code]++
				require.Contains(t, []int{0, exitPublish}, code, where)
				left := st.look(where)
				require.NotEqual(t, "gone", left, where)
				require.True(t, code != 0 || left == "new", "%s: %s", left, where)
				st.recover(where)
			}
		}
	}
	assert.NotZero(t, codes[exitPublish], "no error was noticed: %v", codes)
	chaos.Record(t, "", injected, codes[0], codes[exitPublish], exitPublish)
}
