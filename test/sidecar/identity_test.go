package sidecar

import (
	"crypto/x509"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/keystore"
	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/service"
)

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
