package docs

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var (
	codeSpan = regexp.MustCompile("`[^`]+`")
	runs     = regexp.MustCompile(`^(certfetcher|certservice|devca|make|go|docker|podman-compose|kubectl|helm) `)
	setting  = regexp.MustCompile(`^([A-Z][A-Z0-9_]{2,})(?:=(.*))?$`)
	series   = regexp.MustCompile(`^(certfetcher|certservice)_[a-z_]+$`)
)

// spans are what stands in a document's prose as code.
func (d document) spans() []string {
	var list []string
	for _, span := range codeSpan.FindAllString(d.prose, -1) {
		list = append(list, strings.Join(strings.Fields(strings.Trim(span, "`")), " "))
	}
	return list
}

// The words in capitals that are no variables of ours: headers of the API, formats, what protocols call things, what
// Go's runtime and HTTP client read, and what the probes of ONAP's chart do.
var noVariables = []string{
	"CSR", "OLD_CERT", "OLD_PK", "JKS", "PEM", "P12", "MAC", "SIGHUP", "GOMEMLIMIT", "HTTPS_PROXY", "NO_PROXY",
	"CERTIFICATE", "ROOT_CERT", "KEYSTORE_P12_PATH",
}

// The variables of programs that this repository has, by program or command.
func variables(t *testing.T) map[string][]string {
	t.Helper()
	names := map[string][]string{}
	documented := regexp.MustCompile(`(?m)^  ([A-Z][A-Z0-9_]+)`)
	for _, command := range []string{"certfetcher", "certfetcher postprocess", "certservice", "devca"} {
		words := strings.Fields(command)
		for _, match := range documented.FindAllStringSubmatch(help(t, words[0], words[1:]...), -1) {
			names[command] = append(names[command], match[1])
		}
		require.NotEmpty(t, names[command], command)
	}
	return names
}

func knownVariable(t *testing.T, name string) bool {
	t.Helper()
	for _, names := range variables(t) {
		if slices.Contains(names, name) || slices.Contains(names, strings.TrimSuffix(name, "_FILE")) {
			return true
		}
	}
	// Of the tests, which put the prefix before the name.
	rest, found := strings.CutPrefix(strings.TrimSuffix(name, "_PASSWORD"), "CMP_TEST_")
	return found && strings.Contains(read(t, "test/interop/given_server_test.go"), `"`+rest+`"`)
}

func TestProse_commands_areThere(t *testing.T) {
	found := map[string]int{}
	for _, d := range documents(t) {
		for _, span := range d.spans() {
			if match := runs.FindStringSubmatch(span); match != nil {
				checkCommand(t, d.path, strings.Fields(span))
				found[match[1]]++
			}
		}
	}
	assert.Subset(t, slices.Collect(maps.Keys(found)), []string{"certfetcher", "certservice"})
}

// Settings that documents give as examples of what is wrong.
var refused = []string{"REQUEST_TIMEOUT=abc"}

func TestProse_variables_areReadByAProgram(t *testing.T) {
	known := variables(t)
	for _, d := range documents(t) {
		for _, span := range d.spans() {
			match := setting.FindStringSubmatch(span)
			if match == nil || slices.Contains(noVariables, match[1]) {
				continue
			}
			if !assert.True(t, knownVariable(t, match[1]), "%s: nothing reads %s", d.path, match[1]) || match[2] == "" {
				continue
			}
			for _, program := range []string{"certfetcher", "certservice"} {
				if slices.Contains(known[program], match[1]) {
					assertTakes(t, program, span, match[1])
					break
				}
			}
		}
	}
}

// assertTakes starts a program with no environment but the setting, and looks whether the setting is among the faults.
func assertTakes(t *testing.T, program, setting, variable string) {
	t.Helper()
	cmd := exec.Command(filepath.Join(binDir, program), "--check")
	cmd.Env = []string{"MODE=sidecar", "LOG_FORMAT=text", setting}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit, "the rest of the environment is missing, so that it has to fail")
	faulty := strings.Contains(string(out), variable+" has ")
	assert.Equal(t, slices.Contains(refused, setting), faulty, "%s: %s", setting, out)
}

func TestProse_series_areThere(t *testing.T) {
	var sources strings.Builder
	for _, pattern := range []string{"internal/metrics/*.go", "internal/certservice/*.go",
		"internal/notify/*.go", "cmd/*/*.go"} {
		sources.WriteString(readAll(t, pattern))
	}
	checked := 0
	for _, d := range documents(t) {
		for _, span := range d.spans() {
			if series.MatchString(span) {
				assertHolds(t, sources.String(), span, d.path)
				checked++
			}
		}
	}
	assert.NotZero(t, checked)
}

// Paths of this repository that documents name as code.
func TestProse_paths_areThere(t *testing.T) {
	path := regexp.MustCompile(`^(cmd|internal|test|deploy|docs|client|keygen|output)/[\w./-]*$`)
	checked := 0
	for _, d := range documents(t) {
		for _, span := range d.spans() {
			if path.MatchString(span) {
				_, err := os.Stat(filepath.Join(root, span))
				assert.NoError(t, err, d.path)
				checked++
			}
		}
	}
	assert.NotZero(t, checked)
}

// What a runbook quotes of certservice's log is what the CMP client says.
func TestOperations_reasonsOfTheCA_areReal(t *testing.T) {
	sources := readAll(t, "internal/cmp/*.go")
	check := regexp.MustCompile(`^checking (.*) of the CMP answer$`)
	assertHolds(t, sources, `"checking %s of the CMP answer: `, "internal/cmp")
	assertHolds(t, sources, `"CA has not decided in time"`, "docs/operations.md")
	found := 0
	for _, span := range readDocument(t, filepath.Join(root, "docs/operations.md")).spans() {
		if match := check.FindStringSubmatch(span); match != nil {
			// in place or by a constant
			named := regexp.MustCompile(`\bCheck(: |\w+ += )"` + regexp.QuoteMeta(match[1]) + `"`)
			assert.True(t, named.MatchString(sources), "docs/operations.md: no check is called %q", match[1])
			found++
		}
	}
	assert.Equal(t, 4, found)
}
