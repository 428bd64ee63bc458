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

// holder gets certificates of an EJBCA.
type holder struct {
	t      *testing.T
	client *cmp.Client
}

func newHolder(t *testing.T, s *Server, secret string) holder {
	t.Helper()
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	client, err := cmp.New(cmp.Config{
		URL: server.URL + path + "cmpRA", Recipient: cmp.DirectoryName(s.issuing.RawSubject).String(),
		Secret: []byte(secret), Reference: "RA", TrustAnchors: []*x509.Certificate{s.root},
	})
	require.NoError(t, err)
	return holder{t, client}
}

func (h holder) request(subject, name string) cmp.Request {
	h.t.Helper()
	key := fixture.Must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	der, err := cmp.ParseDN(subject)
	require.NoError(h.t, err)
	template := &x509.CertificateRequest{RawSubject: der, DNSNames: []string{name}}
	csr := fixture.Must(x509.CreateCertificateRequest(rand.Reader, template, key))
	parsed := fixture.Must(x509.ParseCertificateRequest(csr))
	return cmp.Request{CSR: parsed, Key: key}
}

// Why only certservice may reach the CMP address: every holder of a certificate with the organization of the role can
// have another holder's names, without the secret. Without the role no holder can.
func TestServer_role_letsEachMemberHaveTheOthersNames(t *testing.T) {
	for _, noRole := range []bool{false, true} {
		s, err := New(Config{Secret: "the-secret", NoRole: noRole})
		require.NoError(t, err)
		h := newHolder(t, s, "the-secret")
		_, err = h.client.Initialize(t.Context(), h.request("CN=bank,O=Example", "bank.example.org"))
		require.NoError(t, err)
		mine := h.request("CN=app,O=Example", "app.example.org")
		result, err := h.client.Initialize(t.Context(), mine)
		require.NoError(t, err)

		thief := newHolder(t, s, "does not know it")
		wanted := thief.request("CN=bank,O=Example", "bank.example.org")
		stolen, err := thief.client.UpdateKey(t.Context(), wanted,
			cmp.Signer{Key: mine.Key, Certificate: result.Chain[0]})

		if noRole {
			assert.ErrorContains(t, err, "'CN=app,O=Example' is not an authorized administrator.")
			continue
		}
		require.NoError(t, err)
		assert.Equal(t, []string{"bank.example.org"}, stolen.Chain[0].DNSNames)
	}
}
