package notify

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// named makes the test binary available under a name that no other process of this machine has.
func named(t *testing.T, name string) (path, unique string) {
	t.Helper()
	unique = fmt.Sprintf("%s%d", name, os.Getpid())
	path = filepath.Join(t.TempDir(), unique)
	require.NoError(t, os.Symlink(testBinary(t), path))
	return path, unique
}

func newSignal(t *testing.T, process, pidFile string) *Signal {
	t.Helper()
	s, err := NewSignal(SignalConfig{Signal: syscall.SIGHUP, Process: process, PIDFile: pidFile})
	require.NoError(t, err)
	return s
}

func writePID(t *testing.T, pid int, suffix string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "app.pid")
	require.NoError(t, os.WriteFile(path, []byte(strconv.Itoa(pid)+suffix), 0o644))
	return path
}

func TestSignal_reaches_a_process_by_name(t *testing.T) {
	for _, row := range []struct{ name, process string }{
		{"a short name", "app"},
		{"a name that comm is too short for", "application-with-a-long-name"},
	} {
		t.Run(row.name, func(t *testing.T) {
			path, name := named(t, row.process)
			_, out := startApplication(t, path, "application")
			require.Equal(t, "application is ready", out.next(t))
			require.NoError(t, newSignal(t, name, "").Notify(t.Context(), testEvent))
			assert.Equal(t, "application got hangup", out.next(t))
		})
	}
}

func TestSignal_reaches_a_script_by_its_whole_name(t *testing.T) {
	if signal.Ignored(syscall.SIGHUP) {
		t.Skip("SIGHUP is ignored here, as under nohup, and a shell cannot trap what it was handed as ignored")
	}
	name := fmt.Sprintf("reloadable-script-%d", os.Getpid())
	path := filepath.Join(t.TempDir(), name)
	// A shell that waits for a command sees the signal at its end; in read, one that comes just before is not seen.
	script := "#!/bin/sh\ntrap 'echo hangup' HUP\necho ready\nwhile [ -e \"$0\" ]; do sleep 0.05; done\n"
	require.NoError(t, os.WriteFile(path, []byte(script), 0o755))
	cmd, out := startApplication(t, path, "unused")
	t.Cleanup(func() { _ = os.Remove(path) }) // ends it
	require.Equal(t, "ready", out.next(t))
	p, err := readProcess("/proc", cmd.Process.Pid)
	require.NoError(t, err)
	assert.Equal(t, name[:15], p.comm)
	assert.True(t, p.named(name))
	assert.False(t, p.named(name+"0"))
	require.NoError(t, newSignal(t, name, "").Notify(t.Context(), testEvent))
	assert.Equal(t, "hangup", out.next(t))
}

func TestSignal_reaches_the_master_and_not_its_workers(t *testing.T) {
	path, name := named(t, "srv")
	_, out := startApplication(t, path, "master")
	var worker int
	_, err := fmt.Sscanf(out.next(t), "worker is %d", &worker)
	require.NoError(t, err)
	require.ElementsMatch(t, []string{"master is ready", "worker is ready"}, []string{out.next(t), out.next(t)})

	require.NoError(t, newSignal(t, name, "").Notify(t.Context(), testEvent))
	assert.Equal(t, "master got hangup", out.next(t))
	// Had the worker been sent SIGHUP, it would have it before SIGUSR1: it has the lower number.
	require.NoError(t, syscall.Kill(worker, syscall.SIGUSR1))
	assert.Equal(t, "worker got user defined signal 1", out.next(t))
}

func TestSignal_reaches_each_of_two_masters(t *testing.T) {
	path, name := named(t, "two")
	_, out1 := startApplication(t, path, "application")
	_, out2 := startApplication(t, path, "application")
	for _, out := range []lines{out1, out2} {
		require.Equal(t, "application is ready", out.next(t))
	}
	require.NoError(t, newSignal(t, name, "").Notify(t.Context(), testEvent))
	for _, out := range []lines{out1, out2} {
		assert.Equal(t, "application got hangup", out.next(t))
	}
}

func TestSignal_never_signals_itself(t *testing.T) {
	comm, err := os.ReadFile("/proc/self/comm")
	require.NoError(t, err)
	proc := fixture(t, stat(os.Getpid(), strings.TrimSpace(string(comm)), 'S', 1, 100))
	s := newSignal(t, strings.TrimSpace(string(comm)), "")
	s.proc = proc
	require.ErrorContains(t, s.Notify(t.Context(), testEvent), "none of that name")

	file := writePID(t, os.Getpid(), "")
	require.EqualError(t, newSignal(t, "", file).Notify(t.Context(), testEvent), fmt.Sprintf(
		"the PID file %q has %d, which is certfetcher itself: the application wrote a number of its own process namespace; set shareProcessNamespace", file, os.Getpid()))

	// Nor, run as doctor, the sidecar that it stands beside.
	other := newSignal(t, "", writePID(t, 1, ""))
	other.proc = fixture(t, stat(1, strings.TrimSpace(string(comm)), 'S', 0, 1))
	require.ErrorContains(t, other.Notify(t.Context(), testEvent), "has 1, which is certfetcher itself: ")
}

func TestSignal_says_which_processes_there_are_instead(t *testing.T) {
	s := newSignal(t, "nginx", "")
	s.proc = fixture(t, stat(1, "pause", 'S', 0, 1), stat(7, "java", 'S', 0, 1), stat(8, "java", 'S', 0, 1), stat(9, "nginx", 'Z', 7, 1))
	require.EqualError(t, s.Notify(t.Context(), testEvent),
		`finding process "nginx": none of that name in this process namespace, which has "java", "nginx", "pause": is the application up, and shareProcessNamespace set?`)
}

func TestSignal_by_PID_file_reads_it_anew_each_time(t *testing.T) {
	first, out1 := startApplication(t, testBinary(t), "application")
	second, out2 := startApplication(t, testBinary(t), "application")
	require.Equal(t, "application is ready", out1.next(t))
	require.Equal(t, "application is ready", out2.next(t))
	file := writePID(t, first.Process.Pid, "\n")
	s := newSignal(t, "", file)
	require.NoError(t, s.Notify(t.Context(), testEvent))
	assert.Equal(t, "application got hangup", out1.next(t))

	require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, " %d \nother lines, as of PostgreSQL\n", second.Process.Pid), 0o644))
	require.NoError(t, s.Notify(t.Context(), testEvent))
	assert.Equal(t, "application got hangup", out2.next(t))
}

func TestSignal_by_PID_file_recognises_a_process_that_is_gone(t *testing.T) {
	cmd, out := startApplication(t, testBinary(t), "application")
	require.Equal(t, "application is ready", out.next(t))
	file := writePID(t, cmd.Process.Pid, "\n")
	s := newSignal(t, "", file)
	want := fmt.Sprintf("the PID file %q is stale: it has %d, and there is no such process in this process namespace", file, cmd.Process.Pid)

	require.NoError(t, cmd.Process.Kill())
	// Not waited for yet, it is a zombie.
	require.Eventually(t, func() bool {
		p, err := readProcess("/proc", cmd.Process.Pid)
		return err == nil && p.ended()
	}, patience, time.Millisecond)
	require.EqualError(t, s.Notify(t.Context(), testEvent), want)
	_, _ = cmd.Process.Wait()
	require.EqualError(t, s.Notify(t.Context(), testEvent), want)
}

func TestSignal_by_PID_file_recognises_a_process_younger_than_the_file(t *testing.T) {
	path, name := named(t, "young")
	cmd, out := startApplication(t, path, "application")
	require.Equal(t, "application is ready", out.next(t))
	file := writePID(t, cmd.Process.Pid, "\n")
	old := time.Now().Add(-time.Minute)
	require.NoError(t, os.Chtimes(file, old, old))

	err := newSignal(t, "", file).Notify(t.Context(), testEvent)
	require.ErrorContains(t, err, fmt.Sprintf("the PID file %q is stale: it was written at %s, and process %d (%q) was started later, at ",
		file, old.UTC().Format(time.RFC3339), cmd.Process.Pid, name))
	require.NoError(t, newSignal(t, name, file).Notify(t.Context(), testEvent), "a name that fits is proof enough")
	assert.Equal(t, "application got hangup", out.next(t))
}

func TestSignal_by_PID_file_recognises_another_name(t *testing.T) {
	path, name := named(t, "other")
	cmd, out := startApplication(t, path, "application")
	require.Equal(t, "application is ready", out.next(t))
	file := writePID(t, cmd.Process.Pid, "\n")
	require.EqualError(t, newSignal(t, "nginx", file).Notify(t.Context(), testEvent),
		fmt.Sprintf("the PID file %q is stale: process %d is %q, want %q", file, cmd.Process.Pid, name, "nginx"))
	require.NoError(t, cmd.Process.Signal(syscall.SIGUSR1))
	assert.Equal(t, "application got user defined signal 1", out.next(t))
}

func TestSignal_by_PID_file_refuses_what_is_no_process(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.pid")
	none := fmt.Sprintf("reading the PID file %q: has no process ID in its first line", path)
	// What is there is not shown: it may be a secret, if the path is that of another file.
	for _, content := range []string{"", "nginx\n", "0", "-1", "1 2", "4294967297", "\n12", "unfinished 12"} {
		require.NoError(t, os.WriteFile(path, []byte(content), 0o644))
		require.EqualError(t, newSignal(t, "", path).Notify(t.Context(), testEvent), none)
	}
	require.NoError(t, os.Remove(path))
	require.EqualError(t, newSignal(t, "", path).Notify(t.Context(), testEvent), "reading the PID file: open "+path+": no such file or directory")
	require.NoError(t, syscall.Mkfifo(path, 0o600))
	require.EqualError(t, newSignal(t, "", path).Notify(t.Context(), testEvent), "reading the PID file: read "+path+": is a device, pipe or socket, want a file")
}

func TestSignal_does_not_reach_a_later_process_of_the_same_number(t *testing.T) {
	cmd, out := startApplication(t, testBinary(t), "application")
	require.Equal(t, "application is ready", out.next(t))
	p, err := readProcess("/proc", cmd.Process.Pid)
	require.NoError(t, err)
	p.start--
	require.EqualError(t, newSignal(t, "x", "").send(p), fmt.Sprintf("signalling process %d: os: process already finished", cmd.Process.Pid))
	require.NoError(t, cmd.Process.Signal(syscall.SIGUSR1))
	assert.Equal(t, "application got user defined signal 1", out.next(t))
}

func TestExplainKill_says_what_to_do_about_a_missing_permission(t *testing.T) {
	require.EqualError(t, explainKill(42, syscall.EPERM),
		"signalling process 42: operation not permitted: run certfetcher with the application's UID (runAsUser), or give it the capability KILL")
}

func TestNewSignal_wants_a_target(t *testing.T) {
	_, err := NewSignal(SignalConfig{Signal: syscall.SIGHUP})
	require.EqualError(t, err, "a signal needs a process name or a PID file")
}

func TestChooseNamed_takes_parents_only(t *testing.T) {
	proc := fixture(t,
		stat(1, "pause", 'S', 0, 1),
		stat(10, "nginx", 'S', 0, 1), stat(11, "nginx", 'S', 10, 1), stat(12, "nginx", 'S', 10, 1),
		stat(20, "sh", 'S', 0, 1), stat(21, "nginx", 'S', 20, 1),
		stat(30, "nginx", 'Z', 0, 1), stat(31, "nginx", 'S', 30, 1),
		stat(40, "nginx", 'S', 0, 1), stat(41, "nginx", 'S', 40, 1),
	)
	all, err := processes(proc)
	require.NoError(t, err)
	pids := func(list []process) (pids []int) {
		for _, p := range list {
			pids = append(pids, p.pid)
		}
		return pids
	}
	assert.Equal(t, []int{10, 21, 31, 41}, pids(chooseNamed(all, "nginx", 40)), "40 is certfetcher itself")
	assert.Equal(t, []int{1}, pids(chooseNamed(all, "pause", 40)), "process 1 when it is asked for")
	assert.Empty(t, chooseNamed(all, "apache2", 40))
}

func TestProcess_named_follows_the_documented_rules(t *testing.T) {
	for _, row := range []struct {
		name, comm string
		args       []string
		asked      string
		want       bool
	}{
		{"comm", "nginx", []string{"nginx: master process /usr/sbin/nginx"}, "nginx", true},
		{"argv[0] without directory", "main", []string{"/usr/bin/java", "-jar"}, "java", true},
		{"a later argument alone", "python3", []string{"python3", "/app/serve"}, "serve", false},
		{"a beginning of comm", "nginx", nil, "ngin", false},
		{"a cut comm with the whole name in argv[0]", "a-very-long-nam", []string{"/a-very-long-name"}, "a-very-long-name", true},
		{"a cut comm with the whole name of a script", "a-very-long-nam", []string{"/bin/sh", "-e", "/a-very-long-name"}, "a-very-long-name", true},
		{"a cut comm with another name", "a-very-long-nam", []string{"/a-very-long-namesake"}, "a-very-long-name", false},
		{"a kernel thread", "kworker/0:1", []string{""}, "kworker", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			assert.Equal(t, row.want, process{comm: row.comm, args: row.args}.named(row.asked))
		})
	}
}

func TestParseStat_is_not_misled_by_the_name(t *testing.T) {
	for _, comm := range []string{"nginx", "", "a b", "x) Z 1 1", "((", "))", "\n"} {
		p, err := parseStat([]byte(stat(7, comm, 'S', 3, 12345).stat))
		require.NoError(t, err)
		assert.Equal(t, process{parent: 3, start: 12345, state: 'S', comm: comm}, p)
	}
}

func TestParseStat_refuses_what_is_none(t *testing.T) {
	numbers := strings.Repeat(" 0", 17)
	for text, want := range map[string]string{
		"":                             `has "", want the command's name in brackets`,
		"1 )x(":                        `has "1 )x(", want the command's name in brackets`,
		"1 (x) S 1 1":                  `has "1 (x) S 1 1", want at least 22 fields`,
		"1 (x) S y" + numbers + " 5":   `has parent "y", want a number`,
		"1 (x) S 1" + numbers + " -5 ": `has start time "-5", want a number`,
	} {
		_, err := parseStat([]byte(text))
		require.EqualError(t, err, want)
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
	return procEntry{pid, fmt.Sprintf("%d (%s) %s %d%s %d 0 0\n", pid, comm, []byte{state}, parent, strings.Repeat(" 0", 17), start)}
}

// fixture is a directory like /proc.
func fixture(t *testing.T, entries ...procEntry) string {
	t.Helper()
	proc := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(proc, "sys"), 0o755))
	for _, entry := range entries {
		dir := filepath.Join(proc, strconv.Itoa(entry.pid))
		require.NoError(t, os.Mkdir(dir, 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "stat"), []byte(entry.stat), 0o644))
	}
	return proc
}
