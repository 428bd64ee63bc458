// Package compose holds the Compose files and EJBCA's script against what they are for, without running
// containers; test/containers runs them.
package compose

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v4"

	"github.com/certfetcher/certfetcher/test/fixture"
)

type Confinement struct {
	User        string
	ReadOnly    bool     `yaml:"read_only"`
	CapDrop     []string `yaml:"cap_drop"`
	SecurityOpt []string `yaml:"security_opt"`
}

type service struct {
	Image       string
	Confinement `yaml:",inline"`
	Command     []string
	Environment map[string]string
	Volumes     []string
	Healthcheck *struct{ Test []string }
	DependsOn   map[string]struct{ Condition string } `yaml:"depends_on"`
	Extends     struct{ File, Service string }
	Networks    []string
}

type composition struct {
	Services map[string]service
	Volumes  map[string]any
}

func read(t *testing.T, path string) composition {
	t.Helper()
	content := fixture.Must(os.ReadFile(path))
	var c composition
	require.NoError(t, yaml.Unmarshal(content, &c))
	for name, s := range c.Services {
		if s.Extends.File == "" {
			continue
		}
		require.Equal(t, name, s.Extends.Service, "a service extends its namesake")
		base := read(t, s.Extends.File).Services[name]
		require.NotEmpty(t, base.Image)
		base.DependsOn = s.DependsOn
		if s.Command != nil {
			base.Command = s.Command
		}
		if s.Volumes != nil {
			base.Volumes = s.Volumes
		}
		base.Networks = s.Networks
		c.Services[name] = base
	}
	return c
}

var files = []string{"compose.yaml", "compose.ejbca.yaml"}

func TestServices_waitForWhatCanCome(t *testing.T) {
	for _, path := range files {
		c := read(t, path)
		for name, s := range c.Services {
			for other, dependency := range s.DependsOn {
				target, found := c.Services[other]
				require.True(t, found, "%s: %s depends on %s", path, name, other)
				want := "service_completed_successfully"
				if target.Healthcheck != nil {
					want = "service_healthy"
				}
				assert.Equal(t, want, dependency.Condition, "%s: %s depends on %s", path, name, other)
			}
		}
	}
}

func TestServices_ofOurs_areConfined(t *testing.T) {
	confined := Confinement{"65532:65532", true, []string{"ALL"}, []string{"no-new-privileges"}}
	for _, path := range append([]string{"compose.secrets.yaml"}, files...) {
		for name, s := range read(t, path).Services {
			if !strings.Contains(s.Image, "ejbca") {
				assert.Equal(t, confined, s.Confinement, "%s: %s", path, name)
			}
		}
	}
}

// A secret is mounted by the one that makes it and by its reader, and by no one else.
func TestVolumes_areMountedByThoseWhoNeedThem(t *testing.T) {
	want := map[string][]string{
		"identities-certservice": {"certservice", "identities"},
		"identities-client":      {"certfetcher", "certfetcher-sidecar", "identities"},
		"identities-ca":          {"ca", "identities"},
		"certs":                  {"app", "certfetcher", "certfetcher-sidecar"},
	}
	for _, path := range files {
		c := read(t, path)
		mounted := map[string][]string{}
		for name, s := range c.Services {
			for _, volume := range s.Volumes {
				source, _, _ := strings.Cut(volume, ":")
				mounted[source] = append(mounted[source], name)
				if !strings.HasPrefix(source, ".") {
					assert.Contains(t, c.Volumes, source, "%s: %s", path, name)
				}
			}
		}
		for volume, services := range want {
			assert.ElementsMatch(t, services, mounted[volume], "%s: %s", path, volume)
		}
	}
}

// Whoever has a certificate with the organization that may be updated, and reaches EJBCA, can get another's names.
func TestEJBCA_isReachedByCertserviceOnly(t *testing.T) {
	want := map[string][]string{"ca": {"cmp"}, "certservice": {"default", "cmp"}}
	for name, s := range read(t, "compose.ejbca.yaml").Services {
		assert.Equal(t, want[name], s.Networks, name)
	}
}

// After a restart the root of the run before is there before EJBCA is.
func TestEJBCA_isHealthyWhenItAnswersAndTheRootIsThere(t *testing.T) {
	ca := read(t, "compose.ejbca.yaml").Services["ca"]
	probe := strings.Join(ca.Healthcheck.Test, " ")
	assert.Contains(t, probe, "test -s "+ca.Environment["ROOT_FILE"])
	assert.Contains(t, probe, "/ejbca/publicweb/healthcheck/ejbcahealth")
}

// What identities writes into cmpServers.json is what ejbca-configure.sh is told to make.
func TestEJBCA_isWhatCertserviceExpects(t *testing.T) {
	c := read(t, "compose.ejbca.yaml")
	ca := c.Services["ca"].Environment
	assert.Contains(t, c.Services["identities"].Command, "-issuer="+ca["CA_DN"])
	assert.Contains(t, c.Services["identities"].Command, "-cmp-url=http://ca:8080/ejbca/publicweb/cmp/"+ca["CMP_ALIAS"])
	assert.Equal(t, read(t, "compose.yaml").Services["certfetcher"].Environment["ORGANIZATION"], ca["UPDATES_FOR"])
	mounts := strings.Join(append(c.Services["ca"].Volumes, c.Services["certservice"].Volumes...), "\n")
	assert.Contains(t, mounts, "ca:"+filepath.Dir(ca["ROOT_FILE"])+"\n")
	assert.Contains(t, mounts, "ca:/var/lib/devca:ro")
	assert.Contains(t, c.Services["identities"].Command,
		"-trust-anchors=/var/lib/devca/"+filepath.Base(ca["ROOT_FILE"]))
}
