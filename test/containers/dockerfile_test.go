//go:build containers

package containers

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

var goVersion = regexp.MustCompile(`(?m)^ARG GO_VERSION=(\S+)$`)

// baseImage makes an image under the name that the Dockerfile builds in, out of what this machine has: nothing
// is pulled. It is a root whose /usr is mounted, with Go and its caches; the options mount them.
func baseImage(t *testing.T, name string) (options []string) {
	t.Helper()
	output, err := command("go", "env", "GOROOT", "GOMODCACHE", "GOCACHE")
	require.NoError(t, err)
	host := strings.Fields(output)
	_, err = command("go", "mod", "download") // where the build, which has no network, finds it
	require.NoError(t, err)

	context := t.TempDir()
	for _, link := range []string{"bin", "lib", "lib64"} {
		if target, err := os.Readlink("/" + link); err == nil {
			require.NoError(t, os.Symlink(target, filepath.Join(context, link)))
		}
	}
	require.NoError(t, os.Mkdir(filepath.Join(context, "tmp"), 0o755))
	write(t, filepath.Join(context, "Dockerfile"), []byte(`FROM scratch
COPY . /
ENV PATH=/host/go/bin:/usr/bin HOME=/root GOROOT=/host/go GOMODCACHE=/host/modules GOCACHE=/host/cache \
    GOPROXY=off GOTOOLCHAIN=local
`))
	podman(t, "build", "--quiet", "--tag", name, context)
	return []string{"--volume", "/usr:/usr:ro", "--volume", host[0] + ":/host/go:ro",
		"--volume", host[1] + ":/host/modules:ro", "--volume", host[2] + ":/host/cache"}
}

// deploy/images/build.sh leaves out the stage that builds from source; docker build does not.
func TestDockerfile_buildsFromSource(t *testing.T) {
	t.Parallel()
	setup(t)
	match := goVersion.FindSubmatch(fixture.Must(os.ReadFile(root + "/Dockerfile")))
	require.NotNil(t, match)
	options := baseImage(t, "golang:"+string(match[1]))
	build := append([]string{"build", "--quiet", "--pull=never", "--network=none", "--build-arg",
		"VERSION=from-source"}, options...)

	podman(t, append(build, "--tag", "from-source", ".")...)
	assert.Equal(t, "certfetcher from-source", podman(t,
		append(append([]string{"run", "--rm"}, hardened...), "from-source", "--version")...))
	title := inspect(t, `{{index .Config.Labels "org.opencontainers.image.title"}}`, "from-source")
	assert.Equal(t, "certfetcher", title)
	for _, target := range []string{"certservice", "devca", "certfetcher-compose", "sbom"} {
		podman(t, append(build, "--target", target, "--tag", "from-source-"+target, ".")...)
	}
	assert.Contains(t, contents(t, "from-source-devca"), "devca")
}
