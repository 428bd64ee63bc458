package manifests

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/certfetcher/certfetcher/test/fixture"
)

// templates are the Secrets of secrets.yaml by name.
func templates(t *testing.T) map[string]map[string]string {
	t.Helper()
	all := map[string]map[string]string{}
	for _, object := range everything(t)["kubernetes/secrets.yaml"] {
		secret := object.(*corev1.Secret)
		all[secret.Name] = secret.StringData
	}
	return all
}

// keystores are the keys of a Secret with stores, which YAML cannot hold as text.
var keystores = strings.Fields("keystore.jks keystore-password truststore.jks truststore-password")

// elsewhere are the keys of the Secrets and ConfigMaps of the overlay onap-keystores, of the charts' value sets, and of
// the cluster.
var elsewhere = map[string][]string{
	"certservice-keystores": keystores, "oom-cert-service-server-tls": keystores,
	"oom-cert-service-client-tls": keystores, "oom-cert-service-cmp": {"cmpServers.json", "ca.pem"},
	"app": {"keystore-password", "truststore-password"}, "ca-root": {"root.crt"},
	"client-crls": {"clients.crl"}, "certservice-ca": {"ca.crt"}, "example-roots": {"roots.pem"},
	"issuer-keys": {"keys.json"}, "who-may-what": {"rules.yaml"}, "kube-root-ca.crt": {"ca.crt"},
}

const cmpMount = "/etc/certservice/cmp"

// files makes what is mounted.
type files struct {
	byKey   map[string]string // the content of files that are not as the manifests have them
	keys    map[string][]string
	volumes map[string]string // directories by place and volume
}

func newFiles(t *testing.T) files {
	t.Helper()
	dir := t.TempDir()
	authority := fixture.Must(fixture.NewCA("Transport"))
	require.NoError(t, authority.WriteIdentity(dir, "oom-cert-service", "oom-cert-service"))
	f := files{map[string]string{}, maps.Clone(elsewhere), map[string]string{}}
	for key, file := range map[string]string{
		"tls.crt": "client-certificate.pem", "tls.key": "client-key.pem", "ca.crt": "truststore.pem",
		"keystore.jks": "client.jks", "truststore.jks": "truststore.jks", "ca.pem": "truststore.pem",
		"root.crt": "truststore.pem", "roots.pem": "truststore.pem",
	} {
		f.byKey[key] = readFile(t, filepath.Join(dir, file))
	}
	for _, key := range []string{"keystore-password", "truststore-password"} {
		f.byKey[key] = fixture.Password
	}
	for name, data := range templates(t) {
		f.keys[name] = slices.Collect(maps.Keys(data))
	}
	f.byKey["cmpServers.json"] = templates(t)["certservice-cmp"]["cmpServers.json"]
	crl := fixture.Must(x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(time.Hour),
	}, authority.Issuing, authority.IssuingKey))
	f.byKey["clients.crl"] = string(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: crl}))
	for _, o := range everything(t)["helm template certservice.keys"] {
		if m, is := o.(*corev1.ConfigMap); is {
			f.byKey["keys.json"] = m.Data["jwks.json"]
		}
	}
	f.byKey["rules.yaml"] = readFile(t, deploy+"/kubernetes/overlays/tokens/policy.yaml")
	return f
}

// of returns a directory with the files of a volume and no others, as a container of the pod sees them.
func (f files) of(t *testing.T, p pod, volume string) string {
	t.Helper()
	index := slices.IndexFunc(p.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == volume })
	if dir := f.volumes[p.place+" "+volume]; dir != "" || index < 0 || p.Spec.Volumes[index].EmptyDir != nil {
		return dir
	}
	dir, v := t.TempDir(), p.Spec.Volumes[index]
	f.volumes[p.place+" "+volume] = dir
	write := func(name, content string) {
		content = strings.ReplaceAll(content, cmpMount, dir)
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
	switch {
	case v.Secret != nil:
		require.NotEmpty(t, f.keys[v.Secret.SecretName], "%s: %s", p.place, v.Secret.SecretName)
		for _, key := range f.keys[v.Secret.SecretName] {
			require.Contains(t, f.byKey, key)
			write(key, f.byKey[key])
		}
	case v.ConfigMap != nil:
		for key, content := range f.data(t, p, v.ConfigMap.Name) {
			write(key, content)
		}
	case v.Projected != nil:
		for _, source := range v.Projected.Sources {
			if source.ConfigMap != nil {
				data := f.data(t, p, source.ConfigMap.Name)
				if len(source.ConfigMap.Items) == 0 {
					for key, content := range data {
						write(key, content)
					}
				}
				for _, item := range source.ConfigMap.Items {
					require.Contains(t, data, item.Key, p.place)
					write(item.Path, data[item.Key])
				}
			} else {
				write(source.ServiceAccountToken.Path,
					fixture.Token(fmt.Sprintf(`{"aud": [%q]}`, source.ServiceAccountToken.Audience)))
			}
		}
	}
	return dir
}

// data is what a ConfigMap has, which is applied with the pod, or comes from elsewhere.
func (f files) data(t *testing.T, p pod, name string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, object := range p.beside {
		if m, is := object.(*corev1.ConfigMap); is && m.Name == name {
			maps.Copy(all, m.Data)
		}
	}
	for _, key := range f.keys[name] {
		all[key] = ""
	}
	require.NotEmpty(t, all, "%s: %s", p.place, name)
	for key := range all {
		if content, found := f.byKey[key]; found {
			all[key] = content
		}
	}
	return all
}

// What is filled in as the template says gets certificates from a CA that signs its answers, as EJBCA does.
func TestSecrets_cmpServers_enrolsWithACAThatSigns(t *testing.T) {
	dir := t.TempDir()
	authority, server, err := fixture.StartDevCA(binaries, dir, "DEVCA_RESPONSE_PROTECTION=signature")
	require.NoError(t, err)
	defer authority.Stop()
	secret := server["authentication"].(map[string]string)
	filled := strings.NewReplacer(
		"http://REPLACE-with-the-CA:8080/ejbca/publicweb/cmp/cmpRA", server["url"].(string),
		"CN=ManagementCA", server["issuerDN"].(string),
		"REPLACE with the initial authentication key", secret["iak"],
		"REPLACE with the reference value", secret["rv"],
		cmpMount+"/ca.pem", server["trustAnchors"].(string),
	).Replace(templates(t)["certservice-cmp"]["cmpServers.json"])
	var file struct{ CMPv2Servers []map[string]any }
	require.NoError(t, json.Unmarshal([]byte(filled), &file))
	service := fixture.Must(fixture.StartCertServiceOf(binaries, dir, file.CMPv2Servers))
	defer service.Stop()
	fetch := exec.Command(binary("certfetcher"))
	fetch.Env = fixture.Environment(service.URL, service.Dir, t.TempDir(), "RETRY_MAX_ELAPSED=1s")
	output, err := fetch.CombinedOutput()
	assert.NoError(t, err, "%s", output)
}
