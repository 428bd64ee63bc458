//go:build containers

package containers

import (
	"crypto/x509"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/keystore"
)

// fetch runs the fetcher once under the hardening flags, and returns its exit code and log.
func fetch(t *testing.T, s stack, options ...string) (int, string) {
	t.Helper()
	arguments := slices.Concat([]string{"run", "--name", "fetcher", "--network", s.network}, hardened,
		[]string{"--volume", s.client + ":/etc/certfetcher:ro", "--volume", s.network + "-certs:/var/run/certs",
			"--env-file", variables("certfetcher")}, options, []string{"certfetcher"})
	c := exec.Command("podman", arguments...)
	c.Dir, c.Env = root, environment
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
	for name, mode := range map[string]int64{
		"keystore.p12": 0o640, "keystore.jks": 0o640, "keystore.pass": 0o640, "key.pem": 0o640,
		"keystore-combined.pem": 0o640,
		"truststore.p12":        0o644, "truststore.jks": 0o644, "truststore.pem": 0o644, "keystore.pem": 0o644,
	} {
		assert.Equal(t, "..data/"+name, files[name].header.Linkname)
		got, found := files[generation+"/"+name]
		require.True(t, found, name)
		assert.Equal(t, mode, got.header.Mode&0o7777, name)
		assert.Equal(t, 65532, got.header.Uid, name)
	}
	roots := x509.NewCertPool()
	roots.AddCert(s.root)
	for _, name := range []string{"keystore.p12", "keystore.jks"} {
		entries, _, err := keystore.Decode(files[generation+"/"+name].content,
			string(files[generation+"/keystore.pass"].content))
		require.NoError(t, err, name)
		require.NotNil(t, entries[0].Key, name)
		between := x509.NewCertPool()
		for _, issuer := range entries[0].Chain[1:] {
			between.AddCert(issuer)
		}
		_, err = entries[0].Chain[0].Verify(x509.VerifyOptions{DNSName: "app.example.org",
			Roots: roots, Intermediates: between, CurrentTime: time.Now()})
		assert.NoError(t, err, name)
	}

	code, log = fetch(t, s)
	assert.Zero(t, code, log)
	assert.Equal(t, generation, volume(t, certs)["..data"].header.Linkname, "a second run finds all as it should be")

	code, log = fetch(t, s, "--env", "OUTPUT_PATH=/elsewhere")
	assert.Equal(t, 10, code, "only the volume can be written: %s", log)
}
