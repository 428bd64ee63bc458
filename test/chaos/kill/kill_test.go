//go:build linux && amd64

package kill

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/chaos"
	"github.com/certfetcher/certfetcher/test/service"
)

// scene is a run of certfetcher over what is on a volume.
type scene struct {
	layout, layoutBefore string
	types, typesBefore   []string // none before: the volume is empty
	sidecar              bool     // it is killed while it renews
}

var onlyPEM, onlyP12, all = []string{"PEM"}, []string{"P12"}, []string{"PEM", "P12", "JKS"}

// scenes come in the order of their worth: the first is enough for a glance.
var scenes = []scene{
	{layout: "symlink", layoutBefore: "symlink", types: onlyPEM, typesBefore: onlyPEM},
	{layout: "inplace", layoutBefore: "inplace", types: onlyPEM, typesBefore: onlyPEM},
	{layout: "symlink", types: onlyPEM},
	{layout: "inplace", types: onlyPEM},
	{layout: "symlink", layoutBefore: "symlink", types: onlyPEM, typesBefore: onlyPEM, sidecar: true},
	{layout: "inplace", layoutBefore: "inplace", types: onlyPEM, typesBefore: onlyPEM, sidecar: true},
	{layout: "symlink", layoutBefore: "inplace", types: onlyPEM, typesBefore: onlyPEM},
	{layout: "inplace", layoutBefore: "symlink", types: onlyPEM, typesBefore: onlyPEM},
	{layout: "symlink", layoutBefore: "symlink", types: all, typesBefore: all},
	{layout: "inplace", layoutBefore: "inplace", types: all, typesBefore: all},
	{layout: "symlink", layoutBefore: "symlink", types: onlyP12, typesBefore: all},
	{layout: "inplace", layoutBefore: "inplace", types: onlyPEM, typesBefore: all},
	{layout: "inplace", layoutBefore: "symlink", types: all, typesBefore: onlyP12, sidecar: true},
}

func (s scene) String() string {
	from := "nothing"
	if len(s.typesBefore) > 0 {
		from = fmt.Sprintf("%s %v", s.layoutBefore, s.typesBefore)
	}
	mode := "init"
	if s.sidecar {
		mode = "sidecar"
	}
	return fmt.Sprintf("%s: %s to %s %v", mode, from, s.layout, s.types)
}

func variables(layout string, types []string) []string {
	list := types[0]
	for _, other := range types[1:] {
		list += "," + other
	}
	return []string{"OUTPUT_LAYOUT=" + layout, "OUTPUT_TYPE=" + list}
}

// stage is where a scene is played again and again.
type stage struct {
	scene
	t       testing.TB
	service *service.Service
	dir     string // with the volume, and with what it is before each run
	old     string // the serial number of the set before
}

func (s *stage) volume() string { return filepath.Join(s.dir, "volume") }

func newStage(t testing.TB, s *service.Service, sc scene) *stage {
	t.Helper()
	st := &stage{scene: sc, t: t, service: s, dir: memoryDir(t)}
	if len(sc.typesBefore) > 0 {
		st.mustRun(append(variables(sc.layoutBefore, sc.typesBefore), "MODE=init")...)
		var err error
		st.old, err = readSet(st.volume(), sc.typesBefore)
		require.NoError(t, err)
		copyVolume(t, st.volume(), filepath.Join(st.dir, "before"))
	}
	return st
}

// mustRun runs certfetcher undisturbed.
func (s *stage) mustRun(variables ...string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program)
	cmd.Env = environment(s.service, s.volume(), variables...)
	out, err := cmd.CombinedOutput()
	require.NoError(s.t, err, string(out))
}

// reset makes the volume what it was before the scene.
func (s *stage) reset() { copyVolume(s.t, filepath.Join(s.dir, "before"), s.volume()) }

// play runs the scene, with decide for each call.
func (s *stage) play(decide func(call) verdict) *run {
	s.t.Helper()
	r := &run{program: program, root: s.dir, decide: decide}
	mode := []string{"MODE=init", "FORCE_ENROLL=true"}
	if s.sidecar {
		mode = []string{"MODE=sidecar", "FORCE_ENROLL=true"}
		r.started = s.endWhenDone
	}
	r.env = environment(s.service, s.volume(), append(variables(s.layout, s.types), mode...)...)
	require.NoError(s.t, r.trace())
	return r
}

// endWhenDone ends a sidecar once it has published, and has nothing more to do: it fetches at its start, and again.
func (s *stage) endWhenDone(pid int) {
	go func() {
		asked := false
		seen := s.old
		for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
			if syscall.Kill(pid, 0) != nil {
				return
			}
			serial, err := readSet(s.volume(), s.types)
			if err != nil || serial == seen {
				continue
			}
			seen = serial
			if asked {
				break
			}
			asked = true
			_ = syscall.Kill(pid, syscall.SIGHUP)
		}
		time.Sleep(20 * time.Millisecond)
		_ = syscall.Kill(pid, syscall.SIGTERM)
	}()
}

// tally counts what was found after the kills.
type tally struct {
	points, kills, unreached, old, renewed, none, between int
	careful, careless, mixed                              int
}

func (t *tally) add(o tally) {
	t.points += o.points
	t.kills += o.kills
	t.unreached += o.unreached
	t.old += o.old
	t.renewed += o.renewed
	t.none += o.none
	t.between += o.between
	t.careful += o.careful
	t.careless += o.careless
	t.mixed += o.mixed
}

// look reads what a kill left. In the symlink layout it is a whole set, at every moment.
func (s *stage) look(where string, counts *tally) {
	s.t.Helper()
	serial, err := readSet(s.volume(), s.types)
	same := s.layout == s.layoutBefore && len(s.types) == len(s.typesBefore)
	switch {
	case errors.Is(err, errNothing) && s.old == "":
		counts.none++
	case err == nil && serial == s.old:
		counts.old++
	case err == nil:
		counts.renewed++
	default:
		counts.between++
		// The visible names change one by one in the inplace layout, and where other files are asked for.
		mustBeWhole := s.layout == "symlink" && same
		assert.False(s.t, mustBeWhole, "%s: %v", where, err)
	}
}

// recover starts certfetcher once more, undisturbed: the set is whole, and nothing is left behind.
func (s *stage) recover(where string) {
	s.t.Helper()
	s.mustRun(append(variables(s.layout, s.types), "MODE=init")...)
	_, err := readSet(s.volume(), s.types)
	assert.NoError(s.t, err, where)
	assert.Empty(s.t, leftBehind(s.volume(), s.layout, s.types), where)
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
		if c.number != n {
			return verdict{}
		}
		at = c
		return verdict{kill: when}
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
		counts.unreached++ // threads do not always take turns alike, so that the number of calls differs
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
	for _, sc := range scenes[:chaos.Amount(2, len(scenes), len(scenes))] {
		st := newStage(t, s, sc)
		st.reset()
		counted := st.play(func(call) verdict { return verdict{} })
		require.Contains(t, []int{0, 99}, counted.status.ExitStatus(), counted.output)
		points := len(counted.calls)
		counts := tally{points: points}
		step := chaos.Amount(max(1, points/5), max(1, points/14), 1)
		for n := 1; n <= points; n += step {
			for _, when := range []moment{before, after} {
				st.killAt(n, when, &counts)
			}
			if t.Failed() {
				return
			}
		}
		t.Logf("%v: %+v", sc, counts)
		sum.add(counts)
	}
	chaos.Record(t, "", fmt.Sprintf("SIGKILL before and after calls that change a file: %d kills at %d calls of %d runs (init and sidecar, "+
		"both layouts, all output types, changes of layout and type)", sum.kills, sum.points, len(scenes)),
		fmt.Sprintf("right after the kill %d times the old set, %d times the new one, %d times none where there was none, %d times files of "+
			"both (not in the symlink layout); the next start completed all, nothing was left behind; a careful reader read %d times "+
			"and always a whole set, a careless one %d times, %d of them mixed",
			sum.old, sum.renewed, sum.none, sum.between, sum.careful, sum.careless, sum.mixed))
}
