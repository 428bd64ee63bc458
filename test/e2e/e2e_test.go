// Package e2e runs the built certfetcher as an operator's pod would, against a real CertService on
// loopback, and looks at what a user sees: exit code, files, log, termination message.
//
// The scripts in testdata/script are testscript's; the commands that this package adds are described
// at their functions.
package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/certfetcher/certfetcher/internal/devca"
	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/service"
)

// binDir holds the programs under test, built once.
var binDir string

func TestMain(m *testing.M) {
	fixture.RunTests(m, &binDir)
}

func TestScripts(t *testing.T) { runScripts(t, "testdata/script") }

// The scripts of testdata/peers are about other people's programs.
func TestPeers(t *testing.T) {
	fixture.RequirePrograms(t, "openssl", "java", "keytool")
	if _, err := os.Stat(bouncyCastle); err != nil {
		fixture.SkipWithout(t, "Bouncy Castle (libbcprov-java)")
	}
	runScripts(t, fixture.Scripts(t, "testdata/peers/*.txtar"))
}

func runScripts(t *testing.T, dir string) {
	fixture.RunScripts(t, testscript.Params{
		Dir:   dir,
		Setup: func(env *testscript.Env) error { return setup(t, env) },
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"certservice": startCertService, "requests": requests, "awaits": awaits,
			"identity": writeIdentity, "terminate": terminate,
			"exits": exits, "holds": holds, "inspects": inspects, "listing": listing, "secretfree": secretfree,
			"keytool": runKeytool, "java": runJava, "names": names,
			"fromkeytool": fromKeytool, "roots": roots, "truststore": writeTruststore,
			"ca": startWithStoredCA, "devca": startWithDevCA, "revoked": revoked, "proxy": startProxy,
			"guide": readGuide,
		},
	})
}

// circumstances are what a script has to do with.
type circumstances struct {
	test      *testing.T
	service   *service.Service // that runs, or nil
	authority *devca.CA        // that it asks, if it is one
}

// given are the circumstances of a script.
func given(ts *testscript.TestScript) *circumstances {
	return ts.Value(circumstances{}).(*circumstances)
}

// setup gives every script the least environment that works, but for a CertService.
func setup(t *testing.T, env *testscript.Env) error {
	env.Setenv("UNUSED", fixture.FreeAddress(t))
	env.Setenv("PATH", binDir+string(os.PathListSeparator)+env.Getenv("PATH"))
	env.Values[circumstances{}] = &circumstances{test: t}
	testdata, err := filepath.Abs("../testdata")
	if err != nil {
		return err
	}
	certs := filepath.Join(env.WorkDir, "mtls")
	if err := os.Mkdir(certs, 0o700); err != nil {
		return err
	}
	for name, value := range map[string]string{
		"OUTPUT_PATH": filepath.Join(env.WorkDir, "volume"), "CA_NAME": fixture.CAName,
		"COMMON_NAME": "app.example.org", "ORGANIZATION": "Example", "STATE": "Skane", "COUNTRY": "SE",
		"KEYSTORE_PATH": filepath.Join(certs, "client.p12"), "KEYSTORE_PASSWORD": fixture.Password,
		"TRUSTSTORE_PATH": filepath.Join(certs, "truststore.jks"), "TRUSTSTORE_PASSWORD": fixture.Password,
		"PW": fixture.Password, "TESTDATA": testdata, "RETRY_INITIAL_INTERVAL": "5ms",
		"RETRY_MAX_INTERVAL": "20ms", "RETRY_MAX_ELAPSED": "300ms",
		// The quickest key, except where a script is about keys.
		"KEY_ALGORITHM":            "ECDSA-P256",
		"TERMINATION_MESSAGE_PATH": filepath.Join(env.WorkDir, "termination-log"),
	} {
		env.Setenv(name, value)
	}
	return nil
}
