package applications

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
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
	spring := readGuide(t, "spring-boot").files["application.yaml"]
	require.Equal(t, exampleData(t, "spring-boot.yaml")["application.yaml"], spring)
	spring = p.write("application.yaml", strings.ReplaceAll(spring, mounted, p.volume))
	tomcat := fixture.FreeAddress(t)
	xml := strings.NewReplacer(mounted, p.volume, `port="8443"`, `address="127.0.0.1" port="`+
		strings.TrimPrefix(tomcat, "127.0.0.1:")+`"`, `checkPeriod="600"`, `checkPeriod="1"`,
		`<Server `, `<Server periodicEventDelay="1" `).Replace(readGuide(t, "tomcat").files["server.xml"])
	jars := strings.Join(classPath, ":")
	jvm := fixture.Java(t, jars, "java/Applications.java", p.volume, spring, p.write("server.xml", xml))
	jvm.Args = slices.Insert(jvm.Args, 1, "-Dtruststore.pass="+
		string(fixture.Must(os.ReadFile(p.volume+"/truststore.pass"))))
	reload := fixture.Must(jvm.StdinPipe())
	t.Cleanup(func() { reload.Close() }) // which ends the JVM
	running, address := p.background(jvm), map[string]string{}
	serving := regexp.MustCompile(`(?m)^serving (\S+) (\d+)$`)
	require.Eventually(t, func() bool {
		for _, words := range serving.FindAllStringSubmatch(running.Printed(), -1) {
			address[words[1]] = "127.0.0.1:" + words[2]
		}
		address["tomcat-xml"] = tomcat
		return len(address) == 5 && strings.Contains(running.Printed(), "started catalina")
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
	for _, name := range []string{"spring-boot", "tomcat-xml", "tomcat-pem"} {
		p.awaitServed(address[name], first, nil)
	}
}
