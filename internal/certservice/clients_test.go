package certservice

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/policy"
	"github.com/certfetcher/certfetcher/internal/token"
	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/golden"
)

// Below each command of clients.txt is what comes of it. The method run says what the commands do.
func TestClients_asTheScriptsSay(t *testing.T) {
	golden.Play(t, "clients.txt", func(t *testing.T, _, commands string) string {
		s := &clients{t: t, log: &lockedBuffer{}, tlsCA: newCA(t, "TLS"), metrics: NewMetrics("")}
		s.own, s.path = identity(t, s.tlsCA), filepath.Join(t.TempDir(), "policy.yaml")
		s.issuer = fixture.NewIssuer("https://cluster.example.org", "ES256")
		var text strings.Builder
		for line := range strings.Lines(commands) {
			text.WriteString(line)
			command, rest, _ := strings.Cut(strings.TrimSpace(line[1:]), " ")
			text.WriteString(s.run(command, rest))
		}
		return text.String()
	})
}

// clients are those of a service, behind the real server.
type clients struct {
	t         *testing.T
	log       *lockedBuffer
	tlsCA     *fixture.CA
	metrics   *Metrics
	own       tls.Certificate
	issuer    *fixture.Issuer
	path      string // of the policy
	policy    *PolicyFile
	tokens    *token.Verifier
	strangers *Strangers
	later     time.Duration // than now is it for the tokens
	address   string
	shown     []tls.Certificate
	bearer    []string // the headers Authorization
	transport *http.Transport
}

func (s *clients) run(command, rest string) string {
	switch command {
	case "policy":
		writeFile(s.t, s.path, []byte(rest))
		if s.policy == nil {
			s.policy = NewPolicyFile(s.path, s.metrics, s.logger())
		}
		if err := s.policy.Reload("script"); err != nil {
			return strings.ReplaceAll(err.Error(), s.path, "FILE") + "\n"
		}
	case "serve": // to clients with such credentials
		s.serve(Credentials(rest))
	case "nobody":
		s.show()
	case "certificate": // with that common name
		s.show(s.certificate(rest))
	case "own": // the service's certificate
		s.show(s.own)
	case "stranger": // a certificate that nobody trusts
		s.show(identity(s.t, newCA(s.t, "other")))
	case "token": // namespace/name; and what is wrong with it
		s.addToken(rest)
	case "header":
		s.bearer = append(s.bearer, rest)
	case "keys": // of the issuer are others
		s.issuer.SetKeys(fixture.NewIssuerKey(rest))
	case "read": // the keys again
		s.issuer.WriteJWKS(s.jwks())
		require.NoError(s.t, s.tokens.Reload("script"))
	case "later":
		s.later += must(time.ParseDuration(rest))
	case "wait": // until the log has it
		eventually(s.t, func() bool { return s.log.has(rest) })
	case "metrics":
		return strings.Join(regexp.MustCompile("(?m)^"+rest).FindAllString(written(s.metrics), -1), "\n") + "\n"
	default:
		return s.ask(command, rest)
	}
	return ""
}

// jwks is the file with the issuer's keys.
func (s *clients) jwks() string { return filepath.Join(filepath.Dir(s.path), "jwks.json") }

func (s *clients) logger() *slog.Logger { return jsonLog(s.log) }

func (s *clients) now() time.Time { return time.Now().Add(s.later) }

func (s *clients) serve(by Credentials) {
	clientAuth, log, roots := tls.RequestClientCert, s.logger(), poolOf(s.tlsCA.Root)
	cfg := HandlerConfig{
		Directory: static{"RA": goldenAuthority(s.t)}, ClientRoots: func() *x509.CertPool { return roots },
		Credentials: by, Policy: s.policy, Identity: func() *tls.Certificate { return &s.own },
		Admins:     [][]byte{must(pkixName("admin"))},
		MaxRSABits: 4096, CPU: NewCPU(), Metrics: s.metrics, Strangers: NewStrangers(log), Log: log,
	}
	s.strangers = cfg.Strangers
	if by == TokenCredential {
		clientAuth = tls.NoClientCert
	}
	if by != CertificateCredential {
		s.tokens = must(token.New(token.Settings{Issuer: s.issuer.URL, Audience: "certservice", Now: s.now,
			JWKSPath: s.jwks(), Log: log, Read: s.metrics.ObserveTokenKeys}))
		cfg.Tokens = s.tokens
	}
	handler := NewHandler(cfg)
	handler.reloads.every = 0
	began := time.Now()
	handler.now = func() time.Time { return began } // so that rates do not depend on how fast this machine is
	s.address, _ = serve(s.t, handler, ServerConfig{
		TLS:          &tls.Config{Certificates: []tls.Certificate{s.own}, ClientAuth: clientAuth},
		Authenticate: handler.Authenticate, Metrics: s.metrics, Log: log})
	s.show()
}

func pkixName(commonName string) ([]byte, error) {
	cert := &x509.CertificateRequest{Subject: pkix.Name{CommonName: commonName}}
	der, err := x509.CreateCertificateRequest(rand.Reader, cert, newKey(nil))
	if err != nil {
		return nil, err
	}
	csr, err := x509.ParseCertificateRequest(der)
	return csr.RawSubject, err
}

// show makes the next requests come from another client, on a new connection.
func (s *clients) show(certificates ...tls.Certificate) {
	s.bearer = nil
	s.shown = certificates
	s.transport = &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: poolOf(s.tlsCA.Root), Certificates: certificates}}
	s.t.Cleanup(s.transport.CloseIdleConnections)
}

func (s *clients) certificate(commonName string) tls.Certificate {
	key, chain, err := s.tlsCA.Identity(commonName)
	require.NoError(s.t, err)
	return tls.Certificate{PrivateKey: key, Leaf: chain[0], Certificate: [][]byte{chain[0].Raw, chain[1].Raw}}
}

func (s *clients) addToken(text string) {
	account, fault, _ := strings.Cut(text, " ")
	namespace, name, _ := strings.Cut(account, "/")
	audience := "certservice"
	if fault == "for others" {
		audience = "others"
	}
	text = s.issuer.Token(namespace, name, audience)
	if fault == "forged" {
		text = text[:len(text)-8] + "AAAAAAAA"
	}
	s.bearer = []string{"Bearer " + text}
}

// ask sends a request: enroll and update with names, or a GET.
func (s *clients) ask(command, rest string) string {
	path, names, _ := strings.Cut(rest, " ")
	if command != "GET" {
		path = "/v1/certificate/" + path
	}
	r := must(http.NewRequestWithContext(context.Background(), http.MethodGet, "https://"+s.address+path, nil))
	if command != "GET" {
		s.addRequest(r.Header, names)
	}
	r.Header["Authorization"] = s.bearer
	s.strangers.Summarise() // a minute is over: few lines of strangers are logged in one
	s.log.Reset()
	response, err := s.transport.RoundTrip(r)
	require.NoError(s.t, err)
	defer response.Body.Close()
	body := must(io.ReadAll(response.Body))
	text := fmt.Sprint(response.StatusCode)
	if response.StatusCode != http.StatusOK {
		text += " " + withoutID(s.t, response, body)
	}
	for _, name := range []string{"Retry-After", "WWW-Authenticate"} {
		if value := response.Header.Get(name); value != "" && response.StatusCode != http.StatusServiceUnavailable {
			text += fmt.Sprintf("\n%s: %s", name, value)
		}
	}
	return varying.ReplaceAllString(text+"\n"+s.audit(), "…")
}

var varying = regexp.MustCompile(`20\d\d-\d\d-\d\dT[\d:]+Z|"[\w-]{43}"`)

func (s *clients) addRequest(header http.Header, names string) {
	key, template := newKey(s.t), &x509.CertificateRequest{}
	for name := range strings.FieldsSeq(names) {
		switch kind, value, _ := strings.Cut(name, ":"); kind {
		case "DNS":
			template.DNSNames = append(template.DNSNames, value)
		case "CN":
			template.Subject.CommonName = value
		}
	}
	csr := must(x509.CreateCertificateRequest(rand.Reader, template, key))
	for name, text := range map[string][]byte{
		"CSR": pemOf("CERTIFICATE REQUEST", csr), "PK": pemOf("PRIVATE KEY", pkcs8(s.t, key))} {
		header.Set(name, base64.StdEncoding.EncodeToString(text))
	}
}

// audit is the line of the last request, as far as it is about the client.
func (s *clients) audit() string {
	eventually(s.t, func() bool { return s.log.has(`"msg":"request"`) })
	var text strings.Builder
	for _, line := range s.log.lines(s.t) {
		if line["msg"] != "request" {
			continue
		}
		fmt.Fprintf(&text, "audit %v %v", line["level"], line["outcome"])
		for _, name := range []string{"error", "policy", "token", "client"} {
			switch value := line[name].(type) {
			case string:
				fmt.Fprintf(&text, " %s=%s", name, value)
			case map[string]any:
				delete(value, "serial")
				delete(value, "pod_uid")
				delete(value, "sans")
				fmt.Fprintf(&text, " %s=%s", name, jsonText(s.t, value))
			}
		}
		text.WriteString("\n")
	}
	assert.NotContains(s.t, s.log.String(), "eyJ", "a token is in the log")
	return text.String()
}

// A body that came together with the headers reaches the handler, whatever was read to find the token.
func TestServe_bodyAfterTheToken_isNotLost(t *testing.T) {
	s := &clients{t: t, log: &lockedBuffer{}, tlsCA: newCA(t, "TLS"), metrics: NewMetrics("")}
	s.own, s.issuer = identity(t, s.tlsCA), fixture.NewIssuer("https://cluster.example.org", "ES256")
	got := make(chan string, 2)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- r.URL.Path + " " + fmt.Sprint(len(body))
	})
	address, _ := serve(t, handler, ServerConfig{
		TLS: &tls.Config{Certificates: []tls.Certificate{s.own}},
		Authenticate: func(_ *tls.ConnectionState, header http.Header) Authentication {
			return Authentication{undecided: header == nil}
		}})
	conn := must(tls.Dial("tcp", address, &tls.Config{RootCAs: poolOf(s.tlsCA.Root)}))
	defer conn.Close()
	body := bytes.Repeat([]byte("x"), 9000)
	_, err := fmt.Fprintf(conn, "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 9000\r\n\r\n%s"+
		"GET /b HTTP/1.1\r\nHost: x\r\n\r\n", body)
	require.NoError(t, err)
	assert.Equal(t, "/a 9000", <-got)
	assert.Equal(t, "/b 0", <-got)
	reader := bufio.NewReader(conn)
	for range 2 {
		response := must(http.ReadResponse(reader, nil))
		assert.Equal(t, 200, response.StatusCode)
	}
}

// Policies are replaced, and a monitor keeps what it once saw.
func TestMetrics_rules_areBounded(t *testing.T) {
	m := NewMetrics("")
	for i := range mostRuleLabels + 100 {
		m.observeDecision(policy.Enroll, policy.Decision{Allowed: true, Rule: fmt.Sprint("rule ", i)})
	}
	series := written(m)
	assert.Equal(t, mostRuleLabels+1, strings.Count(series, "\ncertservice_policy_decisions_total{"))
	assert.Contains(t, series, `{rule="others",operation="enroll",decision="allowed"} 100`)
}
