package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/keystore"
	"github.com/certfetcher/certfetcher/internal/program"
	"github.com/certfetcher/certfetcher/test/fixture"
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

// runWith runs the program with nothing but env set of what it reads.
func runWith(t *testing.T, env map[string]string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	for _, v := range variables {
		t.Setenv(v.Name, env[v.Name])
		t.Setenv(v.Name+"_FILE", env[v.Name+"_FILE"])
	}
	var out, err bytes.Buffer
	code = run(context.Background(), func() bool { return true }, args, &out, &err)
	return code, out.String(), err.String()
}

// checks runs the program with --check, and compares its exit code and what it prints to standard error.
func checks(t *testing.T, env map[string]string, want int, contains ...string) (stderr string) {
	t.Helper()
	code, _, stderr := runWith(t, env, "--check")
	assert.Equal(t, want, code, stderr)
	for _, text := range contains {
		assert.Contains(t, stderr, text)
	}
	return stderr
}

func newCA(t *testing.T) *fixture.CA {
	t.Helper()
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
	stderr := checks(t, env, exitOK,
		`the certificate \"CN=certservice\" in KEYSTORE_PATH expired at `, `its signed answers will be refused`,
		`is not known and has no effect: did you mean CMP_SERVERS_PATH?`,
		`is not known and has no effect: did you mean METRICS_ADDR?`,
		`cmpv2Servers[0]: the field \"timeOut\" is not known and has no effect: did you mean \"timeout\"?`)
	assert.NotContains(t, stderr, "CERTSERVICE_SERVICE_PORT")
	assert.NotContains(t, stderr, "/elsewhere")
	env["RESPONSE_TRUST"] = "onap"
	assert.NotContains(t, checks(t, env, exitOK), `its signed answers will be refused`)
}

func TestRun_check_reportsAllFaults(t *testing.T) {
	env := files(t, newCA(t), `{"cmpv2Servers": [{"caName": "RA", "url": "ejbca", "issuerDN": "x"}]}`)
	var wants []string
	for name, row := range map[string][2]string{
		"HTTPS_PORT":               {"https", `a port number, 0 for a free one`},
		"MAX_IN_FLIGHT":            {"0", `a number from 1`},
		"MAX_IN_FLIGHT_PER_CLIENT": {"0", `a number from 1, or nothing`},
		"MAX_RSA_BITS":             {"16384", `a number from 2048 to 8192`},
		"CLIENT_AUTH":              {"none", `answer or handshake`},
		"METRICS_ADDR":             {"9090", `host:port or :port`},
		"LOG_LEVEL":                {"loud", `debug, info, warn or error`},
		"LOG_FORMAT":               {"xml", `json or text`},
		"RESPONSE_TRUST":           {"all", `anchored or onap`},
		"IDLE_TIMEOUT":             {"0s", `a duration such as 2m, more than 0`},
	} {
		env[name] = row[0]
		wants = append(wants, name+` has "`+row[0]+`", want `+row[1])
	}
	env["REQUEST_TIMEOUT"] = "30"
	env["KEYSTORE_PASSWORD"] = "wrong-password"
	env["TRUSTSTORE_PASSWORD"] = "secret"
	env["TRUSTSTORE_PASSWORD_FILE"] = "/nowhere"
	place := `CMP_SERVERS_PATH "` + env["CMP_SERVERS_PATH"] + `": cmpv2Servers[0].`
	wants = append(wants,
		`REQUEST_TIMEOUT has "30" (a unit is missing: write 30s, 30m or 30h), want a duration such as 30s, more than 0`,
		`TRUSTSTORE_PASSWORD_FILE and TRUSTSTORE_PASSWORD are both set, want one of them`,
		`KEYSTORE_PATH "`+env["KEYSTORE_PATH"]+`" is not opened by KEYSTORE_PASSWORD`,
		place+`issuerDN: has 1 characters, want 4 to 256`,
		place+`url: has the scheme "", want http or https`,
		place+`authentication: is missing`)
	stderr := checks(t, env, exitFailed, wants...)
	assert.Equal(t, len(wants), strings.Count(stderr, "\n"))
	assert.NotContains(t, stderr, "wrong-password")
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
	stderr := checks(t, env, exitOK,
		`certificate 1, \"CN=TLS Root CA,O=Throwaway\", can verify nothing here: it cannot be `+
			`parsed: x509: negative serial number; it is skipped`,
		`trustAnchors: in \"anchors.pem\", certificate 1, `,
		`can verify nothing here: its key is of an unsupported kind (Ed448); it is skipped`)
	assert.Equal(t, 2, strings.Count(stderr, "is skipped"))

	writeFile(t, env["TRUSTSTORE_PATH"], bad)
	writeFile(t, anchors, ed448)
	checks(t, env, exitFailed,
		`has no certificate that can be used: certificate 1, "CN=TLS Root CA,O=Throwaway", can verify nothing here`,
		`cmpv2Servers[0].trustAnchors: has no certificate in "anchors.pem" that can be used: certificate 1, `)
}

func TestRun_passwordFile_isReadWithoutItsNewline(t *testing.T) {
	env := files(t, newCA(t), goodServers)
	env["KEYSTORE_PASSWORD_FILE"] = filepath.Join(t.TempDir(), "password")
	for content, want := range map[string]int{"secret\n": exitOK, "secret\r\n": exitOK,
		"secret": exitOK, "other\n": exitFailed, "": exitFailed} {
		writeFile(t, env["KEYSTORE_PASSWORD_FILE"], []byte(content))
		checks(t, env, want)
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
