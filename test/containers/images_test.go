//go:build containers

package containers

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
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
	path := filepath.Join(t.TempDir(), "image.tar")
	podman(t, "export", "--output", path, container)
	return readTar(t, path)
}

func TestImages_holdOneProgramEachAndNoShell(t *testing.T) {
	setup(t)
	for name, want := range map[string][]string{
		"certfetcher": {"/certfetcher", "certfetcher", "var", "var/run", "var/run/certs"},
		"certservice": {"/certservice", "certservice"},
		"devca":       {"/devca", "devca", "var", "var/lib", "var/lib/devca"},
		"certfetcher-compose": {"/app", "app", "identities", "var", "var/lib", "var/lib/identities",
			"var/lib/identities/ca", "var/lib/identities/certservice", "var/lib/identities/client",
			"var/lib/identities/root"},
	} {
		t.Run(name, func(t *testing.T) {
			got := inspect(t, name)
			assert.Equal(t, "65532:65532", got.Config.User)
			assert.Equal(t, []string{want[0]}, got.Config.Entrypoint)
			assert.Equal(t, name, got.Config.Labels["org.opencontainers.image.title"])
			assert.Equal(t, version, got.Config.Labels["org.opencontainers.image.version"])
			assert.Equal(t, "2023-11-14T22:13:20Z", got.Config.Labels["org.opencontainers.image.created"])
			for _, label := range []string{"description", "source", "licenses", "revision"} {
				assert.NotEmpty(t, got.Config.Labels["org.opencontainers.image."+label], label)
			}
			t.Logf("%s: %.2f MB, %s", name, float64(got.Size)/1e6, got.ID)

			var names []string
			for path := range contents(t, name) {
				names = append(names, path)
			}
			assert.ElementsMatch(t, want[1:], names)
		})
	}
	assert.LessOrEqual(t, inspect(t, "certfetcher").Size, int64(10_000_000))
}

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
	content, err := os.ReadFile(filepath.Join(root, "dist/images/linux-"+runtime.GOARCH, "certservice.cdx.json"))
	require.NoError(t, err)
	var bill struct {
		BOMFormat string
		Metadata  struct {
			Component struct {
				Version string
			}
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
