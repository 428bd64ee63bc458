package mtls

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/keystore"
	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/test/ca"
)

func negative(t *testing.T, cert *x509.Certificate) *x509.Certificate {
	t.Helper()
	outline, err := pki.Parse(ca.NegativeSerial(cert))
	require.NoError(t, err)
	require.Nil(t, outline.PublicKey)
	return outline
}

// stores encodes one key entry in each format.
func stores(t *testing.T, key keystore.Entry) map[string][]byte {
	t.Helper()
	return map[string][]byte{
		"JKS": jks(t, key), "PKCS12": p12(t, keystore.ProfileModern, key), "PEM": append(pemKey(t, key.Key), pemCerts(key.Chain...)...),
	}
}

func TestLoad_rootOfTheOwnChainThatCannotBeParsed_isNotShown(t *testing.T) {
	p := newPKI(t, "Own")
	trust := jks(t, p.trustEntry("root"))
	entry := keystore.Entry{Alias: "own", Key: p.key, Chain: []*x509.Certificate{p.chain[0], p.chain[1], negative(t, p.ca.Root)}}
	for format, store := range stores(t, entry) {
		identity, err := Load(write(t, store, nil, trust))
		require.NoError(t, err, format)
		assert.Len(t, identity.Certificate.Certificate, 2, format)
		assert.NoError(t, shake(t, identity, identity, tls.VersionTLS13), format)
	}
}

func TestLoad_ownCertificateThatCannotBeParsed_isNamed(t *testing.T) {
	p := newPKI(t, "Own")
	entry := keystore.Entry{Alias: "own", Key: p.key, Chain: []*x509.Certificate{negative(t, p.chain[0]), p.chain[1]}}
	for format, store := range stores(t, entry) {
		f := write(t, store, nil, jks(t, p.trustEntry("root")))
		_, err := Load(f)
		assert.EqualError(t, err, fmt.Sprintf(`KEYSTORE_PATH %q has a certificate "CN=Own" that cannot be used: it cannot be parsed: x509: negative serial number`, f.KeystorePath), format)
	}
}

func TestLoad_anchors_skipsThoseThatCanVerifyNothing(t *testing.T) {
	p := newPKI(t, "Own")
	bad := keystore.Entry{Alias: "bad", Chain: []*x509.Certificate{negative(t, p.ca.Root)}, Trusted: true}
	f := write(t, jks(t, p.keyEntry("own")), nil, jks(t, p.trustEntry("root"), bad))
	identity, err := Load(f)
	require.NoError(t, err)
	assert.Equal(t, []*x509.Certificate{p.ca.Root}, identity.Roots)
	want := fmt.Sprintf(`TRUSTSTORE_PATH %q: entry "bad", "CN=Own Root CA,O=Throwaway", can verify nothing here: it cannot be parsed: x509: negative serial number; it is skipped`, f.TruststorePath)
	assert.Equal(t, []string{want}, identity.Skipped)
	assert.Equal(t, []string{want}, identity.Warnings(time.Now().Add(-time.Minute/2)))

	only, err := LoadRoots(f)
	require.NoError(t, err)
	assert.Equal(t, identity.Skipped, only.Skipped)

	var many []*x509.Certificate
	for range 7 {
		many = append(many, negative(t, newPKI(t, "Own").ca.Root))
	}
	_, err = LoadRoots(write(t, nil, nil, pemCerts(many...)))
	require.ErrorContains(t, err, "has no certificate that can be used: certificate 1, ")
	assert.ErrorContains(t, err, "; and 2 more")
	assert.Equal(t, 5, strings.Count(err.Error(), "can verify nothing here"))
}
