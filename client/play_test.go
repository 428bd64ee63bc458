package client

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/golden"
	"github.com/certfetcher/certfetcher/test/resolver"
)

// A CertService that gives certificates, and a client of it: commands change one or the other, and
// then have the client do something. Of what stands between bars each is tried.
func TestClient(t *testing.T) {
	golden.Play(t, "requests/*.txt", func(t *testing.T, _, commands string) string {
		if !strings.Contains(commands, "environment") { // of which there is one
			t.Parallel()
		}
		outcomes := map[string][]string{}
		for _, one := range alternatives(strings.Split(strings.TrimSpace(commands), "\n")) {
			outcome := play(t, one)
			outcomes[outcome] = append(outcomes[outcome], strings.Join(one, "\n"))
		}
		require.Len(t, outcomes, 1, "the same comes of all")
		for outcome := range outcomes {
			return outcome
		}
		panic("unreachable")
	})
}

// alternatives are commands without bars.
func alternatives(commands []string) (all [][]string) {
	for i, command := range commands {
		head, rest, _ := strings.Cut(command, ": ")
		if choices := strings.Split(rest, " | "); len(choices) > 1 {
			for _, choice := range choices {
				one := slices.Clone(commands)
				one[i] = head + ": " + choice
				all = append(all, alternatives(one)...)
			}
			return all
		}
	}
	return [][]string{commands}
}

// varying is what differs from run to run in an error.
var varying = []struct {
	pattern *regexp.Regexp
	text    string
}{
	{regexp.MustCompile(`127\.0\.0\.1:\d{5}`), "127.0.0.1:PORT"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT[\d:]+Z`), "TIME"},
	{regexp.MustCompile(` on [\d.]+:53`), ""},
	{regexp.MustCompile(`(read|write) tcp [^ ]+: `), ""},
	{regexp.MustCompile(`EOF|connection reset by peer|broken pipe`), "EOF"}, // which it is, is a matter of luck
	{regexp.MustCompile(`(x ){1000,}…`), "x x x …"},
	{regexp.MustCompile(`time=\S+ `), ""},
	{regexp.MustCompile(`"/tmp/\S*"`), `"{tmp}"`},
}

// summary is the text of an error with its kind.
func summary(err error) string {
	var kind string
	var status *StatusError
	var not *AnswerError
	var broken *ConnectionError
	switch {
	case errors.As(err, &status):
		kind = fmt.Sprintf("status %d, may pass: %t: ", status.StatusCode, mayPass(err))
	case errors.As(err, &not):
		kind = "answer: "
	case errors.As(err, &broken):
		kind = fmt.Sprintf("connection, permanent: %t: ", broken.Permanent)
	}
	return unvarying(kind + err.Error())
}

func unvarying(text string) string {
	for _, v := range varying {
		text = v.pattern.ReplaceAllString(text, v.text)
	}
	return text
}

// answering is what a CertService does with a request: it writes all and waits, or else it answers.
type answering struct {
	header http.Header
	status int
	body   string
	raw    *string
	waits  bool
	until  context.Context
	resume int // how many requests came in a TLS session that was resumed
	tokens []string
}

func (a *answering) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.TLS.DidResume {
		a.resume++
	}
	a.tokens = append(a.tokens, r.Header.Get("Authorization"))
	if a.raw != nil {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		defer conn.Close()
		io.WriteString(conn, *a.raw)
		if a.waits {
			<-a.until.Done()
		}
		return
	}
	for name, values := range a.header {
		w.Header()[name] = values
	}
	w.WriteHeader(a.status)
	io.WriteString(w, a.body)
}

// elements are the texts of a list in an answer. A word has the files of one, with plus signs.
func elements(words string) (list []string) {
	good := string(shared("pem/root-ca.pem"))
	key := shared("wire/enroll.request.json")
	var request wireRequest
	fixture.Must(0, json.Unmarshal(key, &request))
	label := request.Headers["PK"]
	answer := fixture.Must(parseAnswer(shared("wire/answer-200.json")))
	texts := map[string]string{
		"text": "hello", "comment": "subject=CN = text of openssl\n", "half": good[:400],
		"other-block": "-----BEGIN CERTIFICATE-----\neA==\n-----END CERTIFICATE-----\n",
		"our-key":     fmt.Sprintf("-----BEGIN %s-----\nAA==\n-----END %s-----\n", label, label),
		"leaf":        answer.CertificateChain[0], "issuer": answer.CertificateChain[1],
		"root": answer.TrustedCertificates[0], "other-root": answer.TrustedCertificates[1],
	}
	for word := range strings.FieldsSeq(words) {
		element := ""
		for name := range strings.SplitSeq(word, "+") {
			if text, found := texts[name]; found {
				element += text
			} else {
				element += string(shared(name + ".pem"))
			}
		}
		list = append(list, element)
	}
	return list
}

// names are the subjects of certificates, which must be those of a list's texts.
func names(t *testing.T, certificates []*x509.Certificate, list []string) string {
	text := strings.Join(list, "")
	for _, c := range certificates {
		var block *pem.Block
		rest := []byte(text)
		block, rest = pem.Decode(rest)
		require.NotNil(t, block)
		assert.Equal(t, block.Bytes, c.Raw)
		text = string(rest)
	}
	assert.NotContains(t, text, "BEGIN")
	return strings.Join(fixture.Each(certificates, func(c *x509.Certificate) string {
		return strconv.Quote(pki.DN(c.RawSubject))
	}), ", ")
}

// scene is what commands change.
type scene struct {
	*mutual
	t      *testing.T
	answer answering
	body   map[string][]string
	logged strings.Builder
	c      *Client
	proxy  *fixture.Proxy
	token  string
}

func play(t *testing.T, commands []string) (said string) {
	s := &scene{mutual: newMutual(t), t: t, body: map[string][]string{}, token: fixture.Token("")}
	s.answer = answering{status: 200, header: http.Header{"Content-Type": {"application/json"}}, until: t.Context()}
	s.Config.Handler = &s.answer
	s.cfg.Log = slog.New(slog.NewTextHandler(&s.logged, nil))
	key := goldenRequest(t, "enroll.request.json").Headers["PK"]
	fill := strings.NewReplacer("{key}", key, "{half key}", key[:100], "{newline}", "\n",
		"{piece}", string(shared("pem/key.pem"))[224:264], "{certificates}", string(shared("wire/answer-200.json")),
		"{token}", s.token, "{half token}", s.token[len(s.token)/2:], "{BOM}", "\ufeff", "{return}", "\r",
		"{endless}", strings.Repeat("x ", 4000), "{too much}", strings.Repeat(" ", maxBody+1))
	s.answer.body = fill.Replace("{certificates}")
	for _, command := range commands {
		verb, rest, _ := strings.Cut(strings.TrimPrefix(command, "> "), ":")
		outcome := s.follow(verb, fill.Replace(strings.TrimSpace(rest)))
		for _, hidden := range []string{key[:32], s.token[len(s.token)-20:], "Go struct", "json:", "[]*string",
			"unmarshal"} {
			assert.NotContains(t, outcome, hidden)
		}
		if outcome != "" {
			said += unvarying(outcome) + "\n"
		}
	}
	return said
}

// follow does what a command says, and returns what comes of it.
func (s *scene) follow(verb, rest string) string {
	t := s.t
	first, second, _ := strings.Cut(rest, " ")
	switch verb {
	// The CertService's answer.
	case "answer": // status and body
		s.answer.status, s.answer.body = fixture.Must(strconv.Atoi(first)), second
	case "answer like":
		s.answer.status = fixture.Must(strconv.Atoi(rest[:3]))
		s.answer.body = string(shared("wire/answer-" + rest + ".json"))
	case "header":
		s.answer.header[first] = []string{second}
		if second == "" {
			s.answer.header[first] = nil
		}
	case "chain", "trusted": // certificates
		s.body[map[string]string{"chain": "certificateChain", "trusted": "trustedCertificates"}[verb]] = elements(rest)
		s.answer.body = string(fixture.Must(json.Marshal(s.body)))
	case "write": // in place of an answer, and hang up
		text := fixture.Must(strconv.Unquote(`"` + strings.ReplaceAll(rest, `"`, `\"`) + `"`))
		s.answer.raw = &text
	case "wait":
		s.answer.raw, s.answer.waits = cmp.Or(s.answer.raw, new(string)), true

	// The CertService's side of TLS.
	case "TLS":
		s.TLS.MinVersion = map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13}[rest]
		s.TLS.MaxVersion = s.TLS.MinVersion
	case "no client certificate is asked for":
		s.TLS.ClientAuth = tls.NoClientCert
	case "no certificate is asked for, and we have none": // as where KEYSTORE_PATH is not set
		s.TLS.ClientAuth, s.cfg.TLS.Certificates = tls.NoClientCert, nil
		s.cfg.TLS.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &tls.Certificate{}, nil
		}
	case "the server's certificate is":
		require.Contains(t, fixture.Changes, rest)
		s.TLS.Certificates = []tls.Certificate{identity(t, s.ca, "127.0.0.1", func(c *x509.Certificate) {
			c.DNSNames, c.IPAddresses = nil, c.IPAddresses[:1]
			fixture.Changes[rest](c)
		})}
	case "the server's certificate cannot be parsed": // by crypto/tls, before all else
		block, _ := pem.Decode(shared("certificates/negative-serial.pem"))
		bad := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{block.Bytes},
			PrivateKey: s.TLS.Certificates[0].PrivateKey}}}
		s.TLS.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return bad, nil }

	// What is there in place of it.
	case "plain server": // which greets
		s.cfg.URL = urlOf(listen(t, func(c net.Conn) {
			readHello(c)
			io.WriteString(c, fixture.Must(strconv.Unquote(`"`+rest+`"`)))
		}))
	case "silent server":
		s.cfg.URL = urlOf(listen(t, func(net.Conn) { <-t.Context().Done() }))
	case "nothing listens":
		s.cfg.URL = urlOf(fixture.FreeAddress(t))
	case "no name can be resolved":
		s.cfg.Dialer = &net.Dialer{Resolver: resolver.New(t, nil)}
	case "nothing connects":
		s.cfg.Dialer = &net.Dialer{ControlContext: func(ctx context.Context, _, _ string, _ syscall.RawConn) error {
			<-ctx.Done()
			return ctx.Err()
		}}
	case "proxy", "proxy answers": // of a kind; with a status
		kind, status := rest, http.StatusOK
		if verb == "proxy answers" {
			kind, status = "http", fixture.Must(strconv.Atoi(rest))
		}
		s.proxy = fixture.StartProxy(kind, s.start().Listener.Addr().String(), status, s.TLS.Certificates...)
		t.Cleanup(func() { s.proxy.Close() })
		s.through(&url.URL{Scheme: kind, Host: s.proxy.Addr().String()})
	case "proxy that is down":
		s.through(&url.URL{Scheme: "http", Host: fixture.FreeAddress(t)})
	case "the CertService has the address of the proxy":
		s.cfg.URL = urlOf(fixture.Must(s.cfg.Proxy(nil)).Host)
	case "proxy of the environment":
		s.start()
		s.proxy, s.cfg.URL = environmentProxy, urlOf("certservice.test:8443")
		s.proxy.Set(s.Listener.Addr().String(), http.StatusOK)
	case "environment HTTPS_PROXY":
		t.Setenv("HTTPS_PROXY", rest)

	// The client's side.
	case "URL":
		s.cfg.URL = strings.Replace(rest, "{server}", s.start().URL, 1)
	case "update URL":
		s.cfg.UpdateURL = rest
	case "CA name":
		s.cfg.CAName = rest
	case "time for each try":
		s.cfg.Timeout = duration(rest)
	case "tries": // the first wait, the longest one, and the time for all
		words := strings.Split(rest, ", ")
		s.cfg.Retry = &Retry{duration(words[0]), duration(words[1]), duration(words[2])}
	case "token": // the content of its file
		s.writeToken(rest)
	case "token with": // claims otherwise
		s.token = fixture.Token(rest)
		s.writeToken(s.token)
	case "token that is missing":
		s.cfg.TokenPath = filepath.Join(t.TempDir(), "token")
	case "token that is a directory":
		s.cfg.TokenPath = t.TempDir()
	case "token of bytes":
		s.writeToken(strings.Repeat("x", fixture.Must(strconv.Atoi(rest))))
	case "no TLS configuration":
		s.cfg.TLS = nil
	case "sessions may be resumed":
		s.cfg.TLS.ClientSessionCache = tls.NewLRUClientSessionCache(8)
	case "no client certificate needs to be asked for":
		s.cfg.AllowNoClientAuth = true
	case "our certificate is":
		var mine tls.Certificate
		switch rest {
		case "of another CA":
			mine = identity(t, newCA("Stranger"), "client", nil)
		case "missing":
		default:
			require.Contains(t, fixture.Changes, rest)
			mine = identity(t, s.ca, "client", fixture.Changes[rest])
		}
		s.cfg.TLS.Certificates = nil
		s.cfg.TLS.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &mine, nil
		}
	case "we have no certificate":
		s.cfg.TLS.Certificates = nil
	case "a fault of our certificate is known":
		s.cfg.IdentityProblem = func() string {
			return `the certificate "CN=client" in KEYSTORE_PATH expired at a time that we know`
		}
	case "we trust no one":
		s.cfg.Roots, s.cfg.TLS.RootCAs = nil, pool()
	case "we trust": // CAs of those names, with other keys
		s.cfg.Roots = nil
		for name := range strings.SplitSeq(rest, ", ") {
			root := newCA(strings.TrimSuffix(name, " (expired)")).Root
			if strings.HasSuffix(name, " (expired)") {
				root.NotAfter = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
			}
			s.cfg.Roots = append(s.cfg.Roots, root)
		}
		s.cfg.TLS.RootCAs = pool(s.cfg.Roots...)
	default:
		return s.act(verb, rest)
	}
	return ""
}

func (s *scene) writeToken(content string) {
	s.cfg.TokenPath = filepath.Join(s.t.TempDir(), "token")
	require.NoError(s.t, os.WriteFile(s.cfg.TokenPath, []byte(content), 0o600))
}

// through leads to a name that only a proxy knows.
func (s *scene) through(proxy *url.URL) {
	s.cfg.Proxy, s.cfg.URL = http.ProxyURL(proxy), urlOf("certservice.test:8443")
}

// act has the client do something, or looks at what it did.
func (s *scene) act(verb, rest string) string {
	t := s.t
	if s.start(); s.c == nil {
		var err error
		if s.c, err = New(s.cfg); err != nil {
			return err.Error()
		}
	}
	c := s.c
	switch verb {
	case "URLs":
		return fmt.Sprintf("enrol at %s, update at %s", c.enrollURL, c.updateURL)
	case "enrol", "update":
		request := goldenSecrets()
		if rest == "without old certificate" {
			request.OldCert = nil
		} else if rest == "without key" {
			request.Key = nil
		}
		ask := map[string]func(context.Context, Request) (Answer, error){"enrol": c.Enroll, "update": c.Update}[verb]
		answer, err := ask(t.Context(), request)
		if err != nil {
			return summary(err)
		}
		chain, trusted, err := answer.Certificates()
		if err != nil {
			return err.Error()
		}
		return fmt.Sprintf("got %s, trusting %s", names(t, chain, answer.CertificateChain),
			names(t, trusted, answer.TrustedCertificates))
	case "connect":
		if old := c.ahead.dial; old != nil {
			<-old.done
			defer requireClosed(t, old.conn)
		}
		if c.Connect(t.Context()); c.ahead.dial == nil {
			return "nothing is set up ahead"
		}
	case "connect in vain":
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		c.Connect(ctx)
		<-c.ahead.dial.done
		require.Error(t, c.ahead.dial.err)
	case "connected":
		<-c.ahead.dial.done
	case "the connection is not taken in time": // as its timer finds
		d := c.ahead.dial
		<-d.done
		c.ahead.drop(d)
		requireClosed(t, d.conn)
		assert.True(t, taken(c))
	case "the connection gets old":
		<-c.ahead.dial.done
		c.ahead.dial.at = c.ahead.dial.at.Add(-aheadLife - time.Second)
	case "the server closes its connections":
		<-c.ahead.dial.done
		s.CloseClientConnections()
	case "look at the server": // when the client has closed all of its connections
		require.Eventually(t, func() bool { return s.closed.Load() == s.connections.Load() }, 10*time.Second,
			time.Millisecond)
		return fmt.Sprintf("connections %d, with a byte of a request %d, resumed %d", s.connections.Load(),
			s.active.Load(), s.answer.resume)
	case "look at the tokens":
		shown := strings.Join(s.answer.tokens, "\n")
		return cmp.Or(strings.ReplaceAll(shown, s.token, "{token}"), "none")
	case "look at the proxy":
		return strings.Join(s.proxy.Asked(), "\n")
	case "look at the log":
		return cmp.Or(strings.TrimSpace(s.logged.String()), "nothing")
	default:
		t.Fatalf("unknown command %q", verb)
	}
	return ""
}
