package manifests

import (
	"bufio"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

var namedBlock = regexp.MustCompile("(?s)<!-- (\\w+: [^>]+) -->\n```yaml\n(.*?)```\n")

// namedBlocks are the YAML blocks of a document that a comment names, such as "after: Kubernetes".
func namedBlocks(t *testing.T, document string) map[string]string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("../../docs", document))
	require.NoError(t, err)
	blocks := map[string]string{}
	for _, match := range namedBlock.FindAllStringSubmatch(string(content), -1) {
		blocks[match[1]] = match[2]
	}
	require.NotEmpty(t, blocks, document)
	return blocks
}

// documentedContainer is the container of a block of the migration guide, by the Kubernetes API's own types.
func documentedContainer(t *testing.T, block string) corev1.Container {
	t.Helper()
	text, found := namedBlocks(t, "migrating-from-onap.md")[block]
	require.True(t, found, block)
	var spec corev1.PodSpec
	require.NoError(t, yaml.UnmarshalStrict([]byte(text), &spec), block)
	require.Len(t, spec.Containers, 1)
	return spec.Containers[0]
}

// runningService is a certservice with a container's METRICS_ADDR, on a port that is free.
type runningService struct{ address string }

// startService runs the built program with the Secrets' files; without a configuration it is not ready.
func startService(t *testing.T, configured bool) runningService {
	t.Helper()
	secrets := secretFiles(t)
	command := exec.Command(binary("certservice"))
	command.Env = []string{
		"HTTPS_PORT=0", "METRICS_ADDR=127.0.0.1:0", "KEYSTORE_PATH=" + secrets["certservice-tls"] + "/tls.crt",
		"KEYSTORE_KEY_PATH=" + secrets["certservice-tls"] + "/tls.key",
		"TRUSTSTORE_PATH=" + secrets["certservice-tls"] + "/ca.crt",
	}
	if configured {
		command.Env = append(command.Env, "CMP_SERVERS_PATH="+secrets["certservice-cmp"]+"/cmpServers.json")
	}
	log, err := command.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, command.Start())
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	})
	for lines := bufio.NewScanner(log); lines.Scan(); {
		var event struct{ Msg, HTTP string }
		if json.Unmarshal(lines.Bytes(), &event) == nil && event.Msg == "serving" {
			go func() { // so that the program never blocks
				for lines.Scan() {
				}
			}()
			return runningService{event.HTTP}
		}
	}
	require.Fail(t, "certservice ended")
	return runningService{}
}

// status is what the kubelet gets for a probe.
func (s runningService) status(t *testing.T, probe *corev1.Probe) int {
	t.Helper()
	require.NotNil(t, probe)
	require.NotNil(t, probe.HTTPGet)
	response, err := http.Get("http://" + s.address + probe.HTTPGet.Path)
	require.NoError(t, err)
	response.Body.Close()
	return response.StatusCode
}

// probe runs a documented command, whose program is at the root of the image, and returns its exit code.
func (s runningService) probe(t *testing.T, command []string) int {
	t.Helper()
	require.NotEmpty(t, command)
	require.Equal(t, "/certservice", command[0], "what the image has")
	run := exec.Command(binary("certservice"), command[1:]...)
	run.Env = []string{"METRICS_ADDR=" + s.address}
	_ = run.Run()
	return run.ProcessState.ExitCode()
}

func variable(c corev1.Container, name string) string {
	for _, v := range c.Env {
		if v.Name == name {
			return v.Value
		}
	}
	return ""
}

// What the guide has in place of ONAP's probes does what a probe is for, with the built program.
func TestMigrationGuide_probes_tellWhatTheyAreFor(t *testing.T) {
	container := documentedContainer(t, "after: Kubernetes")
	require.True(t, hasPort(container, container.LivenessProbe.HTTPGet.Port))
	require.True(t, hasPort(container, container.ReadinessProbe.HTTPGet.Port))
	require.NotEmpty(t, variable(container, "METRICS_ADDR"))
	inside := documentedContainer(t, "after: Kubernetes, without a port")
	require.NotEmpty(t, variable(inside, "METRICS_ADDR"))
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
	require.NoError(t, yaml.UnmarshalStrict([]byte(namedBlocks(t, "migrating-from-onap.md")["after: Compose"]), &file))
	compose := file.Services["oom-cert-service"]
	require.NotEmpty(t, compose.Environment["METRICS_ADDR"])
	require.Equal(t, "CMD", compose.Healthcheck.Test[0], "there is no shell")

	for _, row := range []struct {
		name                 string
		configured           bool
		live, ready, command int
	}{
		{"configured", true, http.StatusOK, http.StatusOK, 0},
		{"not configured", false, http.StatusOK, http.StatusServiceUnavailable, 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			service := startService(t, row.configured)
			assert.Equal(t, row.live, service.status(t, container.LivenessProbe))
			assert.Equal(t, row.ready, service.status(t, container.ReadinessProbe))
			assert.Equal(t, row.command, service.probe(t, inside.ReadinessProbe.Exec.Command))
			assert.Equal(t, row.command, service.probe(t, compose.Healthcheck.Test[1:]))
		})
	}
}

// What the guide says ONAP has is replaced as a whole: the same probes of the same container.
func TestMigrationGuide_probesBefore_areThoseReplaced(t *testing.T) {
	before, after := documentedContainer(t, "before: Kubernetes"), documentedContainer(t, "after: Kubernetes")
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
