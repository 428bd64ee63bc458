package notify

import (
	"context"
	"encoding/json"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// runExec runs a role of the test binary, and returns what was logged.
func runExec(t *testing.T, timeout time.Duration, command ...string) (log []string, err error) {
	t.Helper()
	out := newLines()
	e := NewExec(ExecConfig{Command: append([]string{testBinary(t)}, command...), Timeout: timeout, Log: out.logger()})
	e.grace = patience
	err = e.Notify(t.Context(), testEvent)
	program := " program=" + testBinary(t)
	for _, line := range out.all() {
		log = append(log, strings.Replace(line, program, "", 1))
	}
	return log, err
}

func TestExec_gives_the_command_the_event_and_none_of_our_secrets(t *testing.T) {
	var record struct{ Line string }
	var out struct{ Args, Environ []string }
	logged := newLines()
	e := NewExec(ExecConfig{
		Command: []string{testBinary(t), "show", "a b", "$HOME"}, Timeout: patience,
		Environ: []string{
			"PATH=/bin", "HOME=/home/app", "TZ=UTC", "LANG=C", "LC_ALL=C", "TMPDIR=/tmp", "HOSTNAME=pod", "GODEBUG=x=1",
			"KEYSTORE_PASSWORD=s3cret", "OUTPUT_KEYSTORE_PASSWORD=s3cret", "IAK=s3cret", "LD_PRELOAD=/x.so", "broken",
		},
		Log: slog.New(slog.NewJSONHandler(logged, nil)),
	})
	e.grace = patience
	require.NoError(t, e.Notify(t.Context(), testEvent))
	require.NoError(t, json.Unmarshal([]byte(logged.next(t)), &record))
	require.NoError(t, json.Unmarshal([]byte(record.Line), &out))
	assert.Equal(t, []string{"a b", "$HOME"}, out.Args)
	assert.Equal(t, []string{
		"CERTFETCHER_DIR=/certs",
		"CERTFETCHER_KEYSTORE_P12=/certs/keystore.p12",
		"CERTFETCHER_KEYSTORE_PASS=/certs/keystore.pass",
		"CERTFETCHER_NOT_AFTER=2026-04-02T01:04:05Z",
		"CERTFETCHER_NOT_BEFORE=2026-01-02T03:04:05Z",
		"CERTFETCHER_REASON=renewed",
		"CERTFETCHER_SERIAL=0A1B",
		"HOME=/home/app", "LANG=C", "LC_ALL=C", "PATH=/bin", "TMPDIR=/tmp", "TZ=UTC",
	}, out.Environ)
}

func TestExec_forwards_both_streams_line_by_line(t *testing.T) {
	log, err := runExec(t, patience, "complain")
	require.NoError(t, err)
	assert.Equal(t, []string{
		`level=INFO msg="output of the command" stream=stderr line="cannot reload"`,
		`level=INFO msg="output of the command" stream=stderr line="no line break"`,
	}, log)
}

func TestExec_bounds_the_number_of_lines(t *testing.T) {
	log, err := runExec(t, patience, "print", "250", "x")
	require.NoError(t, err)
	require.Len(t, log, 101)
	assert.Equal(t, `level=INFO msg="output of the command" stream=stdout line=x`, log[99])
	assert.Equal(t, `level=WARN msg="dropped further output of the command" lines=150 limit=100`, log[100])
}

func TestExec_bounds_the_length_of_lines(t *testing.T) {
	log, err := runExec(t, patience, "print", "2", strings.Repeat("x", 5000))
	require.NoError(t, err)
	cut := `level=INFO msg="output of the command" stream=stdout line="` + strings.Repeat("x", 1024) + ` … (cut)"`
	assert.Equal(t, []string{cut, cut}, log)
}

func TestExec_reports_how_the_command_ended(t *testing.T) {
	binary := strconv.Quote(testBinary(t))
	for _, row := range []struct{ name, role, want string }{
		{"an exit code", "exit 3", "running " + binary + ": has exit code 3, want exit code 0"},
		{"a signal", "suicide", "running " + binary + ": ended by signal SIGKILL (9), want exit code 0"},
		{"a time-out", "hang", "running " + binary + ": killed, because it has not ended within 300ms"},
	} {
		t.Run(row.name, func(t *testing.T) {
			timeout := patience
			if row.role == "hang" {
				timeout = 300 * time.Millisecond
			}
			_, err := runExec(t, timeout, strings.Fields(row.role)...)
			require.EqualError(t, err, row.want)
		})
	}
}

func TestExec_names_a_program_that_cannot_be_started_and_not_its_arguments(t *testing.T) {
	for _, row := range []struct{ name, program, want string }{
		{"not in PATH", "no-such-program", `starting "no-such-program": executable file not found in $PATH`},
		{"not there", "/no/such/program", `starting "/no/such/program": no such file or directory`},
		{"not executable", "/etc/passwd", `starting "/etc/passwd": permission denied`},
	} {
		t.Run(row.name, func(t *testing.T) {
			e := NewExec(ExecConfig{Command: []string{row.program, "--password=s3cret"}, Timeout: patience, Log: newLines().logger()})
			require.EqualError(t, e.Notify(t.Context(), testEvent), row.want)
		})
	}
}

func TestExec_ends_with_certfetcher(t *testing.T) {
	out := newLines()
	e := NewExec(ExecConfig{Command: []string{testBinary(t), "family"}, Timeout: patience, Log: out.logger()})
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() { failed <- e.Notify(ctx, testEvent) }()
	out.next(t)
	cancel()
	require.EqualError(t, <-failed, "running "+strconv.Quote(testBinary(t))+": killed, because certfetcher ends: context canceled")
}
