package docs

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

var (
	setting    = regexp.MustCompile(`^([A-Z][A-Z0-9_]{2,})(?:=(.*))?$`)
	documented = regexp.MustCompile(`(?m)^  ([A-Z][A-Z0-9_]+)`)
)

// The words in capitals that are no variables of ours: headers of the API, formats, what protocols call things, what
// Go's runtime and HTTP client read, what says how to write on a terminal, what stands for flags, what makes a release,
// and what the probes of ONAP's chart read.
var noVariables = strings.Fields("CSR OLD_CERT OLD_PK JKS PEM P12 MAC HUP USR2 SIGHUP JAVA_OPTS GOMEMLIMIT " +
	"GOMAXPROCS GODEBUG GOGC MADV_POPULATE BENCH BENCH_OLD " +
	"HTTPS_PROXY NO_PROXY ECDSA CERTIFICATE ROOT_CERT KEYSTORE_P12_PATH LC_ALL LC_CTYPE LANG NO_COLOR TERM APP_UID " +
	"APP_GID RELOAD_UNITS SHA256SUMS RELEASE_KEY RELEASE_KEY_PASSWORD_FILE RELEASE_DIRTY IMAGE_PREFIX")

var ourCommands = []string{"certfetcher", "certfetcher postprocess", "certservice", "devca"}

// readers are the programs of ours, or commands, that read a variable.
func readers(t *testing.T, name string) (found []string) {
	t.Helper()
	for _, command := range ourCommands {
		names := documented.FindAllStringSubmatch(fixture.Must(help(command)), -1)
		require.NotEmpty(t, names, command)
		if slices.ContainsFunc(names, func(match []string) bool {
			return match[1] == name || match[1] == strings.TrimSuffix(name, "_FILE")
		}) {
			found = append(found, command)
		}
	}
	return found
}

// isVariable says whether a program, the script for images or a test reads the variable. Tests put the prefix before
// the name.
func isVariable(t *testing.T, name string) bool {
	t.Helper()
	if strings.Contains(readAll(t, "deploy/images/build.sh"), "\n#   "+name+" ") {
		return true
	}
	rest, ofTests := strings.CutPrefix(strings.TrimSuffix(name, "_PASSWORD"), "CMP_TEST_")
	return len(readers(t, name)) > 0 ||
		ofTests && strings.Contains(readAll(t, "test/interop/given_server_test.go"), `"`+rest+`"`)
}

// Settings that documents give as examples of what is wrong.
var refused = []string{"REQUEST_TIMEOUT=abc"}

func TestDocuments_variables_areReadByAProgram(t *testing.T) {
	for _, d := range documents(t) {
		for _, span := range d.spans() {
			match := setting.FindStringSubmatch(span)
			if match == nil || slices.Contains(noVariables, match[1]) {
				continue
			}
			assert.True(t, isVariable(t, match[1]), "%s: nothing reads %s", d.path, match[1])
			for _, program := range readers(t, match[1]) {
				if match[2] != "" && (program == "certfetcher" || program == "certservice") {
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
	faulty := strings.Contains(string(out), "variable="+variable+" error=\"has ") ||
		strings.Contains(string(out), variable+" has ")
	assert.Equal(t, slices.Contains(refused, setting), faulty, "%s: %s", setting, out)
}
