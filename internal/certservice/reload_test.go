package certservice

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// namedAuthority stands for the server it was built from.
type namedAuthority struct {
	Authority
	server Server
}

func buildNamed(s Server) (Authority, error) { return &namedAuthority{server: s}, nil }

func newConfiguration(t testing.TB, text string) (*Configuration, string, *lockedBuffer) {
	t.Helper()
	path, log := filepath.Join(t.TempDir(), "cmpServers.json"), &lockedBuffer{}
	writeFile(t, path, []byte(text))
	return NewConfiguration(path, buildNamed, NewMetrics(""), slog.New(slog.NewJSONHandler(log, nil))), path, log
}

func configured(c *Configuration, caName string) bool {
	_, _, ok := c.Lookup(caName)
	return ok
}

func TestConfiguration_reload_keepsTheLastGoodSet(t *testing.T) {
	const none = "there is none yet, so no certificate can be issued: "
	c, path, log := newConfiguration(t, "{}")
	s := serviceOf(t, c)
	require.NoError(t, os.Remove(path))
	assert.EqualError(t, c.Reload("start"), "cmpServers.json cannot be loaded, "+none+"open "+path+
		": no such file or directory")
	assert.False(t, configured(c, "RA"))
	s.get("/ready", nil).is(503, "No valid CMPv2 configuration is loaded")
	r := s.enroll()
	r.is(503) // clients take 404 as final
	assert.NotEmpty(t, r.Header.Get("Retry-After"))
	writeFile(t, path, []byte("{}"))
	s.get("/reload", nil).is(500, "cmpServers.json cannot be loaded, "+none+
		"cmpv2Servers: is missing, want a list of at least one server")

	writeFile(t, path, []byte(fileOf(entryText("RA"))))
	s.handler.reloads.every = 0
	assert.JSONEq(t, `{"status":"RELOADED"}`, s.get("/reload", nil).text)
	s.get("/ready", nil).is(200)
	s.get("/v1/certificate/CLIENT", enrollHeader(t)).is(404)
	_, share, _ := c.Lookup("RA")
	assert.Equal(t, Share{Authorities: 1}, share)

	writeFile(t, path, []byte(`{"cmpv2Servers": []}`))
	const kept = "the last good configuration stays in use"
	assert.EqualError(t, c.Reload("request"), "cmpServers.json cannot be loaded, "+kept+
		": cmpv2Servers: is empty, want at least one server")
	assert.True(t, c.Ready())
	assert.True(t, configured(c, "RA"))
	assert.True(t, log.has("configuration not loaded, "+kept))

	writeFile(t, path, []byte(fileOf(strings.Replace(entryWith(`"maxInFlight": 7`), "RA", "NEW", 1))))
	require.NoError(t, c.Reload("request"))
	assert.False(t, configured(c, "RA"))
	_, share, _ = c.Lookup("NEW")
	assert.Equal(t, Share{MaxInFlight: 7, Authorities: 1}, share)
	c.build = func(Server) (Authority, error) { return nil, errors.New("no such protection") }
	assert.ErrorContains(t, c.Reload("request"), "cmpv2Servers[0]: no such protection")
	assert.Equal(t, Faults{"cmpv2Servers[0]: no such protection"}, c.Check())
}

func TestConfiguration_badEntry_leavesTheOthersInUse(t *testing.T) {
	bad := strings.Replace(entryText("BAD"), "http://ca", "ftp://ca", 1)
	c, path, log := newConfiguration(t, fileOf(entryText("RA"), bad))
	s := serviceOf(t, c)
	shows := func(lines ...string) {
		t.Helper()
		for _, line := range lines {
			assert.Contains(t, written(c.metrics), "certservice_config_"+line+"\n")
		}
	}
	load := func(text string) error {
		writeFile(t, path, []byte(text))
		return c.Reload("request")
	}
	const fault = `cmpv2Servers[1].url: has the scheme "ftp", want http or https`

	err := c.Reload("start")
	assert.EqualError(t, err, "cmpServers.json is loaded in part, 1 of 2 servers as the file describes them: "+fault)
	assert.True(t, configured(c, "RA"))
	assert.False(t, configured(c, "BAD"))
	assert.Equal(t, Faults{fault}, c.Check())
	s.get("/ready", nil).is(200)
	r := s.get("/reload", nil)
	r.is(500)
	assert.Contains(t, r.text, `cmpv2Servers[1].url`)
	shows("faulty_servers 1", "servers 1", "last_reload_successful 0")
	assert.NotContains(t, written(c.metrics), "certservice_config_last_success_timestamp_seconds")

	require.NoError(t, load(fileOf(entryText("RA"), entryText("BAD"))))
	good, _, _ := c.Lookup("BAD")
	shows("faulty_servers 0", "last_reload_successful 1")
	err = load(fileOf(entryText("NEW"), bad))
	assert.EqualError(t, err,
		`cmpServers.json is loaded in part, 1 of 2 servers as the file describes them, as they were: ["BAD"]: `+fault)
	kept, _, _ := c.Lookup("BAD")
	assert.Same(t, good, kept)
	assert.True(t, configured(c, "NEW"))
	assert.False(t, configured(c, "RA"), "it is no longer in the file")

	require.Error(t, load(fileOf(entryText("RA"), entryText(""))))
	for _, name := range []string{"RA", "NEW", "BAD"} {
		assert.True(t, configured(c, name), "the entry without a name may be any of those before")
	}
	err = load(fileOf(entryText("RA")) + " x")
	assert.ErrorContains(t, err, "cannot be loaded, the last good configuration stays in use: line 2, column ")
	assert.ErrorContains(t, err, "has 'x', want the end of the file")
	assert.True(t, configured(c, "NEW"))
	assert.False(t, log.has("very-secret"))

	require.NoError(t, load(fileOf(strings.Replace(entryText("RA"), `"very-secret-iak"`, "4711", 1))))
	assert.True(t, log.has("authentication.iak: is a number"))
	assert.False(t, log.has("4711"))
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

func TestConfiguration_watch_seesFilesChange(t *testing.T) {
	anchors := filepath.Join(t.TempDir(), "roots.pem")
	writeFile(t, anchors, testFile(t, "pem/root-ca.pem"))
	c, path, log := newConfiguration(t, fileOf(entryText("OLD")))
	require.NoError(t, c.Reload("start"))
	writeFile(t, path, []byte(fileOf(entryWith(`"trustAnchors": "`+anchors+`"`))))
	watch(t, c)
	eventually(t, func() bool { return configured(c, "RA") }) // changed before the watch started

	writeFile(t, anchors, testFile(t, "pem/other-root-ca.pem"))
	eventually(t, func() bool {
		a, _, _ := c.Lookup("RA")
		return a.(*namedAuthority).server.TrustAnchors[0].Equal(goldenCert(t, "other-root-ca.pem"))
	})
	writeFile(t, path, []byte("{"))
	eventually(t, func() bool { return log.has("not loaded") })
	assert.True(t, configured(c, "RA"))
	writeFile(t, path, []byte(fileOf(entryText("NEW"))))
	eventually(t, func() bool { return configured(c, "NEW") })
}

// The kubelet may mount a Secret later, and the path of its directory may be wrong.
func TestConfiguration_watch_fileInAMissingDirectory_isSeenWhenItAppears(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	c, path, _ := newConfiguration(t, fileOf(entryWith(`"additionalRoots": "`+missing+`/roots.pem"`)))
	require.Error(t, c.Reload("start"))
	watch(t, c)
	require.NoError(t, os.Mkdir(missing, 0o700))
	writeFile(t, filepath.Join(missing, "roots.pem"), testFile(t, "pem/root-ca.pem"))
	eventually(t, func() bool { return configured(c, "RA") })

	require.NoError(t, os.RemoveAll(missing))
	writeFile(t, path, []byte(fileOf(entryText("NEW"))))
	eventually(t, func() bool { return configured(c, "NEW") })
}

func TestConfiguration_watch_seesKubernetesReplaceTheLink(t *testing.T) {
	c, path, log := newConfiguration(t, "")
	dir := filepath.Dir(path)
	generation := func(name, text string) {
		require.NoError(t, os.Mkdir(filepath.Join(dir, name), 0o700))
		writeFile(t, filepath.Join(dir, name, "cmpServers.json"), []byte(text))
		require.NoError(t, os.Symlink(name, filepath.Join(dir, "..data_tmp")))
		require.NoError(t, os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
	}
	generation("..1", fileOf(entryText("RA")))
	require.NoError(t, os.Remove(path))
	require.NoError(t, os.Symlink("..data/cmpServers.json", path))
	require.NoError(t, c.Reload("start"))
	watch(t, c)

	generation("..2", fileOf(entryText("NEW")))
	eventually(t, func() bool { return configured(c, "NEW") })
	require.NoError(t, os.RemoveAll(filepath.Join(dir, "..1")))
	generation("..3", fileOf(entryText("NEW")))
	generation("..4", fileOf(entryText("LAST")))
	eventually(t, func() bool { return configured(c, "LAST") })
	assert.Equal(t, 3, strings.Count(log.String(), `"configuration loaded"`), "the same content again does not reload")
}

// The examples of the documents are what operators copy.
func TestParseServers_documentedExamples_areValid(t *testing.T) {
	text, err := os.ReadFile("../../docs/certservice.md")
	require.NoError(t, err)
	examples := 0
	for _, part := range strings.Split(string(text), "```json\n")[1:] {
		example, _, _ := strings.Cut(part, "```")
		if !strings.Contains(example, "cmpv2Servers") {
			continue
		}
		examples++
		file, err := parseServers([]byte(example), func(name string) ([]byte, error) {
			switch {
			case strings.HasSuffix(name, "key"):
				return testFile(t, "pem/old-key.pem"), nil
			case strings.HasSuffix(name, ".crt"):
				return testFile(t, "pem/old-certificate.pem"), nil
			}
			return testFile(t, "pem/root-ca.pem"), nil
		})
		require.NoError(t, err, example)
		assert.Empty(t, file.Faults)
		assert.Empty(t, file.Warnings)
	}
	assert.GreaterOrEqual(t, examples, 2)
}
