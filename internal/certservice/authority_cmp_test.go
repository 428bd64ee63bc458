package certservice

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/internal/devca"
	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/test/ca"
)

const testIAK, testRV = "initial-authentication-key", "reference-value"

// cmpServer is a CMPv2 server that grants everything, unless told otherwise.
type cmpServer struct {
	t        *testing.T
	ca       *ca.CA
	signer   *tls.Certificate   // signs the answers; nil: they are protected by MAC
	status   *cmp.PKIStatusInfo // instead of granting
	updates  *tls.Certificate   // signs the answers to key updates, which then bring no caPubs, as EJBCA does; nil: as others
	caPubs   []*x509.Certificate
	http     int  // HTTP status without a CMP message; 0: none
	failures int  // how many of the next messages are answered by status 500 in HTML
	confirms bool // certConf is answered, and not failed at
	received []*cmp.PKIMessage
	url      string
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
	if !assert.NoError(s.t, err) {
		return
	}
	request, err := cmp.ParsePKIMessage(der)
	if !assert.NoError(s.t, err) {
		return
	}
	s.received = append(s.received, request)
	if s.failures > 0 || request.Body.Type == cmp.BodyCertConf && !s.confirms {
		s.failures--
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = io.WriteString(w, "<html><body>Transaction rolled back</body></html>")
		return
	}
	answer, err := s.answer(request)
	if !assert.NoError(s.t, err) {
		return
	}
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
	response := cmp.CertResponse{}
	if s.status != nil {
		response.Status = *s.status
	} else {
		leaf, err := s.issue(request.Body.Content.(cmp.CertReqMessages)[0].CertReq.CertTemplate)
		if err != nil {
			return nil, err
		}
		response.CertifiedKeyPair = &cmp.CertifiedKeyPair{Certificate: leaf}
	}
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
		SerialNumber: big.NewInt(time.Now().UnixNano()), RawSubject: template.Subject, ExtraExtensions: template.Extensions,
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
	}
	if s.ca.Change != nil {
		s.ca.Change(leaf)
	}
	return x509.CreateCertificate(rand.Reader, leaf, s.ca.Issuing, key, s.ca.IssuingKey)
}

// authority returns the authority for the server, with the log it writes.
func (s *cmpServer) authority(change func(*Server)) (Authority, *lockedBuffer) {
	s.t.Helper()
	server := Server{CAName: "RA", URL: s.url, IssuerDN: "CN=peer", IAK: testIAK, RV: testRV, Protection: ProtectionPBMSHA256}
	if change != nil {
		change(&server)
	}
	log := &lockedBuffer{}
	a, err := CMPBuilder(CMPOptions{Log: slog.New(slog.NewJSONHandler(log, nil))})(server)
	require.NoError(s.t, err)
	return a, log
}

func enrollRequest(t *testing.T) Request {
	t.Helper()
	r, fault := parseRequest(enrollHeader(t), false, DefaultMaxRSABits)
	require.Nil(t, fault)
	return r
}

// updateRequest renews what the server issues for the CSR, or with a change something else.
func (s *cmpServer) updateRequest(change func(*x509.CertificateRequest)) Request {
	s.t.Helper()
	r := enrollRequest(s.t)
	old := *r.CSR
	if change != nil {
		change(&old)
	}
	key := newKey(s.t)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: old.Subject, DNSNames: old.DNSNames}, key)
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
	a, _ := s.authority(nil)
	r := enrollRequest(t)

	issued, err := a.Enroll(t.Context(), r)

	require.NoError(t, err)
	require.Len(t, issued.Chain, 2)
	assert.True(t, pki.SameKey(r.CSR.PublicKey, issued.Chain[0].PublicKey))
	assert.Equal(t, s.ca.Issuing, issued.Chain[1])
	assert.Equal(t, []*x509.Certificate{s.ca.Root}, issued.Trusted)
	require.Len(t, s.received, 1, "implicit confirmation was asked for and granted")
	assert.Equal(t, cmp.BodyIR, s.received[0].Body.Type)
	assert.Equal(t, []byte(testRV), s.received[0].Header.SenderKID)
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
		{"the same names in another case", func(c *x509.CertificateRequest) { c.DNSNames = []string{"APP.example"} }, cmp.BodyKUR},
		{"another name", func(c *x509.CertificateRequest) { c.DNSNames = []string{"other.example"} }, cmp.BodyCR},
		{"another subject", func(c *x509.CertificateRequest) { c.Subject = pkix.Name{CommonName: "other"} }, cmp.BodyCR},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := newCMPServer(t)
			a, _ := s.authority(func(server *Server) { server.TrustAnchors = []*x509.Certificate{s.ca.Root} })
			r := s.updateRequest(row.change)

			issued, err := a.Update(t.Context(), r)

			require.NoError(t, err)
			assert.True(t, pki.SameKey(r.CSR.PublicKey, issued.Chain[0].PublicKey))
			assert.Equal(t, row.want, s.received[0].Body.Type)
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

func TestCMPAuthority_refusal_reachesTheClientInTheServersWords(t *testing.T) {
	s := newCMPServer(t)
	refusal := cmp.Rejection("wrong subject", cmp.FailBadRequest)
	s.status = &refusal
	authority, _ := s.authority(nil)
	service := newService(t, authority, nil)

	r := service.get(t, "/v1/certificate/RA", enrollHeader(t))

	assert.Equal(t, http.StatusInternalServerError, r.StatusCode)
	assert.JSONEq(t, `{"errorMessage":"CMPv2 server returned following error: wrong subject (badRequest)"}`, r.text)
	assert.Equal(t, `CA refused: rejection, badRequest: "wrong subject"`, service.audit(t)["reason"])
}

func TestCMPAuthority_waitingTooLong_isAFailureAndNoRefusal(t *testing.T) {
	development, err := devca.New(devca.Config{Faults: devca.Faults{Waiting: 1, CheckAfter: 120}})
	require.NoError(t, err)
	server := httptest.NewServer(development)
	defer server.Close()
	s := newCMPServer(t)
	authority, _ := s.authority(func(s *Server) {
		s.URL, s.IAK, s.RV, s.Timeout = server.URL, devca.DefaultSecret, devca.DefaultReference, time.Minute
	})
	service := newService(t, authority, nil)

	r := service.get(t, "/v1/certificate/RA", enrollHeader(t))

	assert.JSONEq(t, `{"errorMessage":"Exception occurred during call to cmp client: CA has not decided in time: waiting: \"this wait was ordered as a fault `+
		`(asked to check again after 120 s)\"; raise REQUEST_TIMEOUT, and the timeout of this CA in cmpServers.json where it has one"}`, r.text)
}

func TestCMPAuthority_failure_reachesTheClientWithItsReason(t *testing.T) {
	s := newCMPServer(t)
	s.http = http.StatusServiceUnavailable
	authority, _ := s.authority(nil)
	service := newService(t, authority, nil)

	r := service.get(t, "/v1/certificate/RA", enrollHeader(t))

	assert.Equal(t, http.StatusInternalServerError, r.StatusCode)
	assert.Contains(t, r.text, `"Exception occurred during call to cmp client: sending CMP request: HTTP status 503: `)
	assert.Equal(t, "90", r.Header.Get("Retry-After"), "a CA that is busy is not hammered")
}

func TestCMPAuthority_wrongSecret_isRefusedAndNotShown(t *testing.T) {
	s := newCMPServer(t)
	authority, log := s.authority(func(server *Server) { server.IAK = "another-secret" })
	service := newService(t, authority, nil)

	r := service.get(t, "/v1/certificate/RA", enrollHeader(t))

	assert.Equal(t, http.StatusInternalServerError, r.StatusCode)
	service.audit(t)
	for _, text := range []string{r.text, string(log.bytes()), string(service.log.bytes())} {
		assert.NotContains(t, text, "another-secret")
		assert.NotContains(t, text, testRV)
	}
}

func TestCMPAuthority_signedAnswer_isTrustedAsConfigured(t *testing.T) {
	for _, row := range []struct {
		name    string
		trust   string
		anchors bool
		ok      bool
		warns   bool
	}{
		{"without anchors", "", false, false, false},
		{"with anchors", TrustAnchored, true, true, false},
		{"as ONAP did", TrustONAP, false, true, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := newCMPServer(t)
			signer := identity(t, s.ca)
			s.signer = &signer
			a, log := s.authority(func(server *Server) {
				server.ResponseTrust = row.trust
				if row.anchors {
					server.TrustAnchors = []*x509.Certificate{s.ca.Root}
				}
			})

			for _, call := range []func() (Issued, error){
				func() (Issued, error) { return a.Enroll(t.Context(), enrollRequest(t)) },
				func() (Issued, error) { return a.Update(t.Context(), s.updateRequest(nil)) },
			} {
				issued, err := call()
				if row.ok {
					require.NoError(t, err)
					assert.Equal(t, []*x509.Certificate{s.ca.Root}, issued.Trusted)
				} else {
					assert.ErrorContains(t, err, "the CA signs its answers and cmpServers.json has no trustAnchors for it")
				}
			}
			assert.Equal(t, row.warns, containsText(log, "CMP answer accepted as the ONAP server did"))
			assert.Equal(t, row.name == "without anchors", containsText(log, "its signed answers will be refused"))
		})
	}
}

func TestCMPAuthority_certificateWithOtherNames_isTakenOnlyAsONAPDid(t *testing.T) {
	s := newCMPServer(t)
	s.ca.Change = func(leaf *x509.Certificate) { leaf.RawSubject = s.ca.Root.RawSubject }
	strict, _ := s.authority(nil)
	lax, log := s.authority(func(server *Server) { server.ResponseTrust = TrustONAP })

	_, err := strict.Enroll(t.Context(), enrollRequest(t))
	assert.ErrorContains(t, err, "checking subject of the CMP answer")
	var names *NamesError
	assert.ErrorAs(t, err, &names, "a client must know that another try costs another certificate")
	_, err = lax.Enroll(t.Context(), enrollRequest(t))
	assert.NoError(t, err)
	assert.True(t, containsText(log, "the certificate has another subject or other names than asked for"))

	allowed, log := s.authority(func(server *Server) { server.AllowModified = true })
	_, err = allowed.Enroll(t.Context(), enrollRequest(t))
	require.NoError(t, err)
	assert.False(t, containsText(log, "other names than asked for"), "the operator said so")
}

func TestCMPAuthority_certificateWithoutTheNames_isToldApart(t *testing.T) {
	s := newCMPServer(t)
	s.ca.Change = func(leaf *x509.Certificate) {
		leaf.ExtraExtensions, leaf.DNSNames = nil, []string{"replica-2.example.org"}
	}
	a, _ := s.authority(nil)
	service := newService(t, a, nil)
	r := service.get(t, "/v1/certificate/RA", enrollHeader(t))
	assert.Equal(t, http.StatusInternalServerError, r.StatusCode)
	assert.Contains(t, r.text, "checking subjectAltName of the CMP answer")
	assert.Contains(t, r.text, `"reason":"unexpectedNames"`)
}

func TestCMPBuilder_responseTrust_isForServersThatSayNothing(t *testing.T) {
	s := newCMPServer(t)
	signer := identity(t, s.ca)
	s.signer = &signer
	build := CMPBuilder(CMPOptions{ResponseTrust: TrustONAP, Log: slog.New(slog.DiscardHandler)})
	server := Server{CAName: "RA", URL: s.url, IssuerDN: "CN=peer", IAK: testIAK, RV: testRV, Protection: ProtectionPBMSHA256}

	silent, err := build(server)
	require.NoError(t, err)
	_, err = silent.Enroll(t.Context(), enrollRequest(t))
	assert.NoError(t, err)

	server.ResponseTrust, server.TrustAnchors = TrustAnchored, []*x509.Certificate{newCA(t, "Other").Root}
	anchored, err := build(server)
	require.NoError(t, err)
	_, err = anchored.Enroll(t.Context(), enrollRequest(t))
	assert.Error(t, err)
}

func TestCMPBuilder_timeoutBeyondTheRequests_isWarnedOf(t *testing.T) {
	server := Server{CAName: "RA", URL: "http://ca", IssuerDN: "CN=peer", IAK: testIAK, RV: testRV, Protection: ProtectionPBMSHA256}
	for timeout, warned := range map[time.Duration]bool{0: false, time.Minute: false, time.Minute + time.Second: true} {
		log := &lockedBuffer{}
		server.Timeout = timeout
		_, err := CMPBuilder(CMPOptions{RequestTimeout: time.Minute, Log: slog.New(slog.NewJSONHandler(log, nil))})(server)
		require.NoError(t, err)
		assert.Equal(t, warned, containsText(log, "is longer than REQUEST_TIMEOUT"), timeout)
	}
}

// A proxy would see private keys' proofs and could answer instead of the CA; the ONAP server used none either.
func TestCMPBuilder_proxyOfTheEnvironment_isNotUsed(t *testing.T) {
	if os.Getenv("HTTP_PROXY") != "http://127.0.0.1:1" { // read once per process, so the test needs one of its own
		command := exec.Command(os.Args[0], "-test.run=^TestCMPBuilder_proxyOfTheEnvironment_isNotUsed$", "-test.count=1")
		command.Env = append(os.Environ(), "HTTP_PROXY=http://127.0.0.1:1", "http_proxy=http://127.0.0.1:1", "NO_PROXY=", "no_proxy=")
		out, err := command.CombinedOutput()
		require.NoError(t, err, string(out))
		return
	}
	s := newCMPServer(t)
	// Go sends nothing for a loopback address to a proxy, and 0.0.0.0 is none by its number.
	a, _ := s.authority(func(server *Server) { server.URL = strings.Replace(s.url, "127.0.0.1", "0.0.0.0", 1) })

	_, err := a.Enroll(t.Context(), enrollRequest(t))

	assert.NoError(t, err)
}

func TestCMPAuthority_namesAndConfirmation_areAsConfigured(t *testing.T) {
	s := newCMPServer(t)
	s.confirms = true
	a, _ := s.authority(func(server *Server) {
		server.RecipientDN, server.SenderReference, server.ExplicitConfirm = "CN=front", true, true
	})

	_, err := a.Enroll(t.Context(), enrollRequest(t))

	require.NoError(t, err)
	require.Equal(t, []cmp.BodyType{cmp.BodyIR, cmp.BodyCertConf}, s.kinds())
	ir := s.received[0]
	assert.Equal(t, "CN=front", ir.Header.Recipient.String())
	assert.Equal(t, "CN="+testRV, ir.Header.Sender.String())
	assert.False(t, ir.Header.ImplicitConfirm())
	issuer, err := cmp.ParseDN("CN=peer")
	require.NoError(t, err)
	assert.Equal(t, issuer, ir.Body.Content.(cmp.CertReqMessages)[0].CertReq.CertTemplate.Issuer)
}

// An RA signs with a certificate of its own, which is renewed without a change of the configuration.
func TestCMPAuthority_signerDN_namesWhoSigns(t *testing.T) {
	s := newCMPServer(t)
	s.ca.Change = func(leaf *x509.Certificate) {
		leaf.ExtKeyUsage, leaf.UnknownExtKeyUsage = nil, []asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 28}} // id-kp-cmcRA
	}
	signer := identity(t, s.ca) // CN=peer
	s.ca.Change = nil
	s.signer = &signer
	for signerDN, want := range map[string]string{"CN=peer": "", "": `checking signer of the CMP answer: has "CN=peer"`, "CN=RA": `checking signer of the CMP answer: has "CN=peer"`} {
		a, _ := s.authority(func(server *Server) {
			server.IssuerDN, server.SignerDN = "CN=Issuing CA", signerDN
			server.TrustAnchors, server.ResponseTrust = []*x509.Certificate{s.ca.Root}, TrustAnchored
		})

		_, err := a.Enroll(t.Context(), enrollRequest(t))

		if want == "" {
			assert.NoError(t, err)
		} else {
			assert.ErrorContains(t, err, want)
		}
	}
}

func TestCMPAuthority_goldenEnrolment_goesThrough(t *testing.T) {
	s := newCMPServer(t)
	authority, _ := s.authority(nil)
	service := newService(t, authority, nil)
	path, header := goldenRequest(t, "enroll.request.json")

	r := service.get(t, path, header)

	assert.Equal(t, http.StatusOK, r.StatusCode)
	block, _ := pem.Decode(golden(t, "pem/csr.pem"))
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	require.NoError(t, err)
	template := s.received[0].Body.Content.(cmp.CertReqMessages)[0].CertReq.CertTemplate
	assert.Equal(t, csr.RawSubject, template.Subject)
	assert.Equal(t, csr.RawSubjectPublicKeyInfo, template.PublicKey)
}

func containsText(log *lockedBuffer, text string) bool {
	return bytes.Contains(log.bytes(), []byte(text))
}
