package certservice

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/pki"
)

func TestHandler_answersTheGoldenRequests(t *testing.T) {
	var got Request
	s := newService(t, funcAuthority(func(ctx context.Context, r Request) (Issued, error) {
		got = r
		return goldenAuthority(t).Update(ctx, r)
	}), nil)
	for _, request := range []string{"enroll", "update"} {
		r := s.get(goldenRequest(t, request))

		r.is(200)
		assert.Equal(t, "application/json", r.Header.Get("Content-Type"))
		assert.JSONEq(t, string(testFile(t, "wire/answer-200.json")), r.text)
		assert.True(t, pki.SameKey(got.CSR.PublicKey, got.Key.Public()))
	}
	assert.Equal(t, goldenCert(t, "old-certificate.pem"), got.OldCert)
	assert.True(t, pki.SameKey(got.OldCert.PublicKey, got.OldKey.Public()))
}

func TestHandler_certify_answersErrorsAsClientsKnowThem(t *testing.T) {
	type row struct {
		Name, Request, Header, Value, Path, Answer string
		Status                                     int
	}
	s := newService(t, goldenAuthority(t), nil)
	check := func(r response, status int, answer string) {
		if strings.HasSuffix(answer, ".json") {
			r.is(status)
			assert.JSONEq(t, string(testFile(t, "wire/"+answer)), r.text)
		} else {
			r.is(status, answer)
		}
	}
	for _, row := range readTable[row](t, "errors.yaml") {
		t.Run(row.Name, func(t *testing.T) {
			path, header := goldenRequest(t, row.Request)
			switch other, isOther := strings.CutPrefix(row.Value, "="); {
			case isOther:
				header.Set(row.Header, header.Get(other))
			case row.Value != "":
				header.Set(row.Header, row.Value)
			default:
				header.Del(row.Header)
			}
			if row.Path != "" {
				path = row.Path
			}
			check(s.get(path, header), row.Status, row.Answer)
		})
	}

	for _, row := range []struct {
		err    error // the authority's
		answer string
	}{
		{errors.New("connection refused"), "answer-500-cmp-client.json"},
		{&RefusedError{FailInfo: []string{"badRequest"}, Text: "rejection: badRequest: wrong subject"},
			"answer-500-cmp-server.json"},
		{&RefusedError{}, "CMPv2 server returned following error: N/A"},
		{nil, callFailed + "the answer holds no certificate"},
	} {
		check(newService(t, failing(row.err), nil).enroll(), 500, row.answer)
	}
	r := newService(t, failing(&FailedError{Err: errors.New("other names"), Reason: ReasonNames}), nil).enroll()
	assert.JSONEq(t, `{"errorMessage":"`+callFailed+`other names","reason":"unexpectedNames"}`, r.text)
	chain := []*x509.Certificate{goldenCert(t, "certificate.pem")}
	r = newService(t, funcAuthority(func(context.Context, Request) (Issued, error) {
		return Issued{Chain: chain},
			nil
	}), nil).enroll()
	assert.Contains(t, r.text, `"trustedCertificates":[]`)
}

func TestHandler_clientCertificate_isRequiredOnEveryPath(t *testing.T) {
	s := newService(t, goldenAuthority(t), nil)
	changed := func(change func(*x509.Certificate)) tls.Certificate {
		other := *s.tlsCA
		other.Change = change
		return identity(t, &other)
	}
	leafOnly, stranger := identity(t, s.tlsCA), identity(t, newCA(t, "Stranger"))
	mixed := stranger
	mixed.Certificate = append(stranger.Certificate[:1:1], leafOnly.Certificate...)
	leafOnly.Certificate = leafOnly.Certificate[:1]
	for name, client := range map[string]*http.Client{
		"none":          s.clientWith(),
		"of another CA": s.clientWith(stranger),
		"for servers only": s.clientWith(changed(func(leaf *x509.Certificate) {
			leaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		})),
		"expired": s.clientWith(
			changed(func(leaf *x509.Certificate) { leaf.NotAfter = time.Now().Add(-time.Second) })),
		"without its intermediate":         s.clientWith(leafOnly),
		"of another CA, with our CA's too": s.clientWith(mixed),
	} {
		for _, path := range []string{"/", "/nowhere", enrollPath, updatePath, "/ready", "/healthz",
			"/reload", "/openapi.yaml"} {
			r := s.do(client, http.MethodGet, path, nil, "")
			assert.Equal(t, http.StatusUnauthorized, r.StatusCode, name+path)
			assert.JSONEq(t, string(testFile(t, "wire/answer-401.json")), r.text)
		}
	}
}

func TestHandler_clientCertificate_isVerifiedAgainForEachRequest(t *testing.T) {
	roots, now := poolOf(), time.Now()
	s := newService(t, goldenAuthority(t), func(cfg *HandlerConfig) {
		cfg.ClientRoots = func() *x509.CertPool { return roots }
	})
	s.handler.now = func() time.Time { return now }

	s.get("/ready", nil).is(401)
	roots = poolOf(s.tlsCA.Root)
	s.get("/ready", nil).is(200)
	now = now.Add(25 * time.Hour)
	s.get("/ready", nil).is(401)
}

func TestClientVerifier_remembersAChainWhileAllOfItIsValid(t *testing.T) {
	at := func(hour int) time.Time { return time.Date(2026, 1, 1, hour, 0, 0, 0, time.UTC) }
	roots, key := x509.NewCertPool(), sha256.Sum256([]byte("chain"))
	var v clientVerifier
	v.remember(key, roots, []*x509.Certificate{
		{NotBefore: at(2), NotAfter: at(20)},
		{NotBefore: at(1), NotAfter: at(10)}, // the issuing CA ends first
		{NotBefore: at(3), NotAfter: at(22)}, // the root begins last
	})
	assert.False(t, v.remembers(key, roots, at(3).Add(-time.Second)))
	assert.True(t, v.remembers(key, roots, at(3)))
	assert.True(t, v.remembers(key, roots, at(10)))
	assert.False(t, v.remembers(key, roots, at(10).Add(time.Second)))
	assert.False(t, v.remembers(key, x509.NewCertPool(), at(5)), "other roots")
	assert.False(t, v.remembers(sha256.Sum256(nil), roots, at(5)), "another chain")
	for i := range maxVerified + 10 {
		v.remember(sha256.Sum256([]byte{byte(i), byte(i >> 8)}), roots, []*x509.Certificate{{}})
		assert.LessOrEqual(t, len(v.verified), maxVerified)
	}
}

func TestClientVerifier_saysWhyAClientIsNotTrustedAndRemembersItNot(t *testing.T) {
	tlsCA := newCA(t, "TLS")
	file := filepath.Join(t.TempDir(), "system.pem")
	writeFile(t, file, pemOf("CERTIFICATE", tlsCA.Root.Raw))
	t.Setenv("SSL_CERT_FILE", file) // read once in a process; no other test here needs the system's roots
	sha1 := *tlsCA
	sha1.Change = func(leaf *x509.Certificate) { leaf.SignatureAlgorithm = x509.ECDSAWithSHA1 }
	good, roots := identity(t, tlsCA), poolOf(tlsCA.Root)
	for _, row := range []struct {
		client tls.Certificate
		roots  *x509.CertPool
		want   string
	}{
		{identity(t, newCA(t, "Stranger")), roots,
			"client certificate is not trusted: x509: certificate signed by unknown authority"},
		{good, nil, "client certificate is not trusted: x509: certificate signed by unknown authority"},
		{identity(t, &sha1), roots, `is signed with ECDSA with SHA-1 (1.2.840.10045.4.1), which is not accepted`},
		{good, roots, ""},
	} {
		var v clientVerifier
		state := &tls.ConnectionState{PeerCertificates: []*x509.Certificate{row.client.Leaf, tlsCA.Issuing}}
		_, reason := v.verify(state, row.roots, time.Now())
		assert.Contains(t, reason, row.want)
		assert.Equal(t, row.want == "", len(v.verified) == 1)
		assert.Equal(t, row.want == "", reason == "")
	}
}

// A client needs no certificate to make a long chain cost a lot.
func TestHandler_longClientChain_isNotVerified(t *testing.T) {
	s := newService(t, goldenAuthority(t), nil)
	long := identity(t, s.tlsCA)
	for len(long.Certificate) < maxClientChain {
		long.Certificate = append(long.Certificate, s.tlsCA.Issuing.Raw)
	}
	s.do(s.clientWith(long), http.MethodGet, "/ready", nil, "").is(200)
	long.Certificate = append(long.Certificate, s.tlsCA.Issuing.Raw)
	s.do(s.clientWith(long), http.MethodGet, "/ready", nil, "").is(401)
	assert.Equal(t, "client certificate is not trusted: it has a chain of 11 certificates, want at most 10",
		s.audit()["error"])
}

func TestHandler_log_saysWhyARequestIsBadAndHoldsNoHeaderValue(t *testing.T) {
	fail := false
	s := newService(t, funcAuthority(func(ctx context.Context, r Request) (Issued, error) {
		if fail {
			panic(r) // the request, keys included, as the panic's value
		}
		return goldenAuthority(t).Enroll(ctx, r)
	}), nil)
	path, good := goldenRequest(t, "update")
	for _, name := range []string{"CSR", "PK", "OLD_CERT", "OLD_PK"} {
		bad := good.Clone()
		bad.Set(name, bad.Get(name)[:400])
		s.get(path, bad)
	}
	wrong := good.Clone()
	wrong.Set("PK", good.Get("OLD_PK"))
	s.get(path, wrong)
	line := s.audit()
	assert.Equal(t, []any{"WARN", "bad_request", "PK is not the key of the CSR"},
		[]any{line["level"], line["outcome"], line["error"]})
	assert.NotEmpty(t, line["requested"].(map[string]any)["subject"])
	fail = true
	s.get(path, good)
	eventually(t, func() bool { return s.log.has("panic while serving a request") })
	for name, values := range good {
		assert.False(t, s.log.has(values[0][:60]), name)
		assert.False(t, s.log.has(values[0][200:240]), name)
	}
	assert.False(t, s.log.has("PRIVATE KEY"))
	assert.False(t, s.log.has("BEGIN"))
}

func TestHandler_log_isBounded(t *testing.T) {
	s := newService(t, failing(errors.New(strings.Repeat("x", 30000))), nil)
	s.get("/"+strings.Repeat("x", 30000), nil)
	s.audit()
	assert.Less(t, len(s.log.String()), 2000)
	s.enroll()
	assert.Equal(t, strings.Repeat("x", maxLoggedText)+"…", s.audit()["error"])

	key, template := newKey(t), &x509.CertificateRequest{}
	for i := range maxLoggedNames + 3 {
		template.DNSNames = append(template.DNSNames, fmt.Sprintf("host-%03d.example", i))
	}
	csr := must(x509.CreateCertificateRequest(rand.Reader, template, key))
	s.get(enrollPath, headerOf(t, csr, key))
	sans := s.audit()["requested"].(map[string]any)["sans"].([]any)
	require.Len(t, sans, maxLoggedNames+1)
	assert.Equal(t, []any{"DNS:host-099.example", "and 3 more"}, sans[maxLoggedNames-1:])
}

func TestHandler_panic_isThatRequestsOwn(t *testing.T) {
	calls := 0
	s := newService(t, funcAuthority(func(ctx context.Context, r Request) (Issued, error) {
		if calls++; calls == 1 {
			var none []int
			_ = none[calls]
		}
		return goldenAuthority(t).Enroll(ctx, r)
	}), func(cfg *HandlerConfig) { cfg.MaxInFlight = 1 })

	s.enroll().is(500, "Internal server error")
	s.enroll().is(200) // the slot is free again
	line := s.lines("panic while serving a request")[0]
	assert.Equal(t, "runtime error: index out of range [1] with length 0", line["panic"])
	assert.Contains(t, line["stack"], "handler_test.go")
}

func TestMetrics_nameTheVersionAndTheCertificate(t *testing.T) {
	m := NewMetrics("1.2.3")
	m.ObserveCertificate(func() *x509.Certificate {
		return &x509.Certificate{NotBefore: time.Unix(18e8, 0), NotAfter: time.Unix(19e8, 0)}
	})
	for _, line := range []string{`build_info{version="1.2.3",go_version="go`,
		"certificate_not_before_timestamp_seconds 1800000000\n",
		"certificate_expiry_timestamp_seconds 1900000000\n"} {
		assert.Contains(t, written(m), "certservice_"+line)
	}
	assert.Contains(t, written(m), "# TYPE process_resident_memory_bytes gauge\n")
}
