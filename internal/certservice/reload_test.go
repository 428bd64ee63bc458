package certservice

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func newConfiguration(t testing.TB, text string) (*Configuration, string, *lockedBuffer) {
	t.Helper()
	path, log := filepath.Join(t.TempDir(), "cmpServers.json"), &lockedBuffer{}
	writeFile(t, path, []byte(text))
	return NewConfiguration(path, nil, NewMetrics(""), slog.New(slog.NewJSONHandler(log, nil))), path, log
}

func TestConfiguration_entryThatCannotBeBuilt_isAFault(t *testing.T) {
	c, _, _ := newConfiguration(t, fileOf(entryText("RA")))
	c.build = func(Server) (Authority, error) { return nil, errors.New("no such protection") }
	assert.ErrorContains(t, c.Reload("start"), "cmpv2Servers[0]: no such protection")
	assert.Equal(t, Faults{"cmpv2Servers[0]: no such protection"}, c.Check())
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
