package manifests

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

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
	"app": {"keystore-password", "truststore-password"}, "ca-root": {"root.crt"},
}

const cmpMount = "/etc/certservice/cmp"

// secretFiles returns, for each Secret, a directory with its keys as files and no others, as a container sees it.
func secretFiles(t *testing.T) map[string]string {
	t.Helper()
	dir := t.TempDir()
	authority := fixture.Must(fixture.NewCA("Transport"))
	require.NoError(t, authority.WriteIdentity(dir, "oom-cert-service", "oom-cert-service"))
	files := map[string]string{
		"tls.crt": "client-certificate.pem", "tls.key": "client-key.pem", "ca.crt": "truststore.pem",
		"keystore.jks": "client.jks", "truststore.jks": "truststore.jks", "ca.pem": "truststore.pem",
		"root.crt": "truststore.pem",
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
	dir := t.TempDir()
	authority, server, err := fixture.StartDevCA(binaries, dir, "DEVCA_RESPONSE_PROTECTION=signature")
	require.NoError(t, err)
	defer authority.Stop()
	secret := server["authentication"].(map[string]string)
	filled := strings.NewReplacer(
		"http://REPLACE-with-the-CA:8080/ejbca/publicweb/cmp/cmpRA", server["url"].(string),
		"CN=ManagementCA", server["issuerDN"].(string),
		"REPLACE with the initial authentication key", secret["iak"],
		"REPLACE with the reference value", secret["rv"],
		cmpMount+"/ca.pem", server["trustAnchors"].(string),
	).Replace(templates(t)["certservice-cmp"]["cmpServers.json"])
	var file struct{ CMPv2Servers []map[string]any }
	require.NoError(t, json.Unmarshal([]byte(filled), &file))
	service := fixture.Must(fixture.StartCertServiceOf(binaries, dir, file.CMPv2Servers))
	defer service.Stop()
	fetch := exec.Command(binary("certfetcher"))
	fetch.Env = fixture.Environment(service.URL, service.Dir, t.TempDir(), "RETRY_MAX_ELAPSED=1s")
	output, err := fetch.CombinedOutput()
	assert.NoError(t, err, "%s", output)
}
