// Package architecture holds the direction of the imports: data flows one way, so imports do too.
package architecture

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const module = "github.com/certfetcher/certfetcher/"

// deps lists the packages of this module that a package links, itself left out.
func deps(t *testing.T, pkg string) []string {
	t.Helper()
	command := exec.Command("go", "list", "-deps", module+pkg)
	var stderr strings.Builder
	command.Stderr = &stderr
	out, err := command.Output()
	require.NoError(t, err, stderr.String())
	var list []string
	for _, line := range strings.Fields(string(out)) {
		if name, ours := strings.CutPrefix(line, module); ours && name != pkg {
			list = append(list, name)
		}
	}
	return list
}

func TestStages_neverImportOneAnother(t *testing.T) {
	stages := []string{"keygen", "client", "internal/verify", "output", "internal/notify"}
	for _, stage := range stages {
		for _, dep := range deps(t, stage) {
			assert.False(t, slices.Contains(stages, dep) || dep == "internal/config",
				"%s imports %s: stages exchange standard types, internal/config fills their "+
					"settings, internal/enroll knows their order", stage, dep)
		}
	}
}

func TestCertfetcher_linksNoIssuingCode(t *testing.T) {
	for _, dep := range deps(t, "cmd/certfetcher") {
		assert.False(t, slices.Contains([]string{"internal/certservice", "internal/devca"}, dep),
			"certfetcher links %s", dep)
		assert.False(t, strings.HasPrefix(dep, "test/"), "certfetcher links %s", dep)
	}
}

// The development CA is for nobody's production.
func TestCertservice_linksNoDevelopmentCA(t *testing.T) {
	for _, dep := range deps(t, "cmd/certservice") {
		assert.NotEqual(t, "internal/devca", dep)
		assert.False(t, strings.HasPrefix(dep, "test/"), "certservice links %s", dep)
	}
}

func TestClientAndServer_shareNoCode(t *testing.T) {
	assert.NotContains(t, deps(t, "client"), "internal/certservice")
	assert.NotContains(t, deps(t, "internal/certservice"), "client")
}
