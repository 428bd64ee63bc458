package applications

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/certfetcher/certfetcher/test/fixture"
)

// jars is where .ci/run copies what java/pom.xml names.
const jars = "../../dist/jars"

// mounted is where the examples mount the volume.
const mounted = "/var/run/certs"

// exampleData is what an example for Kubernetes gives the application: the ConfigMap is its first document.
func exampleData(t *testing.T, name string) map[string]string {
	t.Helper()
	content, err := os.ReadFile("../../deploy/kubernetes/examples/" + name)
	require.NoError(t, err)
	var configMap struct{ Data map[string]string }
	require.NoError(t, yaml.NewDecoder(bytes.NewReader(content)).Decode(&configMap))
	return configMap.Data
}

func TestApplications_jvm_servesPKCS12AndPEM(t *testing.T) {
	t.Parallel()
	classPath, _ := filepath.Glob(jars + "/*.jar")
	if len(classPath) == 0 {
		fixture.SkipWithout(t, "dist/jars, which .ci/run makes of java/pom.xml,")
	}
	p := newPod(t, nil, "OUTPUT_TYPE=P12,PEM", "OUTPUT_LAYOUT=inplace")
	spring := exampleData(t, "spring-boot.yaml")["application.yaml"]
	spring = p.write("application.yaml", strings.ReplaceAll(spring, mounted, p.volume))
	jars := strings.Join(classPath, ":")
	ports, reload := p.jvm(fixture.Java(t, jars, "java/Applications.java", p.volume, spring))
	want := p.serial()
	for name, number := range ports {
		serial, err := p.served("127.0.0.1:"+number, nil)
		require.NoError(t, err, name)
		assert.Equal(t, want, serial, name)
	}
	p.fetch()
	_, err := reload.Write([]byte{'\n'})
	require.NoError(t, err)
	for _, name := range []string{"spring-boot", "tomcat-p12", "tomcat-pem"} {
		p.awaitServed("127.0.0.1:"+ports[name], want, nil)
	}
}

// jvm starts the applications and returns their ports by name, and what makes those reload that do not by themselves.
func (p *pod) jvm(c *exec.Cmd) (map[string]string, io.Writer) {
	p.t.Helper()
	stdin, err := c.StdinPipe()
	require.NoError(p.t, err)
	stdout, err := c.StdoutPipe()
	require.NoError(p.t, err)
	var said strings.Builder
	c.Stderr = &said
	require.NoError(p.t, c.Start())
	p.t.Cleanup(func() {
		_ = stdin.Close()
		_ = c.Wait()
		if p.t.Failed() {
			p.t.Logf("the JVM said:\n%s", said.String())
		}
	})
	watchdog := time.AfterFunc(patience, func() { _ = c.Process.Kill() })
	defer watchdog.Stop()
	ports := map[string]string{}
	for scanner := bufio.NewScanner(stdout); len(ports) < 5; {
		require.True(p.t, scanner.Scan(), "not all applications serve: %v", ports)
		if words := strings.Fields(scanner.Text()); len(words) == 3 && words[0] == "serving" {
			ports[words[1]] = words[2]
		}
	}
	go func() { _, _ = io.Copy(io.Discard, stdout) }() // so that the JVM never blocks
	return ports, stdin
}
