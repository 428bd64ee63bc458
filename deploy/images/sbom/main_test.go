package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// build builds the fetcher, which has dependencies, and returns its path and its bill of materials.
func build(t *testing.T) (string, []byte) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "certfetcher")
	command := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", path, "../../../cmd/certfetcher")
	command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=arm64")
	output, err := command.CombinedOutput()
	require.NoError(t, err, string(output))
	var document bytes.Buffer
	require.NoError(t, write(&document, path, "1.2.3"))
	return path, document.Bytes()
}

func TestBOM_listsWhatGoVersionLists(t *testing.T) {
	path, document := build(t)
	var got bom
	decoder := json.NewDecoder(bytes.NewReader(document))
	decoder.DisallowUnknownFields()
	require.NoError(t, decoder.Decode(&got))

	output, err := exec.Command("go", "version", "-m", path).Output()
	require.NoError(t, err)
	var modules []string
	for _, line := range strings.Split(string(output), "\n") {
		if fields := strings.Fields(line); len(fields) == 4 && fields[0] == "dep" {
			modules = append(modules, strings.Join(fields[1:], " "))
		}
	}
	require.NotEmpty(t, modules)
	var listed []string
	for _, c := range got.Components[1:] {
		require.Len(t, c.Properties, 1)
		listed = append(listed, c.Name+" "+c.Version+" "+c.Properties[0].Value)
	}
	assert.Equal(t, modules, listed)

	program := got.Metadata.Component
	assert.Equal(t, "pkg:golang/github.com/certfetcher/certfetcher@1.2.3#cmd/certfetcher", program.PURL)
	assert.Contains(t, program.Properties, property{"go:build:GOARCH", "arm64"})
}

// The rules are those of the published schema of CycloneDX 1.6 for the elements that are used.
func TestBOM_hasTheStructureOfCycloneDX(t *testing.T) {
	_, document := build(t)
	var got bom
	require.NoError(t, json.Unmarshal(document, &got))
	assert.Equal(t, "CycloneDX", got.Format)
	assert.Equal(t, "1.6", got.SpecVersion)
	assert.GreaterOrEqual(t, got.Version, 1)

	purl := regexp.MustCompile(`^pkg:golang/[a-z0-9._~/-]+@v?[0-9A-Za-z.%-]+(#[a-z/]+)?$`)
	refs := map[string]bool{}
	for _, c := range append(got.Components, got.Metadata.Component) {
		assert.False(t, refs[c.Ref], "%s stands twice", c.Ref)
		refs[c.Ref] = true
		assert.Contains(t, []string{"application", "library"}, c.Type)
		assert.NotEmpty(t, c.Name)
		assert.Regexp(t, purl, c.PURL)
		for _, h := range c.Hashes {
			assert.Equal(t, "SHA-256", h.Algorithm)
			assert.Regexp(t, `^[0-9a-f]{64}$`, h.Content)
		}
	}
	require.Len(t, got.Dependencies, 1)
	assert.Equal(t, got.Metadata.Component.Ref, got.Dependencies[0].Ref)
	assert.Len(t, got.Dependencies[0].DependsOn, len(got.Components))
	for _, ref := range got.Dependencies[0].DependsOn {
		assert.True(t, refs[ref], "%s depends on nothing that is listed", ref)
	}
}

func TestBOM_ofAFileThatIsNoGoProgram_isAnError(t *testing.T) {
	err := write(&bytes.Buffer{}, "main.go", "1.2.3")
	require.Error(t, err)
	assert.Contains(t, err.Error(), "main.go")
}
