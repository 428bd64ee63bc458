package interop

import (
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/internal/devca"
	"github.com/certfetcher/certfetcher/internal/keystore"
	"github.com/certfetcher/certfetcher/keygen"
	"github.com/certfetcher/certfetcher/test/fixture"
)

// variable returns a setting of the test against a given server.
func variable(name, otherwise string) string {
	if value := os.Getenv("CMP_TEST_" + name); value != "" {
		return value
	}
	return otherwise
}

// entries reads the key store, in whatever format, that a variable names.
func entries(t testing.TB, name string) (list []keystore.Entry) {
	t.Helper()
	if path := variable(name, ""); path != "" {
		content, err := os.ReadFile(path)
		require.NoError(t, err)
		list, _, err = keystore.Decode(content, variable(name+"_PASSWORD", ""))
		require.NoError(t, err, path)
	}
	return list
}

// givenServer configures a client from the environment. The variables are described in docs/interoperability.md.
func givenServer(t testing.TB) cmp.Config {
	t.Helper()
	config := cmp.Config{
		URL:             variable("URL", ""),
		Recipient:       variable("RECIPIENT", ""),
		Protection:      cmp.Protection(variable("PROTECTION", string(cmp.ProtectionPBMSHA256))),
		Secret:          []byte(variable("SECRET", "")),
		Reference:       variable("REFERENCE", ""),
		ResponseTrust:   cmp.ResponseTrust(variable("RESPONSE_TRUST", "")),
		ImplicitConfirm: variable("CONFIRMATION", explicit) == implicit,
	}
	for _, entry := range entries(t, "ANCHORS") {
		config.TrustAnchors = append(config.TrustAnchors, entry.Chain...)
	}
	for _, entry := range entries(t, "SIGNER") {
		if entry.Key != nil {
			config.Signer = identity{entry.Key, entry.Chain}.signer()
		}
	}
	return config
}

// The only test that may be skipped where everything else must run: no one but the environment knows of a
// server, and CI cannot have one whose images it cannot pull.
func TestClient_givenServer_enrols(t *testing.T) {
	if variable("URL", "") == "" {
		t.Skip("CMP_TEST_URL is not set: see docs/interoperability.md")
	}
	enrolAtGivenServer(t)
}

// A CA whose key has a password that no one kept is gone after a restart: it answers, and signs nothing.
func TestClient_givenServer_enrolsAfterARestart(t *testing.T) {
	if variable("URL", "") == "" || variable("RESTART", "") == "" {
		t.Skip("CMP_TEST_URL and CMP_TEST_RESTART are not both set: see docs/interoperability.md")
	}
	enrolAfterARestart(t, 5*time.Second)
}

// enrolAfterARestart enrols, restarts the server, and enrols again as soon as that works.
func enrolAfterARestart(t *testing.T, interval time.Duration) {
	patience, err := time.ParseDuration(variable("RESTART_TIMEOUT", "10m"))
	require.NoError(t, err)
	config := givenServer(t)
	enrol := func() error {
		client, _ := newClient(t, config)
		_, err := request(t, client, "ir", givenRequest(t), nil)
		return err
	}
	require.NoError(t, enrol(), "before the restart")
	out, err := exec.Command("sh", "-c", variable("RESTART", "")).CombinedOutput()
	require.NoError(t, err, string(out))
	for end := time.Now().Add(patience); ; time.Sleep(interval) {
		err := enrol()
		if err == nil {
			return
		}
		require.True(t, time.Now().Before(end), "still %s after the restart: %v", patience, err)
	}
}

// givenRequest makes a new key and a request for it.
func givenRequest(t *testing.T) cmp.Request {
	t.Helper()
	key, err := keygen.GenerateKey(variable("KEY_ALGORITHM", "RSA-2048"))
	require.NoError(t, err)
	subject, err := cmp.ParseDN(variable("SUBJECT", "CN=certfetcher-interop"))
	require.NoError(t, err)
	template := &x509.CertificateRequest{RawSubject: subject}
	if names := variable("DNS_NAMES", ""); names != "" {
		template.DNSNames = strings.Split(names, ",")
	}
	return cmp.Request{CSR: fixture.Must(keygen.CreateCSR(template, key)), Key: key}
}

func enrolAtGivenServer(t *testing.T) {
	config := givenServer(t)
	// A key update is of the certificate that came before, or else of the signer's.
	old := config.Signer
	for _, operation := range strings.Split(variable("OPERATIONS", "ir,cr,kur"), ",") {
		t.Run(operation, func(t *testing.T) {
			config, r := config, givenRequest(t)
			if operation == "kur" {
				require.NotNil(t, old, "kur needs ir or cr before it, or CMP_TEST_SIGNER")
				config.URL = variable("UPDATE_URL", config.URL)
			}
			client, messages := newClient(t, config)

			result, err := request(t, client, operation, r, old)

			t.Log(messages)
			require.NoError(t, err)
			require.NotEmpty(t, result.Chain)
			require.NotEmpty(t, result.Trusted)
			leaf := result.Chain[0]
			assert.Equal(t, r.Key.Public(), leaf.PublicKey)
			t.Logf("issued %q by %q, serial %x, until %s", leaf.Subject, leaf.Issuer, leaf.SerialNumber, leaf.NotAfter)
			old = identity{r.Key, result.Chain}.signer()
		})
	}
}

// setVariables sets the variables of a given server, and no others.
func setVariables(t *testing.T, variables map[string]string) {
	t.Helper()
	for _, assignment := range os.Environ() {
		if name, _, _ := strings.Cut(assignment, "="); strings.HasPrefix(name, "CMP_TEST_") {
			t.Setenv(name, "")
		}
	}
	for name, value := range variables {
		t.Setenv("CMP_TEST_"+name, value)
	}
}

// What is run against a given server is run against the development CA, which can be like EJBCA.
func TestClient_givenServer_mayBeDevCA(t *testing.T) {
	for name, answers := range map[string]devca.ResponseProtection{"by MAC": devca.RespondMAC,
		"by signature": devca.RespondSignature} {
		t.Run(name, func(t *testing.T) {
			d := startDevCA(t, devca.Config{ResponseProtection: answers})
			setVariables(t, map[string]string{
				"URL":        d.url + "/ejbca/publicweb/cmp/cmpRA",
				"UPDATE_URL": d.url + "/ejbca/publicweb/cmp/cmp", "RECIPIENT": issuerName,
				"SECRET": secret, "REFERENCE": reference, "ANCHORS": d.root,
				"DNS_NAMES": "a.example.org,b.example.org", "KEY_ALGORITHM": "ECDSA-P256",
			})
			enrolAtGivenServer(t)
			assert.Equal(t, uint64(3), d.Stats().Confirmed)
			assert.Equal(t, uint64(1), d.Stats().Updated)
		})
	}
}

// The server is away for a while, and then back.
func TestClient_givenServer_mayBeRestarted(t *testing.T) {
	restarted := filepath.Join(t.TempDir(), "restarted")
	var refused atomic.Int64
	d := startDevCA(t, devca.Config{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := os.Stat(restarted); err == nil && refused.Add(1) <= 2 {
			http.Error(w, "not yet deployed", http.StatusNotFound)
			return
		}
		d.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	setVariables(t, map[string]string{
		"URL": server.URL, "RECIPIENT": issuerName, "SECRET": secret, "REFERENCE": reference, "ANCHORS": d.root,
		"KEY_ALGORITHM": "ECDSA-P256", "RESTART": "touch " + restarted, "RESTART_TIMEOUT": "20s",
	})
	enrolAfterARestart(t, 10*time.Millisecond)
	assert.Equal(t, uint64(2), d.Stats().Confirmed)
	assert.Greater(t, refused.Load(), int64(2))
}

// A vendor's certificate in place of the secret, and the update of that very certificate.
func TestClient_givenServer_mayKnowTheSigner(t *testing.T) {
	d := startDevCA(t, devca.Config{})
	vendor := d.enrol(t, "ECDSA-P256")
	entries := []keystore.Entry{{Alias: "vendor", Key: vendor.key, Chain: vendor.chain}}
	store := fixture.Must(keystore.EncodePKCS12(entries, "changeit", keystore.ProfileModern))
	setVariables(t, map[string]string{
		"URL": d.url, "RECIPIENT": issuerName, "PROTECTION": "signature", "ANCHORS": d.root,
		"OPERATIONS": "kur", "CONFIRMATION": implicit,
		"SIGNER": writeFile(t, d.dir, "vendor.p12", store), "SIGNER_PASSWORD": "changeit",
		"SUBJECT": "O=Interop,CN=leaf", "KEY_ALGORITHM": "ECDSA-P256",
	})
	enrolAtGivenServer(t)
	assert.Equal(t, uint64(1), d.Stats().Updated)
}
