package docs

import (
	"crypto/tls"
	"crypto/x509"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v4"

	"github.com/certfetcher/certfetcher/test/fixture"
)

// What the commands of the document make is what certfetcher and certservice take, and mutual TLS between them works.
func TestKubernetes_identitiesMadeWithOpenSSL_areAccepted(t *testing.T) {
	fixture.RequirePrograms(t, "openssl")
	dir := t.TempDir()
	for _, b := range readDocument(t, filepath.Join(root, "deploy/kubernetes/README.md")).blocks {
		if !strings.HasPrefix(b.text, "openssl ") && !strings.HasPrefix(b.text, "kubectl ") {
			continue
		}
		run := exec.Command("sh", "-e", "-c", b.text)
		run.Dir = dir
		run.Env = []string{"PATH=" + fixture.Must(filepath.Abs("testdata/bin")) + ":" + os.Getenv("PATH")}
		out, err := run.CombinedOutput()
		require.NoError(t, err, "%s: %s", b.place, out)
	}
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

	running := fixture.Must(fixture.StartStack(binDir, t.TempDir(), files("certservice-tls")...))
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

// A real kubectl, where there is one, makes of the documented commands the Secrets of the template; else facts.yaml
// alone holds them against it.
func TestKubernetes_secretsMadeWithKubectl_areThoseOfTheTemplate(t *testing.T) {
	kubectl, err := exec.LookPath("kubectl")
	if err != nil {
		t.Skip("kubectl is not installed")
	}
	type secret struct {
		Kind, Type string
		Metadata   struct{ Name string }
		Data       map[string]string
		StringData map[string]string `yaml:"stringData"`
	}
	want := map[string]secret{}
	for _, text := range strings.Split(readAll(t, "deploy/kubernetes/secrets.yaml"), "\n---\n") {
		var s secret
		require.NoError(t, yaml.Unmarshal([]byte(text), &s))
		want[s.Metadata.Name] = s
	}
	dir, made := t.TempDir(), map[string]bool{}
	for _, b := range readDocument(t, filepath.Join(root, "deploy/kubernetes/README.md")).blocks {
		if !strings.Contains(b.text, "kubectl create secret generic") {
			continue
		}
		for _, words := range commands(t, b) {
			if words[1] != "create" {
				continue
			}
			for _, word := range words {
				if pair, is := strings.CutPrefix(word, "--from-file="); is {
					_, file, _ := strings.Cut(pair, "=")
					require.NoError(t, os.WriteFile(filepath.Join(dir, file), []byte(file), 0o600))
				}
			}
			run := exec.Command(kubectl, append(words[1:], "--dry-run=client", "--output=yaml")...)
			run.Dir, run.Env = dir, []string{"KUBECONFIG=/nonexistent", "HOME=" + dir}
			out, err := run.Output()
			require.NoError(t, err, "%s", words)
			var got secret
			require.NoError(t, yaml.Unmarshal(out, &got))
			if got.Kind != "Secret" {
				continue
			}
			template := want[got.Metadata.Name]
			made[got.Metadata.Name] = true
			if template.Type != "Opaque" || got.Type != "" { // Opaque is what none means
				assert.Equal(t, template.Type, got.Type, "%s", words)
			}
			assert.ElementsMatch(t, slices.Collect(maps.Keys(template.StringData)),
				slices.Collect(maps.Keys(got.Data)), "%s", words)
		}
	}
	assert.ElementsMatch(t, slices.Collect(maps.Keys(want)), slices.Collect(maps.Keys(made)), "what commands make")
}
