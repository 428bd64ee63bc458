package truststore

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/golden"
)

// TestLoad reads testdata/environment.txt: what is set, and what is said of it.
func TestLoad(t *testing.T) {
	for sentence, text := range golden.Read(t, "environment.txt") {
		t.Run(sentence, func(t *testing.T) {
			for _, name := range Names() {
				t.Setenv(name, "")
			}
			var want []string
			for line := range strings.Lines(text) {
				line = strings.TrimSuffix(line, "\n")
				if name, value, ok := strings.Cut(line, "="); ok && want == nil {
					t.Setenv(name, value)
				} else {
					want = append(want, line)
				}
			}
			cfg, err := Load()
			said := fmt.Sprintf("exit %d: %v", ExitCode(err), err)
			if err == nil {
				said = fmt.Sprintf("merge %s\ncopy %s", cfg.Truststores, cfg.Keystores)
			}
			assert.Equal(t, strings.Join(want, "\n"), said)
		})
	}
}

func TestWanted_anyVariable(t *testing.T) {
	assert.Len(t, Names(), 4)
	for _, set := range append(Names(), "") {
		for _, name := range Names() {
			t.Setenv(name, map[bool]string{true: "/x"}[name == set])
		}
		assert.Equal(t, set != "", Wanted(), set)
	}
}

func TestExitCode_ofOtherErrors(t *testing.T) {
	assert.Equal(t, 0, ExitCode(nil))
	assert.Equal(t, 99, ExitCode(os.ErrClosed))
	assert.Equal(t, 5, ExitCode(fmt.Errorf("after the renewal: %w", fail(codeBackup, "x"))))
	require.ErrorIs(t, fail(codeSave, "y: %w", os.ErrClosed), os.ErrClosed)
}

func TestWriteUsage_listsVariablesAndExitCodes(t *testing.T) {
	var text strings.Builder
	require.NoError(t, WriteUsage(&text))
	for _, want := range append(Names(), "\n   0  success", "\n  13  a keystore to copy does not exist\n", "\n  99  ") {
		assert.Contains(t, text.String(), want)
	}
	assert.Error(t, WriteUsage(closed{}))
}

type closed struct{}

func (closed) Write([]byte) (int, error) { return 0, errors.New("closed") }
