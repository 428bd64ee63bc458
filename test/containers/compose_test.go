//go:build containers

package containers

import (
	"crypto/x509"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/certfetcher/certfetcher/test/fixture"
)

// healthchecks are the commands of compose.yaml by service; nil for those that end.
func healthchecks(t *testing.T) map[string][]string {
	t.Helper()
	content := fixture.Must(os.ReadFile(filepath.Join(root, "deploy/compose/compose.yaml")))
	var c struct {
		Services map[string]struct{ Healthcheck struct{ Test []string } }
	}
	require.NoError(t, yaml.Unmarshal(content, &c))
	checks := map[string][]string{}
	for name, service := range c.Services {
		checks[name] = service.Healthcheck.Test
	}
	return checks
}

func TestCompose_servesTLS_renews_andGoesAway(t *testing.T) {
	t.Parallel()
	setup(t)
	const project = "composed"
	port := freePort(t)
	// Certificates of 50 seconds are renewed after about 33.
	compose := compose(t, project, []string{"deploy/compose/compose.yaml"}, "PORT="+port, "VALIDITY=50s")
	compose("up", "--detach", "--no-build")

	var anchor *x509.Certificate
	eventually(t, 20*time.Second, "the CA's root", func() (err error) {
		anchor, err = rootIn(t, project+"_ca")
		return err
	})
	var first *x509.Certificate
	eventually(t, 20*time.Second, "the application", func() (err error) {
		first, err = get("127.0.0.1:"+port, "app", anchor)
		return err
	})
	assert.Equal(t, []string{"app", "localhost"}, first.DNSNames)
	assertOpenSSLTrusts(t, port, anchor)

	for name, check := range healthchecks(t) {
		container := project + "_" + name + "_1"
		if check == nil {
			assert.Equal(t, "exited 0", state(t, container), name)
			continue
		}
		assertConfined(t, container)
		require.Equal(t, "CMD", check[0], name)
		eventually(t, 20*time.Second, "the health check of "+name, func() error {
			return run(append([]string{"exec", container}, check[1:]...)...)
		})
	}

	eventually(t, 60*time.Second, "the renewal", func() error {
		renewed, err := get("127.0.0.1:"+port, "app", anchor)
		if err == nil && renewed.SerialNumber.Cmp(first.SerialNumber) == 0 {
			err = fmt.Errorf("the certificate until %s is still served", first.NotAfter)
		}
		return err
	})
	assertOpenSSLTrusts(t, port, anchor)

	compose("down", "--volumes")
	const ofProject = "label=io.podman.compose.project=" + project
	assert.Empty(t, podman(t, "ps", "--all", "--quiet", "--filter", ofProject))
	assert.Empty(t, podman(t, "volume", "ls", "--quiet", "--filter", ofProject))
}

// assertOpenSSLTrusts connects with another implementation of TLS.
func assertOpenSSLTrusts(t *testing.T, port string, anchor *x509.Certificate) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "root.pem")
	write(t, path, fixture.CertificatesPEM(anchor))
	c := exec.Command(fixture.RequirePrograms(t, "openssl")[0], "s_client", "-connect", "127.0.0.1:"+port,
		"-servername", "app", "-CAfile", path, "-verify_hostname", "app", "-verify_return_error")
	output, err := c.CombinedOutput()
	require.NoError(t, err, string(output))
	assert.Contains(t, string(output), "Verify return code: 0 (ok)")
}
