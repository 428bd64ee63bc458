package chaos

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/chaos/set"
	"github.com/certfetcher/certfetcher/test/fixture"
)

// Bin is the directory of the built programs, and Self a copy of the test binary; Main sets both. Every user may run
// them.
var Bin, Self string

// Main is for TestMain. Started as Self with the name of a role and an argument, the test plays that role instead.
func Main(m *testing.M, roles map[string]func(argument string) int) {
	if len(os.Args) == 3 && roles[os.Args[1]] != nil {
		os.Exit(roles[os.Args[1]](os.Args[2]))
	}
	fixture.UseMemory() // thousands of runs sync their files
	fixture.RunTests(m, &Bin, func(dir string) error {
		// Written while other tests start programs, it would be busy for a moment.
		self, err := os.ReadFile("/proc/self/exe")
		Self = filepath.Join(dir, "self")
		return errors.Join(err, os.WriteFile(Self, self, 0o755))
	})
}

// Layouts are the values of OUTPUT_LAYOUT, and Force fetches a certificate whatever is on the volume.
var Layouts = []string{"symlink", "inplace"}

const Force = "FORCE_ENROLL=true"

// Program is a built program with an environment. Of the words, those like NAME=value are added to that and take the
// place of earlier ones; the others are arguments.
func Program(name string, environment []string, words ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(Bin, name))
	cmd.Env = environment
	for _, word := range words {
		if name, _, found := strings.Cut(word, "="); found && name == strings.ToUpper(name) {
			cmd.Env = append(cmd.Env, word)
		} else {
			cmd.Args = append(cmd.Args, word)
		}
	}
	return cmd
}

// Within has a program run by a shell that prepares its surroundings.
func Within(prepare string, cmd *exec.Cmd) *exec.Cmd {
	cmd.Args = append([]string{"sh", "-c", prepare + `; exec "$0" "$@"`, cmd.Path}, cmd.Args[1:]...)
	cmd.Path = "/bin/sh"
	return cmd
}

// Volume is one on which certfetcher publishes.
type Volume struct {
	Path, Layout string
	Types        []string // of OUTPUT_TYPE

	t           testing.TB
	environment []string
}

// NewVolume returns a volume that is not made yet. The environment has what certfetcher needs to ask a CertService.
func NewVolume(t testing.TB, environment []string, layout string, types ...string) *Volume {
	if types == nil {
		types = []string{"PEM"}
	}
	return &Volume{t.TempDir() + "/volume", layout, types, t, environment}
}

// Program is a certfetcher for the volume.
func (v *Volume) Program(words ...string) *exec.Cmd {
	own := []string{"SANS=app.example.org", "HEALTH_ADDR=off", "OUTPUT_PATH=" + v.Path,
		"OUTPUT_LAYOUT=" + v.Layout, "OUTPUT_TYPE=" + strings.Join(v.Types, ",")}
	return Program("certfetcher", v.environment, append(own, words...)...)
}

// Start starts a certfetcher, Run runs one to its end, and Publish one that must succeed.
func (v *Volume) Start(words ...string) *Process {
	v.t.Helper()
	return Start(v.t, v.Program(words...))
}

func (v *Volume) Run(words ...string) (code int, printed string) {
	v.t.Helper()
	return Run(v.t, v.Program(words...))
}

func (v *Volume) Publish(words ...string) {
	v.t.Helper()
	code, printed := v.Run(words...)
	require.Zero(v.t, code, printed)
}

// Sidecar starts a sidecar, and waits until it has published.
func (v *Volume) Sidecar(words ...string) *Process {
	v.t.Helper()
	p := v.Start(append([]string{"MODE=sidecar"}, words...)...)
	require.True(v.t, p.Await("the next renewal is planned"), p.Printed())
	return p
}

// Set wants a whole set on the volume, and nothing half done. It returns the certificate's serial number.
func (v *Volume) Set(where ...any) string {
	v.t.Helper()
	serial, err := set.Read(v.Path, v.Types)
	require.NoError(v.t, err, where...)
	require.Empty(v.t, set.LeftBehind(v.Path, v.Layout, v.Types), where...)
	return serial
}

// Server is an entry of cmpServers.json.
type Server = map[string]any

// StartStack starts devca, and certservice from the directory bin, until the test ends. Servers may change, and add to,
// certservice's entry for the CA; nil: that is the only one.
func StartStack(t testing.TB, bin string, servers func(Server) []Server, environment ...string) *fixture.Stack {
	t.Helper()
	dir := t.TempDir()
	authority, entry, err := fixture.StartDevCA(Bin, dir, environment...)
	require.NoError(t, err)
	t.Cleanup(authority.Stop)
	entries := []Server{entry}
	if servers != nil {
		entries = servers(entry)
	}
	s := fixture.Must(fixture.StartCertServiceOf(bin, dir, entries, environment...))
	t.Cleanup(func() { s.CertService.Stop() }) // which may be a later one by then
	s.DevCA = authority
	return s
}

// Copy makes to a copy of from, with modes, links and times; without from there is none.
func Copy(t testing.TB, from, to string) {
	t.Helper()
	require.NoError(t, os.RemoveAll(to))
	if _, err := os.Lstat(from); err == nil {
		Shell(t, "", `cp -a "$0" "$1"`, from, to)
	}
}

// Shell runs a script in a directory, with arguments from $0 on.
func Shell(t testing.TB, dir, script string, arguments ...string) {
	t.Helper()
	cmd := exec.Command("sh", append([]string{"-c", script}, arguments...)...)
	cmd.Dir = dir
	printed, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s: %s", script, printed)
}

// Write writes a file, and returns its path.
func Write(t testing.TB, path, text string) string {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// Show lets every user read what is in a directory of the test's.
func Show(t testing.TB, dir string) {
	t.Helper()
	Shell(t, dir, "chmod -R a+rX .")
	for ; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		require.NoError(t, os.Chmod(dir, 0o755))
	}
}

// As has a program run as another user, which needs root: else the test is skipped.
func As(t testing.TB, uid, gid uint32, cmd *exec.Cmd) *exec.Cmd {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root runs programs as another user")
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
	return cmd
}

// Nobody is a user, and a group, that owns nothing.
const Nobody = 65534

// Repeat does several things at the same time, each again and again with pauses, until end, which waits for them.
func Repeat(pause time.Duration, things ...func()) (end func()) {
	stop := make(chan struct{})
	var running sync.WaitGroup
	for _, do := range things {
		running.Go(func() {
			for {
				do()
				select {
				case <-stop:
					return
				case <-time.After(pause):
				}
			}
		})
	}
	return func() { close(stop); running.Wait() }
}

// Together does something with 0 to n-1, several at a time.
func Together(n, atATime int, do func(i int)) {
	var group sync.WaitGroup
	slots := make(chan struct{}, atATime)
	for i := range n {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			do(i)
		})
	}
	group.Wait()
}

// Seen is what was seen of many runs, by any of them: how often what came of it, and the most time and memory.
type Seen struct {
	sync.Mutex
	Counts  map[any]int // such as exit codes
	Longest time.Duration
	Peak    int // KiB
}

// Add adds what came of a run, how long it took, and its memory.
func (s *Seen) Add(what any, took time.Duration, peak int) {
	s.Lock()
	defer s.Unlock()
	if s.Counts == nil {
		s.Counts = map[any]int{}
	}
	s.Counts[what]++
	s.Longest, s.Peak = max(s.Longest, took), max(s.Peak, peak)
}

// Count is how often that came of a run so far.
func (s *Seen) Count(what any) int {
	s.Lock()
	defer s.Unlock()
	return s.Counts[what]
}

// Join adds the counts of another.
func (s *Seen) Join(other *Seen) {
	other.Lock()
	defer other.Unlock()
	for what, n := range other.Counts {
		for range n {
			s.Add(what, 0, 0)
		}
	}
}

// String is for logs.
func (s *Seen) String() string {
	s.Lock()
	defer s.Unlock()
	return fmt.Sprintf("%v, at most %.1f s and %d MiB", s.Counts, s.Longest.Seconds(), s.Peak>>10)
}
