package certservice

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/internal/devca"
)

// cmpServer is a development CA behind a handler that keeps the requests, and may spoil the answers.
type cmpServer struct {
	t        *testing.T
	ca       *devca.CA
	url      string
	mu       sync.Mutex
	received []*cmp.PKIMessage
	fails    map[string]int               // how many messages of a kind get status 500 and a page
	instead  http.HandlerFunc             // of the CA
	change   func(answer *cmp.PKIMessage) // and protects it again
}

func newCMPServer(t *testing.T) *cmpServer {
	s := &cmpServer{t: t, fails: map[string]int{}}
	s.replace(devca.RespondMAC)
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

// replace puts a new CA in the place of the one before.
func (s *cmpServer) replace(protection devca.ResponseProtection) {
	s.ca = must(devca.New(devca.Config{ResponseProtection: protection,
		Reference: "very-secret-rv", Secret: []byte("very-secret-iak")}))
}

func (s *cmpServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	der := must(io.ReadAll(r.Body))
	request := must(cmp.ParsePKIMessage(der))
	s.mu.Lock()
	s.received = append(s.received, request)
	s.mu.Unlock()
	r.Body = io.NopCloser(bytes.NewReader(der))
	kind := request.Body.Type.String()
	switch {
	case s.fails[kind] > 0:
		s.fails[kind]--
		page(w, 500, "<html><body>Transaction rolled back</body></html>")
	case s.instead != nil:
		s.instead(w, r)
	case s.change != nil:
		recorded := httptest.NewRecorder()
		s.ca.ServeHTTP(recorded, r)
		answer := must(cmp.ParsePKIMessage(recorded.Body.Bytes()))
		s.change(answer)
		der := must(answer.Marshal())
		w.Header().Set("Content-Type", cmp.MediaType)
		_, _ = w.Write(der)
	default:
		s.ca.ServeHTTP(w, r)
	}
}

func page(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/html;charset=UTF-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text)
}

// answerRaw writes to the connection, and closes it without saying so.
func (s *cmpServer) answerRaw(w http.ResponseWriter, write func(connection io.Writer)) {
	connection, _, err := w.(http.Hijacker).Hijack()
	if assert.NoError(s.t, err) {
		write(connection)
		connection.Close()
	}
}

// configuration is for a cmpServers.json as ONAP has it, but for the fields. Beside it are root.pem, and next.pem
// with another root before it.
func (s *cmpServer) configuration(fields map[string]any) (c *Configuration, path string) {
	c, path, _ = newConfiguration(s.t, fileOf(s.entry(fields)))
	c.build = CMPBuilder(CMPOptions{Connections: 10, Log: c.log})
	dir := filepath.Dir(path)
	writeFile(s.t, filepath.Join(dir, "root.pem"), s.ca.RootPEM())
	other := testFile(s.t, "pem/root-ca.pem")
	writeFile(s.t, filepath.Join(dir, "other.pem"), other)
	writeFile(s.t, filepath.Join(dir, "next.pem"), append(other, s.ca.RootPEM()...))
	return c, path
}

func (s *cmpServer) entry(fields map[string]any) string {
	entry := map[string]any{"caName": "RA", "url": s.url,
		"issuerDN":       "CN=DEVELOPMENT ONLY Issuing CA,O=DEVELOPMENT ONLY",
		"authentication": map[string]string{"iak": "very-secret-iak", "rv": "very-secret-rv"}}
	maps.Copy(entry, fields)
	return jsonText(s.t, entry)
}

// service is one for the configuration with the fields.
func (s *cmpServer) service(fields map[string]any) *service {
	c, _ := s.configuration(fields)
	_ = c.Reload("start")
	return serviceOf(s.t, c)
}

// template is that of the last request.
func (s *script) template() cmp.CertTemplate {
	return s.last[0].Body.Content.(cmp.CertReqMessages)[0].CertReq.CertTemplate
}

// issueOther has answers hold a certificate for the key, with other names than were requested.
func (s *cmpServer) issueOther(key func() any, subject string, dnsNames ...string) {
	s.change = func(answer *cmp.PKIMessage) {
		content, ok := answer.Body.Content.(*cmp.CertRepMessage)
		if !ok {
			return
		}
		der := must(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
			Subject: pkix.Name{CommonName: subject}, DNSNames: dnsNames}, key()))
		csr := must(x509.ParseCertificateRequest(der))
		direct := httptest.NewServer(s.ca)
		defer direct.Close()
		client, err := cmp.New(cmp.Config{URL: direct.URL, Recipient: "CN=x", Secret: []byte("very-secret-iak"),
			Reference: "very-secret-rv", ImplicitConfirm: true})
		if !assert.NoError(s.t, err) {
			return
		}
		result, err := client.Initialize(s.t.Context(), cmp.Request{CSR: csr, Key: key().(crypto.Signer)})
		if assert.NoError(s.t, err) {
			content.Response[0].CertifiedKeyPair.Certificate = result.Chain[0].Raw
			s.protect(answer)
		}
	}
}

func (s *cmpServer) protect(answer *cmp.PKIMessage) {
	mac := must(cmp.NewMAC(cmp.ProtectionPBMSHA256))
	assert.NoError(s.t, cmp.NewMACKeys([]byte("very-secret-iak")).Protect(answer, mac))
}
