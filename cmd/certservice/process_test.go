package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/files"
	"github.com/certfetcher/certfetcher/test/fixture"
)

// process is a running certservice.
type process struct {
	t          *testing.T
	cmd        *exec.Cmd
	https, url string // of the API and of the plain port
	mu         sync.Mutex
	log        []map[string]any
	ended      chan error
}

// start runs certservice, or a command that is followed by it.
func start(t *testing.T, env map[string]string, by ...string) *process {
	t.Helper()
	command := append(by, os.Args[0])
	p := &process{t: t, cmd: exec.Command(command[0], command[1:]...), ended: make(chan error, 1)}
	p.cmd.Env = []string{"CERTSERVICE_TEST_MAIN=true", "HTTPS_PORT=0", "METRICS_ADDR=127.0.0.1:0"}
	for name, value := range env {
		p.cmd.Env = append(p.cmd.Env, name+"="+value)
	}
	stderr := fixture.Must(p.cmd.StderrPipe())
	require.NoError(t, p.cmd.Start())
	t.Cleanup(func() { _ = p.cmd.Process.Kill() })
	go func() {
		lines := bufio.NewScanner(stderr)
		for lines.Scan() {
			var fields map[string]any
			if json.Unmarshal(lines.Bytes(), &fields) != nil {
				fields = map[string]any{"msg": lines.Text()}
			}
			p.mu.Lock()
			p.log = append(p.log, fields)
			p.mu.Unlock()
		}
		p.ended <- p.cmd.Wait()
	}()
	serving := p.await("serving", "")
	_, port, err := net.SplitHostPort(serving["https"].(string))
	require.NoError(t, err)
	p.https, p.url = "https://127.0.0.1:"+port, "http://"+serving["http"].(string)
	return p
}

// await waits for a line of the message, with the trigger if there is one.
func (p *process) await(message, trigger string) (found map[string]any) {
	p.t.Helper()
	return p.awaitFor(20*time.Second, message, trigger)
}

func (p *process) awaitFor(patience time.Duration, message, trigger string) (found map[string]any) {
	p.t.Helper()
	require.Eventually(p.t, func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, line := range p.log {
			if line["msg"] == message && (trigger == "" || line["trigger"] == trigger) {
				found = line
			}
		}
		return found != nil
	}, patience, 5*time.Millisecond, message)
	return found
}

// inotify counts the instances that the process has.
func (p *process) inotify() (count int) {
	p.t.Helper()
	for _, name := range fixture.Must(filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", p.cmd.Process.Pid))) {
		if target, _ := os.Readlink(name); strings.HasSuffix(target, "inotify") { // one may be closed by now
			count++
		}
	}
	return count
}

func (p *process) terminate() error {
	require.NoError(p.t, p.cmd.Process.Signal(syscall.SIGTERM))
	err := <-p.ended
	log := string(fixture.Must(json.Marshal(p.log)))
	assert.NotContains(p.t, log, "very-secret-iak")
	assert.NotContains(p.t, log, "PRIVATE KEY")
	return err
}

// client returns one that would speak HTTP/2, with a certificate unless it is a stranger's.
func (s *script) client(stranger bool) *http.Client {
	config := &tls.Config{RootCAs: x509.NewCertPool()}
	config.RootCAs.AddCert(s.ca.Root)
	if !stranger {
		key, chain, err := s.ca.Identity("client")
		require.NoError(s.t, err)
		config.Certificates = []tls.Certificate{{PrivateKey: key, Certificate: [][]byte{chain[0].Raw, chain[1].Raw}}}
	}
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
	s.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// get asks as a trusted client, a stranger, anyone on the plain port, or a trusted client that keeps its connection.
func (s *script) get(who, address string) string {
	client, url := s.client(who == "stranger" || who == "token"), s.https
	switch {
	case who == "anyone":
		url = s.url
	case who == "kept" && s.kept == nil:
		s.kept = client
	case who == "kept":
		client = s.kept
	}
	path, series, _ := strings.Cut(address, " ")
	ask := fixture.Must(http.NewRequest(http.MethodGet, url+path, nil))
	if who == "token" { // which is in DIR/token
		ask.Header.Set("Authorization", "Bearer "+string(fixture.Must(os.ReadFile(filepath.Join(s.dir, "token")))))
	}
	r := fixture.Must(client.Do(ask))
	defer r.Body.Close()
	text := string(fixture.Must(io.ReadAll(r.Body)))
	if series != "" {
		_, text, _ = strings.Cut(text, "\n"+series)
		text, _, _ = strings.Cut(series+text, "\n")
	}
	return fmt.Sprintln(r.StatusCode, text)
}

// handshake is a stranger's. In TLS 1.3 the client learns that it failed after its own side of it.
func (s *script) handshake() error {
	config := s.client(true).Transport.(*http.Transport).TLSClientConfig
	conn := fixture.Must(tls.Dial("tcp", strings.TrimPrefix(s.https, "https://"), config))
	defer conn.Close()
	_, err := conn.Read(make([]byte, 1))
	return err
}

func TestCertservice_strangersDoNotFillTheLog(t *testing.T) {
	s := newScript(t)
	s.process = start(t, s.env)
	stranger := s.client(true)
	const requests = 200
	send := func(url, text string) {
		_, address, _ := strings.Cut(url, "://")
		conn := fixture.Must(net.Dial("tcp", address))
		_, _ = io.WriteString(conn, text)
		conn.Close()
	}
	for range requests {
		fixture.Must(stranger.Get(s.https + "/v1/certificate/RA")).Body.Close()
		send(s.https, "")
		send(s.https, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		send(s.url, "nonsense\r\n\r\n")
		send(s.url, "GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n")
		send(s.url, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	}
	for range 50 {
		s.get("kept", "/nowhere")
	}
	assert.NoError(t, s.terminate())

	lines, summaries := map[string]int{}, []map[string]any{}
	for _, line := range s.log {
		lines[fmt.Sprint(line["msg"], " ", line["outcome"])]++
		if line["addresses"] != nil {
			summaries = append(summaries, line)
		}
	}
	t.Log(lines)
	assert.Equal(t, 5, lines["request unauthorized"])
	assert.Equal(t, 50, lines["request not_found"], "a trusted client's are all there")
	require.Len(t, summaries, 1, "at the end, if no minute was over: %v", lines)
	assert.EqualValues(t, requests-5, summaries[0]["requests"])
	assert.EqualValues(t, 2*requests-5, summaries[0]["handshakes"])
	assert.EqualValues(t, 1, summaries[0]["addresses"])
	assert.Equal(t, "WARN", summaries[0]["level"])
	assert.Less(t, len(s.log), 90)
}

func ruleFor(operation string) string {
	return "rules: [{name: a, clients: [{subject: {commonName: client}}], cas: [RA], operations: [" + operation + "]}]"
}

// newFollowing has every kind of file that a certservice follows.
func newFollowing(t *testing.T) *script {
	s := newScript(t)
	s.run("set", "CLIENT_CRL_PATH=DIR/crl.pem POLICY_PATH=DIR/policy.yaml CLIENT_CREDENTIALS=any "+
		"TOKEN_ISSUER=https://cluster.example.org TOKEN_AUDIENCE=certservice TOKEN_JWKS_PATH=DIR/jwks.json")
	s.run("write", "policy.yaml "+ruleFor("enroll"))
	s.run("crls", "crl.pem")
	s.run("jwks", "")
	return s
}

func TestCertservice_oneInotifyInstance_followsAllFiles(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("no other system has inotify")
	}
	s := newFollowing(t)
	s.process = start(t, s.env)
	s.changeAll(20 * time.Second)
	assert.Equal(t, 1, s.inotify())
	assert.NoError(t, s.terminate())
}

// All containers of a user on one host share the instances, so that there may be none left.
func TestCertservice_kernelGivesNoWatcher_servesAndLooksOnceAMinute(t *testing.T) {
	t.Parallel()
	if exec.Command("unshare", "--map-root-user", "true").Run() != nil {
		fixture.SkipWithout(t, "the right to make a user namespace")
	}
	s := newFollowing(t)
	s.process = start(t, s.env, "unshare", "--map-root-user", "sh", "-c",
		`echo 0 >/proc/sys/user/max_inotify_instances && exec "$0"`)
	assert.Zero(t, s.inotify())
	assert.Equal(t, "200 {\"status\":\"UP\"}\n", s.get("trusted", "/ready"))
	s.changeAll(time.Minute + 20*time.Second)
	assert.NoError(t, s.terminate())
	warnings := slices.DeleteFunc(s.log, func(line map[string]any) bool { return line["msg"] != files.Unwatched })
	require.Len(t, warnings, 1)
	assert.Equal(t, "WARN", warnings[0]["level"])
	assert.Equal(t, "couldn't initialize inotify: too many open files", warnings[0]["error"])
}

// changeAll replaces the files, and waits until all were read again.
func (s *script) changeAll(patience time.Duration) {
	s.t.Helper()
	s.run("crls", "crl.pem revoked")
	s.run("write", "policy.yaml "+ruleFor("reload"))
	s.run("servers", `$ENTRY, {"caName": "B", "url": "http://127.0.0.1:1/cmp", "issuerDN": "CN=B", `+
		`"authentication": {"iak": "very-secret-iak", "rv": "rv"}}`)
	s.run("jwks", "")
	s.run("another", "secret")
	s.awaitFor(patience, "mutual TLS identity replaced", "")
	for _, loaded := range []string{"CRLs loaded", "policy loaded", "configuration loaded",
		"the keys of the token issuer were read"} {
		s.awaitFor(patience, loaded, "file changed")
	}
}
