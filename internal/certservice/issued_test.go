package certservice

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/devca"
)

// A certificate that is refused although the CA did without a confirmation would stay issued.
func TestService_certificateRefused_isRevokedAtTheCA(t *testing.T) {
	s, development := newDevCAService(t, devca.RespondMAC, anchored)
	development.SetFaults(devca.Faults{Expired: true})

	r := s.get(t, "/v1/certificate/RA", enrollHeader(t))

	assert.Equal(t, http.StatusInternalServerError, r.StatusCode)
	assert.Contains(t, r.text, "checking validity")
	stats := development.Stats()
	assert.Equal(t, uint64(1), stats.Confirmed, "implicitly")
	assert.Equal(t, uint64(1), stats.Revoked)
}

// Keys that cannot encipher get no certificate that says they do.
func TestService_keyUsage_fitsTheKindOfKey(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	const signing = x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment
	for name, row := range map[string]struct {
		key  crypto.Signer
		want x509.KeyUsage
	}{
		"RSA": {rsaKey, signing | x509.KeyUsageKeyEncipherment}, "ECDSA": {newKey(t), signing}, "Ed25519": {edKey, signing},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := newDevCAService(t, devca.RespondMAC, anchored)

			r := s.get(t, "/v1/certificate/RA", http.Header{
				"Csr": {headerValue("CERTIFICATE REQUEST", newCSR(t, row.key))}, "Pk": {headerValue("PRIVATE KEY", pkcs8(t, row.key))},
			})

			require.Equal(t, http.StatusOK, r.StatusCode, r.text)
			var issued struct{ CertificateChain []string }
			require.NoError(t, json.Unmarshal([]byte(r.text), &issued))
			block, _ := pem.Decode([]byte(issued.CertificateChain[0]))
			leaf, err := x509.ParseCertificate(block.Bytes)
			require.NoError(t, err)
			assert.Equal(t, row.want, leaf.KeyUsage)
		})
	}
}

// Some CMP servers close the connection after each answer without saying so, so that certConf meets a closed one.
func TestService_CMPServerThatClosesAfterItsAnswer_issuesAtTheFirstRequest(t *testing.T) {
	development, err := devca.New(devca.Config{})
	require.NoError(t, err)
	development.SetFaults(devca.Faults{Explicit: true})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		recorded := httptest.NewRecorder()
		development.ServeHTTP(recorded, r)
		connection, _, err := w.(http.Hijacker).Hijack()
		if !assert.NoError(t, err) {
			return
		}
		answer := recorded.Result()
		answer.ContentLength = int64(recorded.Body.Len())
		_ = answer.Write(connection)
		_ = connection.Close()
	}))
	t.Cleanup(server.Close)
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "root.pem"), development.RootPEM(), 0o600))
	path := filepath.Join(dir, "cmpServers.json")
	writeFile(t, path, fmt.Sprintf(`{"cmpv2Servers": [{"caName": "RA", "url": "%s/", "caMode": "RA", "trustAnchors": "root.pem",
		"issuerDN": "CN=DEVELOPMENT ONLY Issuing CA,O=DEVELOPMENT ONLY",
		"authentication": {"iak": "mypassword", "rv": "mypassword"}}]}`, server.URL))
	log := slog.New(slog.DiscardHandler)
	configuration := NewConfiguration(path, CMPBuilder(CMPOptions{Connections: 10, Log: log}), nil, log)
	require.NoError(t, configuration.Reload("start"))
	s := newService(t, nil, func(cfg *HandlerConfig) { cfg.Directory = configuration })

	for range 5 {
		r := s.get(t, "/v1/certificate/RA", enrollHeader(t))
		require.Equal(t, http.StatusOK, r.StatusCode, r.text)
	}

	stats := development.Stats()
	assert.Equal(t, uint64(5), stats.Issued)
	assert.Equal(t, uint64(5), stats.Confirmed)
}
