package program

import (
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestLines_areForPeople(t *testing.T) {
	for name, c := range map[string]struct {
		log  func(log *slog.Logger)
		want string
	}{
		"a message":          {func(l *slog.Logger) { l.Info("serving") }, "INFO  serving\n"},
		"what is not logged": {func(l *slog.Logger) { l.Debug("a detail") }, ""},
		"values": {func(l *slog.Logger) {
			l.Warn("late", "by", 1500*time.Millisecond, "n", 2)
		}, "WARN  late by=1.5s n=2\n"},
		"values that need quotes": {func(l *slog.Logger) {
			l.Info("a", "b", "c d", "e", "", "f", `"`)
		}, `INFO  a b="c d" e="" f="\""` + "\n"},
		"a variable and its fault": {func(l *slog.Logger) {
			l.Error("a fault", "variable", "X", "error", "is wrong", "n", 1)
		}, "ERROR a fault: X is wrong n=1\n"},
		"a fault that has its variable": {func(l *slog.Logger) {
			l.Error("failed", "variable", "X", "error", "X is wrong")
		}, "ERROR failed: X is wrong\n"},
		"an error of several lines": {func(l *slog.Logger) {
			l.Error("failed", "error", "one\ntwo\n")
		}, "ERROR failed: one; two\n"},
		"what steers a terminal": {func(l *slog.Logger) {
			l.Error("failed", "error", "\x1b[2J", "by", "\r\x07")
		}, "ERROR failed: �[2J by=��\n"},
		"attributes of a logger": {func(l *slog.Logger) {
			l.With("ca", "RA").WithGroup("tls").Info("a", "b", "c")
		}, "INFO  a ca=RA tls.b=c\n"},
		"a time in another time zone": {func(l *slog.Logger) {
			l.Info("a", "at", time.Date(2026, 1, 2, 3, 0, 0, 0, time.FixedZone("", 3600)))
		}, "INFO  a at=2026-01-02T02:00:00Z\n"},
	} {
		var text strings.Builder
		c.log(slog.New(&lines{w: &text, mu: new(sync.Mutex)}))
		_, got, _ := strings.Cut(text.String(), "Z ")
		assert.Equal(t, c.want, got, name)
	}
}

func TestIsTerminal_ofFiles_isFalse(t *testing.T) {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	require.NoError(t, err)
	defer null.Close()
	assert.False(t, IsTerminal(null))
	assert.False(t, IsTerminal(&strings.Builder{}))
	assert.False(t, LogSettings{}.ForPeople(null))
}

func TestUsesColour_asTheEnvironmentSays(t *testing.T) {
	for environment, want := range map[string]bool{"": false, "CLICOLOR_FORCE=1": true, "CLICOLOR_FORCE=0": false,
		"CLICOLOR_FORCE=1 NO_COLOR=1": false} {
		t.Setenv("NO_COLOR", "")
		t.Setenv("CLICOLOR_FORCE", "")
		for assignment := range strings.FieldsSeq(environment) {
			name, value, _ := strings.Cut(assignment, "=")
			t.Setenv(name, value)
		}
		assert.Equal(t, want, UsesColour(&strings.Builder{}), environment)
	}
}
