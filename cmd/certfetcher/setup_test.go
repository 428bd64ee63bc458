package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/certfetcher/certfetcher/test/fixture"
)

func TestRescue_panic_endsWithItsExitCodeAndReason(t *testing.T) {
	message := filepath.Join(t.TempDir(), "termination-log")
	t.Setenv("TERMINATION_MESSAGE_PATH", message)
	t.Setenv("LOG_FORMAT", "text")
	var log bytes.Buffer
	code := func() (code int) {
		defer rescue(&log, &code)
		panic("broken")
	}()
	assert.Equal(t, 99, code)
	assert.Contains(t, log.String(),
		`msg="certfetcher failed" error="panic: broken" stage=other exit_code=99 stack="goroutine `)
	assert.Equal(t, 1, bytes.Count(log.Bytes(), []byte("\n")), "one event is one line")
	written := fixture.Must(os.ReadFile(message))
	assert.Equal(t, "other: panic: broken\n", string(written))
}
