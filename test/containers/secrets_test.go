//go:build containers

package containers

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// The example with Docker secrets, on the network of a CertService that is there.
func TestCompose_dockerSecrets_areTheIdentity(t *testing.T) {
	s := startStack(t)
	const project = "secrets"
	network := filepath.Join(t.TempDir(), "network.yaml")
	write(t, network, fmt.Appendf(nil, "networks: {default: {external: true, name: %q}}\n", s.network))
	compose := compose(t, project, []string{"deploy/compose/compose.secrets.yaml", network}, "SECRETS="+s.client)
	compose("up", "--detach")
	t.Cleanup(func() { compose("down", "--volumes") })

	container := project + "_certfetcher_1"
	eventually(t, 20*time.Second, "the set of files", func() error {
		if got := state(t, container); got != "exited 0" {
			return fmt.Errorf("certfetcher is %s: %s", got, logs(container))
		}
		return nil
	})
	files := volume(t, project+"_certs")
	assert.Contains(t, files, "keystore.p12")
	assert.Contains(t, files, "truststore.p12")
}
