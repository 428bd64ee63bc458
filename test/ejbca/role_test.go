package ejbca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/test/fixture"
)

// newClient makes one that knows a secret.
func newClient(t *testing.T, s *Server, secret string) *cmp.Client {
	t.Helper()
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return fixture.Must(cmp.New(cmp.Config{
		URL: server.URL + path + "cmpRA", Recipient: cmp.DirectoryName(s.issuing.RawSubject).String(),
		Secret: []byte(secret), Reference: "RA", TrustAnchors: []*x509.Certificate{s.root},
	}))
}

func newRequest(subject, name string) cmp.Request {
	key := fixture.Must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.CertificateRequest{RawSubject: fixture.Must(cmp.ParseDN(subject)), DNSNames: []string{name}}
	csr := fixture.Must(x509.CreateCertificateRequest(rand.Reader, template, key))
	return cmp.Request{CSR: fixture.Must(x509.ParseCertificateRequest(csr)), Key: key}
}

// Why only certservice may reach the CMP address: every holder of a certificate with the organization of the role can
// have another holder's names, without the secret. Without the role no holder can.
func TestServer_role_letsEachMemberHaveTheOthersNames(t *testing.T) {
	for _, noRole := range []bool{false, true} {
		s := fixture.Must(New(Config{Secret: "the-secret", NoRole: noRole}))
		client := newClient(t, s, "the-secret")
		_, err := client.Initialize(t.Context(), newRequest("CN=bank,O=Example", "bank.example.org"))
		require.NoError(t, err)
		mine := newRequest("CN=app,O=Example", "app.example.org")
		result, err := client.Initialize(t.Context(), mine)
		require.NoError(t, err)

		thief := newClient(t, s, "does not know it")
		wanted := newRequest("CN=bank,O=Example", "bank.example.org")
		stolen, err := thief.UpdateKey(t.Context(), wanted, cmp.Signer{Key: mine.Key, Certificate: result.Chain[0]})

		if noRole {
			assert.ErrorContains(t, err, "'CN=app,O=Example' is not an authorized administrator.")
			continue
		}
		require.NoError(t, err)
		assert.Equal(t, []string{"bank.example.org"}, stolen.Chain[0].DNSNames)
	}
}
