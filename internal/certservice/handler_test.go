package certservice

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/pki"
)

func TestHandler_enroll_answersTheGoldenRequest(t *testing.T) {
	s := newService(t, goldenAuthority(t), nil)
	path, header := goldenRequest(t, "enroll.request.json")

	r := s.get(t, path, header)

	assert.Equal(t, http.StatusOK, r.StatusCode)
	assert.Equal(t, "application/json", r.Header.Get("Content-Type"))
	assert.Equal(t, 1, r.ProtoMajor)
	assert.JSONEq(t, string(golden(t, "wire/answer-200.json")), r.text)
}

func TestHandler_update_answersTheGoldenRequest(t *testing.T) {
	var got Request
	s := newService(t, funcAuthority(func(ctx context.Context, r Request) (Issued, error) {
		got = r
		return goldenAuthority(t).Update(ctx, r)
	}), nil)
	path, header := goldenRequest(t, "update.request.json")

	r := s.get(t, path, header)

	assert.Equal(t, http.StatusOK, r.StatusCode)
	assert.JSONEq(t, string(golden(t, "wire/answer-200.json")), r.text)
	assert.Equal(t, goldenCert(t, "old-certificate.pem"), got.OldCert)
	assert.True(t, pki.SameKey(got.OldCert.PublicKey, got.OldKey.Public()))
	assert.True(t, pki.SameKey(got.CSR.PublicKey, got.Key.Public()))
}

func TestHandler_enroll_returnsWhatTheAuthoritySigned(t *testing.T) {
	signer := newCA(t, "Signing")
	s := newService(t, signing(signer), nil)

	r := s.get(t, "/v1/certificate/RA", enrollHeader(t))

	require.Equal(t, http.StatusOK, r.StatusCode)
	var body struct{ CertificateChain, TrustedCertificates []string }
	require.NoError(t, json.Unmarshal([]byte(r.text), &body))
	assert.Len(t, body.CertificateChain, 2)
	assert.Equal(t, pemTexts([]*x509.Certificate{signer.Root}), body.TrustedCertificates)
}

func TestHandler_certify_answersErrorsAsClientsKnowThem(t *testing.T) {
	refusal := &RefusedError{FailInfo: []string{"badRequest"}, Text: "rejection: badRequest: wrong subject"}
	for _, row := range []struct {
		name    string
		request string
		change  func(path *string, header http.Header)
		err     error // the authority's
		status  int
		answer  string // golden file, or the body itself
	}{
		{"a CSR that is missing", "enroll", func(_ *string, h http.Header) { h.Del("CSR") }, nil, 400, "answer-400-csr.json"},
		{"a CSR that is not Base64", "enroll", func(_ *string, h http.Header) { h.Set("CSR", "?") }, nil, 400, "answer-400-csr.json"},
		{"a key that is missing", "enroll", func(_ *string, h http.Header) { h.Del("PK") }, nil, 400, "answer-400-key.json"},
		{"a key that is not the CSR's", "update", func(_ *string, h http.Header) { h.Set("PK", h.Get("OLD_PK")) }, nil, 400, "answer-400-key.json"},
		{"an old certificate that is missing", "update", func(_ *string, h http.Header) { h.Del("OLD_CERT") }, nil, 400, "answer-400-certificate.json"},
		{"an old key that is missing", "update", func(_ *string, h http.Header) { h.Del("OLD_PK") }, nil, 400, "answer-400-old-key.json"},
		{"an old key that is not the old certificate's", "update", func(_ *string, h http.Header) { h.Set("OLD_PK", h.Get("PK")) }, nil, 400,
			`{"errorMessage":"The key in OLD_PK is not the key of the certificate in OLD_CERT"}`},
		{"an unknown CA", "enroll", func(p *string, _ http.Header) { *p = "/v1/certificate/CLIENT" }, nil, 404, "answer-404.json"},
		{"an unknown CA in an update", "update", func(p *string, _ http.Header) { *p = "/v1/certificate-update/CLIENT" }, nil, 404, "answer-404.json"},
		{"a server that cannot be reached", "enroll", nil, errors.New("connection refused"), 500, "answer-500-cmp-client.json"},
		{"a server that refuses", "update", nil, refusal, 500, "answer-500-cmp-server.json"},
		{"a CA that issues other names", "update", nil, &NamesError{errors.New("has other names")}, 500,
			`{"errorMessage":"Exception occurred during call to cmp client: has other names","reason":"unexpectedNames"}`},
		{"a server that refuses without a word", "enroll", nil, &RefusedError{}, 500, `{"errorMessage":"CMPv2 server returned following error: N/A"}`},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := newService(t, funcAuthority(func(context.Context, Request) (Issued, error) { return Issued{}, row.err }), nil)
			path, header := goldenRequest(t, row.request+".request.json")
			if row.change != nil {
				row.change(&path, header)
			}
			want := row.answer
			if strings.HasSuffix(want, ".json") {
				want = string(golden(t, "wire/"+want))
			}

			r := s.get(t, path, header)

			assert.Equal(t, row.status, r.StatusCode)
			assert.Equal(t, "application/json", r.Header.Get("Content-Type"))
			assert.JSONEq(t, want, r.text)
		})
	}
}

func TestHandler_certify_refusesAnAnswerWithoutACertificate(t *testing.T) {
	s := newService(t, funcAuthority(func(context.Context, Request) (Issued, error) { return Issued{}, nil }), nil)

	r := s.get(t, "/v1/certificate/RA", enrollHeader(t))

	assert.Equal(t, http.StatusInternalServerError, r.StatusCode)
	assert.JSONEq(t, `{"errorMessage":"Exception occurred during call to cmp client: the answer holds no certificate"}`, r.text)
}

func TestHandler_certify_listsNoTrustedCertificatesAsAnEmptyList(t *testing.T) {
	chain, _ := goldenAuthority(t).Enroll(t.Context(), Request{})
	s := newService(t, funcAuthority(func(context.Context, Request) (Issued, error) { return Issued{Chain: chain.Chain}, nil }), nil)

	r := s.get(t, "/v1/certificate/RA", enrollHeader(t))

	assert.Equal(t, http.StatusOK, r.StatusCode)
	assert.Contains(t, r.text, `"trustedCertificates":[]`)
}

func TestHandler_clientCertificate_isAskedForOnEveryPath(t *testing.T) {
	s := newService(t, goldenAuthority(t), nil)
	stranger := newCA(t, "Stranger")
	serverOnly := newCA(t, "unused")
	*serverOnly = *s.tlsCA
	serverOnly.Change = func(leaf *x509.Certificate) { leaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }
	expired := newCA(t, "unused")
	*expired = *s.tlsCA
	expired.Change = func(leaf *x509.Certificate) { leaf.NotAfter = time.Now().Add(-time.Second) }

	paths := []string{"/", "/nowhere", "/v1/certificate/RA", "/v1/certificate-update/RA", "/ready", "/readyz", "/healthz",
		"/actuator/health", "/reload", "/openapi.yaml"}
	for name, client := range map[string]*http.Client{
		"none":                             s.clientWith(t),
		"of another CA":                    s.clientWith(t, identity(t, stranger)),
		"for servers only":                 s.clientWith(t, identity(t, serverOnly)),
		"expired":                          s.clientWith(t, identity(t, expired)),
		"without its intermediate":         s.clientWith(t, leafOnly(identity(t, s.tlsCA))),
		"of another CA, with our CA's too": s.clientWith(t, withChainOf(identity(t, stranger), identity(t, s.tlsCA))),
	} {
		t.Run(name, func(t *testing.T) {
			for _, path := range paths {
				r := s.do(t, client, http.MethodGet, path, nil, nil)
				assert.Equal(t, http.StatusUnauthorized, r.StatusCode, path)
				assert.JSONEq(t, string(golden(t, "wire/answer-401.json")), r.text)
			}
		})
	}
}

func leafOnly(c tls.Certificate) tls.Certificate {
	c.Certificate = c.Certificate[:1]
	return c
}

func withChainOf(c, other tls.Certificate) tls.Certificate {
	c.Certificate = append(c.Certificate[:1:1], other.Certificate...)
	return c
}

func TestHandler_clientCertificate_isVerifiedAgainstTheRootsOfTheMoment(t *testing.T) {
	roots := poolOf()
	s := newService(t, goldenAuthority(t), func(cfg *HandlerConfig) {
		cfg.ClientRoots = func() *x509.CertPool { return roots }
	})

	assert.Equal(t, http.StatusUnauthorized, s.get(t, "/ready", nil).StatusCode)
	roots = poolOf(s.tlsCA.Root)
	assert.Equal(t, http.StatusOK, s.get(t, "/ready", nil).StatusCode, "on the connection kept alive")
	roots = nil
	assert.Equal(t, http.StatusUnauthorized, s.get(t, "/ready", nil).StatusCode, "no roots are not the system's")
}

func TestHandler_clientCertificate_endsWithItsValidity(t *testing.T) {
	now := time.Now()
	s := newService(t, goldenAuthority(t), func(cfg *HandlerConfig) {
		cfg.Now = func() time.Time { return now }
	})

	assert.Equal(t, http.StatusOK, s.get(t, "/ready", nil).StatusCode)
	now = now.Add(25 * time.Hour)
	assert.Equal(t, http.StatusUnauthorized, s.get(t, "/ready", nil).StatusCode, "on the connection kept alive")
}

func TestHandler_methods_allowGetAndHeadWhereNothingHappens(t *testing.T) {
	s := newService(t, funcAuthority(func(context.Context, Request) (Issued, error) {
		t.Error("the authority was asked")
		return Issued{}, nil
	}), nil)
	for _, path := range []string{"/ready", "/readyz", "/healthz", "/actuator/health", "/openapi.yaml", "/ready/", "/actuator/health/"} {
		get := s.get(t, path, nil)
		head := s.do(t, s.client, http.MethodHead, path, nil, nil)
		assert.Equal(t, http.StatusOK, head.StatusCode, path)
		assert.Equal(t, get.Header.Get("Content-Length"), head.Header.Get("Content-Length"))
		assert.Empty(t, head.text)
		s.audit(t)
	}
	assert.NotContains(t, string(s.log.bytes()), "undelivered")
	for _, e := range endpoints {
		path, allow := strings.ReplaceAll(e.path, caNameParameter, "RA"), "GET, HEAD"
		methods := []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions}
		if e.kind == acting {
			methods, allow = append(methods, http.MethodHead), "GET"
		}
		for _, method := range methods {
			r := s.do(t, s.client, method, path, enrollHeader(t), nil)
			assert.Equal(t, http.StatusMethodNotAllowed, r.StatusCode, "%s %s", method, path)
			assert.Equal(t, allow, r.Header.Get("Allow"))
			if method != http.MethodHead {
				assert.JSONEq(t, `{"errorMessage":"Method not allowed, only GET is"}`, r.text)
			}
		}
	}
}

func TestHandler_paths_takeASlashAtTheEnd(t *testing.T) {
	s := newService(t, goldenAuthority(t), nil)
	for _, e := range endpoints {
		header := enrollHeader(t)
		if e.operation == operationUpdate {
			_, header = goldenRequest(t, "update.request.json")
		}
		r := s.get(t, strings.ReplaceAll(e.path, caNameParameter, "RA")+"/", header)
		assert.Equal(t, http.StatusOK, r.StatusCode, e.path)
	}
}

func TestHandler_paths_thatDoNotExistAre404InJSON(t *testing.T) {
	s := newService(t, goldenAuthority(t), nil)
	for _, path := range []string{"/", "/v1", "/v1/certificate", "/v1/certificate/", "/v1/certificate/RA/x", "/v1//certificate/RA",
		"/v1/certificate/../ready", "/v1/certificate-update/", "/ready//", "//ready", "/v1%2Fcertificate/RA", "/metrics", "/v2/certificate/RA"} {
		r := s.get(t, path, enrollHeader(t))
		assert.Equal(t, http.StatusNotFound, r.StatusCode, path)
		assert.JSONEq(t, `{"errorMessage":"There is nothing at this path"}`, r.text, path)
	}
}

func TestHandler_body_isIgnored(t *testing.T) {
	s := newService(t, goldenAuthority(t), nil)
	body := strings.NewReader(strings.Repeat("x", 1<<20))

	r := s.do(t, s.client, http.MethodGet, "/v1/certificate/RA", enrollHeader(t), body)

	assert.Equal(t, http.StatusOK, r.StatusCode)
}

func TestHandler_log_hasOneLineForARequest(t *testing.T) {
	s := newService(t, goldenAuthority(t), nil)
	path, header := goldenRequest(t, "enroll.request.json")

	s.get(t, path, header)

	line := s.audit(t)
	assert.Equal(t, "INFO", line["level"])
	assert.Equal(t, "issued", line["outcome"])
	assert.Equal(t, "enroll", line["operation"])
	assert.Equal(t, "RA", line["ca"])
	assert.InDelta(t, 200, line["status"], 0)
	assert.Contains(t, line, "duration")
	client := line["client"].(map[string]any)
	assert.Equal(t, "CN=peer", client["subject"])
	assert.Equal(t, []any{"DNS:localhost", "IP Address:127.0.0.1", "IP Address:::1"}, client["sans"])
	assert.NotEmpty(t, client["serial"])
	cert := goldenCert(t, "certificate.pem")
	assert.Equal(t, pki.DN(cert.RawSubject), line["requested"].(map[string]any)["subject"])
	assert.NotEmpty(t, line["requested"].(map[string]any)["sans"])
	assert.Equal(t, pki.Serial(cert), line["issued"].(map[string]any)["serial"])
	assert.Len(t, s.lines(t, "request"), 1)
}

func TestHandler_log_saysWhyARequestIsBad(t *testing.T) {
	s := newService(t, goldenAuthority(t), nil)
	header := enrollHeader(t)
	header.Set("PK", headerValue("PRIVATE KEY", pkcs8(t, newKey(t))))

	s.get(t, "/v1/certificate/RA", header)

	line := s.audit(t)
	assert.Equal(t, "WARN", line["level"])
	assert.Equal(t, "bad_request", line["outcome"])
	assert.Equal(t, "PK is not the key of the CSR", line["reason"])
	requested := line["requested"].(map[string]any)
	assert.Equal(t, "CN=app", requested["subject"])
	assert.Equal(t, []any{"DNS:app.example"}, requested["sans"])
}

func TestHandler_log_holdsNoHeaderValue(t *testing.T) {
	var fail bool
	s := newService(t, funcAuthority(func(ctx context.Context, r Request) (Issued, error) {
		if fail {
			panic(r) // the request, keys and all, as the panic's value
		}
		return goldenAuthority(t).Enroll(ctx, r)
	}), nil)
	path, good := goldenRequest(t, "update.request.json")
	for _, header := range []string{"", "CSR", "PK", "OLD_CERT", "OLD_PK"} {
		_, bad := goldenRequest(t, "update.request.json")
		if header != "" {
			bad.Set(header, bad.Get(header)[:400])
		}
		s.get(t, path, bad)
	}
	fail = true
	s.get(t, path, good)
	s.audit(t)

	log := string(s.log.bytes())
	assert.Contains(t, log, "panic while serving a request")
	for name, values := range good {
		assert.NotContains(t, log, values[0][:60], name)
		assert.NotContains(t, log, values[0][200:240], name)
	}
	assert.NotContains(t, log, "PRIVATE KEY")
	assert.NotContains(t, log, "BEGIN")
}

func TestHandler_log_isBoundedWhateverTheClientAsks(t *testing.T) {
	s := newService(t, goldenAuthority(t), nil)

	s.get(t, "/"+strings.Repeat("x", 30000), nil)

	s.audit(t)
	assert.Less(t, len(s.log.bytes()), 2000)
}

func TestHandler_log_isBoundedWhateverTheAuthoritySays(t *testing.T) {
	s := newService(t, funcAuthority(func(context.Context, Request) (Issued, error) {
		return Issued{}, errors.New(strings.Repeat("x", 30000))
	}), nil)

	s.get(t, "/v1/certificate/RA", enrollHeader(t))

	assert.Equal(t, strings.Repeat("x", maxLoggedText)+"…", s.audit(t)["reason"])
}

func TestHandler_log_countsTheNamesBeyondAHundred(t *testing.T) {
	s := newService(t, goldenAuthority(t), nil)
	key := newKey(t)
	template := &x509.CertificateRequest{}
	for i := range maxLoggedNames + 3 {
		template.DNSNames = append(template.DNSNames, fmt.Sprintf("host-%d.example", i))
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	require.NoError(t, err)

	s.get(t, "/v1/certificate/RA", http.Header{"Csr": {headerValue("CERTIFICATE REQUEST", csr)}, "Pk": {headerValue("PRIVATE KEY", pkcs8(t, key))}})

	sans := s.audit(t)["requested"].(map[string]any)["sans"].([]any)
	require.Len(t, sans, maxLoggedNames+1)
	assert.Equal(t, "DNS:host-96.example", sans[maxLoggedNames-1])
	assert.Equal(t, "and 3 more", sans[maxLoggedNames])
}
