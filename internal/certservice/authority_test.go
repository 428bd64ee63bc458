package certservice

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/internal/devca"
	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/test/fixture"
)

const testIAK, testRV = "initial-authentication-key", "reference-value"

// cmpServer is a CMPv2 server that grants everything, unless configured otherwise.
type cmpServer struct {
	t      *testing.T
	ca     *fixture.CA
	signer *tls.Certificate // signs the answers; nil: they are protected by MAC
	// signs the answers to key updates, which then have no caPubs, as EJBCA does; nil: as others
	updates  *tls.Certificate
	caPubs   []*x509.Certificate
	http     int  // HTTP status without a CMP message; 0: none
	failures int  // how many of the next messages are answered with status 500 in HTML
	confirms bool // answers certConf
	received []*cmp.PKIMessage
	url      string
	log      *lockedBuffer // of the last authority
}

func newCMPServer(t *testing.T) *cmpServer {
	s := &cmpServer{t: t, ca: newCA(t, "CMP")}
	s.caPubs = []*x509.Certificate{s.ca.Root}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

func (s *cmpServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.http != 0 {
		w.Header().Set("Retry-After", "90")
		w.WriteHeader(s.http)
		return
	}
	der, err := io.ReadAll(r.Body)
	assert.NoError(s.t, err)
	request, err := cmp.ParsePKIMessage(der)
	if !assert.NoError(s.t, err) {
		return
	}
	s.received = append(s.received, request)
	revokes := request.Body.Type == cmp.BodyRR
	if s.failures > 0 || revokes || request.Body.Type == cmp.BodyCertConf && !s.confirms {
		s.failures--
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = io.WriteString(w, "<html><body>Transaction rolled back</body></html>")
		return
	}
	answer, err := s.answer(request)
	assert.NoError(s.t, err)
	w.Header().Set("Content-Type", cmp.MediaType)
	_, _ = w.Write(answer)
}

func (s *cmpServer) answer(request *cmp.PKIMessage) ([]byte, error) {
	answer := &cmp.PKIMessage{Header: request.Header.Answer(cmp.DirectoryName(nil), time.Now())}
	answer.Header.AddImplicitConfirm()
	kinds := map[cmp.BodyType]cmp.BodyType{cmp.BodyIR: cmp.BodyIP, cmp.BodyCR: cmp.BodyCP, cmp.BodyKUR: cmp.BodyKUP}
	if request.Body.Type == cmp.BodyCertConf {
		answer.Body = cmp.PKIBody{Type: cmp.BodyPKIConf, Content: cmp.PKIConfirmContent{}}
		return s.protect(answer, s.signer)
	}
	leaf, err := s.issue(request.Body.Content.(cmp.CertReqMessages)[0].CertReq.CertTemplate)
	if err != nil {
		return nil, err
	}
	response := cmp.CertResponse{CertifiedKeyPair: &cmp.CertifiedKeyPair{Certificate: leaf}}
	content, signer := &cmp.CertRepMessage{Response: []cmp.CertResponse{response}}, s.signer
	if request.Body.Type == cmp.BodyKUR && s.updates != nil {
		signer = s.updates
	} else {
		for _, cert := range s.caPubs {
			content.CAPubs = append(content.CAPubs, cert.Raw)
		}
	}
	answer.Body = cmp.PKIBody{Type: kinds[request.Body.Type], Content: content}
	return s.protect(answer, signer)
}

// protect signs an answer, or without a signer protects it by MAC.
func (s *cmpServer) protect(answer *cmp.PKIMessage, signer *tls.Certificate) ([]byte, error) {
	if signer != nil {
		answer.SetSigner(signer.Leaf, nil)
		answer.ExtraCerts = append(answer.ExtraCerts, s.ca.Issuing.Raw, s.ca.Root.Raw)
		if err := cmp.ProtectSignature(answer, signer.PrivateKey.(crypto.Signer)); err != nil {
			return nil, err
		}
		return answer.Marshal()
	}
	answer.ExtraCerts = [][]byte{s.ca.Issuing.Raw}
	mac, err := cmp.NewMAC(cmp.ProtectionPBMSHA256)
	if err != nil {
		return nil, err
	}
	if err := cmp.NewMACKeys([]byte(testIAK)).Protect(answer, mac); err != nil {
		return nil, err
	}
	return answer.Marshal()
}

func (s *cmpServer) issue(template cmp.CertTemplate) ([]byte, error) {
	key, err := template.Key()
	if err != nil {
		return nil, err
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), RawSubject: template.Subject,
		ExtraExtensions: template.Extensions,
		NotBefore:       time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
	}
	if s.ca.Change != nil {
		s.ca.Change(leaf)
	}
	return x509.CreateCertificate(rand.Reader, leaf, s.ca.Issuing, key, s.ca.IssuingKey)
}

// identity is one of the server's CA.
func (s *cmpServer) identity() *tls.Certificate {
	certificate := identity(s.t, s.ca)
	return &certificate
}

func (s *cmpServer) entry() Server {
	return Server{
		CAName: "RA", URL: s.url, IssuerDN: "CN=peer", IAK: testIAK, RV: testRV, Protection: ProtectionPBMSHA256,
	}
}

// authority returns the authority for the server.
func (s *cmpServer) authority(change func(*Server)) Authority {
	s.t.Helper()
	server := s.entry()
	if change != nil {
		change(&server)
	}
	s.log = &lockedBuffer{}
	a, err := CMPBuilder(CMPOptions{Log: slog.New(slog.NewJSONHandler(s.log, nil))})(server)
	require.NoError(s.t, err)
	return a
}

func (s *cmpServer) kinds() (kinds []cmp.BodyType) {
	for _, request := range s.received {
		kinds = append(kinds, request.Body.Type)
	}
	return kinds
}

func enrollRequest(t *testing.T) Request {
	t.Helper()
	r, fault := parseRequest(enrollHeader(t), false, 4096)
	require.Nil(t, fault)
	return r
}

// updateRequest renews what the server issues for the CSR, or with a change something else.
func (s *cmpServer) updateRequest(change func(*x509.CertificateRequest)) Request {
	s.t.Helper()
	r := enrollRequest(s.t)
	old := &x509.CertificateRequest{Subject: r.CSR.Subject, DNSNames: r.CSR.DNSNames}
	if change != nil {
		change(old)
	}
	key := newKey(s.t)
	der, err := x509.CreateCertificateRequest(rand.Reader, old, key)
	require.NoError(s.t, err)
	csr, err := x509.ParseCertificateRequest(der)
	require.NoError(s.t, err)
	chain, err := s.ca.Issue(csr)
	require.NoError(s.t, err)
	r.OldCert, r.OldChain, r.OldKey = chain[0], chain[1:], key
	return r
}

func TestCMPAuthority_enroll_sendsAnInitializationRequest(t *testing.T) {
	s := newCMPServer(t)
	r := enrollRequest(t)

	issued, err := s.authority(nil).Enroll(t.Context(), r)

	require.NoError(t, err)
	require.Len(t, issued.Chain, 2)
	assert.True(t, pki.SameKey(r.CSR.PublicKey, issued.Chain[0].PublicKey))
	assert.Equal(t, s.ca.Issuing, issued.Chain[1])
	assert.Equal(t, []*x509.Certificate{s.ca.Root}, issued.Trusted)
	require.Equal(t, []cmp.BodyType{cmp.BodyIR}, s.kinds(), "implicit confirmation was requested and granted")
	assert.Equal(t, []byte(testRV), s.received[0].Header.SenderKID)
	assert.Equal(t, r.CSR.RawSubject, s.template(0).Subject)
	_, err = cmp.NewMACKeys([]byte(testIAK)).Verify(s.received[0])
	assert.NoError(t, err)
}

func TestCMPAuthority_update_dependsOnSubjectAndNames(t *testing.T) {
	for _, row := range []struct {
		name   string
		change func(*x509.CertificateRequest) // of what the old certificate holds
		want   cmp.BodyType
	}{
		{"the same", nil, cmp.BodyKUR},
		{"the same names in another case", func(c *x509.CertificateRequest) { c.DNSNames = []string{"APP.example"} },
			cmp.BodyKUR},
		{"another name", func(c *x509.CertificateRequest) { c.DNSNames = []string{"other.example"} }, cmp.BodyCR},
		{"a name more", func(c *x509.CertificateRequest) { c.DNSNames = append(c.DNSNames, "b") }, cmp.BodyCR},
		{"no name", func(c *x509.CertificateRequest) { c.DNSNames = nil }, cmp.BodyCR},
		{"another kind", func(c *x509.CertificateRequest) {
			c.EmailAddresses,
				c.DNSNames = c.DNSNames, nil
		}, cmp.BodyCR},
		{"another subject", func(c *x509.CertificateRequest) { c.Subject = pkix.Name{CommonName: "other"} },
			cmp.BodyCR},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := newCMPServer(t)
			a := s.authority(func(server *Server) { server.TrustAnchors = []*x509.Certificate{s.ca.Root} })
			r := s.updateRequest(row.change)

			issued, err := a.Update(t.Context(), r)

			require.NoError(t, err)
			assert.True(t, pki.SameKey(r.CSR.PublicKey, issued.Chain[0].PublicKey))
			assert.Equal(t, []cmp.BodyType{row.want}, s.kinds())
			if row.want == cmp.BodyKUR {
				assert.NoError(t, cmp.VerifySignature(s.received[0], r.OldKey.Public()))
				assert.Equal(t, [][]byte{r.OldCert.Raw, s.ca.Issuing.Raw}, s.received[0].ExtraCerts)
				return
			}
			_, err = cmp.NewMACKeys([]byte(testIAK)).Verify(s.received[0])
			assert.NoError(t, err)
		})
	}
}

const callFailed = "Exception occurred during call to cmp client: "

func TestCMPAuthority_failure_reachesTheClientWithItsReason(t *testing.T) {
	development, err := devca.New(devca.Config{Faults: devca.Faults{Waiting: 1, CheckAfter: 120}})
	require.NoError(t, err)
	undecided := httptest.NewServer(development)
	defer undecided.Close()
	s := newCMPServer(t)
	newService(t, s.authority(func(s *Server) {
		s.URL, s.IAK, s.RV, s.Timeout = undecided.URL, devca.DefaultSecret, devca.DefaultReference, time.Minute
	}), nil).enroll().is(500, callFailed+`CA has not decided in time: waiting: "this wait was ordered as a fault `+
		`(asked to check again after 120 s)"; raise REQUEST_TIMEOUT, and the timeout of this CA `+
		`in cmpServers.json where it has one`)

	s.http = http.StatusServiceUnavailable
	r := newService(t, s.authority(nil), nil).enroll()
	assert.Contains(t, r.text, callFailed+`sending CMP request: HTTP status 503: `)
	assert.Equal(t, "90", r.Header.Get("Retry-After"), "a busy CA is not asked again at once")
}

func TestCMPAuthority_wrongSecret_isRefusedAndNotShown(t *testing.T) {
	s := newCMPServer(t)
	service := newService(t, s.authority(func(server *Server) { server.IAK = "another-secret" }), nil)
	r := service.enroll()
	r.is(500)
	service.audit()
	for _, text := range []string{r.text, s.log.String(), service.log.String()} {
		assert.NotContains(t, text, "another-secret")
		assert.NotContains(t, text, testRV)
	}
}

func TestCMPAuthority_signedAnswer_isTrustedAsConfigured(t *testing.T) {
	const refused = "the CA signs its answers and cmpServers.json has no trustAnchors for it"
	for name, row := range map[string]struct {
		trust       string
		anchors, ok bool
	}{
		"without anchors": {},
		"with anchors":    {TrustAnchored, true, true},
		"as ONAP did":     {TrustONAP, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newCMPServer(t)
			s.signer = s.identity()
			a := s.authority(func(server *Server) {
				server.ResponseTrust = row.trust
				if row.anchors {
					server.TrustAnchors = []*x509.Certificate{s.ca.Root}
				}
			})
			enrolled, enrollErr := a.Enroll(t.Context(), enrollRequest(t))
			updated, updateErr := a.Update(t.Context(), s.updateRequest(nil))
			if row.ok {
				require.NoError(t, enrollErr)
				require.NoError(t, updateErr)
				assert.Equal(t, []*x509.Certificate{s.ca.Root}, enrolled.Trusted)
				assert.Equal(t, []*x509.Certificate{s.ca.Root}, updated.Trusted)
			} else {
				assert.ErrorContains(t, enrollErr, refused)
				assert.ErrorContains(t, updateErr, refused)
			}
			assert.Equal(t, row.trust == TrustONAP, s.log.has("CMP answer accepted as the ONAP server did"))
			assert.Equal(t, row.trust == "", s.log.has("its signed answers will be refused"))
		})
	}
}

func TestCMPAuthority_certificateWithOtherNames_isAcceptedOnlyAsConfigured(t *testing.T) {
	const warning = "the certificate has another subject or other names than requested"
	s := newCMPServer(t)
	s.ca.Change = func(leaf *x509.Certificate) { leaf.RawSubject = s.ca.Root.RawSubject }
	enroll := func(change func(*Server)) error {
		_, err := s.authority(change).Enroll(t.Context(), enrollRequest(t))
		return err
	}
	err := enroll(nil)
	assert.ErrorContains(t, err, "checking subject of the CMP answer")
	var failure *FailedError
	require.ErrorAs(t, err, &failure)
	assert.Equal(t, ReasonNames, failure.Reason, "another attempt costs another certificate")
	require.NoError(t, enroll(func(server *Server) { server.ResponseTrust = TrustONAP }))
	assert.True(t, s.log.has(warning))
	require.NoError(t, enroll(func(server *Server) { server.AllowModified = true }))
	assert.False(t, s.log.has(warning), "the operator allowed it")

	s.ca.Change = func(leaf *x509.Certificate) {
		leaf.ExtraExtensions, leaf.DNSNames = nil, []string{"replica-2.example.org"}
	}
	r := newService(t, s.authority(nil), nil).enroll()
	assert.Contains(t, r.text, "checking subjectAltName of the CMP answer")
	assert.Contains(t, r.text, `"reason":"unexpectedNames"`)
}

func TestCMPBuilder_options(t *testing.T) {
	s, log := newCMPServer(t), &lockedBuffer{}
	s.signer = s.identity()
	options := CMPOptions{ResponseTrust: TrustONAP, RequestTimeout: time.Minute,
		Log: slog.New(slog.NewJSONHandler(log, nil))}
	build := func(server Server) error {
		a, err := CMPBuilder(options)(server)
		require.NoError(t, err)
		_, err = a.Enroll(t.Context(), enrollRequest(t))
		return err
	}
	server := s.entry()
	server.Timeout = time.Minute
	assert.NoError(t, build(server), "RESPONSE_TRUST is for servers without one")
	assert.False(t, log.has("is longer than REQUEST_TIMEOUT"))
	server.Timeout++
	assert.NoError(t, build(server))
	assert.True(t, log.has("is longer than REQUEST_TIMEOUT"))
	server.ResponseTrust, server.TrustAnchors = TrustAnchored, []*x509.Certificate{newCA(t, "Other").Root}
	assert.Error(t, build(server))
}

// A proxy would see the proofs of possession and could answer instead of the CA; the ONAP server used none either.
func TestCMPBuilder_proxyOfTheEnvironment_isNotUsed(t *testing.T) {
	if os.Getenv("HTTP_PROXY") != "http://127.0.0.1:1" { // read once per process, so the test needs its own
		command := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.count=1")
		command.Env = append(os.Environ(), "HTTP_PROXY=http://127.0.0.1:1",
			"http_proxy=http://127.0.0.1:1", "NO_PROXY=", "no_proxy=")
		out, err := command.CombinedOutput()
		require.NoError(t, err, string(out))
		return
	}
	s := newCMPServer(t)
	// Go uses no proxy for a loopback address, and 0.0.0.0 is not one by its number.
	a := s.authority(func(server *Server) { server.URL = strings.Replace(s.url, "127.0.0.1", "0.0.0.0", 1) })
	_, err := a.Enroll(t.Context(), enrollRequest(t))
	assert.NoError(t, err)
}

func TestCMPAuthority_namesAndConfirmation_areAsConfigured(t *testing.T) {
	s := newCMPServer(t)
	a := s.authority(func(server *Server) {
		server.RecipientDN, server.SenderReference, server.ExplicitConfirm = "CN=front", true, true
	})
	// After an answer the certificate may be issued, so that a failed confirmation is not another request.
	_, err := a.Enroll(t.Context(), enrollRequest(t))
	require.Error(t, err)
	assert.Equal(t, []cmp.BodyType{cmp.BodyIR, cmp.BodyCertConf}, s.kinds())

	s.confirms, s.received = true, nil
	_, err = a.Enroll(t.Context(), enrollRequest(t))
	require.NoError(t, err)
	require.Equal(t, []cmp.BodyType{cmp.BodyIR, cmp.BodyCertConf}, s.kinds())
	header := s.received[0].Header
	assert.Equal(t, "CN=front", header.Recipient.String())
	assert.Equal(t, "CN="+testRV, header.Sender.String())
	assert.False(t, header.ImplicitConfirm())
	issuer, err := cmp.ParseDN("CN=peer")
	require.NoError(t, err)
	assert.Equal(t, issuer, s.template(0).Issuer)
}

// An RA signs with a certificate of its own, which is renewed without a change of the configuration.
func TestCMPAuthority_signerDN_namesTheSigner(t *testing.T) {
	s := newCMPServer(t)
	s.ca.Change = func(leaf *x509.Certificate) {
		// id-kp-cmcRA
		leaf.ExtKeyUsage, leaf.UnknownExtKeyUsage = nil, []asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 28}}
	}
	s.signer = s.identity() // CN=peer
	s.ca.Change = nil
	for _, signerDN := range []string{"CN=peer", "", "CN=RA"} {
		_, err := s.authority(func(server *Server) {
			server.IssuerDN, server.SignerDN = "CN=Issuing CA", signerDN
			server.TrustAnchors, server.ResponseTrust = []*x509.Certificate{s.ca.Root}, TrustAnchored
		}).Enroll(t.Context(), enrollRequest(t))
		if signerDN == "CN=peer" {
			assert.NoError(t, err)
		} else {
			assert.ErrorContains(t, err, `checking signer of the CMP answer: has "CN=peer"`)
		}
	}
}

func TestCMPAuthority_noAnswer_namesTheLimitAndWhatToRaise(t *testing.T) {
	release := make(chan struct{})
	silent := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	t.Cleanup(silent.Close)
	t.Cleanup(func() { close(release) })
	s := newCMPServer(t)
	for want, row := range map[string]struct{ timeout, request time.Duration }{
		"within 20ms; raise the timeout of this CA in cmpServers.json": {20 * time.Millisecond, time.Hour},
		"within the time of one request; raise REQUEST_TIMEOUT":        {time.Hour, 20 * time.Millisecond},
	} {
		a := s.authority(func(server *Server) { server.URL, server.Timeout = silent.URL, row.timeout })
		service := newService(t, a, func(cfg *HandlerConfig) { cfg.Timeout = row.request })
		want = "no answer from the CMP server " + want
		service.enroll().is(500, callFailed+want)
		assert.Contains(t, service.audit()["error"], want+": sending CMP request: ")
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.authority(func(server *Server) { server.URL = silent.URL }).Enroll(gone, enrollRequest(t))
	assert.EqualError(t, err, "the client disconnected before the CMP server answered")
}

// stalling answers nothing until the request is cancelled.
type stalling struct{}

func (stalling) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// A timeout beyond the client's own default for one message must extend that, too.
func TestCMPAuthority_timeout_isAlsoThatOfOneMessage(t *testing.T) {
	for timeout, want := range map[time.Duration]string{0: "30s", 5 * time.Second: "5s", 45 * time.Second: "45s"} {
		synctest.Test(t, func(t *testing.T) {
			server := (&cmpServer{url: "http://ca.example"}).entry()
			server.Timeout = timeout
			client := &http.Client{Transport: stalling{}}
			a, err := newCMPAuthority(server, client, newLearnedStore(), nil, slog.New(slog.DiscardHandler))
			require.NoError(t, err)
			start := time.Now()
			_, err = a.Enroll(t.Context(), enrollRequest(t))
			assert.EqualError(t, err, "no answer from the CMP server within "+want+
				"; raise the timeout of this CA in cmpServers.json")
			assert.Equal(t, want, time.Since(start).String())
		})
	}
}

// Addresses are for the log only.
func TestCMPAuthority_serverThatCannotBeUsed_isExplained(t *testing.T) {
	const unreachable, more = "the CMP server could not be reached", "; the log of the CertService has more"
	page := golden(t, "ejbca/unknown-alias.response.html")
	absent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html;charset=UTF-8")
		w.WriteHeader(http.StatusNotFound)
		_, _ = w.Write(page)
	}))
	defer absent.Close()
	mail := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		connection, _, err := w.(http.Hijacker).Hijack()
		if assert.NoError(t, err) {
			_, _ = io.WriteString(connection, "220 mail.example ready\r\n")
			connection.Close()
		}
	}))
	defer mail.Close()
	for _, row := range []struct{ url, want, logged string }{
		{"http://" + fixture.FreeAddress(t), unreachable + ": connection refused" + more, "connection refused"},
		{mail.URL, unreachable + more, "malformed HTTP"},
		{absent.URL, `CMP alias 'nosuch' does not exist`, `CMP alias 'nosuch' does not exist`},
	} {
		url := row.url + "/internal/path"
		service := newService(t, newCMPServer(t).authority(func(server *Server) { server.URL = url }), nil)
		r := service.enroll()
		assert.Contains(t, r.text, row.want)
		assert.NotContains(t, r.text, row.url)
		assert.Contains(t, service.audit()["error"], row.logged)
		assert.Contains(t, service.audit()["error"], url)
	}
}

// configuration is for a cmpServers.json as ONAP has it: without trustAnchors.
func (s *cmpServer) configuration(iak string) (c *Configuration, path string) {
	text := fileOf(strings.NewReplacer("http://ca", s.url, "CN=ca", "CN=peer", "very-secret-iak",
		iak, "very-secret-rv", testRV).
		Replace(entryText("RA")))
	c, path, s.log = newConfiguration(s.t, text)
	c.build = CMPBuilder(CMPOptions{Log: c.log})
	require.NoError(s.t, c.Reload("start"))
	return c, path
}

// update sends an update that changes nothing.
func (s *cmpServer) update(c *Configuration) error {
	s.t.Helper()
	a, _, ok := c.Lookup("RA")
	require.True(s.t, ok)
	issued, err := a.Update(s.t.Context(), s.updateRequest(nil))
	if err == nil {
		assert.Equal(s.t, []*x509.Certificate{s.ca.Root}, issued.Trusted[:1])
	}
	return err
}

const asCertificationRequest = "update sent as a certification request under the shared secret"

// newEJBCA answers as EJBCA does with responseprotection=pbe: by MAC to requests under a MAC, and signed to key
// updates.
func newEJBCA(t *testing.T) *cmpServer {
	s := newCMPServer(t)
	s.updates = s.identity()
	return s
}

func TestCMPAuthority_updateWithoutAnchors_isVerifiedWithTheRootThatTheCASent(t *testing.T) {
	s := newEJBCA(t)
	c, _ := s.configuration(testIAK)
	serviceOf(t, c).enroll().is(200)
	require.NoError(t, s.update(c))
	assert.Equal(t, []cmp.BodyType{cmp.BodyIR, cmp.BodyKUR}, s.kinds())
	assert.False(t, s.log.has(asCertificationRequest))
}

func TestCMPAuthority_learnedRoots(t *testing.T) {
	s := newEJBCA(t)
	c, path := s.configuration(testIAK)
	require.NoError(t, s.update(c))
	assert.True(t, s.log.has(asCertificationRequest), "no root is known")
	_, err := cmp.NewMACKeys([]byte(testIAK)).Verify(s.received[0])
	assert.NoError(t, err)
	require.NoError(t, s.update(c), "the first answer brought the root")
	require.NoError(t, c.Reload("request"))
	require.NoError(t, s.update(c), "a reload keeps it")
	own, stranger := s.updates, identity(t, newCA(t, "CMP"))
	s.updates = &stranger
	assert.ErrorContains(t, s.update(c), "which does not verify")
	s.updates = own
	require.NoError(t, s.update(c), "a CA with a new root is asked under the secret, which brings it")
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	writeFile(t, path, []byte(strings.Replace(string(text), testIAK, "another-secret", 1)))
	require.NoError(t, c.Reload("request"))
	assert.Error(t, s.update(c), "another secret may be another CA's")
	ir, kur := cmp.BodyCR, cmp.BodyKUR
	assert.Equal(t, []cmp.BodyType{ir, kur, kur, kur, ir, ir}, s.kinds())

	s = newEJBCA(t)
	s.caPubs = []*x509.Certificate{s.ca.Issuing, s.ca.Root}[:1] // the root is in extraCerts
	c, _ = s.configuration(testIAK)
	a, _, _ := c.Lookup("RA")
	for range 2 {
		_, err := a.Update(t.Context(), s.updateRequest(nil))
		require.NoError(t, err)
	}
	assert.Equal(t, []cmp.BodyType{ir, ir}, s.kinds(), "only self-signed certificates from caPubs are roots")
}

func TestLearned_isBoundedAndEndsWithTheRootsValidity(t *testing.T) {
	root, roots := newCA(t, "Root").Root, make([]*x509.Certificate, maxLearnedRoots+1)
	for i := range roots {
		roots[i] = root
	}
	store := newLearnedStore()
	for i := range 3 * maxLearned {
		store.of(Server{URL: time.Duration(i).String()}).learn(roots)
	}
	assert.LessOrEqual(t, len(store.byKey), maxLearned)
	last := store.of(Server{URL: time.Duration(3*maxLearned - 1).String()})
	assert.Len(t, last.trusted(time.Now()), maxLearnedRoots)
	assert.Empty(t, last.trusted(root.NotAfter.Add(time.Second)))
}

func TestCMPAuthority_trustAnchors_areNotAddedTo(t *testing.T) {
	s := newEJBCA(t)
	a := s.authority(func(server *Server) { server.TrustAnchors = []*x509.Certificate{newCA(t, "Other").Root} })
	_, err := a.Enroll(t.Context(), enrollRequest(t))
	require.NoError(t, err, "a MAC authenticates the root")
	_, err = a.Update(t.Context(), s.updateRequest(nil))
	assert.ErrorContains(t, err, "which does not verify")
	assert.Equal(t, []cmp.BodyType{cmp.BodyIR, cmp.BodyKUR}, s.kinds())
}

func TestCMPAuthority_caThatSignsWithoutAnchors_isNotAskedAgainForAWhile(t *testing.T) {
	s := newCMPServer(t)
	s.signer = s.identity()
	a := s.authority(nil)
	now := time.Now()
	a.(*cmpAuthority).now = func() time.Time { return now }
	service := newService(t, a, nil)
	for range 3 {
		service.enroll().is(500, callFailed+"the CA signs its answers and cmpServers.json has no trustAnchors for it: "+
			"set trustAnchors to its root, or have it protect its answers with the shared secret")
		_, err := a.Update(t.Context(), s.updateRequest(nil))
		assert.ErrorContains(t, err, "has no trustAnchors for it")
	}
	assert.Equal(t, []cmp.BodyType{cmp.BodyIR}, s.kinds(), "nothing was sent once it was known")
	assert.False(t, s.log.has(asCertificationRequest), "it was not sent")

	now = now.Add(signsFor)
	s.signer = nil
	service.enroll().is(200) // its configuration was changed
}

func TestCMPAuthority_serverThatFails_isAskedOnceMore(t *testing.T) {
	for failures, want := range map[int]int{1: http.StatusOK, 2: http.StatusInternalServerError} {
		s := newCMPServer(t)
		s.failures = failures
		newService(t, s.authority(nil), nil).enroll().is(want)
		require.Len(t, s.received, 2)
		assert.NotEqual(t, s.received[0].Header.TransactionID, s.received[1].Header.TransactionID)
		assert.True(t, s.log.has("the CMP server failed, sending the request once more"))
	}
}
