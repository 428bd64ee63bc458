//go:build containers

package containers

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

// The example with Docker secrets, on the network of a CertService that is there.
func TestCompose_dockerSecrets_areTheIdentity(t *testing.T) {
	fixture.RequirePrograms(t, "podman-compose")
	s := startStack(t)
	const project = "secrets"
	network := filepath.Join(t.TempDir(), "network.yaml")
	require.NoError(t, os.WriteFile(network, fmt.Appendf(nil,
		"networks: {default: {external: true, name: %q}}\n", s.network), 0o600))
	compose := func(arguments ...string) {
		t.Helper()
		_, err := command("env", append([]string{"SECRETS=" + s.client,
			"podman-compose", "-p", project, "-f", "deploy/compose/compose.secrets.yaml", "-f", network},
			arguments...)...)
		require.NoError(t, err)
	}
	compose("up", "--detach")
	t.Cleanup(func() { compose("down", "--volumes") })

	container := project + "_certfetcher_1"
	eventually(t, 20*time.Second, "the set of files", func() error {
		state, err := command("podman", "inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", container)
		if err == nil && state != "exited 0" {
			err = fmt.Errorf("certfetcher is %s: %s", state, logs(container))
		}
		return err
	})
	files := volume(t, project+"_certs")
	assert.Contains(t, files, "keystore.p12")
	assert.Contains(t, files, "truststore.p12")
}
