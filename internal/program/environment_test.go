package program

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
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
	{Name: "LOG_FORMAT", Default: "json", Rule: "json or text", Help: "format"},
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

func TestRead_unsetAndEmpty_giveTheDefaults(t *testing.T) {
	r := read(t, map[string]string{"T_ADDRESS": "h:1"})
	assert.Equal(t, []string{"h:1", "secret", "", "3", "1s", "false", "json", "info"}, r.values)
	assert.Equal(t, 3, r.Number("T_COUNT", 1, 5))
	assert.Equal(t, time.Second, r.Duration("T_WAIT", 1))
	assert.False(t, r.Bool("T_FLAG"))
	assert.Equal(t, LogSettings{}, r.Log())
	assert.Empty(t, r.Faults())
}

func TestRead_faults_areOrderedAndShowNoSecret(t *testing.T) {
	r := read(t, map[string]string{
		"T_PASSWORD": "hush", "T_COMMAND": "run --token=hush", "T_COUNT": "6", "T_WAIT": "soon",
		"T_FLAG": "yes", "LOG_LEVEL": "loud",
	})
	r.Log()
	r.Bool("T_FLAG")
	r.Duration("T_WAIT", 1)
	r.Number("T_COUNT", 1, 5)
	r.Reject("T_COMMAND", "a quote is missing")
	r.Reject("T_PASSWORD", "")
	var texts []string
	for _, f := range r.Faults() {
		texts = append(texts, f.Error())
	}
	assert.Equal(t, []string{
		"T_ADDRESS is not set, want host:port",
		"T_PASSWORD has a value that is not shown, want at least 6 bytes",
		"T_COMMAND has a value that is not shown (a quote is missing), want a command",
		`T_COUNT has "6", want 1 to 5`,
		`T_WAIT has "soon", want a duration, more than 0`,
		`T_FLAG has "yes" (write true), want true or false`,
		`LOG_LEVEL has "loud", want debug, info, warn or error`,
	}, texts)
	assert.Equal(t, "net", r.Faults()[0].Part)
}

func TestRead_twinOfASecretWithDefault_wins(t *testing.T) {
	path := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(path, []byte("from file\r\n"), 0o600))
	r := read(t, map[string]string{"T_ADDRESS": "h:1", "T_PASSWORD_FILE": path})
	assert.Equal(t, "from file", r.Value("T_PASSWORD"))
	assert.Empty(t, r.Faults())
	assert.Equal(t, path, r.SecretFile("T_PASSWORD"))

	r.Reject("T_PASSWORD", "it is short")
	require.Len(t, r.Faults(), 1)
	assert.Equal(t,
		fmt.Sprintf("T_PASSWORD_FILE has %q, with content that is not shown (it is short), want at least 6 bytes",
			path), r.Faults()[0].Error())
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

func TestRead_unusableTwin_isAFault(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	require.NoError(t, os.WriteFile(empty, nil, 0o600))
	pipe := filepath.Join(dir, "pipe") // that nobody writes to
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	for want, values := range map[string]map[string]string{
		"T_PASSWORD_FILE and T_PASSWORD are both set, want one " +
			"of them": {"T_PASSWORD": "x", "T_PASSWORD_FILE": empty},
		`T_PASSWORD_FILE has "` + empty +
			`", which is empty, want at least 6 bytes`: {"T_PASSWORD_FILE": empty},
		`T_PASSWORD_FILE has "` + dir +
			`/none", which does not exist: check the path and the volume mounted there (no such ` +
			`file or directory)`: {"T_PASSWORD_FILE": dir + "/none"},
		`T_PASSWORD_FILE has "` + pipe + `", which is empty, want at least 6 bytes`: {"T_PASSWORD_FILE": pipe},
		`T_PASSWORD_FILE has "/dev/zero", which cannot be read: has more than ` +
			`65536 bytes`: {"T_PASSWORD_FILE": "/dev/zero"},
	} {
		values["T_ADDRESS"] = "h:1"
		r := read(t, values)
		require.Len(t, r.Faults(), 1)
		assert.Equal(t, want, r.Faults()[0].Error())
		assert.Equal(t, "tls", r.Faults()[0].Part)
	}
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

func TestReader_warnings_areNoFaults(t *testing.T) {
	r := read(t, map[string]string{"T_ADDRESS": "h:1"})
	r.Warn("T_COUNT", "is odd")
	r.Warn("T_ADDRESS", "is far")
	assert.Empty(t, r.Faults())
	assert.Equal(t, []Fault{{"net", "T_ADDRESS", "is far"}, {"", "T_COUNT", "is odd"}}, r.Warnings())
}
