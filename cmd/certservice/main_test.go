package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/keystore"
	"github.com/certfetcher/certfetcher/internal/program"
	"github.com/certfetcher/certfetcher/test/ca"
	"github.com/certfetcher/certfetcher/test/port"
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

// files writes stores as the ONAP charts do, and a cmpServers.json, and returns the environment for them.
func files(t *testing.T, authority *ca.CA, servers string) map[string]string {
	t.Helper()
	dir := t.TempDir()
	key, chain, err := authority.Identity("certservice")
	require.NoError(t, err)
	store, err := keystore.EncodeJKS([]keystore.Entry{{Alias: "oom-cert-service", Key: key, Chain: chain}}, "secret", time.Now())
	require.NoError(t, err)
	trust, err := keystore.EncodeJKS([]keystore.Entry{{Alias: "root", Chain: []*x509.Certificate{authority.Root}, Trusted: true}}, "secret", time.Now())
	require.NoError(t, err)
	env := map[string]string{
		"KEYSTORE_PATH":    filepath.Join(dir, "certServiceServer-keystore.jks"),
		"TRUSTSTORE_PATH":  filepath.Join(dir, "truststore.jks"),
		"CMP_SERVERS_PATH": filepath.Join(dir, "cmpServers.json"),
	}
	for name, data := range map[string][]byte{"KEYSTORE_PATH": store, "TRUSTSTORE_PATH": trust, "CMP_SERVERS_PATH": []byte(servers)} {
		require.NoError(t, os.WriteFile(env[name], data, 0o600))
	}
	return env
}

// runWith runs the program with nothing but env set of what it reads.
func runWith(t *testing.T, env map[string]string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	for field := range reflect.TypeFor[environment]().Fields() {
		name := field.Tag.Get("envconfig")
		t.Setenv(name, env[name])
		t.Setenv(name+"_FILE", env[name+"_FILE"])
	}
	var out, err bytes.Buffer
	code = run(context.Background(), func() bool { return true }, args, &out, &err)
	return code, out.String(), err.String()
}

func newCA(t *testing.T) *ca.CA {
	t.Helper()
	authority, err := ca.New("TLS")
	require.NoError(t, err)
	return authority
}

func TestRun_help_namesEveryVariableWithItsDefault(t *testing.T) {
	code, stdout, stderr := runWith(t, nil, "--help")

	assert.Equal(t, exitOK, code)
	assert.Empty(t, stderr)
	for field := range reflect.TypeFor[environment]().Fields() {
		assert.NotEmpty(t, field.Tag.Get("rule"), field.Name)
		assert.Contains(t, stdout, "\n  "+field.Tag.Get("envconfig")+" (")
		assert.Contains(t, stdout, field.Tag.Get("desc"))
		assert.Contains(t, stdout, field.Tag.Get("default"))
	}
}

func TestRun_version_isPrinted(t *testing.T) {
	code, stdout, _ := runWith(t, nil, "--version")

	assert.Equal(t, exitOK, code)
	assert.Equal(t, "certservice "+program.Version()+"\n", stdout)
}

func TestRun_usage_wrongIsExitCode2(t *testing.T) {
	for _, args := range [][]string{{"--port", "1"}, {"serve"}, {"--check", "x"}} {
		code, stdout, stderr := runWith(t, nil, args...)
		assert.Equal(t, exitUsage, code, args)
		assert.Empty(t, stdout)
		assert.Equal(t, "certservice: the flags are --check, --help and --version; everything else is set by environment variables, see --help\n", stderr)
	}
}

func TestRun_check_findsNothingWrongWithONAPFiles(t *testing.T) {
	code, stdout, stderr := runWith(t, files(t, newCA(t), goodServers), "--check")

	assert.Equal(t, exitOK, code, stderr)
	assert.Equal(t, "the environment, the TLS identity and the CMP servers are valid\n", stdout)
}

func TestRun_check_warnsOfWhatIsNoFault(t *testing.T) {
	authority := newCA(t)
	authority.Validity = time.Nanosecond
	env := files(t, authority, goodServers)

	code, _, stderr := runWith(t, env, "--check")

	assert.Equal(t, exitOK, code)
	assert.Contains(t, stderr, `the certificate \"CN=certservice\" in KEYSTORE_PATH expired at `)
	assert.Contains(t, stderr, `its signed answers will be refused`)
	env["RESPONSE_TRUST"] = "onap"
	_, _, stderr = runWith(t, env, "--check")
	assert.NotContains(t, stderr, `its signed answers will be refused`)
}

func TestRun_check_tellsAllFaults(t *testing.T) {
	env := files(t, newCA(t), `{"cmpv2Servers": [{"caName": "RA", "url": "ejbca", "issuerDN": "x"}]}`)
	env["HTTPS_PORT"] = "https"
	env["MAX_IN_FLIGHT"] = "0"
	env["MAX_IN_FLIGHT_PER_CLIENT"] = "0"
	env["MAX_RSA_BITS"] = "16384"
	env["CLIENT_AUTH"] = "none"
	env["REQUEST_TIMEOUT"] = "30"
	env["METRICS_ADDR"] = "9090"
	env["LOG_LEVEL"] = "loud"
	env["LOG_FORMAT"] = "xml"
	env["RESPONSE_TRUST"] = "all"
	env["KEYSTORE_PASSWORD"] = "wrong-password"
	env["TRUSTSTORE_PASSWORD"] = "secret"
	env["TRUSTSTORE_PASSWORD_FILE"] = "/nowhere"
	place := `CMP_SERVERS_PATH "` + env["CMP_SERVERS_PATH"] + `": `

	code, stdout, stderr := runWith(t, env, "--check")

	assert.Equal(t, exitFailed, code)
	assert.Empty(t, stdout)
	for _, line := range []string{
		`HTTPS_PORT has "https", want a port number, 0 for a free one`,
		`MAX_IN_FLIGHT has "0", want a number from 1`,
		`MAX_IN_FLIGHT_PER_CLIENT has "0", want a number from 1, or nothing`,
		`MAX_RSA_BITS has "16384", want a number from 2048 to 8192`,
		`CLIENT_AUTH has "none", want answer or handshake`,
		`REQUEST_TIMEOUT has "30" (a unit is missing: write 30s, 30m or 30h), want a duration such as 30s, more than 0`,
		`METRICS_ADDR has "9090", want host:port or :port`,
		`LOG_LEVEL has "loud", want debug, info, warn or error`,
		`LOG_FORMAT has "xml", want json or text`,
		`RESPONSE_TRUST has "all", want anchored or onap`,
		`TRUSTSTORE_PASSWORD_FILE and TRUSTSTORE_PASSWORD are both set, want one of them`,
		`KEYSTORE_PATH "` + env["KEYSTORE_PATH"] + `" is not opened by KEYSTORE_PASSWORD`,
		place + `cmpv2Servers[0].issuerDN: has 1 characters, want 4 to 256`,
		place + `cmpv2Servers[0].url: has the scheme "", want http or https`,
		place + `cmpv2Servers[0].authentication: is missing`,
	} {
		assert.Contains(t, stderr, line)
	}
	assert.Len(t, bytes.Split(bytes.TrimSpace([]byte(stderr)), []byte("\n")), 15)
	assert.NotContains(t, stderr, "wrong-password")
}

func TestRun_passwordFile_isReadWithoutItsNewline(t *testing.T) {
	env := files(t, newCA(t), goodServers)
	path := filepath.Join(t.TempDir(), "password")
	env["KEYSTORE_PASSWORD_FILE"] = path
	for content, want := range map[string]int{"secret\n": exitOK, "secret\r\n": exitOK, "secret": exitOK, "other\n": exitFailed, "": exitFailed} {
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		code, _, stderr := runWith(t, env, "--check")
		assert.Equal(t, want, code, "%q: %s", content, stderr)
	}
}

func TestRun_badEnvironment_isExitCode1WithEveryFaultLogged(t *testing.T) {
	code, stdout, stderr := runWith(t, map[string]string{"HTTPS_PORT": "-1", "IDLE_TIMEOUT": "0s"})

	assert.Equal(t, exitFailed, code)
	assert.Empty(t, stdout)
	assert.Contains(t, stderr, `"variable":"HTTPS_PORT","error":"has \"-1\", want a port number, 0 for a free one"`)
	assert.Contains(t, stderr, `"variable":"IDLE_TIMEOUT","error":"has \"0s\", want a duration such as 2m, more than 0"`)
}

func TestRun_missingIdentity_isExitCode1(t *testing.T) {
	env := files(t, newCA(t), goodServers)
	require.NoError(t, os.Remove(env["KEYSTORE_PATH"]))

	code, _, stderr := runWith(t, env)

	assert.Equal(t, exitFailed, code)
	assert.Contains(t, stderr, "certservice failed")
	assert.Contains(t, stderr, "does not exist")
}

func TestRun_probe_saysWhyNot(t *testing.T) {
	code, _, stderr := runWith(t, nil, "probe")
	assert.Equal(t, exitUsage, code)
	assert.Equal(t, "certservice probe: METRICS_ADDR is not set, and the other port asks for a client certificate\n", stderr)

	address := port.Free(t)
	code, _, stderr = runWith(t, map[string]string{"METRICS_ADDR": address}, "probe")
	assert.Equal(t, exitFailed, code)
	assert.Contains(t, stderr, "certservice probe: asking http://"+address+"/readyz: ")
}

func TestRun_misspeltVariable_isWarnedOf(t *testing.T) {
	env := files(t, newCA(t), goodServers)
	t.Setenv("CMP_SERVER_PATH", "/elsewhere")
	t.Setenv("metrics_addr", ":9090")
	t.Setenv("CERTSERVICE_SERVICE_PORT", "8443")

	code, _, stderr := runWith(t, env, "--check")

	assert.Equal(t, exitOK, code)
	assert.Contains(t, stderr, `"variable":"CMP_SERVER_PATH","error":"is not known and has no effect: did you mean CMP_SERVERS_PATH?"`)
	assert.Contains(t, stderr, `"variable":"metrics_addr","error":"is not known and has no effect: did you mean METRICS_ADDR?"`)
	assert.NotContains(t, stderr, "CERTSERVICE_SERVICE_PORT")
	assert.NotContains(t, stderr, "/elsewhere")
}

func TestRun_check_tellsMisspeltFieldsAndBadEntries(t *testing.T) {
	env := files(t, newCA(t), strings.Replace(strings.Replace(goodServers, `"url"`, `"timeOut": "5s", "url"`, 1), `}}]`, `}}, {"caName": "BAD"}]`, 1))

	code, _, stderr := runWith(t, env, "--check")

	assert.Equal(t, exitFailed, code)
	assert.Contains(t, stderr, `cmpv2Servers[0]: the field \"timeOut\" is not known and has no effect: did you mean \"timeout\"?`)
	assert.Contains(t, stderr, `cmpServers.json": cmpv2Servers[1].url: is missing`)
}

func TestRun_portInUse_namesTheVariable(t *testing.T) {
	taken, err := net.Listen("tcp", ":0")
	require.NoError(t, err)
	defer taken.Close()
	_, number, err := net.SplitHostPort(taken.Addr().String())
	require.NoError(t, err)
	for variable, other := range map[string]string{"HTTPS_PORT": "", "METRICS_ADDR": "0"} {
		env := files(t, newCA(t), goodServers)
		env["HTTPS_PORT"] = other
		env[variable] = number
		if variable == "METRICS_ADDR" {
			env[variable] = ":" + number
		}

		code, _, stderr := runWith(t, env)

		assert.Equal(t, exitFailed, code)
		assert.Contains(t, stderr, `"error":"`+variable+": another process listens on :"+number+" already: stop it, or set another port")
	}
}
