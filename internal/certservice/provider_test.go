package certservice

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/certfetcher/certfetcher/internal/devca"
	"github.com/certfetcher/certfetcher/internal/pki"
)

// provider makes the requests that ONAP's external issuer for cert-manager makes, with the paths of the CMPv2Issuer
// in the document.
type provider struct {
	t       *testing.T
	service *service
	client  *http.Client
	spec    struct {
		HealthEndpoint string `yaml:"healthEndpoint"`
		CertEndpoint   string `yaml:"certEndpoint"`
		UpdateEndpoint string `yaml:"updateEndpoint"`
		CAName         string `yaml:"caName"`
	}
}

func newProvider(t *testing.T, s *service) *provider {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("..", "..", "docs", "cert-manager.md"))
	require.NoError(t, err)
	block := regexp.MustCompile("(?s)<!-- issuer: CMPv2Issuer -->\n```yaml\n(.*?)```\n").FindSubmatch(content)
	require.NotNil(t, block)
	p := &provider{t: t, service: s}
	var issuer struct{ Spec yaml.Node }
	require.NoError(t, yaml.Unmarshal(block[1], &issuer))
	require.NoError(t, issuer.Spec.Decode(&p.spec))
	require.NotEmpty(t, p.spec.UpdateEndpoint)
	// A transport with a TLS configuration of its own speaks HTTP/1.1 only.
	transport := &http.Transport{TLSClientConfig: &tls.Config{
		RootCAs: poolOf(s.tlsCA.Root), Certificates: []tls.Certificate{identity(t, s.tlsCA)},
	}}
	t.Cleanup(transport.CloseIdleConnections)
	p.client = &http.Client{Transport: transport}
	return p
}

// get asks for an endpoint, and behind it, when it has one, the CA's name.
func (p *provider) get(endpoint, caName string, header http.Header) response {
	address, err := url.Parse(p.service.url)
	require.NoError(p.t, err)
	return p.service.do(p.t, p.client, http.MethodGet, "/"+path.Join(address.Path, endpoint, caName), header, nil)
}

// header is what goes with a CSR: each the Base64 of a PEM text, as cert-manager has it in its Secrets.
func (p *provider) header(key crypto.Signer, template *x509.CertificateRequest) http.Header {
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	require.NoError(p.t, err)
	header := http.Header{}
	header.Add("CSR", headerValue("CERTIFICATE REQUEST", der))
	header.Add("PK", headerValue("PRIVATE KEY", pkcs8(p.t, key)))
	return header
}

// secret takes an answer into what cert-manager stores as tls.crt, and checks it as whoever uses the Secret would.
func (p *provider) secret(r response, key crypto.Signer, template *x509.CertificateRequest) []byte {
	require.Equal(p.t, http.StatusOK, r.StatusCode, r.text)
	var answer struct {
		CertificateChain    []string `json:"certificateChain"`
		TrustedCertificates []string `json:"trustedCertificates"`
	}
	require.NoError(p.t, json.NewDecoder(strings.NewReader(r.text)).Decode(&answer))
	require.NotEmpty(p.t, answer.CertificateChain)
	require.NotEmpty(p.t, answer.TrustedCertificates)
	parse := func(text string) *x509.Certificate {
		block, rest := pem.Decode([]byte(text))
		require.NotNil(p.t, block)
		assert.Empty(p.t, bytes.TrimSpace(rest), "one certificate in each element")
		cert, err := x509.ParseCertificate(block.Bytes)
		require.NoError(p.t, err)
		return cert
	}
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	for _, text := range answer.TrustedCertificates {
		roots.AddCert(parse(text))
	}
	for _, text := range answer.CertificateChain[1:] {
		intermediates.AddCert(parse(text))
	}
	leaf := parse(answer.CertificateChain[0])
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	require.NoError(p.t, err)
	assert.True(p.t, pki.SameKey(leaf.PublicKey, key.Public()))
	assert.ElementsMatch(p.t, pki.RequestNames(template), pki.Names(leaf))
	assert.Equal(p.t, template.Subject.CommonName, leaf.Subject.CommonName)
	return []byte(strings.Join(answer.CertificateChain, ""))
}

func TestProvider_ofCertManager_enrolsAndUpdates(t *testing.T) {
	for name, row := range map[string]struct {
		protection devca.ResponseProtection
		extra      string // in cmpServers.json
	}{
		"a CA that protects its answers with the secret": {devca.RespondMAC, anchored},
		"a CA that signs its answers":                    {devca.RespondSignature, anchored},
		"a file as ONAP has it, without trustAnchors":    {devca.RespondMAC, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s, development := newDevCAService(t, row.protection, row.extra)
			p := newProvider(t, s)
			require.Equal(t, http.StatusOK, p.get(p.spec.HealthEndpoint, "", nil).StatusCode)

			template := documentedRequest()
			key, err := rsa.GenerateKey(rand.Reader, 2048)
			require.NoError(t, err)
			first := p.secret(p.get(p.spec.CertEndpoint, p.spec.CAName, p.header(key, template)), key, template)

			// The second certificate of the same Certificate, with a new key (rotationPolicy Always) and with the same.
			next := newKey(t)
			for i, renewed := range []crypto.Signer{next, key} {
				header := p.header(renewed, template)
				header.Add("OLD_PK", headerValue("PRIVATE KEY", pkcs8(t, key)))
				header.Add("OLD_CERT", base64.StdEncoding.EncodeToString(first))
				p.secret(p.get(p.spec.UpdateEndpoint, p.spec.CAName, header), renewed, template)
				assert.Equal(t, uint64(i+1), development.Stats().Updated, "asked for with a key update request")
			}
		})
	}
}

// What the provider shows of a refusal: the status, and errorMessage.
func TestProvider_ofCertManager_getsTextsToShow(t *testing.T) {
	s, development := newDevCAService(t, devca.RespondMAC, anchored)
	p := newProvider(t, s)
	header := p.header(newKey(t), documentedRequest())
	message := func(r response) string {
		var body struct {
			ErrorMessage string `json:"errorMessage"`
		}
		require.NoError(t, json.Unmarshal([]byte(r.text), &body))
		return body.ErrorMessage
	}
	unknown := p.get(p.spec.CertEndpoint, "other", header)
	assert.Equal(t, http.StatusNotFound, unknown.StatusCode)
	assert.Equal(t, "Certification authority not found for given CAName", message(unknown))
	development.SetFaults(devca.Faults{Reject: true})
	refused := p.get(p.spec.CertEndpoint, p.spec.CAName, header)
	assert.Equal(t, http.StatusInternalServerError, refused.StatusCode)
	assert.Contains(t, message(refused), "CMPv2 server returned following error: ")
}

// documentedRequest has every kind of name that cert-manager knows.
func documentedRequest() *x509.CertificateRequest {
	return &x509.CertificateRequest{
		Subject: pkix.Name{
			CommonName: "app.example.org", Organization: []string{"Example"}, Province: []string{"Skane"},
			Country: []string{"SE"},
		},
		DNSNames:       []string{"app.example.org", "app.default.svc.cluster.local"},
		IPAddresses:    []net.IP{net.IPv4(192, 0, 2, 1).To4()},
		EmailAddresses: []string{"app@example.org"},
		URIs:           []*url.URL{{Scheme: "spiffe", Host: "example.org", Path: "/app"}},
	}
}
