package manifests

import (
	"net/http"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/certfetcher/certfetcher/test/fixture"
)

const guide = "migrating-from-onap.md"

var namedBlock = regexp.MustCompile("(?s)<!-- (\\w+: [^>]+) -->\n```yaml\n(.*?)```\n")

// namedBlocks are the YAML blocks of a document that a comment names, such as "after: Kubernetes".
func namedBlocks(t *testing.T, document string) map[string]string {
	t.Helper()
	blocks := map[string]string{}
	text := readFile(t, "../../docs/"+document)
	for _, match := range namedBlock.FindAllStringSubmatch(text, -1) {
		blocks[match[1]] = match[2]
	}
	require.NotEmpty(t, blocks, document)
	return blocks
}

// documentedContainer is the container of a block of the migration guide, by the Kubernetes API's own types.
func documentedContainer(t *testing.T, block string) corev1.Container {
	t.Helper()
	text, found := namedBlocks(t, guide)[block]
	require.True(t, found, block)
	var spec corev1.PodSpec
	require.NoError(t, yaml.UnmarshalStrict([]byte(text), &spec), block)
	require.Len(t, spec.Containers, 1)
	return spec.Containers[0]
}

// asked returns the status that the kubelet gets for a probe of a certservice.
func asked(t *testing.T, s *fixture.Stack, probe *corev1.Probe) int {
	t.Helper()
	response := fixture.Must(http.Get("http://" + s.Operations + probe.HTTPGet.Path))
	response.Body.Close()
	return response.StatusCode
}

// runs returns the exit code of a documented command, whose program is at the root of the image.
func runs(t *testing.T, s *fixture.Stack, command []string) int {
	t.Helper()
	require.Equal(t, "/certservice", command[0], "what the image has")
	run := exec.Command(binary("certservice"), command[1:]...)
	run.Env = []string{"METRICS_ADDR=" + s.Operations}
	_ = run.Run()
	return run.ProcessState.ExitCode()
}

// What the guide has in place of ONAP's probes does what a probe is for, with the built program.
func TestMigrationGuide_probes_tellWhatTheyAreFor(t *testing.T) {
	container := documentedContainer(t, "after: Kubernetes")
	inside := documentedContainer(t, "after: Kubernetes, without a port")
	require.Nil(t, inside.LivenessProbe, "a wrong file must not restart the container")
	var file struct {
		Services map[string]struct {
			Environment map[string]string
			Healthcheck struct {
				Test              []string
				Interval, Timeout string
				Retries           int
			}
		}
	}
	require.NoError(t, yaml.UnmarshalStrict([]byte(namedBlocks(t, guide)["after: Compose"]), &file))
	compose := file.Services["oom-cert-service"]
	require.Equal(t, "CMD", compose.Healthcheck.Test[0], "there is no shell")
	assert.Equal(t, []string{":8080", "127.0.0.1:8080", "127.0.0.1:8080"}, []string{
		container.Env[0].Value, inside.Env[0].Value, compose.Environment["METRICS_ADDR"]})
	for _, probe := range []*corev1.Probe{container.LivenessProbe, container.ReadinessProbe} {
		port := corev1.ContainerPort{Name: probe.HTTPGet.Port.StrVal, ContainerPort: 8080}
		assert.Contains(t, container.Ports, port)
	}

	secret := map[string]string{"iak": "a", "rv": "b"}
	server := map[string]any{"url": "http://ca/", "issuerDN": "CN=CA", "authentication": secret}
	for _, row := range []struct {
		name        string
		environment []string
		ready, exit int
	}{
		{"configured", nil, http.StatusOK, 0},
		{"not configured", []string{"CMP_SERVERS_PATH=/nowhere"}, http.StatusServiceUnavailable, 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			service := fixture.Must(
				fixture.StartCertService(binaries, t.TempDir(), server, row.environment...))
			defer service.Stop()
			assert.Equal(t, http.StatusOK, asked(t, service, container.LivenessProbe))
			assert.Equal(t, row.ready, asked(t, service, container.ReadinessProbe))
			assert.Equal(t, row.exit, runs(t, service, inside.ReadinessProbe.Exec.Command))
			assert.Equal(t, row.exit, runs(t, service, compose.Healthcheck.Test[1:]))
		})
	}
}

// What the guide says ONAP has is replaced as a whole: the same probes of the same container.
func TestMigrationGuide_probesBefore_areThoseReplaced(t *testing.T) {
	before := documentedContainer(t, "before: Kubernetes")
	after := documentedContainer(t, "after: Kubernetes")
	assert.Equal(t, before.Name, after.Name)
	for _, pair := range [][2]*corev1.Probe{
		{before.LivenessProbe, after.LivenessProbe}, {before.ReadinessProbe, after.ReadinessProbe},
	} {
		command := pair[0].Exec.Command
		require.Equal(t, []string{"/bin/bash", "-c"}, command[:2])
		assert.Contains(t, command[2], ":$HTTPS_PORT"+pair[1].HTTPGet.Path+" ", "the same path")
		assert.False(t, strings.Contains(command[2], "--fail"))
	}
}
