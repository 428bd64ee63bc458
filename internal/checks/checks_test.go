package checks

import (
	"context"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/golden"
)

// sample has a check of each status, and texts that have to be wrapped and escaped.
func sample() Report {
	l := List{Expected: map[string]string{
		"file system":  "private keys are kept in memory",
		"server trust": "the server's certificate chains to a CA in the truststore",
	}}
	l.OK("variables", "every variable is usable")
	l.Warn("file system", "ext4: private keys are written to a disk",
		"keep private keys in memory: emptyDir with medium: Memory")
	l.Fail(6, "server trust", `does not chain to TRUSTSTORE_PATH: the server sends 2 certificates, the last `+
		`issued by "CN=Root <A&B>"; the truststore has "CN=Other"`,
		"add the certificate of the CA \"CN=Root <A&B>\" to the truststore, if this is your CertService,\n"+
			"and not somebody else's")
	l.CA = "RA"
	l.SkipRest([]string{"tls", "cmp"}, "because the tcp check failed")
	l.CA = "Other"
	l.Fail(1, "tcp", "\x1b[2Jconnection refused", "check the port")
	return Report{l.Checks}
}

func text(t *testing.T, r Report, style Style) string {
	t.Helper()
	var out strings.Builder
	require.NoError(t, r.WriteText(&out, style))
	return out.String()
}

func TestReport_WriteText(t *testing.T) {
	for name, style := range map[string]Style{"report.txt": {}, "symbols.txt": {Symbols: true},
		"terminal.txt": {Symbols: true, Colours: true}, "colours.txt": {Colours: true}} {
		got := text(t, sample(), style)
		golden.File(t, name, strings.ReplaceAll(got, "\x1b", "<ESC>"))
		for line := range strings.Lines(got) {
			assert.True(t, utf8.RuneCountInString(line) <= 101 || strings.Contains(line, "see https://") ||
				style.Colours, line)
		}
	}
}

func TestReport_WriteJSON(t *testing.T) {
	var out strings.Builder
	require.NoError(t, sample().Write(&out, "json"))
	golden.File(t, "report.json", out.String())
	out.Reset()
	require.NoError(t, Report{}.WriteJSON(&out))
	assert.JSONEq(t, `{"status": "ok", "exitCode": 0, "checks": []}`, out.String(), "an empty list")
}

func TestReport_ExitCode_isThatOfTheFirstFailure(t *testing.T) {
	assert.Equal(t, 6, sample().ExitCode())
	assert.Equal(t, Failed, sample().Status())
	good := Report{sample().Checks[:2]}
	assert.Equal(t, 0, good.ExitCode(), "warnings are no failure")
	assert.Equal(t, Warning, good.Status())
}

func TestStyleOf_isPlainWhereNobodyLooks(t *testing.T) {
	file, err := os.Create(t.TempDir() + "/report")
	require.NoError(t, err)
	defer file.Close()
	assert.Equal(t, Style{}, StyleOf(file))
	assert.Equal(t, Style{}, StyleOf(&strings.Builder{}))
}

func TestShowsSymbols_whereTheLocaleIsUTF8(t *testing.T) {
	for words, want := range map[string]bool{
		"":                            false,
		"LANG=C":                      false,
		"LANG=C.UTF-8":                true,
		"LANG=de_DE.utf8":             true,
		"LANG=C.UTF-8 LC_ALL=POSIX":   false,
		"LANG=C LC_CTYPE=en_US.UTF-8": true,
		"LANG=C.UTF-8 TERM=dumb":      false,
	} {
		assert.Equal(t, want, showsSymbols(func(name string) string {
			for word := range strings.FieldsSeq(words) {
				if key, value, _ := strings.Cut(word, "="); key == name {
					return value
				}
			}
			return ""
		}), words)
	}
}

// failing is a report of a check that fails for a time.
func failing(until time.Duration) (run func(context.Context) Report, runs *int) {
	begun, runs := time.Now(), new(int)
	return func(context.Context) Report {
		*runs++
		l := List{CA: "RA"}
		if time.Since(begun) < until {
			l.Fail(1, "tcp", "connection refused", "check the port")
		}
		return Report{l.Checks}
	}, runs
}

func TestWait(t *testing.T) {
	for name, row := range map[string]struct {
		most, until time.Duration
		code, runs  int
		after       time.Duration
		said        string
	}{
		"once, without a time": {0, time.Minute, 1, 1, 0, ""},
		"until nothing fails": {time.Minute, 5 * time.Second, 0, 4, 7 * time.Second,
			"waiting for 1m0s more, failed: tcp (RA)\n"},
		"until the time is over, and says so twice a minute": {time.Minute, time.Hour, 1, 10, time.Minute,
			"waiting for 1m0s more, failed: tcp (RA)\nwaiting for 25s more, failed: tcp (RA)\n"},
		"a failure at the end counts": {3 * time.Second, 4 * time.Second, 1, 3, 3 * time.Second,
			"waiting for 3s more, failed: tcp (RA)\n"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				run, runs := failing(row.until)
				start, said := time.Now(), &strings.Builder{}
				report := Wait(t.Context(), row.most, said, run)
				assert.Equal(t, row.code, report.ExitCode())
				assert.Equal(t, row.runs, *runs)
				assert.Equal(t, row.after, time.Since(start))
				assert.Equal(t, row.said, said.String())
			})
		})
	}
}

func TestWait_endsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		start := time.Now()
		run, _ := failing(time.Hour)
		Wait(ctx, time.Hour, &strings.Builder{}, run)
		assert.Equal(t, 1500*time.Millisecond, time.Since(start))
	})
}
