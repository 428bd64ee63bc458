//go:build containers

package containers

import (
	"crypto/x509"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/keystore"
	"github.com/certfetcher/certfetcher/test/golden"
)

// fetch runs the fetcher once under the hardening flags, and returns its exit code and log.
func fetch(t *testing.T, s stack, options ...string) (int, string) {
	t.Helper()
	c := prepared("podman", slices.Concat([]string{"run", "--name", "fetcher"}, hardened, []string{
		"--network", s.network, "--env-file", variables("certfetcher"),
		"--volume", s.client + ":/etc/certfetcher:ro",
		"--volume", s.network + "-certs:/var/run/certs"}, options, []string{"certfetcher"})...)
	output, _ := c.CombinedOutput()
	podman(t, "rm", "--force", "fetcher")
	return c.ProcessState.ExitCode(), string(output)
}

func TestCertfetcher_underTheHardeningFlags_fillsAVolume(t *testing.T) {
	s := startStack(t)
	certs := s.network + "-certs"
	t.Cleanup(func() { podman(t, "volume", "rm", "--force", certs) })
	assertConfined(t, "certservice")
	assertConfined(t, "devca")
	assert.Equal(t, "certfetcher "+version, podman(t,
		append(append([]string{"run", "--rm"}, hardened...), "certfetcher", "--version")...))

	code, log := fetch(t, s)
	require.Zero(t, code, log)
	files := volume(t, certs)
	generation := files["..data"].header.Linkname
	require.NotEmpty(t, generation)
	var list strings.Builder
	for _, path := range slices.Sorted(maps.Keys(files)) {
		header := files[path].header
		fmt.Fprintf(&list, "%s %d %s -> %s\n", header.FileInfo().Mode(), header.Uid, path, header.Linkname)
	}
	text := strings.NewReplacer(generation, "GENERATION", " -> \n", "\n").Replace(list.String())
	golden.File(t, "volume.golden.txt", text)
	roots := x509.NewCertPool()
	roots.AddCert(s.root)
	for _, name := range []string{"keystore.p12", "keystore.jks"} {
		entries, _, err := keystore.Decode(files[generation+"/"+name].content,
			string(files[generation+"/keystore.pass"].content))
		require.NoError(t, err, name)
		require.NotNil(t, entries[0].Key, name)
		between := x509.NewCertPool()
		between.AddCert(entries[0].Chain[1])
		_, err = entries[0].Chain[0].Verify(x509.VerifyOptions{DNSName: "app.example.org",
			Roots: roots, Intermediates: between})
		assert.NoError(t, err, name)
	}

	code, log = fetch(t, s)
	assert.Zero(t, code, log)
	assert.Equal(t, generation, volume(t, certs)["..data"].header.Linkname, "all was as it should be")

	code, log = fetch(t, s, "--env", "OUTPUT_PATH=/elsewhere")
	assert.Equal(t, 10, code, "only the volume can be written: %s", log)
}
