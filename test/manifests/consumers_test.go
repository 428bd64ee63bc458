package manifests

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3" // a typed_config
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"

	"github.com/certfetcher/certfetcher/test/fixture"
)

// Envoy's own types, and the constraints that it checks when it loads them.
func TestExamples_envoy_configurationIsOfEnvoysTypes(t *testing.T) {
	p := example(t, "envoy.yaml")
	var bootstrap bootstrapv3.Bootstrap
	strict(t, p.configMap()["envoy.yaml"], &bootstrap)
	require.NoError(t, bootstrap.ValidateAll())
	var downstream tlsv3.DownstreamTlsContext
	transport := bootstrap.StaticResources.Listeners[0].FilterChains[0].TransportSocket
	require.NoError(t, transport.GetTypedConfig().UnmarshalTo(&downstream))
	wanted := downstream.CommonTlsContext.TlsCertificateSdsSecretConfigs[0]
	assert.Equal(t, "/etc/app/certificate.yaml", wanted.SdsConfig.GetPathConfigSource().Path)

	var response discoveryv3.DiscoveryResponse
	strict(t, p.configMap()["certificate.yaml"], &response)
	require.Len(t, response.Resources, 1)
	var secret tlsv3.Secret
	require.NoError(t, response.Resources[0].UnmarshalTo(&secret))
	require.NoError(t, secret.ValidateAll())
	assert.Equal(t, wanted.Name, secret.Name)
	volume := p.environment(t, p.container("certfetcher"))["OUTPUT_PATH"]
	certificate := secret.GetTlsCertificate()
	assert.Equal(t, volume+"/keystore.pem", certificate.CertificateChain.GetFilename())
	assert.Equal(t, volume+"/key.pem", certificate.PrivateKey.GetFilename())
	assert.Equal(t, volume, certificate.WatchedDirectory.Path)
}

// strict refuses unknown fields.
func strict(t *testing.T, text string, message proto.Message) {
	t.Helper()
	content := fixture.Must(yaml.YAMLToJSONStrict([]byte(text)))
	require.NoError(t, protojson.Unmarshal(content, message))
}

// The command that the pod runs merges into a JDK's own truststore.
func TestExamples_jvmCacerts_trustsBoth(t *testing.T) {
	program := fixture.Must(filepath.EvalSymlinks(fixture.RequirePrograms(t, "keytool")[0]))
	p, dir := example(t, "jvm-cacerts.yaml"), t.TempDir()
	copied := p.container("cacerts").Command[2]
	cacerts := filepath.Join(dir, copied)
	volume := filepath.Join(dir, p.environment(t, p.container("certfetcher"))["OUTPUT_PATH"])
	require.NoError(t, os.MkdirAll(filepath.Dir(cacerts), 0o700))
	require.NoError(t, fixture.Must(fixture.NewCA("Application")).WriteIdentity(volume, "app"))
	for path, content := range map[string]string{
		cacerts:                     readFile(t, filepath.Dir(program)+"/../lib/security/cacerts"),
		volume + "/truststore.pass": fixture.Password,
	} {
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	}
	count := func() int {
		list, err := fixture.Keytool(t, dir, "-list", "-keystore", cacerts, "-storepass", "changeit")
		require.NoError(t, err)
		return strings.Count(list, "trustedCertEntry")
	}
	before := count()
	require.NotZero(t, before)
	merge := exec.Command(binary("certfetcher"), p.container("postprocess").Args...)
	for name, value := range p.environment(t, p.container("postprocess")) {
		value = strings.ReplaceAll(value, "/var/run", dir+"/var/run")
		merge.Env = append(merge.Env, name+"="+value)
	}
	output, err := merge.CombinedOutput()
	require.NoError(t, err, "%s", output)
	assert.Equal(t, before+1, count())
}
