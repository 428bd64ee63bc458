package program

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/golden"
)

var tested = append(append(Group("Network", "net", []Variable{
	{Name: "T_ADDRESS", Required: true, Rule: "host:port", Help: "where to listen"},
}), Group("TLS", "", []Variable{
	{Name: "T_PASSWORD", Default: "secret", Secret: true, Part: "tls", Rule: "at least 6 bytes", Help: "password"},
	{Name: "T_COMMAND", Hidden: true, Rule: "a command", Help: "what to run"},
	{Name: "T_COUNT", Default: "3", Rule: "1 to 5", Help: "how many"},
	{Name: "T_WAIT", Default: "1s", Rule: "a duration, more than 0", Help: "how long"},
	{Name: "T_FLAG", Default: "false", Rule: "true or false", Help: "whether"},
})...), Group("Log", "", []Variable{
	{Name: "LOG_FORMAT", Default: "auto", Rule: "auto, json or text", Help: "format"},
	{Name: "LOG_LEVEL", Default: "info", Rule: "debug, info, warn or error", Help: "level"},
})...)

func read(t *testing.T, values map[string]string) *Reader {
	t.Helper()
	for _, v := range tested {
		t.Setenv(v.Name, "")
	}
	t.Setenv("T_PASSWORD_FILE", "")
	for name, value := range values {
		t.Setenv(name, value)
	}
	return ReadEnvironment(tested)
}

// Variables that are set, and what is read of them, or the faults and warnings with their parts.
func TestRead(t *testing.T) {
	golden.Play(t, "read/*.txt", func(t *testing.T, _, commands string) (said string) {
		dir, values := t.TempDir(), map[string]string{"T_ADDRESS": "h:1"}
		var judge []func(r *Reader)
		for command := range strings.Lines(commands) {
			verb, rest, _ := strings.Cut(strings.TrimSpace(command[2:]), " ")
			name, argument, _ := strings.Cut(rest, " ")
			switch verb {
			case "set":
				name, value, _ := strings.Cut(rest, "=")
				values[name] = strings.ReplaceAll(value, "DIR", dir)
			case "file":
				content := fixture.Must(strconv.Unquote(argument))
				require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
			case "pipe":
				require.NoError(t, syscall.Mkfifo(filepath.Join(dir, name), 0o600))
			case "reject": // for a reason
				judge = append(judge, func(r *Reader) { r.Reject(name, argument) })
			case "warn":
				judge = append(judge, func(r *Reader) { r.Warn(name, argument) })
			default:
				t.Fatalf("unknown command %q", command)
			}
		}
		r := read(t, values)
		log, number := r.Log(), r.Number("T_COUNT", 1, 5)
		wait, flag := r.Duration("T_WAIT", 1), r.Bool("T_FLAG")
		for _, judge := range judge {
			judge(r)
		}
		if len(r.Faults()) == 0 {
			said = fmt.Sprintf("%q, of which %d, %s, %t, %+v; the secret is in %q\n", r.values, number, wait, flag, log,
				r.SecretFile("T_PASSWORD"))
		}
		for _, f := range r.Faults() {
			said += fmt.Sprintf("fault of part %q: %v\n", f.Part, f)
		}
		for _, f := range r.Warnings() {
			said += fmt.Sprintf("warning of part %q: %s %s\n", f.Part, f.Variable, f.Problem)
		}
		return strings.ReplaceAll(said, dir, "DIR")
	})
}

// As bash gives it for T_PASSWORD_FILE=<(command).
func TestRead_twinThatIsAPipe_isReadOnce(t *testing.T) {
	reader, writer, err := os.Pipe()
	require.NoError(t, err)
	defer reader.Close()
	go func() {
		for _, part := range []string{"from ", "a pipe\n"} {
			_, _ = writer.WriteString(part)
		}
		writer.Close()
	}()
	r := read(t, map[string]string{"T_ADDRESS": "h:1", "T_PASSWORD_FILE": fmt.Sprintf("/dev/fd/%d", reader.Fd())})
	assert.Equal(t, "from a pipe", r.Value("T_PASSWORD"))
	assert.Empty(t, r.Faults())
	assert.Empty(t, r.SecretFile("T_PASSWORD"))
}

// Windows editors and shells put a byte order mark before a password, or write it in UTF-16.
func TestReadSecret_marksAndOneNewlineAreDropped(t *testing.T) {
	for content, want := range map[string]string{
		"secret": "secret", "secret\n": "secret", "secret\r\n": "secret", "secret\n\n": "secret\n",
		" secret ":                                  " secret ",
		"\ufeffsecret\n":                            "secret",
		"\xff\xfes\x00e\x00c\x00\r\x00\n\x00":       "sec",
		"\xfe\xff\x00s\x00e\x00c\x00\r\x00\n":       "sec",
		"\xff\xfean odd number of bytes, no UTF-16": "\xff\xfean odd number of bytes, no UTF-16",
	} {
		path := filepath.Join(t.TempDir(), "secret")
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		got, err := ReadSecret(path)
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
}

func TestReadSecret_fromAPipeThatNothingComesOutOf_givesUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	require.NoError(t, syscall.Mkfifo(path, 0o600))
	holder, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	defer holder.Close()
	_, err = readSecret(path, time.Millisecond)
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
}

func TestWriteUsage_hasRulesAndDefaults(t *testing.T) {
	var usage strings.Builder
	require.NoError(t, WriteUsage(&usage, tested))
	assert.Contains(t, usage.String(), "\nNetwork\n  T_ADDRESS (required)\n      where to listen\n      host:port\n")
	assert.Contains(t, usage.String(), "  T_COMMAND (optional)\n")
}

func TestLogger_writesDurationsInMilliseconds(t *testing.T) {
	var json, text bytes.Buffer
	LogSettings{}.Logger(&json).Info("done", "duration", 1500*time.Microsecond)
	LogSettings{Text: true}.Logger(&text).Info("done", "duration", 1500*time.Microsecond)
	assert.Contains(t, json.String(), `"duration_ms":1.5`)
	assert.Contains(t, text.String(), `duration_ms=1.5`)
}

func TestServerGC_leavesGOGCToTheOperator(t *testing.T) {
	before := debug.SetGCPercent(100)
	defer debug.SetGCPercent(before)
	t.Setenv("GOGC", "50")
	ServerGC()
	assert.Equal(t, 100, debug.SetGCPercent(100), "the runtime has read GOGC already")
	t.Setenv("GOGC", "")
	ServerGC()
	assert.Equal(t, 300, debug.SetGCPercent(100))
}

func TestHints_whatPeopleWriteOtherwise_isSaidHowToWrite(t *testing.T) {
	for text, want := range map[string]string{
		"30d": "write 720h", "2 weeks": "write 336h", "1.5d": "write 36h", "90 min": "write 1h30m",
		"10sec": "write 10s", "5M": "write 5m", "1 h": "write 1h",
		"30": "a unit is missing: write 30s, 30m or 30h", "soon": "", "-1h": "", "d": "", "1y": "",
		"1e9d": "", "99999999d": "", "0": "",
	} {
		assert.Equal(t, want, DurationHint(text), text)
	}
	for value, want := range map[string]string{
		"warning": "write warn", "err": "write error", "debgu": "write debug", "loud": "",
		" info": "it begins or ends with white space",
	} {
		assert.Equal(t, want, choiceHint(value, []string{"debug", "info", "warn", "error"}), value)
	}
	for value, want := range map[string]string{"1": "write true", "no": "write false",
		"ture": "write true", "maybe": ""} {
		assert.Equal(t, want, choiceHint(value, []string{"true", "false"}), value)
	}
}
