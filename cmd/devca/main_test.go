package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/internal/devca"
	"github.com/certfetcher/certfetcher/internal/program"
	"github.com/certfetcher/certfetcher/test/fixture"
)

// clean sets the environment to nothing but the given values.
func clean(t *testing.T, values map[string]string) {
	t.Helper()
	for _, v := range variables {
		t.Setenv(v.Name, values[v.Name])
		t.Setenv(v.Name+"_FILE", values[v.Name+"_FILE"])
	}
}

func texts(faults []program.Fault) []string {
	list := make([]string, len(faults))
	for i, f := range faults {
		list[i] = f.Error()
	}
	return list
}

func execute(args ...string) (code int, stdout, stderr string) {
	var out, errors strings.Builder
	code = run(context.Background(), func() bool { return true }, args, &out, &errors)
	return code, out.String(), errors.String()
}

func TestRun_help_listsEveryVariable(t *testing.T) {
	code, stdout, stderr := execute("--help")
	assert.Zero(t, code)
	assert.Empty(t, stderr)
	assert.Contains(t, stdout, "DEVELOPMENT ONLY")
	for _, v := range variables {
		assert.Contains(t, stdout, "\n  "+v.Name+" (")
		assert.NotEmpty(t, v.Rule, v.Name)
		assert.NotEmpty(t, v.Help, v.Name)
	}
}

func TestRun_version(t *testing.T) {
	code, stdout, _ := execute("--version")
	assert.Zero(t, code)
	assert.Regexp(t, `^devca \S+\n$`, stdout)
}

func TestRun_otherArguments_areRefused(t *testing.T) {
	for _, argument := range []string{"--port", "serve"} {
		code, _, stderr := execute(argument)
		assert.Equal(t, 2, code)
		assert.Equal(t,
			"devca: the flags are --help and --version; everything else is set by environment variables, see --help\n",
			stderr)
	}
}

func TestRun_configurationFaults_areAllReported(t *testing.T) {
	clean(t, map[string]string{
		"DEVCA_ADDR": "here", "DEVCA_RV": strings.Repeat("x", 257),
		"DEVCA_IAK": strings.Repeat("secret", 50), "DEVCA_VALIDITY": "0",
		"DEVCA_RESPONSE_PROTECTION": "none", "DEVCA_FAULT": "slow,explode", "LOG_FORMAT": "xml", "LOG_LEVEL": "loud",
	})
	code, _, stderr := execute()
	assert.Equal(t, 2, code)
	assert.Equal(t, `devca: DEVCA_ADDR has "here", want host:port
devca: DEVCA_RV has "`+strings.Repeat("x", 257)+`" (257 bytes), want 1 to 256 bytes
devca: DEVCA_IAK has a value that is not shown (300 bytes), want 1 to 256 bytes
devca: DEVCA_VALIDITY has "0", want a duration such as 1h or 90s, or a number of seconds; 1s to 365 days
devca: DEVCA_RESPONSE_PROTECTION has "none", want mac or signature
devca: DEVCA_FAULT has "slow,explode" (fault "slow": want a duration such as 2s; fault "explode" is not known), `+
		"want any of "+
		"waiting[:POLLS], rejection[:FAILINFO], unprotected-error, wrong-nonce, wrong-key, expired, explicit-confirm, "+
		`slow:DURATION, drop[:BODY], separated by commas
devca: LOG_FORMAT has "xml", want json or text
devca: LOG_LEVEL has "loud", want debug, info, warn or error
`, stderr)
}

func TestLoadSettings_addressesOthersCanReach_needASecretOfTheirOwn(t *testing.T) {
	for address, loopback := range map[string]bool{
		"127.0.0.1:0": true, "127.9.9.9:1": true, "[::1]:1": true, "localhost:1": true,
		"0.0.0.0:1": false, "[::]:1": false, ":1": false, "192.0.2.1:1": false, "devca:1": false,
	} {
		clean(t, map[string]string{"DEVCA_ADDR": address})
		_, faults := loadSettings()
		if loopback {
			assert.Empty(t, faults, address)
		} else {
			assert.Equal(t, []string{`DEVCA_ADDR has "` + address +
				`", which other machines can reach: set DEVCA_IAK too, because the default is public`}, texts(faults))
		}
		clean(t, map[string]string{"DEVCA_ADDR": address, "DEVCA_IAK": "own"})
		s, faults := loadSettings()
		assert.Empty(t, faults, address)
		assert.Equal(t, loopback, s.loopback, address)
	}
}

func TestLoadSettings_secretFromAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "iak")
	require.NoError(t, os.WriteFile(path, []byte("from a file\n"), 0o600))
	clean(t, map[string]string{"DEVCA_IAK_FILE": path, "DEVCA_ADDR": "0.0.0.0:1"})
	s, faults := loadSettings()
	assert.Empty(t, faults)
	assert.Equal(t, "from a file", string(s.ca.Secret))
}

func TestLoadSettings_defaultsAndValues(t *testing.T) {
	clean(t, nil)
	s, faults := loadSettings()
	assert.Empty(t, faults)
	assert.Equal(t, settings{addr: "127.0.0.1:8829", loopback: true, ca: devca.Config{
		Reference: "mypassword", Secret: []byte("mypassword"), Validity: time.Hour,
		ResponseProtection: devca.RespondMAC,
	}}, s)

	clean(t, map[string]string{
		"DEVCA_ADDR": "localhost:1", "DEVCA_RV": "rv", "DEVCA_IAK": "iak", "DEVCA_VALIDITY": "90",
		"DEVCA_CA_FILE":             "root.pem",
		"DEVCA_RESPONSE_PROTECTION": "signature", "DEVCA_FAULT": "waiting:2",
		"DEVCA_STRICT_KEY_USAGE": "true", "LOG_FORMAT": "text", "LOG_LEVEL": "debug",
	})
	s, faults = loadSettings()
	assert.Empty(t, faults)
	assert.Equal(t, settings{
		addr: "localhost:1", loopback: true, caFile: "root.pem", faults: "waiting:2",
		log: program.LogSettings{Text: true, Level: slog.LevelDebug}, ca: devca.Config{
			Reference: "rv", Secret: []byte("iak"), Validity: 90 * time.Second,
			ResponseProtection: devca.RespondSignature,
			StrictKeyUsage:     true, Faults: devca.Faults{Waiting: 2},
		}}, s)
}

func TestServe_issuesUntilItIsStopped(t *testing.T) {
	root := filepath.Join(t.TempDir(), "root.pem")
	clean(t, map[string]string{"DEVCA_ADDR": "127.0.0.1:0", "DEVCA_CA_FILE": root, "DEVCA_IAK": "a secret of our own"})
	s, faults := loadSettings()
	require.Empty(t, faults)
	ctx, stop := context.WithCancel(t.Context())
	records, log := io.Pipe()
	served := make(chan error, 1)
	go func() {
		served <- serve(ctx, s, s.log.Logger(log))
		log.Close()
	}()
	lines := json.NewDecoder(records)
	var started map[string]any
	require.NoError(t, lines.Decode(&started))
	assert.Equal(t, "WARN", started["level"])
	assert.Contains(t, started["msg"], "DEVELOPMENT ONLY")
	var rest strings.Builder
	copied := make(chan struct{})
	go func() {
		_, _ = io.Copy(&rest, records)
		close(copied)
	}()

	content, err := os.ReadFile(root)
	require.NoError(t, err, "the root is there before the CA says that it has started")
	block, _ := pem.Decode(content)
	require.NotNil(t, block)
	anchor, err := x509.ParseCertificate(block.Bytes)
	require.NoError(t, err)
	info, err := os.Stat(root)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o644), info.Mode())
	entries, err := os.ReadDir(filepath.Dir(root))
	require.NoError(t, err)
	assert.Len(t, entries, 1)

	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.CreateCertificateRequest(rand.Reader,
		&x509.CertificateRequest{Subject: pkix.Name{CommonName: "leaf"}}, key)
	require.NoError(t, err)
	csr, err := x509.ParseCertificateRequest(der)
	require.NoError(t, err)
	client := fixture.Must(cmp.New(cmp.Config{
		URL: "http://" + started["address"].(string), Recipient: "CN=any", Reference: "mypassword",
		Secret: []byte("a secret of our own"),
	}))
	result, err := client.Initialize(t.Context(), cmp.Request{CSR: csr, Key: key})
	require.NoError(t, err)
	assert.Equal(t, anchor, result.Trusted[0])

	stop()
	require.NoError(t, <-served)
	<-copied
	assert.Contains(t, rest.String(), `"msg":"certificate issued"`)
	assert.NotContains(t, rest.String(), "a secret of our own")
}

func TestServe_failures(t *testing.T) {
	taken := fixture.Must(net.Listen("tcp", "127.0.0.1:0"))
	defer taken.Close()
	log := slog.New(slog.DiscardHandler)
	address := taken.Addr().String()
	assert.EqualError(t, serve(t.Context(), settings{addr: address}, log),
		"DEVCA_ADDR cannot be used: listen tcp "+address+": bind: address already in use")

	missing := filepath.Join(t.TempDir(), "missing", "root.pem")
	err := serve(t.Context(), settings{addr: "127.0.0.1:0", caFile: missing}, log)
	require.ErrorIs(t, err, os.ErrNotExist)
	assert.ErrorContains(t, err, "writing the root for DEVCA_CA_FILE: open "+filepath.Dir(missing))
}

func TestServe_onOtherAddresses_warnsTwice(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	stop()
	var records strings.Builder
	require.NoError(t, serve(ctx, settings{addr: "0.0.0.0:0"}, slog.New(slog.NewTextHandler(&records, nil))))
	assert.Contains(t, records.String(),
		"DEVELOPMENT ONLY: other machines can reach this CA, because DEVCA_ADDR says so")
}

func TestRun_probe_succeedsOnceTheCAAnswers(t *testing.T) {
	ca := fixture.Must(devca.New(devca.Config{}))
	server := httptest.NewServer(ca)
	clean(t, map[string]string{"DEVCA_ADDR": server.Listener.Addr().String()})
	code, _, stderr := execute("probe")
	assert.Zero(t, code, stderr)

	server.Close()
	code, _, stderr = execute("probe")
	assert.Equal(t, 1, code)
	assert.Contains(t, stderr, "connection refused")
}

func TestRun_misspeltVariable_isWarnedOf(t *testing.T) {
	clean(t, map[string]string{"DEVCA_ADDR": "here"})
	for name, value := range map[string]string{"DEVCA_FAULTS": "expired",
		"DEVCA_SERVICE_HOST": "10.0.0.1", "DEVCA_ADDR_PORT": "tcp://10.0.0.1:80"} {
		t.Setenv(name, value)
	}
	code, _, stderr := execute()
	assert.Equal(t, 2, code)
	assert.Contains(t, stderr,
		`"level":"WARN","msg":"the environment needs attention","variable":"DEVCA_FAULTS","error":"is not known `+
			`and has no effect: did you mean DEVCA_FAULT?"`)
	assert.Equal(t, 1, strings.Count(stderr, "did you mean"), stderr)
}
