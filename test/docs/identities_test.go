package docs

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

const kubernetesReadme = "deploy/kubernetes/README.md"

// identityBlocks are the blocks of the document with commands of the program.
func identityBlocks(t *testing.T, program string) []block {
	t.Helper()
	var found []block
	for _, b := range readDocument(t, filepath.Join(root, kubernetesReadme)).blocks {
		if b.language == "sh" && strings.HasPrefix(b.text, program+" ") {
			found = append(found, b)
		}
	}
	require.NotEmpty(t, found, program)
	return found
}

// documentedSecrets runs the document's openssl commands, and lays the files out as its kubectl commands do: a
// directory for each Secret.
func documentedSecrets(t *testing.T) string {
	t.Helper()
	fixture.RequirePrograms(t, "openssl")
	dir := t.TempDir()
	for _, b := range identityBlocks(t, "openssl") {
		run := exec.Command("sh", "-e", "-c", b.text)
		run.Dir = dir
		out, err := run.CombinedOutput()
		require.NoError(t, err, "%s: %s", b.place, out)
	}
	for _, b := range identityBlocks(t, "kubectl") {
		for _, words := range commands(t, b) {
			name, files, ok := createdSecret(words[1:])
			if !ok || name == "certservice-cmp" { // whose files are the user's
				continue
			}
			require.NoError(t, os.Mkdir(filepath.Join(dir, name), 0o700))
			for key, file := range files {
				require.NoError(t, os.Link(dir+"/"+file, filepath.Join(dir, name, key)), b.place)
			}
		}
	}
	return dir
}

// createdSecret takes "create secret generic NAME --from-file=KEY=FILE" apart.
func createdSecret(arguments []string) (name string, files map[string]string, ok bool) {
	if len(arguments) < 4 || !slices.Equal(arguments[:3], []string{"create", "secret", "generic"}) {
		return "", nil, false
	}
	files = map[string]string{}
	for _, argument := range arguments[4:] {
		if pair, found := strings.CutPrefix(argument, "--from-file="); found {
			key, file, _ := strings.Cut(pair, "=")
			files[key] = file
		}
	}
	return arguments[3], files, true
}

// What the commands make is what certfetcher and certservice take, and mutual TLS between them works.
func TestKubernetes_identitiesMadeWithOpenSSL_areAccepted(t *testing.T) {
	dir := documentedSecrets(t)
	files := func(of string) []string {
		of = dir + "/" + of
		return []string{"KEYSTORE_PATH=" + of + "/tls.crt", "KEYSTORE_KEY_PATH=" + of + "/tls.key",
			"TRUSTSTORE_PATH=" + of + "/ca.crt"}
	}
	check := exec.Command(filepath.Join(binDir, "certfetcher"), "--check")
	check.Env = fixture.Environment("https://oom-cert-service:8443", dir, t.TempDir(),
		files("certfetcher-mtls")...)
	out, err := check.CombinedOutput()
	require.NoError(t, err, "%s", out)
	assert.NotContains(t, string(out), `"WARN"`)

	running, err := fixture.StartStack(binDir, t.TempDir(), files("certservice-tls")...)
	require.NoError(t, err)
	defer running.Stop()
	client := dir + "/certfetcher-mtls"
	identity := fixture.Must(tls.LoadX509KeyPair(client+"/tls.crt", client+"/tls.key"))
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(fixture.Must(os.ReadFile(client+"/ca.crt"))))
	for _, name := range []string{"", ".certservice", ".certservice.svc"} {
		config := &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{identity},
			ServerName: "oom-cert-service" + name}
		transport := &http.Transport{DisableKeepAlives: true, TLSClientConfig: config}
		url := strings.Replace(running.URL, "v1/certificate/", "actuator/health", 1)
		response, err := (&http.Client{Transport: transport}).Get(url)
		require.NoError(t, err, name)
		response.Body.Close()
		assert.Equal(t, http.StatusOK, response.StatusCode, name)
	}
}
