package certservice

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/internal/devca"
	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/test/golden"
)

// script runs commands.
type script struct {
	*cmpServer
	c       *Configuration
	log     *lockedBuffer
	path    string
	clock   time.Duration
	last    []*cmp.PKIMessage // as received for the last request
	api     *service
	key     crypto.Signer // of the last request
	oldKey  crypto.Signer // of the last certificate
	old     issuedBody
	oldCert *x509.Certificate
}

func newScript(t *testing.T) *script {
	s := &script{cmpServer: newCMPServer(t), log: &lockedBuffer{}}
	s.c, s.path = s.configuration(nil)
	s.c.log = jsonLog(s.log)
	s.options("{}")
	s.api = serviceOf(t, s.c)
	return s
}

var varies = regexp.MustCompile(
	`127\.0\.0\.1:\d+|[0-9a-f]{32}|20[0-9-]+T[0-9:]+Z|column \d+|\b1\d{9}\b`)

// Each section of testdata/authority.txt is a script: lines "> " are commands, and the others what the CertService then
// answers, sends to the CA and logs. The method run says what the commands do.
func TestAuthority_asTheScriptsSay(t *testing.T) {
	want := golden.Load(t, "authority.txt")
	text := must(os.ReadFile("testdata/authority.txt"))
	for _, section := range strings.Split("\n"+string(text), "\n# ")[1:] {
		title, commands, _ := strings.Cut(section, "\n")
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			s, got := newScript(t), ""
			for line := range strings.Lines(commands) {
				if command, isCommand := strings.CutPrefix(line, "> "); isCommand {
					name, rest, _ := strings.Cut(strings.TrimSpace(command), " ")
					got += line + varies.ReplaceAllString(s.run(name, rest), "…")
					assert.NotContains(t, s.api.log.String(), "very-secret")
				}
			}
			want.Equal(t, title, strings.TrimSuffix(got, "\n"))
		})
	}
}

func (s *script) options(text string) {
	options := CMPOptions{}
	require.NoError(s.t, json.Unmarshal([]byte(text), &options))
	options.Log = s.c.log
	build := CMPBuilder(options)
	s.c.build = func(server Server) (Authority, error) {
		a, err := build(server)
		if a, ok := a.(*cmpAuthority); ok {
			a.now = func() time.Time { return time.Now().Add(s.clock) }
		}
		return a, err
	}
	s.load("{}")
}

func (s *script) load(text string) string {
	fields := map[string]any{}
	require.NoError(s.t, json.Unmarshal([]byte(text), &fields))
	writeFile(s.t, s.path, []byte(fileOf(s.entry(fields))))
	if err := s.c.Reload("request"); err != nil {
		return err.Error() + "\n"
	}
	return s.warnings()
}

// warnings are those of the log since the last call.
func (s *script) warnings() (text string) {
	for _, line := range s.log.lines(s.t) {
		if line["level"] == "WARN" {
			text += fmt.Sprint("WARN ", line["msg"])
			if reason, ok := line["error"]; ok {
				text += fmt.Sprint(": ", reason)
			}
			text += "\n"
		}
	}
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	s.log.buf.Reset()
	return text
}

func (s *script) run(command, rest string) string {
	switch command {
	case "ca": // another one in its place, which protects its answers so
		s.replace(devca.ResponseProtection(rest))
		writeFile(s.t, filepath.Join(filepath.Dir(s.path), "root.pem"), s.ca.RootPEM())
	case "faults":
		var faults devca.Faults
		require.NoError(s.t, json.Unmarshal([]byte(rest), &faults))
		s.ca.SetFaults(faults)
	case "fail": // a kind of message, so many times, with status 500 and a page
		kind, times, _ := strings.Cut(rest, " ")
		s.fails[kind], _ = strconv.Atoi(times)
	case "server":
		s.behave(rest)
	case "options": // of CMPBuilder, and what was learned is forgotten
		s.options(rest)
		return s.warnings()
	case "entry": // the fields of the only one of cmpServers.json, which is loaded
		return s.load(rest)
	case "clock":
		later := must(time.ParseDuration(rest))
		s.clock += later
	case "REQUEST_TIMEOUT":
		s.api.handler.cfg.Timeout, _ = time.ParseDuration(rest)
	case "file": // the text of cmpServers.json, where $NAME{FIELDS} is an entry
		entry := regexp.MustCompile(`\$(\w*)(\{(?:[^{}]|\{[^{}]*\})*\})?`)
		text := entry.ReplaceAllStringFunc(rest, func(e string) string {
			parts, fields := entry.FindStringSubmatch(e), map[string]any{"caName": "RA"}
			if parts[1] != "" {
				fields["caName"] = parts[1]
			}
			if parts[2] != "" {
				require.NoError(s.t, json.Unmarshal([]byte(parts[2]), &fields))
			}
			return s.entry(fields)
		})
		writeFile(s.t, s.path, []byte(text))
	case "reload":
		if err := s.c.Reload("request"); err != nil {
			return strings.ReplaceAll(err.Error(), s.path, "FILE") + "\n" + s.warnings()
		}
		return s.warnings()
	case "restart": // without a file
		c, path, _ := newConfiguration(s.t, "")
		c.log, c.build = s.c.log, s.c.build
		s.c, s.path, s.api = c, path, serviceOf(s.t, c)
		require.NoError(s.t, os.Remove(path))
	case "check":
		return fmt.Sprintf("%q\n", s.c.Check())
	case "CAs":
		for _, name := range strings.Fields(rest) {
			_, share, found := s.c.Lookup(name)
			rest += fmt.Sprintf(", %s %t %+v", name, found, share)
		}
		_, rest, _ = strings.Cut(rest, ", ")
		return rest + "\n"
	case "log": // of the last enrolment
		line := maps.Clone(s.api.audit())
		for _, name := range []string{"time", "duration", "remote"} {
			assert.Contains(s.t, line, name)
			delete(line, name)
		}
		client := s.api.client.Transport.(*http.Transport).TLSClientConfig.Certificates[0]
		return strings.NewReplacer(pki.Serial(s.oldCert), "THAT OF THE CERTIFICATE",
			s.oldCert.NotAfter.Format(time.RFC3339), "THAT OF THE CERTIFICATE",
			pki.Serial(client.Leaf), "THAT OF THE CLIENT").Replace(jsonText(s.t, line)) + "\n"
	case "identity": // reloaded
		err := errors.New(rest)
		if rest == "usable" {
			err = nil
		}
		s.c.metrics.CountIdentityReload(err)
	case "metrics":
		return strings.Join(regexp.MustCompile("(?m)^"+rest).FindAllString(written(s.c.metrics), -1), "\n") + "\n"
	case "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "ops":
		return s.ask(command, rest)
	case "MAX_IN_FLIGHT": // of 1, which is taken
		s.api.handler.slots = newSlots(1, 0)
		_, _, _ = s.api.handler.slots.take("RA", Share{Authorities: 1}, key(1))
	case "enroll", "update":
		return s.request(command, rest)
	case "header": // of the last request to the CA
		s.received = s.last
		h := s.received[0].Header
		return fmt.Sprintf("recipient %s, sender %s, implicitConfirm %t, issuer %s\n", h.Recipient, h.Sender,
			h.ImplicitConfirm(), pki.DN(s.template(0).Issuer))
	case "stats":
		return fmt.Sprintf("%+v\n", s.ca.Stats())
	default:
		s.t.Fatalf("the command %q is not known", command)
	}
	return ""
}

// behave has the server do something else than the CA does; nothing: what the CA does.
func (s *script) behave(how string) {
	s.instead, s.change = nil, nil
	switch how {
	case "busy":
		s.instead = func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "90")
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	case "hanging":
		s.instead = func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	case "without the alias":
		text := string(testFile(s.t, "ejbca/unknown-alias.response.html"))
		s.instead = func(w http.ResponseWriter, _ *http.Request) { page(w, 404, text) }
	case "for mail":
		s.instead = func(w http.ResponseWriter, _ *http.Request) {
			s.answerRaw(w, func(c io.Writer) { _, _ = io.WriteString(c, "220 mail.example ready\r\n") })
		}
	case "closing": // after each answer, so that certConf meets a closed connection
		s.instead = func(w http.ResponseWriter, r *http.Request) {
			recorded := httptest.NewRecorder()
			s.ca.ServeHTTP(recorded, r)
			answer := recorded.Result()
			answer.ContentLength = int64(recorded.Body.Len())
			s.answerRaw(w, func(c io.Writer) { _ = answer.Write(c) })
		}
	case "another subject":
		s.issueOther(func() any { return s.key }, "other", "app.example")
	case "another name":
		s.issueOther(func() any { return s.key }, "app", "replica-2.example")
	case "caPubs without the root":
		s.change = func(answer *cmp.PKIMessage) {
			answer.Body.Content.(*cmp.CertRepMessage).CAPubs = [][]byte{s.ca.Issuing().Raw}
			s.protect(answer)
		}
	case "signed by a stranger":
		made := newCA(s.t, "Stranger")
		made.Change = func(leaf *x509.Certificate) { leaf.RawSubject = s.ca.Issuing().RawSubject }
		stranger := identity(s.t, made)
		s.change = func(answer *cmp.PKIMessage) {
			answer.SetSigner(stranger.Leaf, nil)
			answer.ExtraCerts = append(answer.ExtraCerts, made.Issuing.Raw, made.Root.Raw)
			assert.NoError(s.t, cmp.ProtectSignature(answer, stranger.PrivateKey.(crypto.Signer)))
		}
	default:
		require.Empty(s.t, how)
	}
}

// request asks for a certificate with a new key and the names.
func (s *script) request(command, names string) string {
	if names == "" {
		names = "CN=app app.example"
	}
	names, wrong := strings.CutSuffix(names, " with the new key as OLD_PK")
	template := &x509.CertificateRequest{}
	for name := range strings.FieldsSeq(names) {
		if cn, ok := strings.CutPrefix(name, "CN="); ok {
			template.Subject.CommonName = cn
		} else if strings.Contains(name, "@") {
			template.EmailAddresses = append(template.EmailAddresses, name)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	s.sent()
	s.key = newKey(s.t)
	der := must(x509.CreateCertificateRequest(rand.Reader, template, s.key))
	header, path := headerOf(s.t, der, s.key), enrollPath
	if command == "update" {
		path = updatePath
		header["Old_cert"] = []string{b64([]byte(strings.Join(s.old.CertificateChain, "")))}
		header["Old_pk"] = []string{headerValue("PRIVATE KEY", pkcs8(s.t, s.oldKey))}
		if wrong {
			header["Old_pk"] = header["Pk"]
		}
	}
	r := s.api.get(path, header)
	text := fmt.Sprintf("sent %s\n%d ", s.sent(), r.StatusCode)
	if r.StatusCode == http.StatusOK {
		s.old, s.oldKey = r.issued(), s.key
		s.oldCert = parseCert(s.t, []byte(s.old.CertificateChain[0]))
		assert.True(s.t, pki.SameKey(s.oldCert.PublicKey, s.key.Public()))
		text += dnsOf(s.t, s.old.CertificateChain) + "; trusted " + dnsOf(s.t, s.old.TrustedCertificates)
	} else {
		text += r.text
	}
	text += "\n"
	if wait := r.Header.Get("Retry-After"); wait != "" {
		text += "Retry-After: " + wait + "\n"
	}
	if reason, ok := s.api.audit()["error"]; ok && r.StatusCode != http.StatusOK {
		text += fmt.Sprintf("audit %s\n", reason)
	}
	text += s.warnings()
	assert.NotContains(s.t, text, "very-secret")
	return text
}

// sent are the messages that the CA got since the last call, with what authenticates them.
func (s *script) sent() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []string
	transactions := map[string]bool{}
	for _, m := range s.received {
		by := "?"
		if _, err := cmp.NewMACKeys([]byte("very-secret-iak")).Verify(m); err == nil {
			by = "secret"
		} else if s.oldKey != nil && cmp.VerifySignature(m, s.oldKey.Public()) == nil &&
			bytes.Equal(m.ExtraCerts[0], s.oldCert.Raw) && len(m.ExtraCerts) == 2 {
			by = "old key"
		}
		all = append(all, fmt.Sprintf("%s (%s)", m.Body.Type, by))
		transactions[string(m.Header.TransactionID)] = true
	}
	s.last, s.received = s.received, nil
	text := strings.Join(all, ", ")
	if len(all) > 1 {
		text += fmt.Sprintf(" in %d transactions", len(transactions))
	}
	return text
}

func dnsOf(t *testing.T, texts []string) string {
	var names []string
	for _, text := range texts {
		names = append(names, parseCert(t, []byte(text)).Subject.CommonName)
	}
	return strings.Join(names, ", ")
}

// ask sends a request to a path, with what the words after it say.
func (s *script) ask(method, rest string) string {
	words := strings.Fields(rest)
	client, header, path, body := s.api.client, http.Header{}, words[0], ""
	for _, word := range words[1:] {
		name, value, _ := strings.Cut(word, ":")
		switch size, err := strconv.Atoi(value); {
		case word == "stranger":
			client = s.api.clientWith()
		case word == "body":
			body = strings.Repeat("x", 1<<20)
		case word == "untrusted":
			client = s.api.clientWith(identity(s.t, newCA(s.t, "Stranger")))
		case word == "enrolment":
			maps.Copy(header, enrollHeader(s.t))
		case word == "golden":
			_, header = goldenRequest(s.t, "update")
		case word == "Ed25519":
			key := edKey(s.t)
			header = headerOf(s.t, newCSR(s.t, key), key)
		case word == "forged":
			key := newKey(s.t)
			der := newCSR(s.t, key)
			der[len(der)-1] ^= 1
			header = headerOf(s.t, der, key)
		case word == "twice":
			header.Add("CSR", header.Get("CSR"))
		case strings.HasPrefix(value, "@"):
			header.Set(name, b64(testFile(s.t, value[1:]+".pem")))
		case strings.HasPrefix(value, "="):
			header.Set(name, header.Get(value[1:]))
		case name == "X-Filler" && err == nil:
			header.Set(name, strings.Repeat("x", size<<10))
		default:
			header.Set(name, strings.ReplaceAll(value, "_", " "))
		}
	}
	if method == "ops" {
		text := ""
		for _, method := range words[1:] {
			w := httptest.NewRecorder()
			s.api.handler.Ops().ServeHTTP(w, httptest.NewRequest(method, path, nil))
			text += fmt.Sprintf("%s %d ", method, w.Code)
		}
		return text + "\n"
	}
	s.api.handler.reloads.every = 0
	r := s.api.do(client, method, path, header, body)
	text := fmt.Sprintf("%d %.300s", r.StatusCode, r.text)
	if r.StatusCode == http.StatusOK && len(r.text) > 300 {
		text = fmt.Sprint("200 and ", r.Header.Get("Content-Type"))
	}
	if allow := r.Header.Get("Allow"); allow != "" {
		text += "\nAllow: " + allow
	}
	if r.StatusCode == http.StatusServiceUnavailable {
		text += fmt.Sprintf("\nRetry-After: %t", r.Header.Get("Retry-After") != "")
	}
	line := s.api.audit()
	text += "\naudit"
	for _, name := range []string{"level", "outcome", "operation", "ca", "doctor", "error"} {
		if value, ok := line[name]; ok {
			text += fmt.Sprintf(" %s=%v", name, value)
		}
	}
	s.sent()
	return strings.ReplaceAll(text, s.path, "FILE") + "\n" + s.warnings()
}
