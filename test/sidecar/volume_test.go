package sidecar

import (
	"crypto/x509"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

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

	life.Store(int64(2 * time.Second))
	p.renew()
	p.await(2, planned)
	s.Stop()
	p.await(1, "renewing failed, and the certificate has expired; trying again")
	code, _, stderr = once(t, variables, "probe")
	assert.Equal(t, 1, code)
	assert.Regexp(t, `^certfetcher: the certificate has expired: .+\n$`, stderr)
	p.end()
}
