package applications

import (
	"bufio"
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

// springConfiguration is what deploy/kubernetes/examples/spring-boot.yaml gives the application, for this volume.
func springConfiguration(t *testing.T, volume string) string {
	t.Helper()
	file, err := os.Open("../../deploy/kubernetes/examples/spring-boot.yaml")
	require.NoError(t, err)
	defer file.Close()
	var configMap struct{ Data map[string]string }
	require.NoError(t, yaml.NewDecoder(file).Decode(&configMap)) // the first document
	text := configMap.Data["application.yaml"]
	require.Contains(t, text, "/var/run/certs")
	return strings.ReplaceAll(text, "/var/run/certs", volume)
}

func TestApplications_jvm_servesPKCS12AndPEM(t *testing.T) {
	t.Parallel()
	classPath, _ := filepath.Glob(jars + "/*.jar")
	if len(classPath) == 0 {
		fixture.SkipWithout(t,
			"dist/jars, which mvn --file test/applications/java/pom.xml dependency:copy-dependencies makes,")
	}
	p := newPod(t, nil, "OUTPUT_TYPE=P12,PEM", "OUTPUT_LAYOUT=inplace")
	ports, reload := p.jvm(fixture.Java(t, strings.Join(classPath, ":"), "java/Applications.java", p.volume,
		p.write("application.yaml", springConfiguration(t, p.volume))))
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
	scanner := bufio.NewScanner(stdout)
	for scanner.Scan() {
		if words := strings.Fields(scanner.Text()); len(words) == 3 && words[0] == "serving" {
			ports[words[1]] = words[2]
		}
		if len(ports) == 5 {
			go func() { // so that the JVM never blocks
				for scanner.Scan() {
				}
			}()
			return ports, stdin
		}
	}
	require.Fail(p.t, "not all applications serve", "%v", ports)
	return nil, nil
}
