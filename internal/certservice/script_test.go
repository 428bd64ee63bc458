package certservice

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/admission"
	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/internal/devca"
	"github.com/certfetcher/certfetcher/internal/files"
	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/test/fixture"
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
	csr     []byte        // of the last request
	oldKey  crypto.Signer // of the last certificate
	old     issuedBody
	oldCert *x509.Certificate
	release func()       // what waits at the server
	waiting atomic.Int64 // requests
	later   []chan int   // statuses of the requests that began meanwhile
	tls     *fixture.CA  // of the server
	seen    *sync.Map    // the answers that the OpenAPI document lists, as "path status"
}

func newScript(t *testing.T) *script {
	s := &script{cmpServer: newCMPServer(t), log: &lockedBuffer{}, seen: &sync.Map{}, release: func() {}}
	s.c, s.path = s.configuration(nil)
	s.c.log = jsonLog(s.log)
	s.options("{}")
	s.api = serviceOf(t, s.c)
	return s
}

var varies = regexp.MustCompile(
	`127\.0\.0\.1:\d+|/\S*/Test\w[^/ ]*(?:/\d+)?|[0-9a-f]{32}|20[0-9-]+T[0-9:]+Z|column \d+|\b1\d{9}\b`)

// Each section of testdata/authority.txt is a script: lines "> " are commands, and the others what the CertService then
// answers, sends to the CA and logs. The method run says what the commands do.
func TestAuthority_asTheScriptsSay(t *testing.T) {
	want, seen := golden.Load(t, "authority.txt"), &sync.Map{}
	t.Cleanup(func() {
		for _, e := range endpoints {
			for status := range follow(openAPI(), "paths", e.path, e.method(), "responses") {
				_, ok := seen.Load(e.path + " " + status)
				assert.True(t, ok || t.Failed() || flag.Lookup("test.run").Value.String() != "",
					"%s never answers %s, which the OpenAPI document lists", e.path, status)
			}
		}
	})
	text := must(os.ReadFile("testdata/authority.txt"))
	for _, section := range strings.Split("\n"+string(text), "\n# ")[1:] {
		title, commands, _ := strings.Cut(section, "\n")
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			s, got := newScript(t), ""
			s.seen = seen
			for line := range strings.Lines(commands + "\n") {
				if command, isCommand := strings.CutPrefix(line, "> "); isCommand {
					name, rest, _ := strings.Cut(strings.TrimSpace(command), " ")
					text := strings.ReplaceAll(s.run(name, rest), "readLoopPeekFailLocked: ", "") // net/http may say so
					got += line + varies.ReplaceAllString(text, "…")
					assert.NotContains(t, s.api.log.String(), "very-secret")
				}
			}
			want.Equal(t, title, strings.TrimSuffix(got, "\n"))
		})
	}
}

// documented compares an answer with the OpenAPI document.
func (s *script) documented(r response) {
	e, _, known := findEndpoint(r.Request.URL)
	if !known || strings.ToLower(r.Request.Method) != e.method() {
		return
	}
	place := e.path + " " + strconv.Itoa(r.StatusCode)
	s.seen.Store(place, true)
	spec := follow(openAPI(), "paths", e.path, e.method(), "responses", strconv.Itoa(r.StatusCode))
	schema := follow(spec, "content", r.Header.Get("Content-Type"), "schema")
	assert.NotNil(s.t, schema, "%s is not in the document, with its content type", place)
	required, _ := schema["required"].([]any)
	for _, property := range required {
		assert.Contains(s.t, r.text, `"`+property.(string)+`":`, place)
		assert.Contains(s.t, follow(schema, "properties"), property)
	}
	for name, h := range follow(spec, "headers") {
		assert.True(s.t, follow(h)["required"] != true || r.Header.Get(name) != "", "%s is without %s", place, name)
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
			for _, name := range []string{"error", "dropped"} {
				if reason, ok := line[name]; ok {
					text += fmt.Sprint(": ", reason)
				}
			}
			text += "\n"
		}
	}
	s.log.Reset()
	return text
}

func (s *script) run(command, rest string) string {
	switch command {
	case "ca": // another one in its place, which protects its answers so
		s.replace(devca.ResponseProtection(rest))
		writeFile(s.t, s.file("root.pem"), s.ca.RootPEM())
	case "faults":
		var faults devca.Faults
		require.NoError(s.t, json.Unmarshal([]byte(rest), &faults))
		s.ca.SetFaults(faults)
	case "fail": // a kind of message, so many times, with status 500 and a page
		kind, times, _ := strings.Cut(rest, " ")
		s.fails[kind], _ = strconv.Atoi(times)
	case "server":
		s.behave(rest)
		if rest == "" {
			s.release()
		}
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
		writeFile(s.t, s.path, []byte(s.entries(rest)))
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
		for _, name := range []string{"time", "duration", "remote", "request_id"} {
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
	case "STATUS_PAGE":
		s.api.handler.cfg.NoStatus = rest == "false"
	case "MAX_IN_FLIGHT": // and MAX_QUEUED
		most, queued, _ := strings.Cut(rest+" 0", " ")
		s.api.handler.admission = admission.New[clientKey](admission.Config{MaxInFlight: number[int](most),
			MaxQueued: number[int](queued), Now: time.Now, Random: rand.Float64})
		s.c.metrics.observeAdmission(s.api.handler.admission)
	case "processors": // so many, and of them for heavy computations; nothing: who waits for one
		cpu := s.api.handler.cfg.CPU
		cpu.mu.Lock()
		defer cpu.mu.Unlock()
		if rest == "" {
			return fmt.Sprint(len(cpu.account), " clients\n")
		}
		must(fmt.Sscan(rest, &cpu.free, &cpu.heavy))
		cpu.grant()
	case "reloads": // wait for the next one, as many clients as may
		s.api.handler.reloads.waiting = s.api.handler.reloads.most
	case "policy": // a text; nothing: none, and the client is nobody's admin
		s.api.handler.cfg.Policy, s.api.handler.cfg.Admins = nil, nil
		if rest != "" {
			s.api.handler.cfg.Policy = newPolicy(s.t, rest)
		}
	case "roots": // of the clients; none
		s.api.handler.cfg.ClientRoots = func() *x509.CertPool { return poolOf() }
	case "hour": // so many later, for the client certificates
		later := must(time.ParseDuration(rest + "h"))
		s.api.handler.now = func() time.Time { return time.Now().Add(later) }
	case "tls": // from here on the server is behind TLS, and requires client certificates
		s.tls = newCA(s.t, "CMP TLS")
		server := httptest.NewUnstartedServer(s.cmpServer)
		server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
		server.TLS = &tls.Config{Certificates: []tls.Certificate{identity(s.t, s.tls)},
			ClientCAs: poolOf(s.tls.Root), ClientAuth: tls.RequireAndVerifyClientCert}
		server.StartTLS()
		s.t.Cleanup(server.Close)
		s.url = server.URL
		s.writeTLS(s.tls)
	case "TLS-files": // of the server's CA; another; expired
		ca := *s.tls
		switch rest {
		case "another":
			ca = *newCA(s.t, "Other")
		case "expired":
			ca.Validity = time.Nanosecond
		}
		s.writeTLS(&ca)
	case "mangle": // files, as editors, YAML and shells do
		for name := range strings.FieldsSeq(rest) {
			text := string(must(os.ReadFile(s.file(name))))
			writeFile(s.t, s.file(name), []byte("\ufeff  "+strings.ReplaceAll(text, "\n", `\n`)))
		}
	case "copy": // a file
		from, to, _ := strings.Cut(rest, " ")
		writeFile(s.t, s.file(to), must(os.ReadFile(s.file(from))))
	case "mkdir":
		require.NoError(s.t, os.Mkdir(s.file(rest), 0o700))
	case "remove":
		require.NoError(s.t, os.RemoveAll(s.file(rest)))
	case "generation": // of the file, as the kubelet writes it
		name, text, _ := strings.Cut(rest, " ")
		require.NoError(s.t, os.Mkdir(s.file(name), 0o700))
		writeFile(s.t, s.file(name+"/cmpServers.json"), []byte(s.entries(text)))
		require.NoError(s.t, os.Symlink(name, s.file("..data_tmp")))
		require.NoError(s.t, os.Rename(s.file("..data_tmp"), s.file("..data")))
		_ = os.Remove(s.path)
		require.NoError(s.t, os.Symlink("..data/cmpServers.json", s.path))
	case "watch": // until the end
		ctx, cancel := context.WithCancel(s.t.Context())
		done := make(chan struct{})
		changes := files.NewWatcher(ctx, slog.Default())
		go func() { s.c.Watch(ctx, changes); close(done) }()
		s.t.Cleanup(func() { cancel(); <-done })
	case "pause": // so that what should not happen has time
		time.Sleep(must(time.ParseDuration(rest)))
	case "await": // that there is a CA
		eventually(s.t, func() bool { _, _, found := s.c.Lookup(rest); return found })
	case "logged": // so many times, or soon will be
		times, message, _ := strings.Cut(rest, " ")
		count := func() int { return strings.Count(s.log.String(), `"`+message) }
		eventually(s.t, func() bool { return count() >= number[int](times) })
		assert.Equal(s.t, number[int](times), count())
	case "enrolled": // is the client soon
		eventually(s.t, func() bool { return s.api.enroll().StatusCode == http.StatusOK })
	case "authority":
		s.api.handler.cfg.Directory = static{"RA": s.authority(rest)}
	case "everywhere": // GET, or POST without a body where that is served, with the words
		all := append([]endpoint{{path: "/"}, {path: "/nowhere"}}, endpoints...)
		answers := map[string]string{}
		for _, e := range all {
			path := strings.NewReplacer(caNameParameter, "RA", operationParameter, "pkcs10").Replace(e.path)
			r := s.send(strings.ToUpper(e.method()), path, strings.Fields(rest))
			answers[strings.ReplaceAll(s.answer(r), s.path, "FILE")] += " " + path
		}
		text := ""
		for _, answer := range slices.Sorted(maps.Keys(answers)) {
			text += answer + " at" + answers[answer] + "\n"
		}
		return text
	case "enroll", "update":
		return s.request(command, rest)
	case "header": // of the last request to the CA
		h, template := s.last[0].Header, s.template()
		parts, _ := splitCSR(s.csr)
		assert.Equal(s.t, parts.subject, template.Subject)
		assert.Equal(s.t, parts.spki, template.PublicKey)
		assert.Equal(s.t, pki.DN(parts.subject), s.api.audit()["requested"].(map[string]any)["subject"])
		return fmt.Sprintf("recipient %s, sender %s, implicitConfirm %t, issuer %s, subject %s, names %q\n",
			h.Recipient, h.Sender, h.ImplicitConfirm(), pki.DN(template.Issuer), pki.DN(template.Subject),
			must(readCSR(s.csr)).DNSNames)
	case "extensions": // of the last request to the CA, with the key usages
		text := ""
		for _, e := range s.template().Extensions {
			text += e.Id.String()
			if e.Id.Equal(oidKeyUsage) {
				usages, _ := pki.ReadKeyUsage(e.Value)
				text += " " + strings.Join(usages, "+")
			}
			text += "\n"
		}
		return text
	case "meanwhile": // the statuses of the requests that began
		return s.ended()
	case "stats":
		return fmt.Sprintf("%+v\n", s.ca.Stats())
	default:
		s.t.Fatalf("the command %q is not known", command)
	}
	return ""
}

func (s *script) file(name string) string { return filepath.Join(filepath.Dir(s.path), name) }

// entries replaces $NAME{FIELDS} by an entry.
func (s *script) entries(rest string) string {
	entry := regexp.MustCompile(`\$(\w*)(\{(?:[^{}]|\{[^{}]*\})*\})?`)
	return entry.ReplaceAllStringFunc(rest, func(e string) string {
		parts, fields := entry.FindStringSubmatch(e), map[string]any{"caName": "RA"}
		if parts[1] != "" {
			fields["caName"] = parts[1]
		}
		if parts[2] != "" {
			require.NoError(s.t, json.Unmarshal([]byte(parts[2]), &fields))
		}
		return s.entry(fields)
	})
}

// writeTLS writes a CA's root as ca.pem, and an identity of it as tls.crt and tls.key.
func (s *script) writeTLS(ca *fixture.CA) {
	key, chain, err := ca.Identity("peer")
	require.NoError(s.t, err)
	writeFile(s.t, s.file("ca.pem"), fixture.CertificatesPEM(ca.Root))
	writeFile(s.t, s.file("tls.crt"), fixture.CertificatesPEM(chain...))
	writeFile(s.t, s.file("tls.key"), pemOf("PRIVATE KEY", pkcs8(s.t, key)))
}

// behave has the server do something else than the CA does; nothing: what the CA does.
func (s *script) behave(how string) {
	s.instead, s.change = nil, nil
	switch how {
	case "waiting": // until it does something else
		release := make(chan struct{})
		s.release = sync.OnceFunc(func() { close(release) })
		s.t.Cleanup(s.release)
		s.instead = func(w http.ResponseWriter, r *http.Request) {
			s.waiting.Add(1)
			<-release
			s.ca.ServeHTTP(w, r)
		}
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
	case "another certificate for requests/key":
		key := must(x509.ParsePKCS8PrivateKey(derOf(s.t, "requests/key.pem")))
		s.issueOther(func() any { return key }, "as the CA likes")
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

// authority answers in the place of the CA.
func (s *script) authority(how string) Authority {
	golden := goldenAuthority(s.t)
	return funcAuthority(func(ctx context.Context, r Request) (Issued, error) {
		switch kind, text, _ := strings.Cut(how, " "); kind {
		case "golden":
			return golden.Enroll(ctx, r)
		case "rootless":
			issued, err := golden.Enroll(ctx, r)
			issued.Trusted = nil
			return issued, err
		case "fails":
			return Issued{}, errors.New(text)
		case "fails-for-names":
			return Issued{}, &FailedError{Err: errors.New(text), Reason: ReasonNames}
		case "refuses":
			refused := &RefusedError{Text: text}
			if text != "" {
				refused.FailInfo = []string{"badRequest"}
			}
			return Issued{}, refused
		case "panics":
			panic(r) // the request, keys included
		case "errs": // as a program may
			return Issued{Chain: r.OldChain[len(how):]}, nil
		}
		return Issued{}, nil
	})
}
