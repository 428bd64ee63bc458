package applications

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v4"

	"github.com/certfetcher/certfetcher/test/chaos"
	"github.com/certfetcher/certfetcher/test/fixture"
)

// jars is where .ci/run copies what java/pom.xml names.
const jars = "../../dist/jars"

// mounted is where the examples mount the volume.
const mounted = "/var/run/certs"

// exampleData is what an example for Kubernetes gives the application: the ConfigMap is its first document.
func exampleData(t *testing.T, name string) map[string]string {
	t.Helper()
	content := fixture.Must(os.ReadFile("../../deploy/kubernetes/examples/" + name))
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
	jvm := fixture.Java(t, jars, "java/Applications.java", p.volume, spring)
	reload := fixture.Must(jvm.StdinPipe())
	t.Cleanup(func() { reload.Close() }) // which ends the JVM
	running, address := p.background(jvm), map[string]string{}
	serving := regexp.MustCompile(`(?m)^serving (\S+) (\d+)$`)
	require.Eventually(t, func() bool {
		for _, words := range serving.FindAllStringSubmatch(running.Printed(), -1) {
			address[words[1]] = "127.0.0.1:" + words[2]
		}
		return len(address) == 5
	}, chaos.Deadline, 20*time.Millisecond, "not all applications serve")
	first := fixture.Must(p.serial())
	for name := range address {
		serial, err := p.served(address[name], nil)
		require.NoError(t, err, name)
		assert.Equal(t, first, serial, name)
	}
	p.fetch()
	_, err := reload.Write([]byte{'\n'})
	require.NoError(t, err)
	for _, name := range []string{"spring-boot", "tomcat-p12", "tomcat-pem"} {
		p.awaitServed(address[name], first, nil)
	}
}
