package truststore

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
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

func TestWriteUsage_listsVariables(t *testing.T) {
	var text strings.Builder
	require.NoError(t, WriteUsage(&text))
	for _, want := range Names() {
		assert.Contains(t, text.String(), want)
	}
	assert.Error(t, WriteUsage(closed{}))
}

type closed struct{}

func (closed) Write([]byte) (int, error) { return 0, errors.New("closed") }

func later(path string) bool { return strings.Contains(path, "/later") }

// Check leaves to the next run what a killed one left, and a single truststore is not a destination.
func TestCheck_leavesAloneWhatItDoesNotNeed(t *testing.T) {
	p := newPlace(t, "base.pem", "=pem 0", ".base.pem"+temporaryMark+"1", "")
	before := p.names()
	for _, stores := range [][]string{{"base.pem"}, {"base.pem", "base.pem"}} {
		assert.Empty(t, Check(p.merge(stores...), later))
		assert.Equal(t, before, p.names())
	}
}

func TestRun_mountedFile_isRefusedWithAHint(t *testing.T) {
	p, cfg := newScene(t)
	if err := syscall.Mount(p.path("base.jks"), p.path("base.jks"), "", syscall.MS_BIND, ""); err != nil {
		t.Skipf("mounting needs root in this namespace: %v", err)
	}
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(p.path("base.jks"), 0)) })

	_, err := newRun(cfg, nil).do(cfg, nil)

	require.EqualError(t, err, `writing destination: "`+p.path("base.jks")+`" is mounted by itself, as with a subPath `+
		`or a volume for one file, and cannot be replaced: mount the directory that it is in`)
	assert.Equal(t, 11, ExitCode(err))
	assert.NoFileExists(t, p.path("base.jks.bak"))
	assert.Equal(t, []error{err}, Check(cfg, later))
}
