//go:build linux && amd64

package kill

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/chaos"
	"github.com/certfetcher/certfetcher/test/chaos/set"
	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/service"
)

func TestMain(m *testing.M) { chaos.Main(m, nil) }

// scenes are runs of certfetcher over what is on a volume: mode, what there is, and what is to be. They come in the
// order of their worth: the first is enough for a glance.
var scenes = func() []string {
	text := fixture.Must(os.ReadFile("testdata/scenes.txt"))
	return strings.Split(strings.TrimSpace(string(text)), "\n")
}()

// stage is where a scene is played again and again.
type stage struct {
	*chaos.Volume
	t       testing.TB
	scene   string
	sidecar bool
	old     string // the serial number of the set before
	points  int    // how many calls change a file

	// whole says whether there is a whole set at every moment: the visible names change one by one in the inplace
	// layout, and where other files are asked for.
	whole bool
}

func newStage(t testing.TB, s *service.Service, scene string) *stage {
	t.Helper()
	mode, change, _ := strings.Cut(scene, ": ")
	from, to, _ := strings.Cut(change, " to ")
	layout, types, _ := strings.Cut(to, " ")
	v := chaos.NewVolume(t, s.Environment("", "RETRY_MAX_ELAPSED=10s"), layout, strings.Split(types, ",")...)
	st := &stage{Volume: v, t: t, scene: scene, sidecar: mode == "sidecar", whole: from == to && layout == "symlink"}
	if layout, types, found := strings.Cut(from, " "); found {
		before := *v
		before.Layout, before.Types = layout, strings.Split(types, ",")
		before.Publish()
		st.old = before.Set()
	}
	st.keep("before")
	counted := st.play("before", 0, fate{})
	require.Contains(t, []int{0, 99}, counted.status.ExitStatus(), counted.output)
	st.points = counted.calls
	return st
}

// keep keeps the volume as it is under a name.
func (s *stage) keep(name string) { chaos.Copy(s.t, s.Path, filepath.Dir(s.Path)+"/"+name) }

// play runs the scene over the volume that was kept, with a fate for one call, and watches it for the sums. Over the
// volume of before the scene, it fetches again.
func (s *stage) play(kept string, number int, f fate, sums ...*tally) *run {
	s.t.Helper()
	chaos.Copy(s.t, filepath.Dir(s.Path)+"/"+kept, s.Path)
	for _, sum := range sums {
		defer s.watch(sum)()
	}
	words := []string{fmt.Sprintf("FORCE_ENROLL=%t", kept == "before")}
	ends := func(int) {}
	if s.sidecar {
		words, ends = append(words, "MODE=sidecar"), s.endWhenDone
	}
	r := &run{Cmd: s.Program(words...), root: filepath.Dir(s.Path), number: number, fate: f, started: ends}
	require.NoError(s.t, r.trace())
	return r
}

// endWhenDone ends a sidecar once it has published, and has nothing more to do: it fetches at its start, and again.
func (s *stage) endWhenDone(pid int) {
	go func() {
		seen := []string{s.old}
		for end := time.Now().Add(20 * time.Second); len(seen) < 3 && time.Now().Before(end); {
			time.Sleep(2 * time.Millisecond)
			if syscall.Kill(pid, 0) != nil {
				return
			}
			serial, err := set.Read(s.Path, s.Types)
			if err == nil && serial != seen[len(seen)-1] {
				seen = append(seen, serial)
				_ = syscall.Kill(pid, syscall.SIGHUP)
			}
		}
		time.Sleep(20 * time.Millisecond)
		_ = syscall.Kill(pid, syscall.SIGTERM)
	}()
}

// recover starts certfetcher once more, undisturbed: the set is whole, and nothing is left behind.
func (s *stage) recover(where string) {
	s.t.Helper()
	s.Publish()
	s.Set(where)
}

// watch reads the PEM files for as long as certfetcher works on them. The careful reader does as docs/applications.md
// says; the careless one opens the visible names one after the other. A traced program is slow enough for readers to
// meet every state.
func (s *stage) watch(sum *tally) (end func()) {
	const pause = 300 * time.Microsecond // leaves most of the processor to the program
	if !slices.Equal(s.Types, []string{"PEM"}) {
		return func() {}
	}
	return chaos.Repeat(pause, func() {
		_, err := set.ReadCarefully(s.Path, s.Layout)
		sum.careful.add(err)
	}, func() {
		_, err := set.ReadPEM(s.Path)
		sum.careless.add(err)
	})
}
