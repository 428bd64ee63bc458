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

// templates are the Secrets of secrets.yaml by name.
func templates(t *testing.T) map[string]map[string]string {
	t.Helper()
	all := map[string]map[string]string{}
	for _, object := range everything(t)["kubernetes/secrets.yaml"] {
		secret := object.(*corev1.Secret)
		all[secret.Name] = secret.StringData
	}
	return all
}

// keystores are the keys of a Secret with stores, which YAML cannot hold as text.
var keystores = strings.Fields("keystore.jks keystore-password truststore.jks truststore-password")

// withoutTemplate are the keys of the Secrets of the overlay onap-keystores and of the charts' value sets.
var withoutTemplate = map[string][]string{
	"certservice-keystores": keystores, "oom-cert-service-server-tls": keystores,
	"oom-cert-service-client-tls": keystores, "oom-cert-service-cmp": {"cmpServers.json", "ca.pem"},
	"app": {"keystore-password", "truststore-password"},
}

const cmpMount = "/etc/certservice/cmp"

// secretFiles returns, for each Secret, a directory with its keys as files and no others, as a container sees it.
func secretFiles(t *testing.T) map[string]string {
	t.Helper()
	dir := t.TempDir()
	authority := fixture.Must(fixture.NewCA("Transport"))
	key, chain, err := authority.Identity("oom-cert-service", "oom-cert-service")
	require.NoError(t, err)
	require.NoError(t, fixture.WriteIdentity(dir, key, chain, authority.Root))
	files := map[string]string{
		"tls.crt": "client-certificate.pem", "tls.key": "client-key.pem", "ca.crt": "truststore.pem",
		"keystore.jks": "client.jks", "truststore.jks": "truststore.jks", "ca.pem": "truststore.pem",
	}
	keys := maps.Clone(withoutTemplate)
	for name, data := range templates(t) {
		keys[name] = slices.Collect(maps.Keys(data))
	}
	directories := map[string]string{}
	for name, all := range keys {
		of := filepath.Join(dir, name)
		directories[name] = of
		require.NoError(t, os.Mkdir(of, 0o700))
		for _, key := range all {
			content := fixture.Password
			if file, found := files[key]; found {
				content = readFile(t, filepath.Join(dir, file))
			} else if key == "cmpServers.json" {
				content = strings.ReplaceAll(templates(t)["certservice-cmp"][key], cmpMount, of)
			}
			require.NoError(t, os.WriteFile(filepath.Join(of, key), []byte(content), 0o600))
		}
	}
	return directories
}

// secret is the name of the Secret that a volume is of, or "".
func (p pod) secret(volume string) string {
	for _, v := range p.Spec.Volumes {
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
	key := fixture.Must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	request := &x509.CertificateRequest{Subject: pkix.Name{CommonName: "app.example.org"}}
	der := fixture.Must(x509.CreateCertificateRequest(rand.Reader, request, key))
	csr := fixture.Must(x509.ParseCertificateRequest(der))
	issued, err := authority.Enroll(t.Context(), certservice.Request{CSR: csr, Key: key})
	require.NoError(t, err)
	assert.Equal(t, "app.example.org", issued.Chain[0].Subject.CommonName)
}
