//go:build containers

package containers

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

type object = map[string]any

// initContainerPod is the pod of the Kubernetes example with what this machine has instead: an
// application of ours, on a port of the host; a directory in place of the secret, because podman 4.3
// does not decode the secrets that it mounts; images that are never pulled.
func initContainerPod(t *testing.T, s stack, port string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, "deploy/kubernetes/examples/init-container.yaml"))
	require.NoError(t, err)
	var pod object
	for decoder := yaml.NewDecoder(bytes.NewReader(content)); ; {
		var document object
		err := decoder.Decode(&document)
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		if document["kind"] == "Pod" {
			pod = document
		}
	}
	require.NotNil(t, pod, "the example has no Pod")
	// Podman removes init containers that have ended unless told to keep them, and restarts them with the pod's
	// other containers, which Kubernetes does not.
	pod["metadata"].(object)["annotations"] = object{"io.podman.annotations.init.container.type": "always"}
	spec := pod["spec"].(object)
	spec["restartPolicy"] = "Never"

	fetchers := spec["initContainers"].([]any)
	require.Len(t, fetchers, 1)
	fetcher := fetchers[0].(object)
	fetcher["image"], fetcher["imagePullPolicy"] = "certfetcher:latest", "Never"

	applications := spec["containers"].([]any)
	require.Len(t, applications, 1)
	application := applications[0].(object)
	number, err := strconv.Atoi(port)
	require.NoError(t, err)
	application["image"], application["imagePullPolicy"] = "certfetcher-compose:latest", "Never"
	application["args"] = []string{"-name=app.example.org"}
	application["ports"] = []any{object{"containerPort": 8443, "hostPort": number, "hostIP": "127.0.0.1"}}
	application["securityContext"] = fetcher["securityContext"]

	replaced := 0
	for _, entry := range spec["volumes"].([]any) {
		if source := entry.(object); source["secret"] != nil {
			delete(source, "secret")
			source["hostPath"] = object{"path": s.client, "type": "Directory"}
			replaced++
		}
	}
	require.Equal(t, 1, replaced)
	manifest, err := yaml.Marshal(pod)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "pod.yaml")
	require.NoError(t, os.WriteFile(path, manifest, 0o600))
	return path
}

func TestKubePlay_initContainer_servesTheApplication(t *testing.T) {
	s := startStack(t)
	port := freePort(t)
	manifest := initContainerPod(t, s, port)
	podman(t, "kube", "play", "--build=false", "--network", s.network, manifest)
	t.Cleanup(func() { podman(t, "pod", "rm", "--force", "--ignore", "app") })

	eventually(t, 20*time.Second, "the application", func() error {
		_, err := get("127.0.0.1:"+port, "app.example.org", s.root)
		return err
	})
	assert.Equal(t, "exited 0", podman(t, "inspect", "--format",
		"{{.State.Status}} {{.State.ExitCode}}", "app-certfetcher"))
	assertConfined(t, "app-app")
	assert.NoError(t, run("exec", "app-app", "/app", "-name=app.example.org", "probe"))

	podman(t, "kube", "down", manifest)
	assert.Empty(t, podman(t, "pod", "ps", "--quiet"))
}
