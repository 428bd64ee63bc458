package e2e

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

// exitCodes are the codes of certfetcher in the migration guide's table, by what happens.
func exitCodes() (codes map[string]string, rows int) {
	guide := string(fixture.Must(os.ReadFile("../../docs/migrating-from-onap.md")))
	_, section, _ := strings.Cut(guide, "\n### Exit codes that differ\n")
	section, _, _ = strings.Cut(section, "\n#")
	codes = map[string]string{}
	row := regexp.MustCompile(`(?m)^\| (.*) \| [^|]* \| (\d+)\b[^|]*\|$`)
	for _, match := range row.FindAllStringSubmatch(section, -1) {
		codes[match[1]] = match[2]
	}
	return codes, strings.Count(section, "\n| ") - 1
}

// guide ROW sets CODE to the exit code that the migration guide has for what happens.
func readGuide(ts *testscript.TestScript, _ bool, args []string) {
	codes, _ := exitCodes()
	if codes[args[0]] == "" {
		ts.Fatalf("the guide has no row %q", args[0])
	}
	ts.Setenv("CODE", codes[args[0]])
}

func TestMigrationGuide_exitCodes_areAllTried(t *testing.T) {
	codes, rows := exitCodes()
	require.NotEmpty(t, codes)
	assert.Len(t, codes, rows, "every row has a code")
	script := string(fixture.Must(os.ReadFile("testdata/script/migration.txtar")))
	for row := range codes {
		assert.Contains(t, script, "\nguide '"+row+"'\n")
	}
}
