package sidecar

import (
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
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
