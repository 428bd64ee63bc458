package manifests

import (
	"path/filepath"
	"testing"

	certmanager "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"
)

// cmpv2Issuer is the object of ONAP's external issuer: group certmanager.onap.org, version v1.
type cmpv2Issuer struct {
	APIVersion, Kind string
	Metadata         struct{ Name, Namespace string }
	Spec             struct {
		URL, HealthEndpoint, CertEndpoint, UpdateEndpoint, CAName string
		CertSecretRef                                             struct{ Name, KeyRef, CertRef, CACertRef string }
	}
}

// The page's manifests are of the types that they say, and refer to one another.
func TestCertManagerPage_manifests_fitTogether(t *testing.T) {
	blocks := namedBlocks(t, "cert-manager.md")
	certificate := func(name string) *certmanager.Certificate {
		objects := decode(t, name, []byte(blocks[name]))
		require.Len(t, objects, 1, name)
		require.IsType(t, &certmanager.Certificate{}, objects[0], name)
		return objects[0].(*certmanager.Certificate)
	}
	identity, application := certificate("identity: Certificate"), certificate("application: Certificate")
	var issuer cmpv2Issuer
	require.NoError(t, yaml.UnmarshalStrict([]byte(blocks["issuer: CMPv2Issuer"]), &issuer))

	assert.Equal(t, "certmanager.onap.org/v1", issuer.APIVersion)
	assert.Equal(t, "CMPv2Issuer", issuer.Kind)
	secret := issuer.Spec.CertSecretRef
	assert.Equal(t, identity.Spec.SecretName, secret.Name)
	keys := []string{secret.KeyRef, secret.CertRef, secret.CACertRef}
	assert.Equal(t, []string{"tls.key", "tls.crt", "ca.crt"}, keys, "what cert-manager writes")
	assert.Contains(t, identity.Spec.Usages, certmanager.UsageClientAuth)
	assert.Equal(t, "certservice-mtls", identity.Spec.IssuerRef.Name)
	assert.Equal(t, "https://oom-cert-service:8443", issuer.Spec.URL)
	assert.Equal(t, []string{"actuator/health", "v1/certificate", "v1/certificate-update", "RA"},
		[]string{issuer.Spec.HealthEndpoint, issuer.Spec.CertEndpoint, issuer.Spec.UpdateEndpoint, issuer.Spec.CAName})

	ref := application.Spec.IssuerRef
	want := []string{"certmanager.onap.org", issuer.Kind, issuer.Metadata.Name}
	assert.Equal(t, want, []string{ref.Group, ref.Kind, ref.Name})
	for _, namespace := range []string{identity.Namespace, application.Namespace} { // there is no cluster-wide kind
		assert.Equal(t, issuer.Metadata.Namespace, namespace)
	}
	assert.Equal(t, certmanager.PKCS8, application.Spec.PrivateKey.Encoding, "the provider reads nothing else")
}

// cert-manager reads the Secret of a ClusterIssuer in its own namespace, and a Certificate's Secret is made in the
// Certificate's.
func TestClusterIssuer_secretOfItsCA_isMadeWhereCertManagerReadsIt(t *testing.T) {
	all := everything(t)
	objects := all[filepath.Join(deploy, "kubernetes/cluster-issuer.yaml")]
	issuer := of[*certmanager.ClusterIssuer](objects)[0]
	made := map[string]string{} // namespaces of Certificates by Secret
	for _, certificate := range of[*certmanager.Certificate](objects) {
		made[certificate.Spec.SecretName] = certificate.Namespace
	}
	assert.Equal(t, "cert-manager", made[issuer.Spec.CA.SecretName])

	overlay := all[filepath.Join(deploy, "kubernetes/overlays/cluster-issuer")]
	assert.Empty(t, of[*certmanager.Issuer](overlay), "the namespace has an issuer of its own")
	var names []string
	for _, certificate := range of[*certmanager.Certificate](overlay) {
		ref := certificate.Spec.IssuerRef
		names = append(names, certificate.Name+" of "+ref.Kind+" "+ref.Name)
	}
	from := " of ClusterIssuer " + issuer.Name
	assert.ElementsMatch(t, []string{"certservice-tls" + from, "certfetcher-mtls" + from}, names)
}
