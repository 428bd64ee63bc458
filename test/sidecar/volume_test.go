package sidecar

import (
	"crypto/x509"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/files"
	"github.com/certfetcher/certfetcher/test/service"
)

func TestSidecar_probeAndInspect_tellWhatIsThere(t *testing.T) {
	t.Parallel()
	volume := filepath.Join(t.TempDir(), "volume")
	var life atomic.Int64
	life.Store(int64(time.Hour))
	s := startService(t, 0, func(s *service.Service, next http.Handler) http.Handler {
		s.CA.Change = func(leaf *x509.Certificate) {
			leaf.NotBefore = time.Now()
			leaf.NotAfter = leaf.NotBefore.Add(time.Duration(life.Load()))
		}
		return next
	})
	variables := environment(s.URL, s.Dir, volume)
	code, _, stderr := once(t, variables, "probe")
	assert.Equal(t, 1, code)
	assert.Regexp(t, `^certfetcher: reading the volume: .+\n$`, stderr)
	code, _, stderr = once(t, variables, "inspect")
	assert.Equal(t, 1, code)
	assert.Regexp(t, `^certfetcher: .+\n$`, stderr)

	p := run(t, volume, variables)
	p.await(1, planned)
	code, _, stderr = once(t, variables, "probe")
	assert.Zero(t, code, stderr)
	code, _, stderr = once(t, nil, "probe")
	assert.Equal(t, 1, code)
	assert.Equal(t, 1, strings.Count(stderr, "\n"), stderr)
	code, _, _ = once(t, variables, "probe", "now")
	assert.Equal(t, 1, code)

	code, stdout, stderr := once(t, variables, "inspect")
	assert.Zero(t, code, stderr)
	for _, want := range []string{volume + " (symlink layout, generation ..", "certificate: PrivateKeyEntry, chain of 2", "trusted-certificate-1: trustedCertEntry",
		"Subject:  CN=app.example.org,C=SE,ST=Skane,O=Example", "SANs:     DNS:localhost, IP Address:127.0.0.1", "Renewal:  "} {
		assert.Contains(t, stdout, want)
	}
	for _, args := range [][]string{{"inspect", volume, "-o", "json"}, {"inspect", "-o=json", volume}} {
		code, stdout, stderr = once(t, nil, args...)
		assert.Zero(t, code, stderr)
		assert.Contains(t, stdout, `"nextRenewal": "20`)
		assert.Contains(t, stdout, `"daysLeft": `)
	}
	for _, args := range [][]string{{"inspect", "-o", "yaml"}, {"inspect", "a", "b"}, {"inspect", "-x"}} {
		code, _, stderr = once(t, variables, args...)
		assert.Equal(t, 1, code)
		assert.Equal(t, "certfetcher: the command is inspect [dir] [-o text|json]\n", stderr)
	}

	code, stdout, stderr = once(t, append(variables, "RENEW_AT=2"), "inspect")
	assert.Zero(t, code, stderr)
	assert.NotContains(t, stdout, "Renewal:", "the moment is not known")
	code, _, stderr = once(t, nil, "inspect")
	assert.Equal(t, 1, code)
	assert.Equal(t, "certfetcher: no directory is named, and OUTPUT_PATH is not set, want an absolute path\n", stderr)
	file := filepath.Join(volume, "keystore.p12")
	code, _, stderr = once(t, nil, "inspect", file)
	assert.Equal(t, 1, code)
	assert.Equal(t, "certfetcher: "+file+" is a file, want a directory\n", stderr)

	life.Store(int64(5 * time.Second)) // room for a busy machine, and its dates are cut to seconds
	p.renew()
	p.await(2, planned)
	s.Stop()
	p.await(1, "renewing failed, and the certificate has expired; trying again")
	code, _, stderr = once(t, variables, "probe")
	assert.Equal(t, 1, code)
	assert.Regexp(t, `^certfetcher: the certificate has expired: .+\n$`, stderr)
	p.end()
}

func TestSidecar_signalWhileAnotherProcessHoldsTheVolume_endsTheWaiting(t *testing.T) {
	t.Parallel()
	s := startService(t, time.Hour, nil)
	volume := t.TempDir()
	holder, err := os.Open(volume)
	require.NoError(t, err)
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
	assert.Equal(t, `opening the output directory: locking "`+volume+`": context canceled`, p.await(1, "certfetcher failed").text("error"))
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
	t.Run("..data points to nothing", func(t *testing.T) {
		volume, environ := made(t)
		generation, err := os.Readlink(filepath.Join(volume, "..data"))
		require.NoError(t, err)
		require.NoError(t, os.RemoveAll(filepath.Join(volume, generation)))
		code, _, stderr := once(t, environ, "probe")
		assert.Equal(t, 1, code)
		assert.Contains(t, stderr, `/..data" points to "`+generation+`", which does not exist`)
		code, _, stderr = once(t, environ, "inspect")
		assert.Equal(t, 1, code)
		assert.Equal(t, "certfetcher: "+volume+`: no keystore or truststore is here: ..data points to "`+generation+"\", which does not exist\n", stderr)
	})
	t.Run("only the key and its chain", func(t *testing.T) {
		volume, environ := made(t, "OUTPUT_TYPE=PEM", "OUTPUT_LAYOUT=inplace")
		_, want, _ := once(t, environ, "inspect")
		require.NoError(t, os.Remove(filepath.Join(volume, "keystore-combined.pem")))
		code, stdout, stderr := once(t, environ, "inspect")
		assert.Zero(t, code, stderr)
		_, of, found := strings.Cut(want, "\nSubject:")
		require.True(t, found)
		assert.Contains(t, stdout, of)
		assert.Contains(t, stdout, "ECDSA-P256, fits the certificate")
		other, _ := made(t, "OUTPUT_TYPE=PEM")
		key, err := os.ReadFile(filepath.Join(other, "key.pem"))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(volume, "key.pem"), key, 0o600))
		_, stdout, _ = once(t, environ, "inspect")
		assert.Contains(t, stdout, "DOES NOT FIT the certificate")
	})
	t.Run("a named pipe, and a password that is gone", func(t *testing.T) {
		volume, environ := made(t, "OUTPUT_LAYOUT=inplace")
		require.NoError(t, os.Remove(filepath.Join(volume, "keystore.p12")))
		require.NoError(t, syscall.Mkfifo(filepath.Join(volume, "keystore.p12"), 0o600))
		require.NoError(t, os.Remove(filepath.Join(volume, "truststore.pass")))
		code, stdout, stderr := once(t, environ, "inspect")
		assert.Zero(t, code, stderr)
		assert.Regexp(t, `keystore\.p12 .*UNREADABLE: .*is a device, pipe or socket, want a file\n`, stdout)
		assert.Regexp(t, `truststore\.p12 .*UNREADABLE: reading its password: .*no such file or directory\n`, stdout)
	})
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
