package notify

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/golden"
)

func TestParseCommand_splitsAsAShellDoesAndNoMore(t *testing.T) {
	for row, want := range rows("testdata/commands.txt") {
		sentence, text, _ := strings.Cut(row, ": ")
		words := fixture.Must(parseCommand(fixture.Must(strconv.Unquote(text))))
		assert.Equal(t, want, fmt.Sprintf("%q", words), sentence)
	}
}

// FuzzParseCommand checks that the words, quoted again, give the same words.
func FuzzParseCommand(f *testing.F) {
	for _, seed := range []string{``, `nginx -s reload`, `a 'b c' "d\"e\\" f\ g`, `'`, `"\`, `\`,
		"a\x00b", "a\nb''", `""`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		words, err := parseCommand(text)
		if err != nil {
			require.Nil(t, words)
			return
		}
		single, double := make([]string, len(words)), make([]string, len(words))
		for i, word := range words {
			single[i] = "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
			double[i] = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(word) + `"`
		}
		for _, quoted := range [][]string{single, double} {
			again, err := parseCommand(strings.Join(quoted, " "))
			require.NoError(t, err)
			require.Equal(t, words, again)
		}
	})
}

// runCommand returns what was logged, without what is the same in each line.
func runCommand(t *testing.T, s Settings) (log []string, err error) {
	t.Helper()
	c, out := create[*command](t, s)
	c.grace = patience
	err = c.Notify(t.Context(), testEvent)
	for _, line := range out.all() {
		log = append(log, strings.Replace(line, `level=INFO msg="output of the command" program=`+c.words[0]+" ",
			"", 1))
	}
	return log, err
}

func TestCommand_getsTheEventAndNoneOfOurSecrets(t *testing.T) {
	for assignment := range strings.FieldsSeq("HOME=/home/app TZ=UTC LANG=C LC_ALL=C TMPDIR=/tmp HOSTNAME=pod " +
		"GODEBUG=x=1 KEYSTORE_PASSWORD=s3cret OUTPUT_KEYSTORE_PASSWORD=s3cret IAK=s3cret LD_PRELOAD=/x.so") {
		variable, value, _ := strings.Cut(assignment, "=")
		t.Setenv(variable, value)
	}
	log, err := runCommand(t, Settings{Exec: "env"})
	require.NoError(t, err)
	slices.Sort(log)
	text := regexp.MustCompile(`stream=stdout line="?([^\n"]*)"?`).ReplaceAllString(strings.Join(log, "\n"), "$1")
	// Our own PATH is there, and what this machine has of LANGUAGE and LC_*.
	text = regexp.MustCompile(`(?m)^LANGUAGE=.*\n|^LC_[^A].*\n|^LC_A[^L].*\n`).ReplaceAllString(text, "")
	text = regexp.MustCompile(`(?m)^PATH=.*`).ReplaceAllString(text, "PATH=…")
	golden.File(t, "variables.txt", text+"\n")
}

func TestCommand_outputIsLoggedWithinBounds(t *testing.T) {
	log, err := runCommand(t, Settings{Exec: `sh -c 'printf "cannot reload\r\n\nno line break" >&2'`})
	require.NoError(t, err)
	assert.Equal(t, []string{`stream=stderr line="cannot reload"`, `stream=stderr line="no line break"`}, log)

	log, err = runCommand(t, Settings{Exec: "seq 250"})
	require.NoError(t, err)
	require.Len(t, log, 101)
	assert.Equal(t, "stream=stdout line=100", log[99])
	assert.Equal(t, `level=WARN msg="dropped further output of the command" program=seq lines=150 limit=100`, log[100])

	long := strings.Repeat("x", 1024)
	log, err = runCommand(t, Settings{Exec: "printf '%s\\n' " + long + " " + long + "y " + long + long + long + " z"})
	require.NoError(t, err)
	cut := `stream=stdout line="` + long + ` … (cut)"`
	assert.Equal(t, []string{"stream=stdout line=" + long, cut, cut, "stream=stdout line=z"}, log)
}

func TestCommand_errors_sayWhatHappened_withoutArguments(t *testing.T) {
	for line, want := range map[string]string{
		"sh -c 'exit 3' s3cret":     `running "sh": exit status 3`,
		"sh -c 'kill -9 $$' s3cret": `running "sh": signal: killed`,
		"no-such-program s3cret":    `starting "no-such-program": executable file not found in $PATH`,
		"/no/such/program s3cret":   `starting "/no/such/program": no such file or directory`,
		"/etc/passwd s3cret":        `starting "/etc/passwd": permission denied`,
	} {
		_, err := runCommand(t, Settings{Exec: line})
		require.EqualError(t, err, want)
	}
	_, err := runCommand(t, Settings{Exec: "sleep 1000", Timeout: 300 * time.Millisecond})
	require.EqualError(t, err, `running "sleep": killed, because it has not ended within 300ms`)
}

// beInit makes orphans children of this process, as they are of process 1 in a container, and reaps them as there.
func beInit(t *testing.T) {
	t.Helper()
	require.NoError(t, unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
	ctx, cancel := context.WithCancel(t.Context())
	var reaper sync.WaitGroup
	reaper.Go(func() { ReapOrphans(ctx) })
	t.Cleanup(func() {
		cancel()
		reaper.Wait()
		_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
	})
}

// awaitReaped waits until there is no such process, not even a zombie, which could still be signalled.
func awaitReaped(t *testing.T, pid int) {
	t.Helper()
	assert.Eventually(t, func() bool { return syscall.Kill(pid, 0) == syscall.ESRCH }, patience, time.Millisecond)
}

// childIn reads the process ID that a command printed.
func childIn(t *testing.T, line string) int {
	t.Helper()
	var pid int
	_, err := fmt.Sscanf(line[strings.LastIndexByte(line, '='):], `="child %d"`, &pid)
	require.NoError(t, err, line)
	return pid
}

func TestCommand_endsWithCertfetcher_withAllItsProcesses(t *testing.T) {
	beInit(t)
	c, out := create[*command](t, Settings{Exec: `sh -c 'sleep 1000 & echo child $!; wait'`})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	failed := make(chan error, 1)
	go func() { failed <- c.Notify(ctx, testEvent) }()
	child := childIn(t, out.next(t))
	require.NoError(t, syscall.Kill(child, 0), "the command's child must be running")
	cancel()
	require.EqualError(t, <-failed, `running "sh": killed, because certfetcher ends: context canceled`)
	awaitReaped(t, child)
}

func TestCommand_processThatItLeavesBehindLivesOn(t *testing.T) {
	beInit(t)
	c, out := create[*command](t,
		Settings{Exec: `sh -c '(trap "echo got USR1" USR1; echo child $(exec sh -c "echo ` +
			`\$PPID"); while :; do sleep 0.02; done) &'`})
	c.grace = 50 * time.Millisecond
	require.NoError(t, c.Notify(t.Context(), testEvent))
	said := []string{out.next(t), out.next(t)} // in an order that is the machine's affair
	slices.Sort(said)
	child := childIn(t, said[0])
	assert.Equal(t,
		`level=WARN msg="the command left a process behind that holds its output open; still reading it" program=sh`,
		said[1])
	for range 2 { // the second line would end it if no one held the other end of the pipe
		require.NoError(t, syscall.Kill(child, syscall.SIGUSR1))
		assert.Equal(t, `level=INFO msg="output of the command" program=sh stream=stdout line="got USR1"`, out.next(t))
	}
	require.NoError(t, syscall.Kill(child, syscall.SIGKILL))
	awaitReaped(t, child)
}

// A command's own end must reach the one that waits for it, also when orphans are reaped at the same moment.
func TestReapOrphans_leavesTheCommandToNotify(t *testing.T) {
	beInit(t)
	for range 20 {
		_, err := runCommand(t, Settings{Exec: `sh -c 'true & true & true & exit 3'`})
		require.EqualError(t, err, `running "sh": exit status 3`)
	}
	assert.Eventually(t, func() bool {
		all, err := listProcesses("/proc")
		return err == nil && !slices.ContainsFunc(all, func(p process) bool { return p.parent == syscall.Getpid() })
	}, patience, time.Millisecond)
}
