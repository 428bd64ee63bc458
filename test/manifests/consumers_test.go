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

	"github.com/certfetcher/certfetcher/keygen"
	"github.com/certfetcher/certfetcher/test/ca"
	"github.com/certfetcher/certfetcher/test/peer"
	"github.com/certfetcher/certfetcher/test/service"
)

// example returns the first pod of an example, whose ConfigMap configures the consumer.
func example(t *testing.T, file string) pod {
	t.Helper()
	for _, p := range pods(t) {
		if filepath.Base(p.place) == file {
			return p
		}
	}
	require.Fail(t, "there is no such example", file)
	return pod{}
}

func TestExamples_nginx_acceptsItsConfiguration(t *testing.T) {
	nginx := peer.Require(t, "nginx")[0]
	dir := t.TempDir()
	authority, err := ca.New("Application")
	require.NoError(t, err)
	key, chain, err := authority.Identity("app.example.org")
	require.NoError(t, err)
	keyPEM, err := keygen.PrivateKeyPEM(key)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "key.pem"), keyPEM, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "keystore.pem"), service.CertificatesPEM(chain...), 0o600))
	content := example(t, "nginx.yaml").configMap("app-nginx").Data["nginx.conf"]
	content = strings.NewReplacer("/var/run/certs", dir, "/tmp/", dir+"/", "listen 8443", "listen unix:"+dir+"/socket").Replace(content)
	path := filepath.Join(dir, "nginx.conf")
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	output, err := exec.Command(nginx, "-t", "-c", path, "-g", "daemon off;").CombinedOutput()
	require.NoError(t, err, "%s", output)
}

// Envoy's own types, and the constraints that it checks when it loads them.
func TestExamples_envoy_configurationIsOfEnvoysTypes(t *testing.T) {
	p := example(t, "envoy.yaml")
	files := p.configMap("app-envoy").Data
	var bootstrap bootstrapv3.Bootstrap
	strict(t, files["envoy.yaml"], &bootstrap)
	require.NoError(t, bootstrap.ValidateAll())
	var downstream tlsv3.DownstreamTlsContext
	transport := bootstrap.StaticResources.Listeners[0].FilterChains[0].TransportSocket
	require.NoError(t, transport.GetTypedConfig().UnmarshalTo(&downstream))
	wanted := downstream.CommonTlsContext.TlsCertificateSdsSecretConfigs[0]
	assert.Equal(t, "/etc/app/certificate.yaml", wanted.SdsConfig.GetPathConfigSource().Path)

	var response discoveryv3.DiscoveryResponse
	strict(t, files["certificate.yaml"], &response)
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
	content, err := yaml.YAMLToJSONStrict([]byte(text))
	require.NoError(t, err)
	require.NoError(t, protojson.Unmarshal(content, message))
}

// Spring Boot is not here to be asked; that the files are the ones that certfetcher writes can be seen.
func TestExamples_springBoot_namesTheFilesThatAreWritten(t *testing.T) {
	p := example(t, "spring-boot.yaml")
	environment := p.environment(t, p.container("certfetcher"))
	assert.Equal(t, "inplace", environment["OUTPUT_LAYOUT"], "Spring Boot's watcher loses track of symbolic links")
	type store struct{ Location, Password, Type string }
	var application struct {
		Spring struct {
			Config struct{ Import string }
			SSL    struct {
				Bundle struct {
					JKS map[string]struct {
						ReloadOnUpdate       bool `json:"reload-on-update"`
						Key                  struct{ Alias string }
						Keystore, Truststore store
					}
				}
			}
		}
		Server struct {
			Port int
			SSL  struct{ Bundle string }
		}
	}
	require.NoError(t, yaml.UnmarshalStrict([]byte(p.configMap("app-spring").Data["application.yaml"]), &application))
	volume := environment["OUTPUT_PATH"]
	assert.Equal(t, "configtree:"+volume+"/", application.Spring.Config.Import)
	bundle, ok := application.Spring.SSL.Bundle.JKS[application.Server.SSL.Bundle]
	require.True(t, ok)
	assert.True(t, bundle.ReloadOnUpdate)
	assert.Equal(t, "certificate", bundle.Key.Alias)
	assert.Equal(t, store{"file:" + volume + "/keystore.p12", "${keystore.pass}", "PKCS12"}, bundle.Keystore)
	assert.Equal(t, store{"file:" + volume + "/truststore.p12", "${truststore.pass}", "PKCS12"}, bundle.Truststore)
	assert.Equal(t, "P12", environment["OUTPUT_TYPE"])
}
