package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

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

func start(t *testing.T, env map[string]string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(os.Args[0]), ended: make(chan error, 1)}
	p.cmd.Env = []string{"CERTSERVICE_TEST_MAIN=true", "HTTPS_PORT=0", "METRICS_ADDR=127.0.0.1:0"}
	for name, value := range env {
		p.cmd.Env = append(p.cmd.Env, name+"="+value)
	}
	stderr := must(p.cmd.StderrPipe())
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

func eventually(t *testing.T, condition func() bool) {
	t.Helper()
	require.Eventually(t, condition, 20*time.Second, 5*time.Millisecond)
}

// await waits for a line of the message, with the trigger if there is one.
func (p *process) await(message, trigger string) (found map[string]any) {
	p.t.Helper()
	eventually(p.t, func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, line := range p.log {
			if line["msg"] == message && (trigger == "" || line["trigger"] == trigger) {
				found = line
			}
		}
		return found != nil
	})
	return found
}

func (p *process) get(client *http.Client, url string) (int, string) {
	p.t.Helper()
	r := must(client.Get(url))
	defer r.Body.Close()
	body := must(io.ReadAll(r.Body))
	return r.StatusCode, string(body)
}

func (p *process) terminate() error {
	require.NoError(p.t, p.cmd.Process.Signal(syscall.SIGTERM))
	return <-p.ended
}

// clientOf returns a client that would speak HTTP/2.
func clientOf(t *testing.T, authority *fixture.CA, withCertificate bool) *http.Client {
	t.Helper()
	config := &tls.Config{RootCAs: x509.NewCertPool()}
	config.RootCAs.AddCert(authority.Root)
	if withCertificate {
		key, chain, err := authority.Identity("client")
		require.NoError(t, err)
		config.Certificates = []tls.Certificate{{PrivateKey: key, Certificate: [][]byte{chain[0].Raw, chain[1].Raw}}}
	}
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func TestCertservice_process_servesReloadsAndEnds(t *testing.T) {
	authority := newCA(t)
	env := files(t, authority, `{"cmpv2Servers": []}`)
	p := start(t, env)
	trusted, stranger := clientOf(t, authority, true), clientOf(t, authority, false)
	status := func(client *http.Client, url string) int { status, _ := p.get(client, url); return status }
	line := p.await("configuration not loaded, there is none yet, so no certificate can be issued", "start")
	assert.Equal(t, "cmpv2Servers: is empty, want at least one server", line["error"])
	assert.Equal(t, http.StatusServiceUnavailable, status(http.DefaultClient, p.url+"/ready"))
	assert.Equal(t, http.StatusOK, status(http.DefaultClient, p.url+"/healthz"))

	writeFile(t, env["CMP_SERVERS_PATH"], []byte(goodServers))
	p.await("configuration loaded", "file changed")
	assert.Equal(t, http.StatusOK, status(trusted, p.https+"/ready"))
	code, body := p.get(stranger, p.https+"/ready")
	assert.Equal(t, http.StatusUnauthorized, code)
	assert.JSONEq(t, `{"errorMessage":"Client certificate is missing or not trusted"}`, body)
	assert.Equal(t, http.StatusBadRequest, status(trusted, p.https+"/v1/certificate/RA"))
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGHUP))
	p.await("configuration loaded", "SIGHUP")
	assert.Equal(t, http.StatusOK, status(trusted, p.https+"/reload"))
	for _, path := range []string{"/ready", "/readyz", "/healthz", "/actuator/health"} {
		assert.Equal(t, http.StatusOK, status(http.DefaultClient, p.url+path), path)
	}
	_, body = p.get(http.DefaultClient, p.url+"/metrics")
	assert.Contains(t, body, `certservice_requests_total{ca="RA",operation="enroll",outcome="bad_request"} 1`)
	assert.Contains(t, body, `certservice_certificate_expiry_timestamp_seconds `)

	assert.NoError(t, p.terminate(), "exit code 0")
	p.mu.Lock()
	defer p.mu.Unlock()
	log := must(json.Marshal(p.log))
	assert.NotContains(t, string(log), "very-secret-iak")
	assert.NotContains(t, string(log), "PRIVATE KEY")
}

func TestCertservice_process_takesItsNewIdentityPasswordAndTruststore(t *testing.T) {
	before, after := newCA(t), newCA(t)
	env := files(t, before, goodServers)
	env["KEYSTORE_PASSWORD_FILE"] = filepath.Join(t.TempDir(), "password")
	writeFile(t, env["KEYSTORE_PASSWORD_FILE"], []byte("secret\n"))
	env["TRUSTSTORE_PASSWORD_FILE"] = env["KEYSTORE_PASSWORD_FILE"]
	p := start(t, env)
	kept := clientOf(t, before, true)
	status, _ := p.get(kept, p.https+"/ready")
	require.Equal(t, http.StatusOK, status)

	next := filesWith(t, after, goodServers, "another secret")
	next["KEYSTORE_PASSWORD_FILE"] = filepath.Join(t.TempDir(), "password")
	writeFile(t, next["KEYSTORE_PASSWORD_FILE"], []byte("another secret\n"))
	for _, name := range []string{"KEYSTORE_PATH", "TRUSTSTORE_PATH", "KEYSTORE_PASSWORD_FILE"} {
		require.NoError(t, os.Rename(next[name], env[name]))
	}
	p.await("mutual TLS identity replaced", "")
	eventually(t, func() bool {
		r, err := clientOf(t, after, true).Get(p.https + "/ready")
		if err != nil {
			return false
		}
		r.Body.Close()
		return r.StatusCode == http.StatusOK
	})
	status, _ = p.get(kept, p.https+"/ready")
	assert.Equal(t, http.StatusUnauthorized, status, "on a connection from before")
}

func TestCertservice_process_refusesInTheHandshakeWhenConfigured(t *testing.T) {
	authority := newCA(t)
	env := files(t, authority, goodServers)
	env["CLIENT_AUTH"] = "handshake"
	p := start(t, env)
	config := &tls.Config{RootCAs: x509.NewCertPool()}
	config.RootCAs.AddCert(authority.Root)
	address := strings.TrimPrefix(p.https, "https://")
	conn, err := tls.Dial("tcp", address, config)
	require.NoError(t, err, "TLS 1.3: the client learns of it after its own side of the handshake")
	defer conn.Close()
	_, err = conn.Read(make([]byte, 1))
	assert.EqualError(t, err, "remote error: tls: certificate required")
	status, _ := p.get(clientOf(t, authority, true), p.https+"/ready")
	assert.Equal(t, http.StatusOK, status)

	config.NextProtos = []string{"h2"}
	_, err = tls.Dial("tcp", address, config)
	assert.EqualError(t, err, "remote error: tls: no application protocol")
}
