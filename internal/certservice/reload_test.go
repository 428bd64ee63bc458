package certservice

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// namedAuthority stands for the server it was built from.
type namedAuthority struct {
	Authority
	server Server
}

func buildNamed(s Server) (Authority, error) { return &namedAuthority{server: s}, nil }

// serversFile is a good cmpServers.json with one server of that name.
func serversFile(caName string) string {
	return `{"cmpv2Servers": [{"caName": "` + caName + `", "url": "http://ca", "issuerDN": "CN=ca",
		"authentication": {"iak": "i", "rv": "r"}}]}`
}

func newConfiguration(t *testing.T, text string) (*Configuration, string, *lockedBuffer) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "cmpServers.json")
	writeFile(t, path, text)
	log := &lockedBuffer{}
	return NewConfiguration(path, buildNamed, NewMetrics(""), slog.New(slog.NewJSONHandler(log, nil))), path, log
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
}

func configured(c *Configuration, caName string) bool {
	_, ok := c.Lookup(caName)
	return ok
}

func TestConfiguration_reload_keepsTheLastGoodSet(t *testing.T) {
	c, path, log := newConfiguration(t, serversFile("RA"))
	assert.False(t, c.Ready())
	assert.False(t, configured(c, "RA"))
	require.NoError(t, c.Reload("start"))
	assert.True(t, c.Ready())
	assert.True(t, configured(c, "RA"))

	writeFile(t, path, `{"cmpv2Servers": []}`)
	err := c.Reload("request")

	require.EqualError(t, err, "cmpServers.json cannot be loaded, the last good configuration stays in use: "+
		"cmpv2Servers: is empty, want at least one server")
	assert.True(t, c.Ready())
	assert.True(t, configured(c, "RA"))
	assert.Contains(t, string(log.bytes()), "configuration not loaded, the last good configuration stays in use")

	writeFile(t, path, serversFile("NEW"))
	require.NoError(t, c.Reload("request"))
	assert.True(t, configured(c, "NEW"))
	assert.False(t, configured(c, "RA"))
}

func TestConfiguration_reload_saysWhenThereNeverWasAGoodSet(t *testing.T) {
	c, path, _ := newConfiguration(t, "{")
	require.NoError(t, os.Remove(path))

	err := c.Reload("start")

	require.EqualError(t, err, "cmpServers.json cannot be loaded, there is none yet, so no certificate can be issued: open "+
		path+": no such file or directory")
	assert.False(t, c.Ready())
}

func TestConfiguration_reload_takesAnAuthorityThatCannotBeBuiltForAFault(t *testing.T) {
	c, _, _ := newConfiguration(t, serversFile("RA"))
	c.build = func(Server) (Authority, error) { return nil, errors.New("no such protection") }

	err := c.Reload("start")

	assert.ErrorContains(t, err, "cmpv2Servers[0]: no such protection")
}

// watch runs c.Watch until the test ends.
func watch(t *testing.T, c *Configuration) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- c.Watch(ctx) }()
	t.Cleanup(func() {
		cancel()
		assert.NoError(t, <-done)
	})
}

func eventually(t *testing.T, condition func() bool) {
	t.Helper()
	require.Eventually(t, condition, 10*time.Second, 5*time.Millisecond)
}

func TestConfiguration_watch_seesAFileRewritten(t *testing.T) {
	c, path, log := newConfiguration(t, serversFile("RA"))
	require.NoError(t, c.Reload("start"))
	watch(t, c)

	writeFile(t, path, "{")
	eventually(t, func() bool { return strings.Contains(string(log.bytes()), "not loaded") })
	assert.True(t, configured(c, "RA"))
	writeFile(t, path, serversFile("NEW"))
	eventually(t, func() bool { return configured(c, "NEW") })
}

// The kubelet may mount a Secret later, and the name of its directory may be wrong.
func TestConfiguration_watch_fileInAMissingDirectory_isSeenWhenItAppears(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	servers := strings.Replace(serversFile("RA"), `"url"`, `"additionalRoots": "`+missing+`/roots.pem", "url"`, 1)
	c, path, _ := newConfiguration(t, servers)
	require.Error(t, c.Reload("start"))
	watch(t, c)
	require.NoError(t, os.Mkdir(missing, 0o700))
	writeFile(t, filepath.Join(missing, "roots.pem"), string(golden(t, "pem/root-ca.pem")))
	eventually(t, func() bool { return configured(c, "RA") })

	require.NoError(t, os.RemoveAll(missing))
	writeFile(t, path, serversFile("NEW"))
	eventually(t, func() bool { return configured(c, "NEW") })
}

func TestConfiguration_watch_seesAChangeMadeBeforeItStarted(t *testing.T) {
	c, path, _ := newConfiguration(t, serversFile("RA"))
	require.NoError(t, c.Reload("start"))
	writeFile(t, path, serversFile("NEW"))

	watch(t, c)

	eventually(t, func() bool { return configured(c, "NEW") })
}

func TestConfiguration_watch_seesKubernetesTurnTheLink(t *testing.T) {
	dir := t.TempDir()
	generation := func(name, text string) {
		require.NoError(t, os.Mkdir(filepath.Join(dir, name), 0o700))
		writeFile(t, filepath.Join(dir, name, "cmpServers.json"), text)
		require.NoError(t, os.Symlink(name, filepath.Join(dir, "..data_tmp")))
		require.NoError(t, os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
	}
	generation("..1", serversFile("RA"))
	path := filepath.Join(dir, "cmpServers.json")
	require.NoError(t, os.Symlink("..data/cmpServers.json", path))
	log := &lockedBuffer{}
	c := NewConfiguration(path, buildNamed, nil, slog.New(slog.NewJSONHandler(log, nil)))
	require.NoError(t, c.Reload("start"))
	watch(t, c)

	generation("..2", serversFile("NEW"))
	eventually(t, func() bool { return configured(c, "NEW") })
	require.NoError(t, os.RemoveAll(filepath.Join(dir, "..1")))
	generation("..3", serversFile("NEW"))
	generation("..4", serversFile("LAST"))
	eventually(t, func() bool { return configured(c, "LAST") })
	assert.Equal(t, 3, strings.Count(string(log.bytes()), `"configuration loaded"`), "the same content again is no reload")
}

func TestConfiguration_watch_seesTrustAnchorsChange(t *testing.T) {
	anchors := filepath.Join(t.TempDir(), "roots.pem")
	writeFile(t, anchors, string(golden(t, "pem/root-ca.pem")))
	c, _, _ := newConfiguration(t, strings.Replace(serversFile("RA"), `"url"`, `"trustAnchors": "`+anchors+`", "url"`, 1))
	require.NoError(t, c.Reload("start"))
	watch(t, c)

	writeFile(t, anchors, string(golden(t, "pem/other-root-ca.pem")))

	eventually(t, func() bool {
		a, _ := c.Lookup("RA")
		return a.(*namedAuthority).server.TrustAnchors[0].Equal(goldenCert(t, "other-root-ca.pem"))
	})
}

func TestHandler_reload_answersForTheConfiguration(t *testing.T) {
	c, path, _ := newConfiguration(t, "{}")
	s := newService(t, nil, func(cfg *HandlerConfig) { cfg.Directory = c })

	r := s.get(t, "/ready", nil)
	assert.Equal(t, http.StatusServiceUnavailable, r.StatusCode)
	assert.JSONEq(t, `{"errorMessage":"No valid CMPv2 configuration is loaded"}`, r.text)
	r = s.get(t, "/v1/certificate/RA", enrollHeader(t))
	assert.Equal(t, http.StatusServiceUnavailable, r.StatusCode, "a client takes 404 for final")
	assert.NotEmpty(t, r.Header.Get("Retry-After"))
	r = s.get(t, "/reload", nil)
	assert.Equal(t, http.StatusInternalServerError, r.StatusCode)
	assert.JSONEq(t, `{"errorMessage":"cmpServers.json cannot be loaded, there is none yet, so no certificate can be issued: cmpv2Servers: is missing, want a list of at least one server"}`, r.text)

	writeFile(t, path, serversFile("RA"))
	assert.Equal(t, http.StatusOK, s.get(t, "/reload", nil).StatusCode)
	assert.Equal(t, http.StatusOK, s.get(t, "/ready", nil).StatusCode)
	assert.Equal(t, http.StatusNotFound, s.get(t, "/v1/certificate/CLIENT", enrollHeader(t)).StatusCode)
}
