package sidecar

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/keystore"
	"github.com/certfetcher/certfetcher/test/ca"
	"github.com/certfetcher/certfetcher/test/port"
	"github.com/certfetcher/certfetcher/test/service"
)

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
	failure := p.await(1, "the new certificate is the one on the volume, but its files are not complete; completing them")
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

func TestSidecar_endBeforeTheApplicationWasTold_isMadeUpForAtTheNextStart(t *testing.T) {
	for _, layout := range []string{"symlink", "inplace"} {
		t.Run(layout, func(t *testing.T) {
			t.Parallel()
			s := startService(t, time.Hour, nil)
			dir := t.TempDir()
			volume, begun := filepath.Join(dir, "volume"), filepath.Join(dir, "begun")
			variables := append(environment(s.URL, s.Dir, volume), "OUTPUT_LAYOUT="+layout)
			p := run(t, volume, append(variables, "NOTIFY_EXEC=/bin/sh -c 'touch "+begun+"; sleep 60'"))
			eventually(t, "the command runs", func() bool { _, err := os.Stat(begun); return err == nil })
			serial := inspected(t, volume).Certificate.Serial
			p.end()

			p = run(t, volume, append(variables, "NOTIFY_EXEC=/usr/bin/env"))
			p.assertTold(1, "restored", serial)
			eventually(t, "that is noted", func() bool { _, err := os.Stat(filepath.Join(volume, "..untold")); return os.IsNotExist(err) })
			p.end()
			assert.Equal(t, 1, s.Requests())

			p = run(t, volume, append(variables, "NOTIFY_EXEC=/usr/bin/env"))
			p.await(1, planned)
			p.renew()
			p.await(2, planned)
			p.assertTold(1, "renewed", inspected(t, volume).Certificate.Serial)
			p.end()
		})
	}
}

// serve shows the certificate of a volume, as long as the test lasts.
func serve(t *testing.T, volume string) (address string) {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(filepath.Join(volume, "keystore.pem"), filepath.Join(volume, "key.pem"))
	require.NoError(t, err)
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}})
	require.NoError(t, err)
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func(conn net.Conn) {
				_ = conn.(*tls.Conn).Handshake()
				conn.Close()
			}(conn)
		}
	}()
	return listener.Addr().String()
}

func TestSidecar_startWithAKeptCertificate_verifiesAndTellsNobody(t *testing.T) {
	t.Parallel()
	s := startService(t, time.Hour, nil)
	volume := filepath.Join(t.TempDir(), "volume")
	variables := append(environment(s.URL, s.Dir, volume), "OUTPUT_TYPE=PEM")
	code, _, stderr := once(t, append(variables, "MODE=init"))
	require.Zero(t, code, stderr)
	p := run(t, volume, append(variables, "NOTIFY_EXEC=/usr/bin/env", "NOTIFY_VERIFY="+serve(t, volume)))
	p.await(1, verified)
	assert.Equal(t, 1., p.metric("certfetcher_served_certificate_matches"))
	assert.Zero(t, p.count(told))
	p.end()
}

// Also what an init container brought is merged, and as patiently as all else is done.
func TestSidecar_startWithAKeptCertificate_mergesAndTellsOfThat(t *testing.T) {
	t.Parallel()
	s := startService(t, time.Hour, nil)
	dir := t.TempDir()
	volume, cacerts, password := filepath.Join(dir, "volume"), filepath.Join(dir, "cacerts"), filepath.Join(dir, "password")
	variables := environment(s.URL, s.Dir, volume)
	code, _, stderr := once(t, append(variables, "MODE=init"))
	require.Zero(t, code, stderr)
	require.NoError(t, os.WriteFile(password, []byte("changeit"), 0o600))
	variables = append(variables, "NOTIFY_EXEC=/usr/bin/env",
		"TRUSTSTORES_PATHS="+cacerts+":"+filepath.Join(volume, "truststore.p12"),
		"TRUSTSTORES_PASSWORDS_PATHS="+password+":"+filepath.Join(volume, "truststore.pass"))
	p := run(t, volume, variables)
	assert.Contains(t, p.await(1, "preparing what the application reads failed").text("error"), cacerts)
	assert.Positive(t, p.metric(`certfetcher_notifications_total{kind="postprocess",outcome="failure"}`))
	assert.Zero(t, p.count(told))

	own, err := ca.New("Own")
	require.NoError(t, err)
	store, err := keystore.EncodeJKS([]keystore.Entry{{Alias: "own", Chain: []*x509.Certificate{own.Root}, Trusted: true}}, "changeit", time.Now())
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(cacerts, store, 0o644))
	p.await(1, "file replaced")
	p.assertTold(1, "restored", inspected(t, volume).Certificate.Serial)
	assert.Equal(t, "exec", p.await(1, told).text("kind"))
	assert.Positive(t, p.metric(`certfetcher_notifications_total{kind="postprocess",outcome="success"}`))
	assert.Zero(t, p.metric("certfetcher_restorations_total"))
	p.end()

	p = run(t, volume, variables)
	p.await(1, "prepared what the application reads")
	p.end()
	assert.Zero(t, p.count(told), "there was nothing to merge")
}

func TestSidecar_hookThatHarmsPublishedFiles_isNotAnsweredForEver(t *testing.T) {
	t.Parallel()
	p := start(t, startService(t, time.Hour, nil), "OUTPUT_TYPE=PEM", "NOTIFY_EXEC=/bin/sh -c 'chmod 0600 $CERTFETCHER_KEY_PEM'")
	first := p.await(1, putBack)
	assert.Equal(t, []any{"key.pem has mode 0600, want 0640"}, first["differences"])
	p.await(1, "published files change again and again right after they were restored, so they are restored less often: "+
		"does a hook of the application, or another process, write to the volume?")
	third := p.await(3, putBack)
	from, err := time.Parse(time.RFC3339, first.text("time"))
	require.NoError(t, err)
	until, err := time.Parse(time.RFC3339, third.text("time"))
	require.NoError(t, err)
	assert.GreaterOrEqual(t, until.Sub(from), 1400*time.Millisecond, "pauses of half a second and of a second")
	p.end()
}

// A native sidecar starts before the application: until that is there, nothing has failed.
func TestSidecar_applicationThatStartsLater_isNoFailure(t *testing.T) {
	t.Parallel()
	address := port.Free(t)
	p := start(t, startService(t, time.Hour, nil), "NOTIFY_URL=http://"+address+"/reload")
	absent := p.await(1, "the application is not there yet, trying again until it is")
	assert.Equal(t, "INFO", absent.text("level"))
	assert.Contains(t, absent.text("error"), "connection refused")
	assert.FileExists(t, filepath.Join(p.volume, "..untold"), "it is still due")
	listener, err := net.Listen("tcp", address)
	require.NoError(t, err)
	app := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
	go func() { _ = app.Serve(listener) }()
	t.Cleanup(func() { app.Close() })
	p.await(1, told)
	assert.Zero(t, p.metric(`certfetcher_notifications_total{kind="url",outcome="failure"}`))
	for _, l := range p.lines("notifying the application failed") {
		assert.Fail(t, "an application that is still to come was taken for a failure", l.text("error"))
	}
	// Once it was there, it is missed.
	require.NoError(t, app.Close())
	p.renew()
	assert.Equal(t, "ERROR", p.await(1, "notifying the application failed").text("level"))
	assert.Positive(t, p.metric(`certfetcher_notifications_total{kind="url",outcome="failure"}`))
	p.end()
}

func TestSidecar_twoOnOneVolume_agreeOnTheNewerCertificate(t *testing.T) {
	t.Parallel()
	issued := 0
	s := startService(t, time.Hour, func(s *service.Service, next http.Handler) http.Handler {
		begin := time.Now().Add(-30 * time.Minute)
		s.CA.Change = func(leaf *x509.Certificate) {
			issued++
			leaf.NotBefore = begin.Add(time.Duration(issued) * time.Minute)
			leaf.NotAfter = leaf.NotBefore.Add(2 * time.Hour)
			leaf.DNSNames = append(leaf.DNSNames, "added.example.org") // what was requested counts
		}
		return next
	})
	first := start(t, s)
	first.await(1, planned)
	second := run(t, first.volume, append(environment(s.URL, s.Dir, first.volume), "NOTIFY_EXEC=/usr/bin/env"))
	second.await(1, planned)
	const stays = "keeping a newer certificate published by another process"
	first.renew()
	first.await(2, planned)
	serial := inspected(t, first.volume).Certificate.Serial
	assert.Equal(t, serial, second.await(1, stays).text("serial"))
	second.assertTold(1, "restored", serial)
	second.await(2, planned)
	assert.Zero(t, second.metric("certfetcher_restorations_total"))

	second.renew()
	second.await(3, planned)
	serial = inspected(t, first.volume).Certificate.Serial
	assert.Equal(t, serial, first.await(1, stays).text("serial"))
	first.await(3, planned)
	first.end()
	second.end()
	assert.Equal(t, serial, inspected(t, first.volume).Certificate.Serial)
	assert.Equal(t, 1, second.count(stays))
	assert.Equal(t, 3, s.Requests())
}
