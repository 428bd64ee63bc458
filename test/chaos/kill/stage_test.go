//go:build linux && amd64

package kill

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/chaos"
	"github.com/certfetcher/certfetcher/test/chaos/set"
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
	{"symlink", "symlink", onlyPEM, onlyPEM, false},
	{"inplace", "inplace", onlyPEM, onlyPEM, false},
	{"symlink", "", onlyPEM, nil, false},
	{"inplace", "", onlyPEM, nil, false},
	{"symlink", "symlink", onlyPEM, onlyPEM, true},
	{"inplace", "inplace", onlyPEM, onlyPEM, true},
	{"symlink", "inplace", onlyPEM, onlyPEM, false},
	{"inplace", "symlink", onlyPEM, onlyPEM, false},
	{"symlink", "symlink", all, all, false},
	{"inplace", "inplace", all, all, false},
	{"symlink", "symlink", onlyP12, all, false},
	{"inplace", "inplace", onlyPEM, all, false},
	{"inplace", "symlink", all, onlyP12, true}}

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

// mustStayWhole says whether there is a whole set at every moment: the visible names change one by one in the inplace
// layout, and where other files are asked for.
func (s scene) mustStayWhole() bool {
	return s.layout == "symlink" && s.layout == s.layoutBefore && slices.Equal(s.types, s.typesBefore)
}

func variables(layout string, types []string) []string {
	return []string{"OUTPUT_LAYOUT=" + layout, "OUTPUT_TYPE=" + strings.Join(types, ",")}
}

// stage is where a scene is played again and again.
type stage struct {
	scene
	t       testing.TB
	service *service.Service
	dir     string // with the volume, and with what it is before each run
	old     string // the serial number of the set before
	force   bool   // the scene fetches anew, whatever is on the volume
}

func (s *stage) volume() string { return s.dir + "/volume" }

func newStage(t testing.TB, s *service.Service, sc scene) *stage {
	t.Helper()
	st := &stage{scene: sc, t: t, service: s, dir: t.TempDir(), force: true}
	if len(sc.typesBefore) > 0 {
		st.mustRun(append(variables(sc.layoutBefore, sc.typesBefore), "MODE=init")...)
		var err error
		st.old, err = set.Read(st.volume(), sc.typesBefore)
		require.NoError(t, err)
		st.keep("before")
	}
	return st
}

// mustRun runs certfetcher undisturbed.
func (s *stage) mustRun(variables ...string) {
	s.t.Helper()
	cmd := exec.Command(binDir + "/certfetcher")
	cmd.Env = environment(s.service, s.volume(), variables...)
	code, out := chaos.Run(s.t, cmd)
	require.Zero(s.t, code, out)
}

// reset makes the volume what it was before the scene.
func (s *stage) reset() { s.bring("before") }

// keep keeps the volume as it is under a name, and bring brings it back.
func (s *stage) keep(name string)  { copyVolume(s.t, s.volume(), filepath.Join(s.dir, name)) }
func (s *stage) bring(name string) { copyVolume(s.t, filepath.Join(s.dir, name), s.volume()) }

// play runs the scene, with decide for each call.
func (s *stage) play(decide func(call) verdict) *run {
	s.t.Helper()
	r := &run{program: binDir + "/certfetcher", root: s.dir, decide: decide}
	mode := []string{"MODE=init", fmt.Sprintf("FORCE_ENROLL=%t", s.force)}
	if s.sidecar {
		mode[0] = "MODE=sidecar"
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
		for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
			if syscall.Kill(pid, 0) != nil {
				return
			}
			serial, err := set.Read(s.volume(), s.types)
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

// recover starts certfetcher once more, undisturbed: the set is whole, and nothing is left behind.
func (s *stage) recover(where string) {
	s.t.Helper()
	s.mustRun(append(variables(s.layout, s.types), "MODE=init")...)
	_, err := set.Read(s.volume(), s.types)
	assert.NoError(s.t, err, where)
	assert.Empty(s.t, set.LeftBehind(s.volume(), s.layout, s.types), where)
}
