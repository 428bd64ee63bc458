package sidecar

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/files"
	"github.com/certfetcher/certfetcher/test/fixture"
)

func TestSidecar_signalWhileAnotherProcessHoldsTheVolume_endsTheWaiting(t *testing.T) {
	t.Parallel()
	s := startService(t, time.Hour, nil)
	volume := t.TempDir()
	holder := fixture.Must(os.Open(volume))
	defer holder.Close()
	unlock, err := files.Lock(holder, "..lock", nil)
	require.NoError(t, err)
	defer unlock()
	p := run(t, volume, environment(s.URL, s.Dir, volume))
	p.await(1, serving)
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGTERM))
	var exit *exec.ExitError
	require.ErrorAs(t, <-p.ended, &exit)
	assert.Equal(t, 99, exit.ExitCode())
	assert.Equal(t, `opening the output directory: locking "`+volume+`": context canceled`,
		p.await(1, "certfetcher failed").text("error"))
}

func TestSidecar_probeAndInspect_ofAVolumeInAnOddState_sayWhatIsWrong(t *testing.T) {
	t.Parallel()
	s := startService(t, time.Hour, nil)
	made := func(t *testing.T, variables ...string) (volume string, environ []string) {
		volume = filepath.Join(t.TempDir(), "volume")
		environ = append(append(environment(s.URL, s.Dir, volume), "MODE=init"), variables...)
		code, _, stderr := once(t, environ)
		require.Zero(t, code, stderr)
		return volume, environ
	}
	t.Run("a directory that may not be entered", func(t *testing.T) {
		if os.Geteuid() == 0 {
			t.Skip("root may enter every directory")
		}
		volume, environ := made(t, "OUTPUT_LAYOUT=inplace")
		require.NoError(t, os.Chmod(volume, 0o600))
		t.Cleanup(func() { _ = os.Chmod(volume, 0o700) })
		code, stdout, stderr := once(t, environ, "inspect")
		assert.Equal(t, 1, code)
		assert.Empty(t, stdout)
		assert.Contains(t, stderr, "may not be reached by user")
	})
}
