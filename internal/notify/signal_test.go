package notify

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParseSignal_reads_names_and_numbers(t *testing.T) {
	for text, want := range map[string]syscall.Signal{
		"HUP": syscall.SIGHUP, "SIGHUP": syscall.SIGHUP, "sighup": syscall.SIGHUP, "usr1": syscall.SIGUSR1,
		"1": syscall.SIGHUP, "15": syscall.SIGTERM, "64": syscall.Signal(64),
	} {
		signal, err := ParseSignal(text)
		require.NoError(t, err, text)
		assert.Equal(t, want, signal, text)
	}
}

func TestParseSignal_refuses_the_rest(t *testing.T) {
	for text, want := range map[string]string{
		"RELOAD": `has unknown signal "RELOAD", want a name such as HUP or SIGHUP, or a number`,
		"SIG":    `has unknown signal "SIG", want a name such as HUP or SIGHUP, or a number`,
		"":       `has unknown signal "", want a name such as HUP or SIGHUP, or a number`,
		" HUP":   `has unknown signal " HUP", want a name such as HUP or SIGHUP, or a number`,
		"0":      "has signal number 0, want 1 to 64",
		"-1":     "has signal number -1, want 1 to 64",
		"65":     "has signal number 65, want 1 to 64",
	} {
		_, err := ParseSignal(text)
		require.EqualError(t, err, want)
	}
}
