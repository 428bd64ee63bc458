// Package cmp runs certfetcher with PROTOCOL=cmp, at CAs and through a CertService, and looks at
// what users and CAs see: files, exit codes, logs, and how many certificates were issued and
// confirmed. The scripts in testdata are testscript's; the commands that this package adds are
// described at their functions.
package cmp

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/test/fixture"
)

var binDir string

func TestMain(m *testing.M) { fixture.RunTests(m, &binDir) }

func TestScripts(t *testing.T) {
	fixture.RequirePrograms(t, "openssl")
	t.Cleanup(func() { compareMatrix(t) })
	fixture.RunScripts(t, testscript.Params{Dir: fixture.Scripts(t, "testdata/*.txtar"), Setup: setUp,
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"devca": startDevCA, "again": again, "ra": startRA, "replicas": startReplicas, "ejbca": startEJBCA,
			"issued": issued, "openssl": startOpenSSL, "bouncycastle": startBouncyCastle, "identity": signByIdentity,
			"fault": orderFault, "changed": changed, "starts": starts, "https": startHTTPS,
			"through": through, "exits": exits, "says": says, "sidecar": startSidecar, "await": await, "logged": logged,
			"account": becomeAccount, "crash": crash, "ran": ran, "posts": posts, "leaf": leaf, "left": left,
			"token": writeToken,
		}})
}

// setUp gives every script the least environment that works.
func setUp(env *testscript.Env) error {
	mtls := filepath.Join(env.WorkDir, "mtls")
	for name, value := range map[string]string{
		"PATH": binDir + ":" + os.Getenv("PATH"), "PROTOCOL": "cmp",
		"OUTPUT_PATH": filepath.Join(env.WorkDir, "volume"),
		"OUTPUT_TYPE": "PEM", "COMMON_NAME": "app.example.org", "ORGANIZATION": "Example", "STATE": "Skane",
		"COUNTRY": "SE", "SANS": "app.example.org", "KEY_ALGORITHM": "ECDSA-P256", "HEALTH_ADDR": "off",
		"RETRY_INITIAL_INTERVAL": "5ms", "RETRY_MAX_INTERVAL": "20ms", "RETRY_MAX_ELAPSED": "300ms",
		"TERMINATION_MESSAGE_PATH": filepath.Join(env.WorkDir, "termination-log"),
		"FREE":                     fixture.FreeAddress(env.T().(testing.TB)), "MTLS": mtls,
	} {
		env.Setenv(name, value)
	}
	env.Values[servers{}], env.Values[testKey{}] = &servers{}, env.T().(testing.TB)
	env.Values[services{}] = &fixture.Stack{}
	env.Values[issuers{}] = new(*fixture.Issuer)
	env.Values[processes{}] = map[string]*fixture.Process{}
	return os.Mkdir(mtls, 0o700)
}

// processes are what a script has started, by name, and services the CertService among it.
type (
	processes struct{}
	services  struct{}
	testKey   struct{}
)

func started(ts *testscript.TestScript, name string) *fixture.Process {
	p, _ := ts.Value(processes{}).(map[string]*fixture.Process)[name]
	if p == nil {
		ts.Fatalf("%s is not started", name)
	}
	return p
}

// environment is the script's, with what is added.
func environment(ts *testscript.TestScript, args []string) []string {
	ts.Check(ts.Exec("env", "-0"))
	return append(strings.Split(strings.TrimSuffix(ts.ReadFile("stdout"), "\x00"), "\x00"), args...)
}

// devca [NAME=VALUE...] starts a CA, and says in CMP_URL, CMP_RECIPIENT, CMP_REFERENCE, CMP_SECRET
// and ROOT how to reach and to trust it.
func startDevCA(ts *testscript.TestScript, _ bool, args []string) {
	p, entry, err := fixture.StartDevCA(binDir, ts.MkAbs("."), args...)
	ts.Check(err)
	ts.Defer(p.Stop)
	ts.Value(processes{}).(map[string]*fixture.Process)["devca"] = p
	secret := entry["authentication"].(map[string]string)
	for name, value := range map[string]any{"CMP_URL": entry["url"], "CMP_RECIPIENT": entry["issuerDN"],
		"CMP_REFERENCE": secret["rv"], "CMP_SECRET": secret["iak"], "ROOT": entry["trustAnchors"], "CA": "devca"} {
		ts.Setenv(name, value.(string))
	}
	ts.Setenv("CA_URL", strings.TrimSuffix(ts.Getenv("CMP_URL"), "/pkix/"))
}

// exits CODE PROGRAM [ARGUMENT...] runs a program to its end.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	code := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		code = exit.ExitCode()
	}
	if want, _ := strconv.Atoi(args[0]); code != want {
		ts.Fatalf("exit code %d, want %d", code, want)
	}
}

// says REGEXP wants that in what the last program has written.
func says(ts *testscript.TestScript, neg bool, args []string) {
	text := strings.ReplaceAll(ts.ReadFile("stdout")+ts.ReadFile("stderr"), `\"`, `"`)
	if regexp.MustCompile("(?s)"+args[0]).MatchString(text) == neg {
		ts.Fatalf("%s must match %q: %t", text, args[0], !neg)
	}
}

// sidecar [NAME=VALUE...] starts certfetcher, which goes on.
func startSidecar(ts *testscript.TestScript, _ bool, args []string) {
	p, err := fixture.Start(filepath.Join(binDir, "certfetcher"), environment(ts, args)...)
	ts.Check(err)
	ts.Defer(p.Stop)
	ts.Value(processes{}).(map[string]*fixture.Process)["sidecar"] = p
}

// ra [-signed] [-account NAMESPACE/NAME] [NAME=VALUE...] starts a CertService before the CA, and has CMP_URL lead
// there. The identity that it knows signs requests; with -account it takes tokens alone, and the pod is one of that
// service account. It shares the secret with the CA, or -signed signs with what certfetcher published in the directory
// identity.
func startRA(ts *testscript.TestScript, _ bool, args []string) {
	entry := map[string]any{"url": ts.Getenv("CMP_URL"), "issuerDN": ts.Getenv("CMP_RECIPIENT"),
		"authentication": map[string]string{"iak": ts.Getenv("CMP_SECRET"), "rv": ts.Getenv("CMP_REFERENCE")},
		"trustAnchors":   ts.Getenv("ROOT")}
	protection := "MAC"
	if len(args) > 0 && args[0] == "-signed" {
		args, protection = args[1:], "signature"
		entry["authentication"] = map[string]string{"certificate": ts.MkAbs("identity/keystore.pem"),
			"key": ts.MkAbs("identity/key.pem")}
	}
	account := ""
	if len(args) > 1 && args[0] == "-account" {
		account = args[1]
		args = append(acceptTokens(ts), args[2:]...)
	}
	s, err := fixture.StartCertService(binDir, ts.MkAbs("."), entry, args...)
	ts.Check(err)
	ts.Defer(s.CertService.Stop)
	ts.Value(processes{}).(map[string]*fixture.Process)["ra"] = s.CertService
	*ts.Value(services{}).(*fixture.Stack) = *s
	for name, value := range map[string]string{
		"CMP_URL": "https://" + s.CertService.Address() + "/.well-known/cmp/p/" + fixture.CAName, "CMP_SECRET": "",
		"CMP_REFERENCE": "", "CMP_TRUST_ANCHORS": ts.Getenv("ROOT"),
		"KEYSTORE_PATH": filepath.Join(s.Dir, "client.pem"), "TRUSTSTORE_PATH": filepath.Join(s.Dir, "truststore.pem"),
		"MTLS": s.Dir, "RA": "https://" + s.CertService.Address(), "RA_PROTECTION": protection,
		"REQUEST_URL": "https://" + s.CertService.Address() + "/v1/certificate/",
	} {
		ts.Setenv(name, value)
	}
	if account != "" {
		becomeAccount(ts, false, []string{account})
	}
}

// token CLAIMS writes one that nobody has signed, with these claims changed.
func writeToken(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(os.WriteFile(ts.MkAbs("token"), []byte(fixture.Token(args[0])), 0o600))
}

type issuers struct{}

// acceptTokens is the environment of a CertService that takes nothing but tokens of the script's issuer.
func acceptTokens(ts *testscript.TestScript) []string {
	issuer := fixture.NewIssuer("https://cluster.example.org")
	*ts.Value(issuers{}).(**fixture.Issuer) = issuer
	issuer.WriteJWKS(ts.MkAbs("jwks.json"))
	return []string{"CLIENT_CREDENTIALS=token", "TOKEN_ISSUER=" + issuer.URL, "TOKEN_AUDIENCE=certservice",
		"TOKEN_JWKS_PATH=" + ts.MkAbs("jwks.json")}
}

// account NAMESPACE/NAME [AUDIENCE] makes the pod one of that service account: it has a token and no client
// certificate.
func becomeAccount(ts *testscript.TestScript, _ bool, args []string) {
	namespace, name, _ := strings.Cut(args[0], "/")
	audience := "certservice"
	if len(args) > 1 {
		audience = args[1]
	}
	(*ts.Value(issuers{}).(**fixture.Issuer)).WriteToken(ts.MkAbs("token"), namespace, name, audience)
	token := ts.ReadFile("token")
	for name, value := range map[string]string{"KEYSTORE_PATH": "", "TOKEN_PATH": ts.MkAbs("token"),
		"CA_NAME": fixture.CAName, "SIGNATURE": token[strings.LastIndex(token, ".")+1:]} {
		ts.Setenv(name, value)
	}
}

// through [COMMAND] is that command, ra or ra -signed, where the row has one.
func through(ts *testscript.TestScript, neg bool, args []string) {
	if words := strings.Fields(args[0]); len(words) > 0 {
		startRA(ts, neg, words[1:])
	}
}

// identity [WORD...] has requests signed by an identity of the CA's, in the directory of that name, in place of the
// secret, where a word says -signed.
func signByIdentity(ts *testscript.TestScript, _ bool, args []string) {
	if !strings.Contains(strings.Join(args, " "), "-signed") {
		return
	}
	dir := ts.MkAbs("identity")
	if _, err := os.Stat(dir); err != nil {
		ts.Check(ts.Exec("env", "OUTPUT_PATH="+dir, "COMMON_NAME=device", "certfetcher"))
	}
	ts.Setenv("CMP_SECRET", "")
	ts.Setenv("CMP_TRUST_ANCHORS", ts.Getenv("ROOT"))
	ts.Setenv("KEYSTORE_PATH", filepath.Join(dir, "keystore-combined.pem"))
}

// replicas starts another CertService with a certificate of its own, and has the two take turns: each
// connection goes to the next, and ends after one answer.
func startReplicas(ts *testscript.TestScript, _ bool, _ []string) {
	s := ts.Value(services{}).(*fixture.Stack)
	dir := ts.MkAbs("another")
	ts.Check(s.Transport.WriteIdentity(dir, "another replica"))
	other, err := s.CertService.Again("KEYSTORE_PATH=" + filepath.Join(dir, "client.p12"))
	ts.Check(err)
	ts.Defer(other.Stop)
	ts.Value(processes{}).(map[string]*fixture.Process)["other"] = other
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { listener.Close() })
	go func() {
		for n := 0; ; n++ {
			from, err := listener.Accept()
			if err != nil {
				return
			}
			go connect(from, from, []*fixture.Process{s.CertService, other}[n%2].Address())
		}
	}()
	ts.Setenv("CMP_URL", "https://"+listener.Addr().String()+"/.well-known/cmp/p/"+fixture.CAName)
}

// connect carries what is sent on a connection to an address, and the answers back.
func connect(from net.Conn, sent io.Reader, address string) {
	defer from.Close()
	to, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	defer to.Close()
	go func() { _, _ = io.Copy(to, sent) }()
	_, _ = io.Copy(from, to)
}

// again starts the CA anew, at the same address with another root; NAME=VALUE are added.
func again(ts *testscript.TestScript, _ bool, args []string) {
	p := started(ts, "devca")
	p.Stop()
	startDevCA(ts, false, append([]string{"DEVCA_ADDR=" + strings.TrimPrefix(strings.TrimSuffix(ts.Getenv("CMP_URL"),
		"/pkix/"), "http://")}, args...))
}

// changed FROM TO copies a message with another protection.
func changed(ts *testscript.TestScript, _ bool, args []string) {
	m, err := cmp.ParsePKIMessage([]byte(ts.ReadFile(args[0])))
	ts.Check(err)
	m.Protection = append(bytes.Clone(m.Protection[:len(m.Protection)-1]), m.Protection[len(m.Protection)-1]^1)
	der, err := m.Marshal()
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), der, 0o600))
}

// https [-mutual] has TLS before the CA, as a web server gives it; -mutual wants a certificate of the client.
func startHTTPS(ts *testscript.TestScript, _ bool, args []string) {
	dir := ts.MkAbs("https")
	authority := fixture.Must(fixture.NewCA("Web"))
	ts.Check(authority.WriteIdentity(dir, "localhost", "localhost"))
	identity, err := tls.LoadX509KeyPair(filepath.Join(dir, "client-certificate.pem"),
		filepath.Join(dir, "client-key.pem"))
	ts.Check(err)
	target, err := url.Parse(ts.Getenv("CMP_URL"))
	ts.Check(err)
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: target.Host})
	server := httptest.NewUnstartedServer(proxy)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{identity}}
	if len(args) > 0 {
		server.TLS.ClientAuth, server.TLS.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		server.TLS.ClientCAs.AddCert(authority.Root)
	}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	ts.Defer(server.Close)
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	ts.Check(err)
	ts.Setenv("CMP_URL", "https://localhost:"+port+target.Path)
	ts.Setenv("TRUSTSTORE_PATH", filepath.Join(dir, "truststore.pem"))
}

// fault FAULT,... orders faults of the CA that runs; see devca -h.
func orderFault(ts *testscript.TestScript, _ bool, args []string) {
	response, err := http.Post(ts.Getenv("CA_URL")+"/faults", "text/plain", strings.NewReader(args[0]))
	ts.Check(err)
	defer response.Body.Close()
	if response.StatusCode != http.StatusNoContent {
		ts.Fatalf("devca does not take the fault %q: %s", args[0], response.Status)
	}
}

// starts NAME [ARGUMENT...] is the command devca or openssl, as a row has it.
func starts(ts *testscript.TestScript, neg bool, args []string) {
	start := startDevCA
	words := strings.Fields(args[0])
	if words[0] == "openssl" {
		start = startOpenSSL
	}
	start(ts, neg, words[1:])
}

// crash NAME kills a process.
func crash(ts *testscript.TestScript, _ bool, args []string) {
	p := started(ts, args[0])
	ts.Check(p.Process.Kill())
	_ = p.Wait()
}

// await NAME N REGEXP waits until so many lines of a process's log match.
func await(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[1])
	ts.Check(err)
	p, expression := started(ts, args[0]), regexp.MustCompile(args[2])
	for end := time.Now().Add(20 * time.Second); len(expression.FindAllString(p.Logged(), -1)) < want; {
		if time.Now().After(end) {
			ts.Fatalf("%s has not logged %q %d times:\n%s", args[0], args[2], want, p.Logged())
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// logged NAME N REGEXP wants so many lines of a process's log that match; a line may be on its way.
func logged(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[1])
	ts.Check(err)
	p, expression, n := started(ts, args[0]), regexp.MustCompile(args[2]), 0
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if n = len(expression.FindAllString(p.Logged(), -1)); n >= want || time.Now().After(end) {
			break
		}
	}
	if n == want {
		return
	}
	for name, p := range ts.Value(processes{}).(map[string]*fixture.Process) {
		ts.Logf("%s:\n%s", name, p.Logged())
	}
	ts.Fatalf("%s has logged %q %d times, want %d", args[0], args[2], n, want)
}

// leaf REGEXP wants a certificate on the volume of which openssl says that.
func leaf(ts *testscript.TestScript, neg bool, args []string) {
	ts.Check(ts.Exec("openssl", "x509", "-noout", "-subject", "-issuer", "-serial", "-ext", "subjectAltName",
		"-in", filepath.Join(ts.Getenv("OUTPUT_PATH"), "keystore.pem")))
	if regexp.MustCompile("(?s)"+args[0]).MatchString(ts.ReadFile("stdout")) == neg {
		ts.Fatalf("%s must match %q: %t", ts.ReadFile("stdout"), args[0], !neg)
	}
}

// posts STATUS URL [TYPE FILE|SIZE] sends a file, or so many bytes, with the identity where there is one, and
// keeps the answer's body in the file answer.
func posts(ts *testscript.TestScript, _ bool, args []string) {
	var content []byte
	media := ""
	if len(args) > 2 {
		media = args[2]
		size, err := strconv.Atoi(args[3])
		if content = make([]byte, size); err != nil {
			content = []byte(ts.ReadFile(args[3]))
		}
	}
	config := &tls.Config{InsecureSkipVerify: true} // it is about what the server answers
	dir := ts.Getenv("MTLS")
	if identity, err := tls.LoadX509KeyPair(filepath.Join(dir, "client-certificate.pem"),
		filepath.Join(dir, "client-key.pem")); err == nil {
		config.Certificates = []tls.Certificate{identity}
	}
	c := http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
	response, err := c.Post(args[1], media, bytes.NewReader(content))
	ts.Check(err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs("answer"), body, 0o600))
	if strconv.Itoa(response.StatusCode) != args[0] {
		ts.Fatalf("status %d, want %s: %s", response.StatusCode, args[0], body)
	}
}

// left wants a journal on the volume, which only its owner can read; ! left waits until there is no
// trace of one.
func left(ts *testscript.TestScript, neg bool, _ []string) {
	find := func() []string {
		found, err := filepath.Glob(filepath.Join(ts.Getenv("OUTPUT_PATH"), "..enrolment*"))
		ts.Check(err)
		return found
	}
	found := find()
	for end := time.Now().Add(20 * time.Second); neg && len(found) > 0 && time.Now().Before(end); found = find() {
		time.Sleep(5 * time.Millisecond)
	}
	if neg != (len(found) == 0) {
		ts.Fatalf("journals: %q", found)
	}
	for _, name := range found {
		info, err := os.Stat(name)
		ts.Check(err)
		if info.Mode() != 0o600 {
			ts.Fatalf("%s has mode %v", name, info.Mode())
		}
	}
}
