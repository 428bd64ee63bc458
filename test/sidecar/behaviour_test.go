package sidecar

import (
	"crypto/x509"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/files"
	"github.com/certfetcher/certfetcher/internal/inspect"
	"github.com/certfetcher/certfetcher/internal/keystore"
	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/service"
)

// once runs certfetcher to its end, and returns its exit code with what it printed.
func once(t *testing.T, variables []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	command := exec.Command(filepath.Join(binDir, "certfetcher"), args...)
	command.Env = variables
	var out, errs strings.Builder
	command.Stdout, command.Stderr = &out, &errs
	if err := command.Run(); err != nil {
		require.IsType(t, &exec.ExitError{}, err)
	}
	return command.ProcessState.ExitCode(), out.String(), errs.String()
}

func inspected(t tester, volume string) *inspect.Report {
	t.Helper()
	report, err := inspect.Dir(volume)
	require.NoError(t, err)
	return report
}

// snapshot is the content of every published file.
func snapshot(t tester, volume string) map[string]string {
	t.Helper()
	files := map[string]string{}
	for _, f := range inspected(t, volume).Files {
		content := fixture.Must(os.ReadFile(filepath.Join(volume, f.Name)))
		files[f.Name] = string(content)
	}
	return files
}

func TestSidecar_logThatNobodyReads_endsNothing(t *testing.T) {
	t.Parallel()
	s := startService(t, time.Hour, nil)
	reader, writer, err := os.Pipe()
	require.NoError(t, err)
	address := fixture.FreeAddress(t)
	p := &sidecar{t: t, address: address, cmd: exec.Command(filepath.Join(binDir, "certfetcher"))}
	p.cmd.Env = append(environment(s.URL, s.Dir, filepath.Join(t.TempDir(), "volume")), "HEALTH_ADDR="+address)
	p.cmd.Stderr = writer
	require.NoError(t, p.cmd.Start())
	t.Cleanup(func() { _ = p.cmd.Process.Kill() })
	require.NoError(t, writer.Close())
	p.awaitReady()
	require.NoError(t, reader.Close())
	p.renew()
	eventually(t, "it renews", func() bool { return p.metric(`certfetcher_renewals_total{outcome="updated"}`) == 1 })
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(t, p.cmd.Wait())
}

func TestSidecar_everyPublication_isToldByCommandAndPOST(t *testing.T) {
	t.Parallel()
	posts := make(chan string, 10)
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		posts <- string(body)
	}))
	t.Cleanup(hook.Close)
	s := startService(t, time.Hour, nil)
	p := start(t, s, "HEALTH_ADDR=off", "NOTIFY_EXEC=/usr/bin/env", "NOTIFY_URL="+hook.URL+"/reload?token=hush")
	for n, reason := range []string{"enrolled", "renewed"} {
		p.await(n+1, planned)
		serial := inspected(t, p.volume).Certificate.Serial
		assert.Equal(t, "exec", p.await(2*n+1, told).text("kind"))
		assert.Equal(t, "url", p.await(2*n+2, told).text("kind"))
		post := <-posts
		assert.Contains(t, post, `"reason":"`+reason+`","serial":"`+serial+`"`)
		assert.Contains(t, post, `"`+filepath.Join(p.volume, "keystore.p12")+`"`)
		log := p.text()
		assert.Contains(t, log, "CERTFETCHER_REASON="+reason)
		assert.Contains(t, log, "CERTFETCHER_SERIAL="+serial)
		assert.Contains(t, log, "CERTFETCHER_KEYSTORE_P12="+filepath.Join(p.volume, "keystore.p12"))
		require.NoError(t, p.cmd.Process.Signal(syscall.SIGHUP))
	}
	p.end()
	assert.NotContains(t, p.text(), "hush")
	assert.NotContains(t, p.text(), fixture.Password, "the command's environment has no password")
	assert.Zero(t, p.count(serving))
}

// clients notes the serial number of each client certificate that is shown.
type clients struct {
	mu   sync.Mutex
	seen []string
}

func (c *clients) wrap(_ *service.Service, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		c.seen = append(c.seen, pki.Serial(r.TLS.PeerCertificates[0]))
		c.mu.Unlock()
		next.ServeHTTP(w, r)
	})
}

func (c *clients) last() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen[len(c.seen)-1]
}

// replace puts a file in the place of another at one blow.
func replace(t *testing.T, path string, content []byte) {
	t.Helper()
	require.NoError(t, os.WriteFile(path+".new", content, 0o600))
	require.NoError(t, os.Rename(path+".new", path))
}

// clientStore is a new identity of a service's client, in a store.
func clientStore(t *testing.T, s *service.Service, password string) (*x509.Certificate, []byte) {
	t.Helper()
	key, chain, err := s.Transport.Identity("certfetcher")
	require.NoError(t, err)
	store, err := keystore.EncodePKCS12([]keystore.Entry{{Alias: "client", Key: key, Chain: chain}},
		password, keystore.ProfileModern)
	require.NoError(t, err)
	return chain[0], store
}

const (
	replaced = "mutual TLS identity replaced"
	unusable = "the new mutual TLS files are unusable, keeping the identity in use"
)

func TestSidecar_withoutInotify_usesTheNewIdentityAllTheSame(t *testing.T) {
	t.Parallel()
	without := []string{fixture.RequirePrograms(t, "unshare")[0], "--map-root-user", "sh", "-c",
		`echo 0 >/proc/sys/user/max_inotify_instances && exec "$0"`}
	if exec.Command(without[0], append(without[1:], "true")...).Run() != nil {
		t.Skip("no user namespace can be made here")
	}
	var shown clients
	s := startService(t, time.Hour, shown.wrap)
	volume := filepath.Join(t.TempDir(), "volume")
	p := run(t, volume, append(environment(s.URL, s.Dir, volume),
		"RENEW_TRIGGER_FILE="+filepath.Join(t.TempDir(), "renew")), without...)
	p.await(1, "the mutual TLS files cannot be watched, and are read before each request instead")
	p.await(1, "published files that vanish are not put back before the next renewal, and "+
		"RENEW_TRIGGER_FILE is not seen; SIGHUP and POST /renew still renew now")
	p.await(1, planned)
	leaf, store := clientStore(t, s, fixture.Password)
	replace(t, filepath.Join(s.Dir, "client.p12"), store)
	p.renew()
	p.await(2, planned)
	assert.Equal(t, pki.Serial(leaf), shown.last())
	assert.Equal(t, float64(leaf.NotAfter.Unix()), p.metric("certfetcher_mtls_identity_expiry_timestamp_seconds"))
	require.NoError(t, os.Remove(filepath.Join(volume, "keystore.p12")))
	p.renew()
	p.await(3, planned)
	assert.FileExists(t, filepath.Join(volume, "keystore.p12"))
	p.end()
}

// assertTold checks the nth line that says so.
func (p *sidecar) assertTold(n int, reason, serial string) {
	p.t.Helper()
	l := p.await(n, told)
	assert.Equal(p.t, reason, l.text("trigger"))
	assert.Equal(p.t, serial, l.text("serial"))
}

// A user other than root may not replace a file of root's in a directory with the sticky bit. Nobody knows before.
func TestSidecar_publicationThatFailsHalfWay_isCompletedAndTold(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can be another user")
	}
	t.Parallel()
	const nobody = 65534
	s := startService(t, time.Hour, nil)
	volume := filepath.Join(t.TempDir(), "volume")
	require.NoError(t, os.Mkdir(volume, 0o700))
	require.NoError(t, os.Chmod(volume, 0o777|os.ModeSticky))
	for _, dir := range []string{filepath.Dir(volume), filepath.Dir(filepath.Dir(volume)), s.Dir, filepath.Dir(s.Dir)} {
		require.NoError(t, os.Chmod(dir, 0o755))
	}
	for _, name := range []string{"client.p12", "truststore.p12"} {
		require.NoError(t, os.Chown(filepath.Join(s.Dir, name), nobody, nobody))
	}
	p := runAs(t, &syscall.Credential{Uid: nobody, Gid: nobody}, volume, append(environment(s.URL, s.Dir, volume),
		"OUTPUT_LAYOUT=inplace", "NOTIFY_EXEC=/usr/bin/env"))
	p.await(1, planned)
	first := inspected(t, volume).Certificate
	p.assertTold(1, "enrolled", first.Serial)
	path := filepath.Join(volume, "keystore.p12")
	require.NoError(t, os.Chown(path, 0, -1))

	p.renew()
	failure := p.await(1,
		"the new certificate is the one on the volume, but its files are not complete; completing them")
	assert.Contains(t, failure.text("error"), path)
	p.await(2, planned)
	renewed := p.await(2, "verified the certificate").text("serial")
	p.await(1, "restoring published files failed; trying again")
	status, text := p.get("/readyz")
	assert.Equal(t, http.StatusServiceUnavailable, status)
	assert.Contains(t, text, path)
	assert.Equal(t, 1, p.count(told), "nobody is told before it is complete")

	require.NoError(t, os.Remove(path))
	p.await(1, "the new files are complete")
	now := inspected(t, volume).Certificate
	assert.Equal(t, renewed, now.Serial)
	p.assertTold(2, "renewed", renewed)
	assert.Equal(t, float64(now.NotAfter.Unix()), p.metric("certfetcher_certificate_expiry_timestamp_seconds"))
	assert.Equal(t, 1., p.metric(`certfetcher_renewals_total{outcome="updated"}`))
	assert.Zero(t, p.metric("certfetcher_restorations_total"))
	assert.Equal(t, 2, s.Requests())
	status, text = p.get("/readyz")
	assert.Equal(t, http.StatusOK, status, text)
	p.end()
}

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
