package applications

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

// alone is what a broker needs that has no others.
const alone = `process.roles=broker,controller
node.id=1
controller.quorum.voters=1@CONTROLLER
controller.listener.names=CONTROLLER
listener.security.protocol.map=SSL:SSL,CONTROLLER:PLAINTEXT
offsets.topic.replication.factor=1
log.dirs=DIR/logs
`

// kafkaTool prepares a run of one of Kafka's programs.
func (p *pod) kafkaTool(class string, arguments ...string) *exec.Cmd {
	java := fixture.RequirePrograms(p.t, "java")[0]
	options := []string{"-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m", "-cp",
		fixture.Must(filepath.Abs(jars)) + "/*", class}
	return p.command(java, append(options, arguments...)...)
}

// A broker serves the stores as the guide configures it, and the new ones after the guide's command.
func TestApplications_kafka_servesAndReloads(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat(jars); err != nil {
		fixture.SkipWithout(t, "dist/jars, which .ci/run makes of java/pom.xml,")
	}
	g := readGuide(t, "kafka")
	const readable = "OUTPUT_TYPE=P12,PEM" // for this test, which looks what is served
	p := newPod(t, nil, append(g.settings("OUTPUT_"), readable)...)
	address, controller := fixture.FreeAddress(t), fixture.FreeAddress(t)
	there := func(text string) string {
		return strings.NewReplacer(mounted, p.volume, "SSL://:9093", "SSL://"+address, "127.0.0.1:9093", address,
			"app.example.org:9093", strings.Replace(address, "127.0.0.1", "localhost", 1),
			"127.0.0.1:9094", controller, "=1@CONTROLLER", "=1@"+controller, "DIR", p.dir).Replace(text)
	}
	broker := p.write("server.properties", there(alone+g.files["server.properties"]))
	out, err := p.kafkaTool("kafka.tools.StorageTool", "format", "--cluster-id", "MkU3OEVBNTcwNTJENDM2Qk",
		"--config", broker).CombinedOutput()
	require.NoError(t, err, "%s", out)
	p.background(p.kafkaTool("kafka.Kafka", broker))
	first := p.awaitServed(address, "", nil)

	variables := strings.Split(there(strings.Join(g.settings(""), "\n")), "\n")
	sidecar := p.background(p.certfetcher(append(variables, readable)...))
	require.True(t, sidecar.Await("published"))
	p.write("client.properties", there(g.files["client.properties"]))
	reload := strings.Fields(strings.ReplaceAll(there(g.files["reload.sh"]), "\\\n", " "))
	require.Equal(t, "kafka-configs.sh", reload[0])
	out, err = p.kafkaTool("kafka.admin.ConfigCommand", reload[1:]...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	p.awaitServed(address, first, nil)
	require.True(t, sidecar.Await("the application serves the new certificate"))
}
