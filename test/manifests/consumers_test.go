package manifests

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
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

// The example's pod gets its certificate by nothing but its token, from a certservice as the overlay configures it; a
// pod of another namespace does not.
func TestExamples_token_getsTheNamesThatThePolicyAllows(t *testing.T) {
	p, mounted, dir := example(t, "token.yaml"), newFiles(t), t.TempDir()
	overlay := pods(t)["kubernetes/overlays/tokens"]
	keys := filepath.Join(dir, "keys.json")
	settings := []string{"TOKEN_JWKS_PATH=" + keys} // in place of discovery
	for name, value := range overlay.environment(t, overlay.container("certservice")) {
		if matches, _ := regexp.MatchString("^(CLIENT_CREDENTIALS|TOKEN_.*|POLICY_PATH)$", name); matches {
			value = strings.Replace(value, "/etc/certservice/policy", mounted.of(t, overlay, "policy"), 1)
			settings = append(settings, name+"="+value)
		}
	}
	require.Len(t, settings, 5)
	issuer := fixture.NewIssuer(overlay.environment(t, overlay.container("certservice"))["TOKEN_ISSUER"])
	issuer.WriteJWKS(keys)
	s := fixture.Must(fixture.StartStack(binaries, dir, settings...))
	defer s.Stop()
	projection := p.Spec.Volumes[1].Projected.Sources[0].ServiceAccountToken
	for _, row := range []struct {
		namespace string
		exit      int
	}{{"payments", 0}, {"shop", 5}} {
		volume := t.TempDir()
		issuer.WriteToken(filepath.Join(volume, "token"), row.namespace, p.Spec.ServiceAccountName, projection.Audience)
		fetch := exec.Command(binary("certfetcher"))
		for name, value := range p.environment(t, p.container("certfetcher")) {
			fetch.Env = append(fetch.Env, name+"="+strings.Replace(value, "/var/run/secrets/certfetcher", volume, 1))
		}
		fetch.Env = append(fetch.Env, "MODE=init", "REQUEST_URL="+s.URL, "OUTPUT_PATH="+t.TempDir(),
			"TRUSTSTORE_PATH="+s.Dir+"/truststore.pem", "RETRY_MAX_ELAPSED=1s", "TERMINATION_MESSAGE_PATH=")
		output, _ := fetch.CombinedOutput()
		assert.Equal(t, row.exit, fetch.ProcessState.ExitCode(), "%s: %s", row.namespace, output)
	}
}
