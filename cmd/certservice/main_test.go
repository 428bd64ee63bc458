package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/keystore"
	"github.com/certfetcher/certfetcher/internal/program"
	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/golden"
)

// TestMain lets the test binary be the program, for the tests that need a process of its own.
func TestMain(m *testing.M) {
	if os.Getenv("CERTSERVICE_TEST_MAIN") == "true" {
		main()
		return
	}
	os.Exit(m.Run())
}

const goodServers = `{"cmpv2Servers": [{"caName": "RA", "url": "http://127.0.0.1:1/cmp", "issuerDN": "CN=ManagementCA",
	"authentication": {"iak": "very-secret-iak", "rv": "rv"}}]}`

// anchored is goodServers with a file of certificates beside it.
var anchored = strings.Replace(goodServers, `}}]`, `}, "trustAnchors": "anchors.pem"}]`, 1)

func writeFile(t *testing.T, path string, data []byte) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, data, 0o600))
}

// files writes stores as the ONAP charts do, and a cmpServers.json, and returns the environment for them.
func files(t *testing.T, authority *fixture.CA, servers string) map[string]string {
	t.Helper()
	return filesWith(t, authority, servers, "secret")
}

func filesWith(t *testing.T, authority *fixture.CA, servers, password string) map[string]string {
	t.Helper()
	key, chain, err := authority.Identity("certservice")
	require.NoError(t, err)
	env := map[string]string{}
	for name, entry := range map[string]keystore.Entry{
		"KEYSTORE_PATH":   {Alias: "oom-cert-service", Key: key, Chain: chain},
		"TRUSTSTORE_PATH": {Alias: "root", Chain: []*x509.Certificate{authority.Root}, Trusted: true},
	} {
		store := must(keystore.EncodeJKS([]keystore.Entry{entry}, password, time.Now()))
		env[name] = filepath.Join(t.TempDir(), "store.jks")
		writeFile(t, env[name], store)
	}
	env["CMP_SERVERS_PATH"] = filepath.Join(t.TempDir(), "cmpServers.json")
	writeFile(t, env["CMP_SERVERS_PATH"], []byte(servers))
	return env
}

// sink takes what a program writes whose goroutines may go on for a moment after run has returned, where a process
// ends.
type sink struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (s *sink) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buffer.Write(p)
}

func (s *sink) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buffer.String()
}

// runWith runs the program with nothing but env set of what it reads.
func runWith(t *testing.T, env map[string]string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	for _, v := range variables {
		t.Setenv(v.Name, env[v.Name])
		t.Setenv(v.Name+"_FILE", env[v.Name+"_FILE"])
	}
	var out, err sink
	code = run(context.Background(), func() bool { return true }, args, &out, &err)
	return code, out.String(), err.String()
}

var varies = regexp.MustCompile(`"time":"[^"]*",|20[0-9-]+T[0-9:]+Z|/[^" ]*/Test[^"\\ ]*`)

// checks runs the program with --check, and compares what it prints to standard error with a file.
func checks(t *testing.T, file string, env map[string]string, want int) {
	t.Helper()
	code, _, stderr := runWith(t, env, "--check")
	assert.Equal(t, want, code, stderr)
	lines := strings.Split(varies.ReplaceAllString(stderr, "…"), "\n")
	slices.Sort(lines)
	golden.File(t, file, strings.Join(lines[1:], "\n")+"\n")
}

func newCA(t *testing.T) *fixture.CA {
	return must(fixture.NewCA("TLS"))
}

func TestRun_flags(t *testing.T) {
	code, stdout, stderr := runWith(t, nil, "--help")
	assert.Equal(t, exitOK, code)
	assert.Empty(t, stderr)
	for _, v := range variables {
		assert.NotEmpty(t, v.Rule, v.Name)
		assert.Contains(t, stdout, "\n  "+v.Name+" (")
		assert.Contains(t, strings.Join(strings.Fields(stdout), " "), v.Help)
		assert.Contains(t, stdout, v.Default)
	}
	_, stdout, _ = runWith(t, nil, "--version")
	assert.Equal(t, "certservice "+program.Version()+"\n", stdout)
	for _, args := range [][]string{{"--port", "1"}, {"serve"}, {"--check", "x"}} {
		code, stdout, stderr := runWith(t, nil, args...)
		assert.Equal(t, exitUsage, code, args)
		assert.Empty(t, stdout)
		assert.Equal(t,
			"certservice: the flags are --check, --help and --version; everything else is set "+
				"by environment variables, see --help\n", stderr)
	}
	code, stdout, stderr = runWith(t, files(t, newCA(t), goodServers), "--check")
	assert.Equal(t, exitOK, code, stderr)
	assert.Equal(t, "the environment, the TLS identity and the CMP servers are valid\n", stdout)
}

func TestRun_check_warnings(t *testing.T) {
	authority := newCA(t)
	authority.Validity = time.Nanosecond
	misspelt := strings.Replace(goodServers, `"url"`, `"timeOut": "5s", "url"`, 1)
	env := files(t, authority, misspelt)
	t.Setenv("CMP_SERVER_PATH", "/elsewhere")
	t.Setenv("metrics_addr", ":9090")
	t.Setenv("CERTSERVICE_SERVICE_PORT", "8443")
	checks(t, "warnings.txt", env, exitOK)
	env["RESPONSE_TRUST"] = "onap"
	checks(t, "warnings-onap.txt", env, exitOK)
}

func TestRun_check_reportsAllFaults(t *testing.T) {
	env := files(t, newCA(t), `{"cmpv2Servers": [{"caName": "RA", "url": "ejbca", "issuerDN": "x"}]}`)
	for variable := range strings.FieldsSeq("HTTPS_PORT=https MAX_IN_FLIGHT=0 MAX_IN_FLIGHT_PER_CLIENT=0 " +
		"MAX_RSA_BITS=16384 CLIENT_AUTH=none METRICS_ADDR=9090 LOG_LEVEL=loud LOG_FORMAT=xml " +
		"RESPONSE_TRUST=all IDLE_TIMEOUT=0s REQUEST_TIMEOUT=30 KEYSTORE_PASSWORD=wrong-password " +
		"TRUSTSTORE_PASSWORD=secret TRUSTSTORE_PASSWORD_FILE=/nowhere") {
		name, value, _ := strings.Cut(variable, "=")
		env[name] = value
	}
	checks(t, "faults.txt", env, exitFailed)
}

// One certificate that can verify nothing, in the truststore or among the anchors, does not affect the others.
func TestRun_check_skipsAnchorsThatCanVerifyNothing(t *testing.T) {
	authority := newCA(t)
	env := files(t, authority, anchored)
	anchors := filepath.Join(filepath.Dir(env["CMP_SERVERS_PATH"]), "anchors.pem")
	certificate := func(der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}) }
	bad, good := certificate(fixture.NegativeSerial(authority.Root)), certificate(authority.Root.Raw)
	writeFile(t, env["TRUSTSTORE_PATH"], append(bad, good...))
	ed448 := must(os.ReadFile("../../test/testdata/certificates/ed448.pem"))
	writeFile(t, anchors, append(ed448, good...))
	checks(t, "anchors-some.txt", env, exitOK)
	writeFile(t, env["TRUSTSTORE_PATH"], bad)
	writeFile(t, anchors, ed448)
	checks(t, "anchors-none.txt", env, exitFailed)
}

func TestRun_passwordFile_isReadWithoutItsNewline(t *testing.T) {
	env := files(t, newCA(t), goodServers)
	env["KEYSTORE_PASSWORD_FILE"] = filepath.Join(t.TempDir(), "password")
	for content, want := range map[string]int{"secret\n": exitOK, "secret\r\n": exitOK,
		"secret": exitOK, "other\n": exitFailed, "": exitFailed} {
		writeFile(t, env["KEYSTORE_PASSWORD_FILE"], []byte(content))
		code, _, stderr := runWith(t, env, "--check")
		assert.Equal(t, want, code, stderr)
	}
}

func TestRun_faults_areLoggedAndExitCode1(t *testing.T) {
	code, stdout, stderr := runWith(t, map[string]string{"HTTPS_PORT": "-1"})
	assert.Equal(t, exitFailed, code)
	assert.Empty(t, stdout)
	assert.Contains(t, stderr, `"variable":"HTTPS_PORT","error":"has \"-1\", want a port number, 0 for a free one"`)

	env := files(t, newCA(t), goodServers)
	require.NoError(t, os.Remove(env["KEYSTORE_PATH"]))
	code, _, stderr = runWith(t, env)
	assert.Equal(t, exitFailed, code)
	assert.Contains(t, stderr, "certservice failed")
	assert.Contains(t, stderr, "does not exist")

	taken := must(net.Listen("tcp", ":0"))
	defer taken.Close()
	_, number, err := net.SplitHostPort(taken.Addr().String())
	require.NoError(t, err)
	for variable, ports := range map[string][2]string{"HTTPS_PORT": {number, ""}, "METRICS_ADDR": {"0", ":" + number}} {
		env := files(t, newCA(t), goodServers)
		env["HTTPS_PORT"], env["METRICS_ADDR"] = ports[0], ports[1]
		code, _, stderr := runWith(t, env)
		assert.Equal(t, exitFailed, code)
		assert.Contains(t, stderr, `"error":"`+variable+": another process already listens on :"+number+
			": stop it, or set another port")
	}
}

func TestRun_probe_saysWhyNot(t *testing.T) {
	code, _, stderr := runWith(t, nil, "probe")
	assert.Equal(t, exitUsage, code)
	assert.Equal(t, "certservice probe: METRICS_ADDR is not set, and the other port requires a client certificate\n",
		stderr)

	address := fixture.FreeAddress(t)
	code, _, stderr = runWith(t, map[string]string{"METRICS_ADDR": address}, "probe")
	assert.Equal(t, exitFailed, code)
	assert.Contains(t, stderr, "certservice probe: asking http://"+address+"/readyz: ")
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}
