//go:build containers

package containers

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

// initContainerPod is the pod of the Kubernetes example with what this machine has instead: an
// application of ours, on a port of the host; a directory in place of the secret, because podman 4.3
// does not decode the secrets that it mounts; images that are never pulled. Podman removes init containers that have
// ended unless told to keep them, and restarts them with the pod's other containers, which Kubernetes does not.
func initContainerPod(t *testing.T, s stack, port string) string {
	t.Helper()
	text := string(fixture.Must(os.ReadFile(root + "/deploy/kubernetes/examples/init-container.yaml")))
	for _, change := range [][2]string{
		{"  name: app\n", "  name: app\n  annotations: {io.podman.annotations.init.container.type: always}\n"},
		{"spec:\n", "spec:\n  restartPolicy: Never\n"},
		{"image: certfetcher:latest\n", "image: certfetcher:latest\n      imagePullPolicy: Never\n"},
		{"image: your-application\n      securityContext: {",
			"image: certfetcher-compose:latest\n      imagePullPolicy: Never\n      args: [-name=app.example.org]\n" +
				"      ports: [{containerPort: 8443, hostPort: " + port + ", hostIP: 127.0.0.1}]\n" +
				"      securityContext: {readOnlyRootFilesystem: true, "},
		{"secret: {secretName: certfetcher-mtls, defaultMode: 0440}", "hostPath: {path: " + s.client + "}"},
	} {
		require.Equal(t, 1, strings.Count(text, change[0]), change[0])
		text = strings.Replace(text, change[0], change[1], 1)
	}
	path := filepath.Join(t.TempDir(), "pod.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
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
	assert.Equal(t, "exited 0", state(t, "app-certfetcher"))
	assertConfined(t, "app-app")
	assert.NoError(t, run("exec", "app-app", "/app", "-name=app.example.org", "probe"))

	podman(t, "kube", "down", manifest)
	assert.Empty(t, podman(t, "pod", "ps", "--quiet"))
}
