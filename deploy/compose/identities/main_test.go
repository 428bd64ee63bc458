package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/mtls"
	"github.com/certfetcher/certfetcher/test/fixture"
)

func directories(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"certservice", "client", "ca", "root"} {
		require.NoError(t, os.Mkdir(filepath.Join(dir, name), 0o755))
	}
	return dir
}

func content(t *testing.T, path ...string) string {
	t.Helper()
	c := fixture.Must(os.ReadFile(filepath.Join(path...)))
	return string(c)
}

func TestRun_bothSides_trustEachOther(t *testing.T) {
	dir := directories(t)
	require.NoError(t, run(settings{dir: dir, host: "certservice", name: "RA", url: "http://ca/",
		issuer: "CN=CA", anchors: "/root.pem"}))
	sides := map[string]*mtls.Identity{}
	for _, side := range []string{"certservice", "client"} {
		identity, err := mtls.Load(mtls.Files{
			KeystorePath:       filepath.Join(dir, side, "keystore.p12"),
			KeystorePassword:   content(t, dir, side, "keystore.pass"),
			TruststorePath:     filepath.Join(dir, side, "truststore.p12"),
			TruststorePassword: content(t, dir, side, "truststore.pass"),
		})
		require.NoError(t, err, side)
		sides[side] = identity
	}
	assert.True(t, sides["client"].Roots[0].Equal(sides["certservice"].Roots[0]))
	assert.NoError(t, sides["certservice"].Certificate.Leaf.VerifyHostname("certservice"))

	var servers struct {
		CMPv2Servers []struct {
			CAName         string
			Authentication struct{ IAK, RV string }
		} `json:"cmpv2Servers"`
	}
	require.NoError(t, json.Unmarshal([]byte(content(t, dir, "certservice", "cmpServers.json")), &servers))
	require.Len(t, servers.CMPv2Servers, 1)
	assert.Equal(t, content(t, dir, "ca", "iak"), servers.CMPv2Servers[0].Authentication.IAK)
	assert.Equal(t, "RA", servers.CMPv2Servers[0].CAName)
}

func TestRun_again_keepsWhatIsThere(t *testing.T) {
	dir := directories(t)
	require.NoError(t, run(settings{dir: dir, host: "certservice"}))
	before := content(t, dir, "ca", "iak")
	require.NoError(t, run(settings{dir: dir, host: "certservice"}))
	assert.Equal(t, before, content(t, dir, "ca", "iak"))
}

func TestRun_afterARunThatWasCutOff_startsOver(t *testing.T) {
	dir := directories(t)
	require.NoError(t, run(settings{dir: dir, host: "certservice"}))
	before := content(t, dir, "ca", "iak")
	require.NoError(t, os.Remove(filepath.Join(dir, "client", "root.pem")))
	require.NoError(t, run(settings{dir: dir, host: "certservice"}))
	assert.NotEqual(t, before, content(t, dir, "ca", "iak"))
}

func TestRun_forAForeignCA_opensItsDirectoriesOnly(t *testing.T) {
	for foreign, want := range map[bool][2]os.FileMode{false: {0o600, 0o755}, true: {0o644, 0o777}} {
		dir := directories(t)
		require.NoError(t, run(settings{dir: dir, host: "certservice", foreign: foreign}))
		for i, name := range []string{"ca/iak", "root"} {
			info := fixture.Must(os.Stat(filepath.Join(dir, name)))
			assert.Equal(t, want[i], info.Mode().Perm(), name)
		}
		info := fixture.Must(os.Stat(filepath.Join(dir, "certservice", "cmpServers.json")))
		assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	}
}
