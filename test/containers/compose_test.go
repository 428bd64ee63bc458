//go:build containers

package containers

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/certfetcher/certfetcher/test/peer"
)

// composition is what the tests look at in a Compose file.
type composition struct {
	Services map[string]struct {
		User        string
		ReadOnly    bool     `yaml:"read_only"`
		CapDrop     []string `yaml:"cap_drop"`
		SecurityOpt []string `yaml:"security_opt"`
		Healthcheck *struct{ Test []string }
		DependsOn   map[string]struct{ Condition string } `yaml:"depends_on"`
	}
}

func readComposition(t *testing.T, content []byte) composition {
	t.Helper()
	var c composition
	require.NoError(t, yaml.Unmarshal(content, &c))
	require.NotEmpty(t, c.Services)
	return c
}

func readCompose(t *testing.T) composition {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, "deploy/compose/compose.yaml"))
	require.NoError(t, err)
	return readComposition(t, content)
}

// assertOrdered checks that nobody waits for what cannot come: for the health of a service without a
// check, or for the end of one with a check, which goes on for ever.
func assertOrdered(t *testing.T, c composition) {
	t.Helper()
	for name, service := range c.Services {
		for other, dependency := range service.DependsOn {
			target, found := c.Services[other]
			require.True(t, found, "%s depends on %s", name, other)
			want := "service_completed_successfully"
			if target.Healthcheck != nil {
				want = "service_healthy"
			}
			assert.Equal(t, want, dependency.Condition, "%s depends on %s", name, other)
		}
	}
}

func TestCompose_servicesWaitForWhatTheyNeed_andAreConfined(t *testing.T) {
	c := readCompose(t)
	assertOrdered(t, c)
	for name, service := range c.Services {
		assert.Equal(t, "65532:65532", service.User, name)
		assert.True(t, service.ReadOnly, name)
		assert.Equal(t, []string{"ALL"}, service.CapDrop, name)
		assert.Equal(t, []string{"no-new-privileges"}, service.SecurityOpt, name)
	}
}

func TestCompose_servesTLS_renews_andGoesAway(t *testing.T) {
	peer.Require(t, "podman-compose", "openssl")
	setup(t)
	const project = "composed"
	port := freePort(t)
	compose := func(arguments ...string) {
		t.Helper()
		// Certificates of 50 seconds are renewed after about 33.
		_, err := command("env", append([]string{"PORT=" + port, "VALIDITY=50s",
			"podman-compose", "-p", project, "-f", "deploy/compose/compose.yaml"}, arguments...)...)
		require.NoError(t, err)
	}
	compose("up", "--detach", "--no-build")
	t.Cleanup(func() {
		if t.Failed() {
			for name := range readCompose(t).Services {
				t.Logf("log of %s:\n%s", name, logs(project+"_"+name+"_1"))
			}
		}
	})

	var anchor *x509.Certificate
	eventually(t, 20*time.Second, "the CA's root", func() error {
		block, _ := pem.Decode(volume(t, project+"_ca")["root.pem"].content)
		if block == nil {
			return fmt.Errorf("is not there")
		}
		var err error
		anchor, err = x509.ParseCertificate(block.Bytes)
		return err
	})
	var first *x509.Certificate
	eventually(t, 20*time.Second, "the application", func() error {
		var err error
		first, err = get("127.0.0.1:"+port, "app", anchor)
		return err
	})
	assert.Equal(t, []string{"app", "localhost"}, first.DNSNames)
	assertOpenSSLTrusts(t, port, anchor)

	for name, service := range readCompose(t).Services {
		container := project + "_" + name + "_1"
		if service.Healthcheck == nil {
			assert.Equal(t, "exited 0", podman(t, "inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", container), name)
			continue
		}
		assertConfined(t, container)
		require.Equal(t, "CMD", service.Healthcheck.Test[0], name)
		eventually(t, 20*time.Second, "the health check of "+name, func() error {
			return run(append([]string{"exec", container}, service.Healthcheck.Test[1:]...)...)
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
	for _, list := range [][]string{{"ps", "--all"}, {"volume", "ls"}} {
		assert.Empty(t, podman(t, append(list, "--quiet", "--filter", "label=io.podman.compose.project="+project)...))
	}
}

// assertOpenSSLTrusts connects with another implementation of TLS.
func assertOpenSSLTrusts(t *testing.T, port string, anchor *x509.Certificate) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "root.pem")
	require.NoError(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: anchor.Raw}), 0o600))
	c := exec.Command("openssl", "s_client", "-connect", "127.0.0.1:"+port, "-servername", "app",
		"-CAfile", path, "-verify_hostname", "app", "-verify_return_error")
	c.Stdin = strings.NewReader("")
	output, err := c.CombinedOutput()
	require.NoError(t, err, string(output))
	assert.Contains(t, string(output), "Verify return code: 0 (ok)")
}
