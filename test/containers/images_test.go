//go:build containers

package containers

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/golden"
)

// image is what podman says of one.
type image struct {
	ID           string `json:"Id"`
	Size         int64
	Architecture string
	Os           string
	Config       struct {
		User       string
		Entrypoint []string
		Labels     map[string]string
	}
}

func inspect(t *testing.T, name string) image {
	t.Helper()
	var images []image
	require.NoError(t, json.Unmarshal([]byte(podman(t, "image", "inspect", name)), &images))
	require.Len(t, images, 1)
	return images[0]
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
	for _, name := range []string{"certfetcher", "certservice", "devca", "certfetcher-compose"} {
		t.Run(name, func(t *testing.T) {
			got := inspect(t, name)
			t.Logf("%s: %.2f MB, %s", name, float64(got.Size)/1e6, got.ID)
			lines := []string{"user " + got.Config.User, "entrypoint " + strings.Join(got.Config.Entrypoint, " ")}
			delete(got.Config.Labels, "io.buildah.version")
			for label, value := range got.Config.Labels {
				lines = append(lines, "label "+label+" "+value)
			}
			for path := range contents(t, name) {
				lines = append(lines, "file "+path)
			}
			slices.Sort(lines)
			text := revision.ReplaceAllString(strings.Join(lines, "\n"), "${1}REVISION")
			want.Equal(t, name, text)
		})
	}
	assert.LessOrEqual(t, inspect(t, "certfetcher").Size, int64(10_000_000))
}

var revision = regexp.MustCompile(`(image\.revision )\S+`)

func TestImages_ofTheSameSources_areTheSame(t *testing.T) {
	setup(t)
	for _, name := range []string{"certfetcher", "certfetcher-compose"} {
		before := inspect(t, name).ID
		_, err := command("sh", "-c", "umask 077 && exec ./deploy/images/build.sh "+name)
		require.NoError(t, err)
		assert.Equal(t, before, inspect(t, name).ID, name)
	}
}

func TestImages_haveTheBillOfMaterialsOfTheirProgram(t *testing.T) {
	setup(t)
	_, err := command("./deploy/images/build.sh", "certservice")
	require.NoError(t, err)
	content := fixture.Must(os.ReadFile(root + "/dist/images/linux-" + runtime.GOARCH + "/certservice.cdx.json"))
	var bill struct {
		BOMFormat string
		Metadata  struct {
			Component  struct{ Version string }
			Properties []struct{ Name, Value string }
		}
	}
	require.NoError(t, json.Unmarshal(content, &bill))
	assert.Equal(t, "CycloneDX", bill.BOMFormat)
	assert.Equal(t, version, bill.Metadata.Component.Version)
	sum := sha256.Sum256(contents(t, "certservice")["certservice"].content)
	assert.Contains(t, bill.Metadata.Properties,
		struct{ Name, Value string }{"cdx:gomod:binary:hash:SHA-256", hex.EncodeToString(sum[:])})
}

func TestImages_forAnotherMachine_leaveThisOnesAlone(t *testing.T) {
	setup(t)
	here := inspect(t, "certfetcher:latest")
	other := "arm64"
	if here.Architecture == other {
		other = "amd64"
	}
	_, err := command("env", "GOARCH="+other, "./deploy/images/build.sh", "certfetcher")
	require.NoError(t, err)
	assert.Equal(t, other, inspect(t, "certfetcher:"+version+"-"+other).Architecture)
	assert.Equal(t, here.ID, inspect(t, "certfetcher:latest").ID)
}
