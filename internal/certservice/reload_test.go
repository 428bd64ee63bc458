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

func TestConfiguration_entryThatCannotBeBuilt_isAFault(t *testing.T) {
	c, _, _ := newConfiguration(t, fileOf(entryText("RA")))
	c.build = func(Server) (Authority, error) { return nil, errors.New("no such protection") }
	assert.ErrorContains(t, c.Reload("start"), "cmpv2Servers[0]: no such protection")
	assert.Equal(t, Faults{"cmpv2Servers[0]: no such protection"}, c.Check())
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
	loads := func() int { return strings.Count(log.String(), `"configuration loaded"`) }
	eventually(t, func() bool { return loads() >= 3 }) // the line follows the change
	assert.Equal(t, 3, loads(), "the same content again does not reload")
}

// The examples of the documents are what operators copy.
func TestParseServers_documentedExamples_areValid(t *testing.T) {
	text := must(os.ReadFile("../../docs/certservice.md"))
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
