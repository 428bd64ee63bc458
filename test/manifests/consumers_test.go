package manifests

import (
	"crypto/x509"
	"fmt"
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

	"github.com/certfetcher/certfetcher/internal/keystore"
	"github.com/certfetcher/certfetcher/keygen"
	"github.com/certfetcher/certfetcher/test/fixture"
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
	nginx := fixture.RequirePrograms(t, "nginx")[0]
	dir := t.TempDir()
	authority, err := fixture.NewCA("Application")
	require.NoError(t, err)
	key, chain, err := authority.Identity("app.example.org")
	require.NoError(t, err)
	keyPEM, err := keygen.PrivateKeyPEM(key)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "key.pem"), keyPEM, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "keystore.pem"), fixture.CertificatesPEM(chain...), 0o600))
	content := example(t, "nginx.yaml").configMap("app-nginx").Data["nginx.conf"]
	content = strings.NewReplacer("/var/run/certs", dir, "/tmp/", dir+"/", "listen 8443",
		"listen unix:"+dir+"/socket").Replace(content)
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
	assert.Equal(t, "inplace", environment["OUTPUT_LAYOUT"], "Spring Boot loses track of links")
	var application any
	content := []byte(p.configMap("app-spring").Data["application.yaml"])
	require.NoError(t, yaml.UnmarshalStrict(content, &application))
	properties := map[string]string{}
	flatten("", application, properties)
	bundle := "spring.ssl.bundle.jks." + properties["server.ssl.bundle"]
	volume := environment["OUTPUT_PATH"]
	for name, want := range map[string]string{
		"spring.config.import":          "configtree:" + volume + "/",
		bundle + ".reload-on-update":    "true",
		bundle + ".key.alias":           "certificate",
		bundle + ".keystore.location":   "file:" + volume + "/keystore.p12",
		bundle + ".keystore.password":   "${keystore.pass}",
		bundle + ".keystore.type":       "PKCS12",
		bundle + ".truststore.location": "file:" + volume + "/truststore.p12",
		bundle + ".truststore.password": "${truststore.pass}",
		bundle + ".truststore.type":     "PKCS12",
	} {
		assert.Equal(t, want, properties[name], name)
		delete(properties, name)
	}
	assert.Len(t, properties, 2, "besides server.port and server.ssl.bundle: %v", properties)
	assert.Equal(t, "P12", environment["OUTPUT_TYPE"])
}

// flatten names values as Spring Boot does.
func flatten(name string, value any, into map[string]string) {
	members, isMap := value.(map[string]any)
	if !isMap {
		into[name] = fmt.Sprint(value)
	}
	for key, member := range members {
		flatten(strings.TrimPrefix(name+"."+key, "."), member, into)
	}
}

// The command that the pod runs merges into a JDK's own truststore, and the sidecar has the same variables.
func TestExamples_jvmCacerts_trustsBoth(t *testing.T) {
	keytool := fixture.RequirePrograms(t, "keytool")[0]
	p := example(t, "jvm-cacerts.yaml")
	variables := p.environment(t, p.container("postprocess"))
	sidecar := p.environment(t, p.container("certfetcher"))
	for name, value := range variables {
		assert.Equal(t, value, sidecar[name], name)
	}
	assert.Equal(t, []string{"postprocess"}, p.container("postprocess").Args)

	program, err := filepath.EvalSymlinks(keytool)
	require.NoError(t, err)
	cacerts, err := os.ReadFile(filepath.Join(filepath.Dir(program), "../lib/security/cacerts"))
	require.NoError(t, err)
	authority, err := fixture.NewCA("Application")
	require.NoError(t, err)
	trusted, err := keystore.EncodePKCS12([]keystore.Entry{{Alias: "trusted-certificate-1",
		Chain: []*x509.Certificate{authority.Root}, Trusted: true}}, "of the store", keystore.ProfileModern)
	require.NoError(t, err)
	dir := t.TempDir()
	copied := p.container("cacerts").Command[2]
	for path, content := range map[string][]byte{
		copied: cacerts, sidecar["OUTPUT_PATH"] + "/truststore.p12": trusted,
		sidecar["OUTPUT_PATH"] + "/truststore.pass": []byte("of the store"),
	} {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, filepath.Dir(path)), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(dir, path), content, 0o600))
	}
	count := func() int {
		output, err := exec.Command(keytool, "-list", "-keystore", filepath.Join(dir, copied),
			"-storepass", "changeit").Output()
		require.NoError(t, err)
		return strings.Count(string(output), "trustedCertEntry")
	}
	before := count()
	require.NotZero(t, before)
	merge := exec.Command(binary("certfetcher"), p.container("postprocess").Args...)
	for name, value := range variables {
		paths := strings.Split(value, ":")
		for i := range paths {
			if paths[i] != "" { // a store without a password file
				paths[i] = dir + paths[i]
			}
		}
		merge.Env = append(merge.Env, name+"="+strings.Join(paths, ":"))
	}
	output, err := merge.CombinedOutput()
	require.NoError(t, err, "%s", output)
	assert.Equal(t, before+1, count())
	assert.Contains(t, p.container("app").Env[0].Value, "-Djavax.net.ssl.trustStore="+copied+" ")
}
