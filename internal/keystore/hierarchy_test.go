package keystore_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/keystore"
)

const password = "Aa0_$#xyzXYZ123456789012"

// now is when all test certificates are valid; peers that look at dates take the real clock.
var now = time.Now().Truncate(time.Second)

// pki is a root, an intermediate, and one end entity for each kind of key.
type pki struct {
	root, intermediate *x509.Certificate
	entities           map[string]entity
}

type entity struct {
	key   crypto.Signer
	chain []*x509.Certificate // leaf, intermediate
}

// testPKI is made once, because RSA keys take their time.
var testPKI = sync.OnceValues(newPKI)

func fixtures(t testing.TB) *pki {
	t.Helper()
	p, err := testPKI()
	require.NoError(t, err)
	return p
}

func newPKI() (*pki, error) {
	rootKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	root, err := issue("Test Root", rootKey, nil, rootKey)
	if err != nil {
		return nil, err
	}
	intermediateKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	intermediate, err := issue("Test Intermediate", intermediateKey, root, rootKey)
	if err != nil {
		return nil, err
	}
	p := &pki{root: root, intermediate: intermediate, entities: map[string]entity{}}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	// Through DER and back, as it comes out of a store: the numbers that are computed ahead may differ in
	// leading zeros, and tests compare keys as a whole.
	rsaKey, err = x509.ParsePKCS1PrivateKey(x509.MarshalPKCS1PrivateKey(rsaKey))
	if err != nil {
		return nil, err
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return nil, err
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	for name, key := range map[string]crypto.Signer{"RSA": rsaKey, "ECDSA": ecKey, "Ed25519": edKey} {
		leaf, err := issue("localhost", key, intermediate, intermediateKey)
		if err != nil {
			return nil, err
		}
		p.entities[name] = entity{key, []*x509.Certificate{leaf, intermediate}}
	}
	return p, nil
}

// issue makes a certificate for key's public half; without issuer it signs itself. Everything but
// "localhost" is a CA.
func issue(cn string, key crypto.Signer, issuer *x509.Certificate, issuerKey crypto.Signer) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: cn, Organization: []string{"Tests"}},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature,
	}
	if cn == "localhost" {
		template.DNSNames = []string{"localhost"}
		template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	} else {
		template.IsCA, template.BasicConstraintsValid = true, true
		template.KeyUsage = x509.KeyUsageCertSign
	}
	if issuer == nil {
		issuer = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), issuerKey)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// keyEntries is a key store as the fetcher writes it.
func keyEntries(t testing.TB, kind string) []keystore.Entry {
	e := fixtures(t).entities[kind]
	return []keystore.Entry{{Alias: "certificate", Key: e.key, Chain: e.chain}}
}

// trustEntries is a trust store as the fetcher writes it.
func trustEntries(t testing.TB) []keystore.Entry {
	p := fixtures(t)
	return []keystore.Entry{
		{Alias: "trusted-certificate-1", Chain: []*x509.Certificate{p.root}, Trusted: true},
		{Alias: "trusted-certificate-2", Chain: []*x509.Certificate{p.intermediate}, Trusted: true},
	}
}
