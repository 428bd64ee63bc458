//go:build containers

package containers

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/golden"
)

// inspect is what podman says of an image, by a template.
func inspect(t *testing.T, format, name string) string {
	t.Helper()
	return podman(t, "image", "inspect", "--format", format, name)
}

// contents are the files of an image.
func contents(t *testing.T, name string) map[string]file {
	t.Helper()
	container := podman(t, "create", name)
	defer podman(t, "rm", container)
	return readTar(t, "export", container)
}

func TestImages_holdOneProgramEachAndNoShell(t *testing.T) {
	setup(t)
	want := golden.Load(t, "images.golden.txt")
	const labels = "{{range $name, $value := .Config.Labels}}{{$name}}={{$value}}\n{{end}}"
	for _, name := range []string{"certfetcher", "certservice", "devca", "certfetcher-compose"} {
		text := inspect(t, "user {{.Config.User}} runs {{.Config.Entrypoint}}\n"+labels, name)
		text = ofThisMachine.ReplaceAllString(text, "$1=…")
		files := slices.Sorted(maps.Keys(contents(t, name)))
		want.Equal(t, name, text+"\n"+strings.Join(files, "\n"))
	}
	size := fixture.Must(strconv.Atoi(inspect(t, "{{.Size}}", "certfetcher")))
	assert.LessOrEqual(t, size, 10_000_000)
}

var ofThisMachine = regexp.MustCompile(`(io\.buildah\.version|revision)=\S+`)

func TestImages_ofTheSameSources_areTheSame(t *testing.T) {
	setup(t)
	for _, name := range []string{"certfetcher", "certfetcher-compose"} {
		before := inspect(t, "{{.Id}}", name)
		_, err := command("sh", "-c", "umask 077 && exec ./deploy/images/build.sh "+name)
		require.NoError(t, err)
		assert.Equal(t, before, inspect(t, "{{.Id}}", name), name)
	}
}

func TestImages_haveTheBillOfMaterialsOfTheirProgram(t *testing.T) {
	setup(t)
	_, err := command("./deploy/images/build.sh", "certservice")
	require.NoError(t, err)
	dir := root + "/dist/images/linux-" + runtime.GOARCH
	content := fixture.Must(os.ReadFile(dir + "/certservice.cdx.json"))
	sum := sha256.Sum256(contents(t, "certservice")["certservice"].content)
	for _, part := range []string{`"bomFormat": "CycloneDX"`, `"version": "` + version + `"`,
		`"value": "` + hex.EncodeToString(sum[:]) + `"`} {
		assert.Contains(t, string(content), part)
	}
}

func TestImages_forAnotherMachine_leaveThisOnesAlone(t *testing.T) {
	setup(t)
	const format = "{{.Architecture}} {{.Id}}"
	here, other := inspect(t, format, "certfetcher:latest"), "arm64"
	if strings.HasPrefix(here, other) {
		other = "amd64"
	}
	_, err := command("env", "GOARCH="+other, "./deploy/images/build.sh", "certfetcher")
	require.NoError(t, err)
	assert.Contains(t, inspect(t, format, "certfetcher:"+version+"-"+other), other)
	assert.Equal(t, here, inspect(t, format, "certfetcher:latest"))
}
