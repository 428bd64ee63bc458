package pages

import (
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

var update = flag.Bool("update", false, "rewrite the page and the JSON of the API")

func TestDescription_pageAndJSON_areMadeFromTheDocument(t *testing.T) {
	d := fixture.Must(readDocument())
	made := map[string][]byte{"api.html": fixture.Must(d.page()), "openapi.json": fixture.Must(d.json())}
	for name, want := range made {
		path := filepath.Join(directory, name)
		if *update {
			require.NoError(t, os.WriteFile(path, want, 0o644))
		}
		assert.Equal(t, string(want), string(fixture.Must(os.ReadFile(path))), "%s is out of date: make docs", name)
	}
}

// Each example is run as it is written, but for the host and the names of the client's files.
func TestDescription_examples_work(t *testing.T) {
	t.Parallel()
	fixture.RequirePrograms(t, "bash", "curl", "openssl", "jq", "base64")
	s := startStack(t, nil, "STATUS_PAGE=false")
	s.hasNoStatus()
	dir := t.TempDir()
	for name, from := range map[string]string{"tls.crt": "client-certificate.pem", "tls.key": "client-key.pem",
		"ca.crt": "truststore.pem"} {
		require.NoError(t, os.Symlink(filepath.Join(s.Dir, from), filepath.Join(dir, name)))
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "request.der"), []byte("no message"), 0o600))
	host := strings.TrimSuffix(s.URL, "/v1/certificate/")
	for _, tag := range fixture.Must(readDocument()).tags() {
		for _, o := range tag.Operations {
			for _, example := range o.Get("x-codeSamples").All() {
				source := strings.ReplaceAll(example.Get("source").Text(), "https://certservice:8443", host)
				command := exec.Command("bash", "-euo", "pipefail", "-c", source)
				command.Dir = dir
				out, err := command.CombinedOutput()
				path := o.Path.Name
				if path == "/reload" { // which the client is not allowed
					require.Contains(t, string(out), "403", path)
					continue
				}
				require.NoError(t, err, "%s: %s", path, out)
			}
		}
	}
	assert.NotEmpty(t, fixture.Must(os.ReadFile(filepath.Join(dir, "answer.der"))))
	var answer struct{ CertificateChain []string }
	require.NoError(t, json.Unmarshal(fixture.Must(os.ReadFile(filepath.Join(dir, "answer.json"))), &answer))
	assert.Len(t, answer.CertificateChain, 2)
}

// What Swagger and client generators want of a document.
func TestDescription_operationIds_areUnique(t *testing.T) {
	seen := map[string]bool{}
	for _, tag := range fixture.Must(readDocument()).tags() {
		for _, o := range tag.Operations {
			id := o.Get("operationId").Text()
			assert.False(t, seen[id] || id == "", "%s %q", o.Path.Name, id)
			seen[id] = true
		}
	}
	assert.NotEmpty(t, seen)
}
