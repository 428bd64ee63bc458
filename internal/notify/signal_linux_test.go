package notify

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

func TestParseSignal_readsNamesAndNumbers(t *testing.T) {
	for text, want := range map[string]syscall.Signal{
		"HUP": syscall.SIGHUP, "SIGHUP": syscall.SIGHUP, "sighup": syscall.SIGHUP, "usr1": syscall.SIGUSR1,
		"1": syscall.SIGHUP, "15": syscall.SIGTERM, "64": syscall.Signal(64),
	} {
		assert.Equal(t, want, fixture.Must(parseSignal(text)), text)
	}
}

func newSignal(t *testing.T, process, pidFile string) *signaller {
	t.Helper()
	s, _ := create[*signaller](t, Settings{Signal: "USR1", Process: process, PIDFile: pidFile})
	return s
}

// sendSignal sends one, as after a renewal.
func sendSignal(t *testing.T, process, pidFile string) error {
	t.Helper()
	return newSignal(t, process, pidFile).Notify(t.Context(), testEvent)
}

// application is a process that prints the signals it gets.
type application struct {
	name string // that no other process of this machine has
	pid  int
	cmd  *exec.Cmd
	out  lines
}

// run starts a script that has the name, with an argument.
func run(t *testing.T, name, argument string) *application {
	t.Helper()
	name = fmt.Sprintf("%s-%d", name, os.Getpid())
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, fixture.Must(os.ReadFile("testdata/application.sh")), 0o755))
	a := &application{name: name, out: make(lines, 100), cmd: exec.Command(path, argument)}
	a.cmd.Stdout = a.out
	require.NoError(t, a.cmd.Start())
	a.pid = a.cmd.Process.Pid
	t.Cleanup(func() {
		_ = os.Remove(path) // ends it
		_ = a.cmd.Wait()
	})
	if argument != "master" {
		require.Equal(t, fmt.Sprintf("%s is %d", argument, a.pid), a.out.next(t))
	}
	return a
}

func writePID(t *testing.T, pid int) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "app.pid")
	require.NoError(t, os.WriteFile(path, fmt.Appendln(nil, pid), 0o644))
	return path
}

func TestSignaller_reachesAllOfAName(t *testing.T) {
	const name = "application-with-a-long-name" // the kernel cuts it off
	first, second := run(t, name, "1"), run(t, name, "2")
	s := newSignal(t, first.name, "")
	assert.Equal(t, Finding{Found: fmt.Sprintf("SIGUSR1 can be sent to the process %q", first.name)},
		s.Check(t.Context(), nil))
	require.NoError(t, s.Notify(t.Context(), testEvent))
	assert.Equal(t, "1 got USR1", first.out.next(t))
	assert.Equal(t, "2 got USR1", second.out.next(t))
	require.ErrorContains(t, sendSignal(t, first.name+"0", ""), "none of that name")
}

func TestSignaller_reachesTheMasterAndNotItsWorkers(t *testing.T) {
	app := run(t, "srv", "master")
	ready := []string{app.out.next(t), app.out.next(t)}
	slices.Sort(ready) // the master, then the worker
	worker := fixture.Must(strconv.Atoi(strings.TrimPrefix(ready[1], "worker is ")))
	require.NoError(t, sendSignal(t, app.name, ""))
	assert.Equal(t, "master got USR1", app.out.next(t))
	// Had the worker been sent USR1, it would see that before USR2, which has a higher number.
	require.NoError(t, syscall.Kill(worker, syscall.SIGUSR2))
	assert.Equal(t, "worker got USR2", app.out.next(t))
}

func TestSignaller_readsThePIDFileEachTime(t *testing.T) {
	first, second := run(t, "first", "1"), run(t, "second", "2")
	file := writePID(t, first.pid)
	s := newSignal(t, "", file)
	assert.Equal(t, Finding{Found: fmt.Sprintf("SIGUSR1 can be sent to the process of %q", file)},
		s.Check(t.Context(), nil))
	require.NoError(t, s.Notify(t.Context(), testEvent))
	assert.Equal(t, "1 got USR1", first.out.next(t))
	require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, " %d \nother lines, as of PostgreSQL\n", second.pid), 0o644))
	require.NoError(t, s.Notify(t.Context(), testEvent))
	assert.Equal(t, "2 got USR1", second.out.next(t))
}

// A PID file outlives its writer, and numbers are used again.
func TestSignaller_signalsNoProcessThatIsNotTheOneOfTheFile(t *testing.T) {
	app := run(t, "app", "x")
	file := writePID(t, app.pid)
	err := sendSignal(t, "nginx", file)
	assert.EqualError(t, err, fmt.Sprintf(`the PID file %q is stale: process %d is %q, want "nginx"`, file, app.pid,
		app.name[:min(15, len(app.name))]))

	old := time.Now().Add(-time.Minute)
	require.NoError(t, os.Chtimes(file, old, old))
	err = sendSignal(t, "", file)
	assert.ErrorContains(t, err,
		fmt.Sprintf("the PID file %q is stale: it was written at %s, and process %d (%q) was started later, at ",
			file, old.UTC().Format(time.RFC3339), app.pid, app.name))

	p := fixture.Must(readProcess("/proc", app.pid))
	p.start--
	assert.EqualError(t, newSignal(t, "", file).send(p),
		fmt.Sprintf("signalling process %d: os: process already finished", app.pid))

	require.NoError(t, sendSignal(t, app.name, file), "a name that fits is proof enough")
	assert.Equal(t, "x got USR1", app.out.next(t), "and it has got none before")

	gone := fmt.Sprintf("the PID file %q is stale: it has %d, and there is no such process in this process namespace",
		file, app.pid)
	require.NoError(t, app.cmd.Process.Kill())
	require.Eventually(t, func() bool { // not waited for yet, it is a zombie
		p, err := readProcess("/proc", app.pid)
		return err == nil && p.hasEnded()
	}, patience, time.Millisecond)
	require.EqualError(t, sendSignal(t, "", file), gone)
	_, _ = app.cmd.Process.Wait()
	require.EqualError(t, sendSignal(t, "", file), gone)
}

func TestSignaller_refusesWhatIsNotThePIDOfAProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.pid")
	// What is there is not shown: it may be a secret, if the path is that of another file.
	for _, content := range []string{"", "nginx\n", "0", "-1", "1 2", "4294967297", "\n12", "unfinished 12"} {
		require.NoError(t, os.WriteFile(path, []byte(content), 0o644))
		require.EqualError(t, sendSignal(t, "", path),
			fmt.Sprintf("reading the PID file %q: has no process ID in its first line", path))
	}
	require.NoError(t, os.Remove(path))
	err := sendSignal(t, "", path)
	require.EqualError(t, err, "reading the PID file: open "+path+": no such file or directory")
	require.ErrorAs(t, err, new(*absentError))
	require.NoError(t, syscall.Mkfifo(path, 0o600))
	require.EqualError(t, sendSignal(t, "", path),
		"reading the PID file: read "+path+": is a device, pipe or socket, want a file")
}

func TestSignaller_neverSignalsCertfetcher(t *testing.T) {
	comm, self := ownComm(), os.Getpid()
	s := newSignal(t, comm, "")
	s.proc = fakeProc(t, stat(self, comm, 'S', 1, 100))
	require.ErrorContains(t, s.Notify(t.Context(), testEvent), "none of that name")

	file := writePID(t, self)
	require.EqualError(t, sendSignal(t, "", file), fmt.Sprintf("the PID file %q has %d, "+
		"which is certfetcher itself: the application wrote a number of its own process "+
		"namespace; set shareProcessNamespace", file, self))

	// Nor, run as doctor, the sidecar that it stands beside.
	other := newSignal(t, "", writePID(t, 1))
	other.proc = fakeProc(t, stat(1, comm, 'S', 0, 1))
	require.ErrorContains(t, other.Notify(t.Context(), testEvent), "has 1, which is certfetcher itself: ")
}

func TestExplainKill_saysWhatToDoAboutAMissingPermission(t *testing.T) {
	require.EqualError(t, explainKill(42, syscall.EPERM), "signalling process 42: operation not permitted: "+
		"run certfetcher with the application's UID (runAsUser), or give it the capability KILL")
}

func TestSignaller_find_takesParentsOnly(t *testing.T) {
	proc := fakeProc(t,
		stat(1, "pause", 'S', 0, 1),
		stat(10, "nginx", 'S', 0, 1), stat(11, "nginx", 'S', 10, 1), stat(12, "nginx", 'S', 10, 1),
		stat(20, "sh", 'S', 0, 1), stat(21, "nginx", 'S', 20, 1),
		stat(30, "nginx", 'Z', 0, 1), stat(31, "nginx", 'S', 30, 1),
		stat(40, "nginx", 'S', 0, 1), stat(41, "nginx", 'S', 40, 1),
	)
	for name, want := range map[string][]int{"nginx": {10, 21, 31, 41}, "pause": {1}} {
		found, err := (&signaller{process: name, proc: proc, self: 40}).find() // 40 is certfetcher itself
		require.NoError(t, err)
		var pids []int
		for _, p := range found {
			pids = append(pids, p.pid)
		}
		assert.Equal(t, want, pids)
	}
	_, err := (&signaller{process: "apache2", proc: proc, self: 40}).find()
	require.EqualError(t, err,
		`finding process "apache2": none of that name in this process namespace, which has "nginx", "pause", "sh": `+
			"is the application up, and shareProcessNamespace set?")
}

func TestProcess_hasName_followsTheDocumentedRules(t *testing.T) {
	const long, cut = "a-very-long-name", "a-very-long-nam"
	for sentence, row := range map[string]struct {
		comm, args, asked string
		want              bool
	}{
		"comm":                           {"nginx", "nginx:|master|process", "nginx", true},
		"argv[0] without directory":      {"main", "/usr/bin/java|-jar", "java", true},
		"a later argument alone":         {"python3", "python3|/app/serve", "serve", false},
		"a beginning of comm":            {"nginx", "", "ngin", false},
		"a cut comm, whole in argv[0]":   {cut, "/" + long, long, true},
		"a cut comm, whole for a script": {cut, "/bin/sh|-e|/" + long, long, true},
		"a cut comm of another name":     {cut, "/" + long + "sake", long, false},
		"a kernel thread":                {"kworker/0:1", "", "kworker", false},
	} {
		p := process{comm: row.comm, args: strings.Split(row.args, "|")}
		assert.Equal(t, row.want, p.hasName(row.asked), sentence)
	}
}

func TestParseStat_isNotMisledByTheName(t *testing.T) {
	for _, comm := range []string{"nginx", "", "a b", "x) Z 1 1", "((", "))", "\n"} {
		assert.Equal(t, process{parent: 3, start: 12345, state: 'S', comm: comm},
			fixture.Must(parseStat([]byte(stat(7, comm, 'S', 3, 12345).stat))))
	}
	numbers := strings.Repeat(" 0", 17)
	for _, text := range []string{"", "1 )x(", "1 (x) S 1 1", "1 (x) S y" + numbers + " 5",
		"1 (x) S 1" + numbers + " -5"} {
		_, err := parseStat([]byte(text))
		require.EqualError(t, err, fmt.Sprintf("has %q, want the fields of proc_pid_stat(5)", text))
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add("1 (x) S 1 1")
	f.Add(stat(7, "x) Z 1 1", 'S', 3, 12345).stat)
	f.Fuzz(func(t *testing.T, text string) {
		p, err := parseStat([]byte(text))
		if err == nil {
			again, err := parseStat([]byte(stat(1, p.comm, p.state, p.parent, p.start).stat))
			require.NoError(t, err)
			require.Equal(t, p, again)
		}
	})
}

func FuzzParsePID(f *testing.F) {
	for _, seed := range []string{"", "1", "12\n", " 7 \nx", "-1", "99999999999999999999"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if pid, err := parsePID([]byte(text)); err == nil {
			require.Positive(t, pid)
		}
	})
}

type procEntry struct {
	pid  int
	stat string
}

// stat is a line as proc_pid_stat(5) describes it.
func stat(pid int, comm string, state byte, parent int, start uint64) procEntry {
	return procEntry{pid, fmt.Sprintf("%d (%s) %s %d%s %d 0 0\n", pid, comm, []byte{state}, parent,
		strings.Repeat(" 0", 17), start)}
}

// fakeProc is a directory like /proc.
func fakeProc(t *testing.T, entries ...procEntry) string {
	t.Helper()
	proc := t.TempDir()
	for _, entry := range entries {
		dir := filepath.Join(proc, strconv.Itoa(entry.pid))
		require.NoError(t, errors.Join(os.Mkdir(dir, 0o755), os.MkdirAll(filepath.Join(proc, "sys"), 0o755)))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "stat"), []byte(entry.stat), 0o644))
	}
	return proc
}
