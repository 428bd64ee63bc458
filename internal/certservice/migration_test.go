package certservice

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v4"
)

// migrationRows are the rows of a table in the migration guide, by their first cell.
func migrationRows(t *testing.T, heading string) map[string][]string {
	t.Helper()
	content := must(os.ReadFile("../../docs/migrating-from-onap.md"))
	_, section, found := strings.Cut(string(content), "\n"+heading+"\n")
	require.True(t, found, heading)
	section, _, _ = strings.Cut(section, "\n#")
	rows := map[string][]string{}
	for line := range strings.Lines(section) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		if strings.HasPrefix(line, "| ") && len(cells) > 1 && cells[0] != " request" {
			rows[strings.TrimSpace(cells[0])] = cells[1:]
		}
	}
	require.NotEmpty(t, rows)
	return rows
}

// Each row of the guide is requested as testdata/migration.yaml says, and answered with the status and the text that
// the row has.
func TestMigrationGuide_requests_areAnsweredAsItSays(t *testing.T) {
	var requests []struct {
		Row      string
		Commands []string
	}
	require.NoError(t, yaml.Unmarshal(must(os.ReadFile("testdata/migration.yaml")), &requests))
	rows := migrationRows(t, "### Requests that are answered otherwise")
	assert.Len(t, requests, len(rows), "each row is requested")
	for _, request := range requests {
		t.Run(request.Row, func(t *testing.T) {
			cells := rows[request.Row]
			require.Len(t, cells, 2, "the guide has no such row")
			want := regexp.MustCompile("^([1-5][0-9]{2})(?: `([^`]*)`)?").FindStringSubmatch(cells[1])
			require.NotNil(t, want, "%q begins with no status", cells[1])
			s := newScript(t)
			for _, command := range request.Commands {
				command, prepares := strings.CutPrefix(command, "- ")
				name, rest, _ := strings.Cut(command, " ")
				got := s.run(name, rest)
				if prepares {
					continue
				}
				require.Regexp(t, "(?m)^"+want[1]+" ", got)
				assert.Contains(t, got, want[2])
				if want[1] >= "400" && name != "HEAD" {
					assert.Contains(t, got, `{"errorMessage":"`)
				}
			}
		})
	}
}
