package certservice

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"net/http"
	"net/http/httptest"
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

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/internal/devca"
	"github.com/certfetcher/certfetcher/internal/pki"
)

// newDevCAService starts a service with the development CA behind it, configured by a cmpServers.json as ONAP writes it
// and the extra fields given.
func newDevCAService(t *testing.T, protection devca.ResponseProtection, extra string) (*service, *devca.CA) {
	t.Helper()
	development, err := devca.New(devca.Config{ResponseProtection: protection})
	require.NoError(t, err)
	return serviceBefore(t, development, development, extra), development
}

func serviceBefore(t *testing.T, development *devca.CA, handler http.Handler, extra string) *service {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	c, file, _ := newConfiguration(t, fileOf(strings.NewReplacer(
		"http://ca", server.URL+"/ejbca/publicweb/cmp/cmpRA", "CN=ca",
		"CN=DEVELOPMENT ONLY Issuing CA,O=DEVELOPMENT ONLY",
		"very-secret-iak", "mypassword", "very-secret-rv", "mypassword",
	).Replace(strings.TrimSuffix(entryText("RA"), "}"))+extra+"}"))
	c.build = CMPBuilder(CMPOptions{Connections: 10, Log: c.log})
	writeFile(t, filepath.Join(filepath.Dir(file), "root.pem"), development.RootPEM())
	next := append(golden(t, "pem/root-ca.pem"), development.RootPEM()...)
	writeFile(t, filepath.Join(filepath.Dir(file), "next.pem"), next)
	require.NoError(t, c.Reload("start"))
	return serviceOf(t, c)
}

const anchored = `, "trustAnchors": "root.pem"`

// updateHeader turns an enrolment's headers and answer into the headers of an update.
func updateHeader(t *testing.T, enrolled http.Header, issued issuedBody, dnsNames ...string) http.Header {
	t.Helper()
	key, old := newKey(t), parseCert(t, []byte(issued.CertificateChain[0]))
	template := &x509.CertificateRequest{RawSubject: old.RawSubject, DNSNames: dnsNames}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	require.NoError(t, err)
	header := headerOf(t, der, key)
	header["Old_cert"] = []string{b64([]byte(issued.CertificateChain[0] + issued.CertificateChain[1]))}
	header["Old_pk"] = enrolled["Pk"]
	return header
}

func TestService_devCA_enrolsAndUpdates(t *testing.T) {
	for _, response := range []devca.ResponseProtection{devca.RespondMAC, devca.RespondSignature} {
		for _, protection := range []string{ProtectionPBMSHA256, ProtectionPBMSHA1, ProtectionPBMAC1} {
			t.Run(string(response)+" "+protection, func(t *testing.T) {
				s, development := newDevCAService(t, response, anchored+`, "protection": "`+protection+`"`)
				header := enrollHeader(t)

				first := s.get(enrollPath, header).issued()
				assert.Equal(t, []string{string(development.RootPEM())}, first.TrustedCertificates)
				s.get(updatePath, updateHeader(t, header, first, "app.example")).is(200)
				assert.Equal(t, uint64(1), development.Stats().Updated)
				s.get(updatePath, updateHeader(t, header, first, "other.example")).is(200)
				assert.Equal(t, uint64(1), development.Stats().Updated, "other names need a certification request")
			})
		}
	}
}

func TestService_devCA_withoutAnchors(t *testing.T) {
	for extra, response := range map[string]devca.ResponseProtection{
		// the update's answer is signed, and verified with the root of the first one
		"":                          devca.RespondMAC,
		`, "responseTrust": "onap"`: devca.RespondSignature,
	} {
		s, development := newDevCAService(t, response, extra)
		header := enrollHeader(t)
		s.get(updatePath, updateHeader(t, header, s.get(enrollPath, header).issued(), "app.example")).is(200)
		assert.Equal(t, uint64(1), development.Stats().Updated)
	}
}

func TestService_devCA_faultsAreAnsweredWithoutACertificate(t *testing.T) {
	const refused = "CMPv2 server returned following error: "
	for want, faults := range map[string]devca.Faults{
		refused + "this rejection was ordered as a fault (badRequest)": {Reject: true,
			FailInfo: []cmp.FailureBit{cmp.FailBadRequest}},
		refused + "(not authenticated) this error was ordered as a fault":                 {Unprotected: true},
		callFailed + "checking recipNonce":                                                {WrongNonce: true},
		callFailed + "checking public key":                                                {WrongKey: true},
		callFailed + "checking validity":                                                  {Expired: true},
		callFailed + "the CMP server did not answer; the log of the CertService has more": {Drop: true},
	} {
		s, development := newDevCAService(t, devca.RespondMAC, anchored)
		development.SetFaults(faults)
		r := s.enroll()
		r.is(500)
		assert.Contains(t, r.text, `{"errorMessage":"`+want)
		assert.NotContains(t, r.text, "mypassword")
		assert.NotContains(t, r.text, "127.0.0.1", "where the CA is")
		if faults.Reject {
			assert.Equal(t, `CA refused: rejection, badRequest: "this rejection was ordered as a fault"`,
				s.audit()["error"])
		}
		// A certificate that is refused would stay issued, as the CA needs no confirmation.
		assert.Equal(t, faults.Expired, development.Stats().Revoked == 1, want)
	}
}

func TestService_devCA_waitsWhenItIsTold(t *testing.T) {
	s, development := newDevCAService(t, devca.RespondMAC, anchored)
	development.SetFaults(devca.Faults{Waiting: 1})
	s.enroll().is(200)
	assert.NotZero(t, development.Stats().Polls)
}

// During a rollover clients must trust the next root before its certificates are issued.
func TestService_devCA_additionalRoots_reachTheClient(t *testing.T) {
	s, development := newDevCAService(t, devca.RespondMAC, anchored+`, "additionalRoots": "next.pem"`)
	want := []string{string(development.RootPEM()), string(golden(t, "pem/root-ca.pem"))}
	assert.Equal(t, want, s.enroll().issued().TrustedCertificates, "the signing root first, and each once")
}

// Some CMP servers close the connection after each answer without saying so, so that certConf meets a closed one.
func TestService_CMPServerThatClosesAfterItsAnswer_issuesAtTheFirstRequest(t *testing.T) {
	development, err := devca.New(devca.Config{})
	require.NoError(t, err)
	development.SetFaults(devca.Faults{Explicit: true})
	s := serviceBefore(t, development, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		recorded := httptest.NewRecorder()
		development.ServeHTTP(recorded, r)
		connection, _, err := w.(http.Hijacker).Hijack()
		assert.NoError(t, err)
		answer := recorded.Result()
		answer.ContentLength = int64(recorded.Body.Len())
		_ = answer.Write(connection)
		_ = connection.Close()
	}), anchored)
	for range 5 {
		s.enroll().is(200)
	}
	stats := development.Stats()
	assert.Equal(t, []uint64{5, 5}, []uint64{stats.Issued, stats.Confirmed})
}

// ONAP's external issuer for cert-manager makes requests with the paths of the CMPv2Issuer in the document.
func TestProvider_ofCertManager_enrolsAndUpdates(t *testing.T) {
	content, err := os.ReadFile("../../docs/cert-manager.md")
	require.NoError(t, err)
	block := regexp.MustCompile("(?s)<!-- issuer: CMPv2Issuer -->\n```yaml\n(.*?)```\n").FindSubmatch(content)
	require.NotNil(t, block)
	var issuer struct{ Spec yaml.Node }
	require.NoError(t, yaml.Unmarshal(block[1], &issuer))
	var spec struct {
		HealthEndpoint string `yaml:"healthEndpoint"`
		CertEndpoint   string `yaml:"certEndpoint"`
		UpdateEndpoint string `yaml:"updateEndpoint"`
		CAName         string `yaml:"caName"`
	}
	require.NoError(t, issuer.Spec.Decode(&spec))
	template := &x509.CertificateRequest{ // every kind of name that cert-manager knows
		Subject: pkix.Name{
			CommonName: "app.example.org", Organization: []string{"Example"},
			Province: []string{"Skane"}, Country: []string{"SE"},
		},
		DNSNames:       []string{"app.example.org", "app.default.svc.cluster.local"},
		IPAddresses:    []net.IP{net.IPv4(192, 0, 2, 1).To4()},
		EmailAddresses: []string{"app@example.org"},
		URIs:           []*url.URL{{Scheme: "spiffe", Host: "example.org", Path: "/app"}},
	}
	request := func(key crypto.Signer) http.Header {
		der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
		require.NoError(t, err)
		return headerOf(t, der, key)
	}
	for extra, protection := range map[string]devca.ResponseProtection{
		anchored: devca.RespondSignature, "": devca.RespondMAC, // a file as ONAP has it, without trustAnchors
	} {
		s, development := newDevCAService(t, protection, extra)
		get := func(endpoint, caName string, header http.Header) response {
			return s.get("/"+path.Join(endpoint, caName), header)
		}
		get(spec.HealthEndpoint, "", nil).is(200)
		key := rsaKey(t, 2048)
		first := get(spec.CertEndpoint, spec.CAName, request(key)).secret(key, template)
		// The second certificate of the same Certificate, with a new key (rotationPolicy Always) and with the same.
		for i, renewed := range []crypto.Signer{newKey(t), key} {
			header := request(renewed)
			header.Add("OLD_PK", headerValue("PRIVATE KEY", pkcs8(t, key)))
			header.Add("OLD_CERT", b64(first))
			get(spec.UpdateEndpoint, spec.CAName, header).secret(renewed, template)
			assert.Equal(t, uint64(i+1), development.Stats().Updated, "by a key update request")
		}
		get(spec.CertEndpoint, "other", request(key)).is(404, "Certification authority not found for given CAName")
	}
}

// secret returns what cert-manager stores as tls.crt.
func (r response) secret(key crypto.Signer, template *x509.CertificateRequest) []byte {
	r.t.Helper()
	issued := r.issued()
	leaf := parseCert(r.t, []byte(issued.CertificateChain[0]))
	assert.True(r.t, pki.SameKey(leaf.PublicKey, key.Public()))
	assert.Equal(r.t, pki.RequestNames(template), pki.Names(leaf))
	assert.Equal(r.t, template.Subject.CommonName, leaf.Subject.CommonName)
	return []byte(strings.Join(issued.CertificateChain, ""))
}
