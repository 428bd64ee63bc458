package sidecar

import (
	"crypto/x509"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/keystore"
	"github.com/certfetcher/certfetcher/test/ca"
	"github.com/certfetcher/certfetcher/test/service"
)

// withAnotherRoot adds a root to what is trusted, as long as rolling is true.
func withAnotherRoot(rolling *atomic.Bool, root *x509.Certificate) func(*service.Service, http.Handler) http.Handler {
	return func(_ *service.Service, next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !rolling.Load() {
				next.ServeHTTP(w, r)
				return
			}
			recorder := httptest.NewRecorder()
			next.ServeHTTP(recorder, r)
			var answer map[string][]string
			if err := json.Unmarshal(recorder.Body.Bytes(), &answer); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			answer["trustedCertificates"] = append(answer["trustedCertificates"], string(service.CertificatesPEM(root)))
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(answer)
		})
	}
}

// A JVM's truststore gets the CA's roots, those too that come with a renewal, and the application's keystore is
// the renewed one.
func TestSidecar_postprocess_followsTheRenewal(t *testing.T) {
	t.Parallel()
	own, err := ca.New("Own")
	require.NoError(t, err)
	next, err := ca.New("Next")
	require.NoError(t, err)
	var rolling atomic.Bool
	s := startService(t, time.Hour, withAnotherRoot(&rolling, next.Root))

	app := t.TempDir()
	cacerts, password, destination := filepath.Join(app, "cacerts"), filepath.Join(app, "password"), filepath.Join(app, "server.p12")
	store, err := keystore.EncodeJKS([]keystore.Entry{{Alias: "own", Chain: []*x509.Certificate{own.Root}, Trusted: true}}, "changeit", time.Now())
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(cacerts, store, 0o644))
	require.NoError(t, os.WriteFile(password, []byte("changeit"), 0o600))
	volume := filepath.Join(t.TempDir(), "volume")
	p := run(t, volume, append(environment(s.URL, s.Dir, volume),
		"TRUSTSTORES_PATHS="+cacerts+":"+filepath.Join(volume, "truststore.p12"),
		"TRUSTSTORES_PASSWORDS_PATHS="+password+":"+filepath.Join(volume, "truststore.pass"),
		"KEYSTORE_SOURCE_PATHS="+filepath.Join(volume, "keystore.p12"), "KEYSTORE_DESTINATION_PATHS="+destination))

	const replaced = "file replaced"
	assertMerged := func(roots ...*x509.Certificate) {
		t.Helper()
		content, err := os.ReadFile(cacerts)
		require.NoError(t, err)
		entries, format, err := keystore.Decode(content, "changeit")
		require.NoError(t, err)
		assert.Equal(t, keystore.JKS, format)
		var got []*x509.Certificate
		for _, entry := range entries {
			got = append(got, entry.Chain...)
		}
		assert.ElementsMatch(t, roots, got)
		source, err := os.ReadFile(filepath.Join(volume, "keystore.p12"))
		require.NoError(t, err)
		copied, err := os.ReadFile(destination)
		require.NoError(t, err)
		assert.Equal(t, source, copied)
	}
	p.await(2, replaced)
	assertMerged(own.Root, s.CA.Root)

	rolling.Store(true)
	p.renew()
	p.await(4, replaced)
	assertMerged(own.Root, s.CA.Root, next.Root)
	backup, err := os.ReadFile(cacerts + ".bak")
	require.NoError(t, err)
	assert.Equal(t, store, backup, "what was there before certfetcher came")
	p.end()
}
