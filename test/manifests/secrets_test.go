package manifests

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"log/slog"
	"maps"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/certfetcher/certfetcher/internal/certservice"
	"github.com/certfetcher/certfetcher/internal/devca"
	"github.com/certfetcher/certfetcher/test/fixture"
)

func TestSecrets_templates_holdNoSecret(t *testing.T) {
	for place, objects := range everything(t) {
		for _, secret := range of[*corev1.Secret](objects) {
			assert.Empty(t, secret.Data, "%s: %s", place, secret.Name)
			for key, value := range secret.StringData {
				assert.Contains(t, value, "REPLACE", "%s: %s, %s", place, secret.Name, key)
			}
		}
	}
}

// templates are the Secrets of secrets.yaml by name.
func templates(t *testing.T) map[string]map[string]string {
	t.Helper()
	all := map[string]map[string]string{}
	for _, secret := range of[*corev1.Secret](everything(t)[filepath.Join(deploy, "kubernetes/secrets.yaml")]) {
		all[secret.Name] = secret.StringData
	}
	require.NotEmpty(t, all)
	return all
}

// withoutTemplate are the keys of the Secrets of the overlay onap-keystores and of the charts' value sets. YAML cannot
// hold stores as text.
var withoutTemplate = map[string][]string{
	"certservice-keystores":       {"keystore.jks", "keystore-password", "truststore.jks", "truststore-password"},
	"oom-cert-service-server-tls": {"keystore.jks", "keystore-password", "truststore.jks", "truststore-password"},
	"oom-cert-service-client-tls": {"keystore.jks", "keystore-password", "truststore.jks", "truststore-password"},
	"oom-cert-service-cmp":        {"cmpServers.json", "ca.pem"},
	"app":                         {"keystore-password", "truststore-password"},
}

const cmpMount = "/etc/certservice/cmp"

// secretFiles returns, for each Secret, a directory with its keys as files and no others, as a container sees it.
func secretFiles(t *testing.T) map[string]string {
	t.Helper()
	dir := t.TempDir()
	authority, err := fixture.NewCA("Transport")
	require.NoError(t, err)
	key, chain, err := authority.Identity("oom-cert-service", "oom-cert-service")
	require.NoError(t, err)
	require.NoError(t, fixture.WriteIdentity(dir, key, chain, authority.Root))
	read := func(name string) string {
		content, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		return string(content)
	}
	contents := map[string]string{
		"tls.crt": read("client-certificate.pem"), "tls.key": read("client-key.pem"), "ca.crt": read("truststore.pem"),
		"keystore.jks": read("client.jks"), "truststore.jks": read("truststore.jks"), "ca.pem": read("truststore.pem"),
		"keystore-password": fixture.Password, "truststore-password": fixture.Password,
	}
	keys := maps.Clone(withoutTemplate)
	for name, data := range templates(t) {
		keys[name] = slices.Collect(maps.Keys(data))
	}
	directories := map[string]string{}
	for name, all := range keys {
		directories[name] = filepath.Join(dir, name)
		require.NoError(t, os.Mkdir(directories[name], 0o700))
		for _, key := range all {
			content := contents[key]
			if key == "cmpServers.json" {
				content = strings.ReplaceAll(templates(t)["certservice-cmp"][key], cmpMount, directories[name])
			}
			require.NotEmpty(t, content, "%s: %s", name, key)
			require.NoError(t, os.WriteFile(filepath.Join(directories[name], key), []byte(content), 0o600))
		}
	}
	return directories
}

// secret is the name of the Secret that a volume is of, or "".
func (p pod) secret(volume string) string {
	for _, v := range p.spec.Volumes {
		if v.Name == volume && v.Secret != nil {
			return v.Secret.SecretName
		}
	}
	return ""
}

// What is filled in as the template says gets certificates from a CA that signs its answers, as EJBCA does.
func TestSecrets_cmpServers_enrolsWithACAThatSigns(t *testing.T) {
	template := templates(t)["certservice-cmp"]
	const iak, rv = "REPLACE with the initial authentication key", "REPLACE with the reference value"
	development, err := devca.New(devca.Config{Reference: rv, Secret: []byte(iak),
		ResponseProtection: devca.RespondSignature})
	require.NoError(t, err)
	server := httptest.NewServer(development)
	defer server.Close()
	dir := t.TempDir()
	filled := strings.NewReplacer("http://REPLACE-with-the-CA:8080", server.URL, "CN=ManagementCA",
		"CN=DEVELOPMENT ONLY Issuing CA,O=DEVELOPMENT ONLY",
		cmpMount, dir).Replace(template["cmpServers.json"])
	path := filepath.Join(dir, "cmpServers.json")
	require.NoError(t, os.WriteFile(path, []byte(filled), 0o600))
	require.Contains(t, template, "ca.pem")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "ca.pem"), development.RootPEM(), 0o600))

	log := slog.New(slog.DiscardHandler)
	configuration := certservice.NewConfiguration(path,
		certservice.CMPBuilder(certservice.CMPOptions{Log: log}), certservice.NewMetrics(""), log)
	require.NoError(t, configuration.Reload("test"))
	authority, _, found := configuration.Lookup("RA")
	require.True(t, found)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.CreateCertificateRequest(rand.Reader,
		&x509.CertificateRequest{Subject: pkix.Name{CommonName: "app.example.org"}}, key)
	require.NoError(t, err)
	request, err := x509.ParseCertificateRequest(der)
	require.NoError(t, err)
	issued, err := authority.Enroll(t.Context(), certservice.Request{CSR: request, Key: key})
	require.NoError(t, err)
	assert.Equal(t, "app.example.org", issued.Chain[0].Subject.CommonName)
}
