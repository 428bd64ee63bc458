package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"

	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/internal/devca"
	"github.com/certfetcher/certfetcher/internal/program"
	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/golden"
)

// clean sets the environment to nothing but the given variables, NAME=VALUE.
func clean(t *testing.T, given ...string) {
	t.Helper()
	for _, v := range variables {
		t.Setenv(v.Name, "")
		t.Setenv(v.Name+"_FILE", "")
	}
	for _, variable := range given {
		name, value, _ := strings.Cut(variable, "=")
		t.Setenv(name, value)
	}
}

// varies is what differs between runs in a log.
var varies = regexp.MustCompile(`"time":"[^"]*",|[0-9a-f]{64}|x{257}|:\d{4,6}\b|/[^" ]*/TestRun[^/]*/\d+|pem\.\d+`)

// TestRun reads testdata/runs.txt: the arguments and variables of a run that is stopped as soon as
// it serves, and then its exit code and what it writes to standard error.
func TestRun(t *testing.T) {
	serving := httptest.NewServer(fixture.Must(devca.New(devca.Config{})))
	t.Cleanup(serving.Close)
	ctx, stop := context.WithCancel(t.Context())
	stop()
	file := filepath.Join(t.TempDir(), "iak")
	require.NoError(t, os.WriteFile(file, []byte("from a file\n"), 0o600))
	given := strings.NewReplacer("{taken}", serving.Listener.Addr().String(), "{long}", strings.Repeat("x", 257),
		"{tmp}", filepath.Dir(file))
	golden.Play(t, "runs.txt", func(t *testing.T, title, commands string) string {
		var args, environment []string
		for line := range strings.Lines(given.Replace(commands)) {
			if command := strings.TrimSpace(line[2:]); strings.Contains(command, "=") {
				environment = append(environment, command)
			} else {
				args = append(args, command)
			}
		}
		clean(t, environment...)
		var stdout, stderr strings.Builder
		ctx := ctx
		if len(args) > 0 { // which is over soon
			ctx = t.Context()
		}
		code := run(ctx, func() bool { return true }, args, &stdout, &stderr)
		assert.NotContains(t, stderr.String(), "swordfish")
		switch title {
		case "help":
			checkHelp(t, stdout.String())
		case "the version":
			assert.Regexp(t, `^devca \S+\n$`, stdout.String())
		}
		return fmt.Sprintf("exit code %d\n%s", code, varies.ReplaceAllString(stderr.String(), "…"))
	})
}

func checkHelp(t *testing.T, stdout string) {
	assert.Contains(t, stdout, "DEVELOPMENT ONLY")
	for _, v := range variables {
		assert.Contains(t, stdout, "\n  "+v.Name+" (")
		assert.NotEmpty(t, v.Rule, v.Name)
		assert.NotEmpty(t, v.Help, v.Name)
	}
}

func TestLoadSettings_defaultsAndValues(t *testing.T) {
	clean(t)
	s, faults := loadSettings()
	assert.Empty(t, faults)
	assert.Equal(t, settings{addr: "127.0.0.1:8829", loopback: true, ca: devca.Config{
		Reference: "mypassword", Secret: []byte("mypassword"), Validity: time.Hour,
		ResponseProtection: devca.RespondMAC,
	}}, s)

	clean(t, "DEVCA_ADDR=localhost:1", "DEVCA_RV=rv", "DEVCA_IAK=iak", "DEVCA_VALIDITY=90", "DEVCA_CA_FILE=root.pem",
		"DEVCA_RESPONSE_PROTECTION=signature", "DEVCA_FAULT=waiting:2", "DEVCA_STRICT_KEY_USAGE=true",
		"LOG_FORMAT=text", "LOG_LEVEL=debug")
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
	const secret = "a secret of our own"
	root := filepath.Join(t.TempDir(), "root.pem")
	clean(t, "DEVCA_ADDR=127.0.0.1:0", "DEVCA_CA_FILE="+root, "DEVCA_IAK="+secret)
	ctx, stop := context.WithCancel(t.Context())
	records, log := io.Pipe()
	served := make(chan int, 1)
	go func() {
		served <- run(ctx, func() bool { return true }, nil, io.Discard, log)
		log.Close()
	}()
	var started map[string]any
	lines := json.NewDecoder(records)
	require.NoError(t, lines.Decode(&started))
	rest := make(chan string, 1)
	more := io.MultiReader(lines.Buffered(), records)
	go func() { rest <- string(fixture.Must(io.ReadAll(more))) }()

	content, err := os.ReadFile(root)
	require.NoError(t, err, "the root is there before the CA says that it has started")
	block, _ := pem.Decode(content)
	require.NotNil(t, block)
	assert.Equal(t, os.FileMode(0o644), fixture.Must(os.Stat(root)).Mode())
	assert.Len(t, fixture.Must(os.ReadDir(filepath.Dir(root))), 1)

	key := fixture.Must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	asked := x509.CertificateRequest{DNSNames: []string{"leaf"}}
	der := fixture.Must(x509.CreateCertificateRequest(rand.Reader, &asked, key))
	client := fixture.Must(cmp.New(cmp.Config{
		URL: "http://" + started["address"].(string), Recipient: "CN=any", Reference: "mypassword",
		Secret: []byte(secret),
	}))
	csr := fixture.Must(x509.ParseCertificateRequest(der))
	result, err := client.Initialize(t.Context(), cmp.Request{CSR: csr, Key: key})
	require.NoError(t, err)
	assert.Equal(t, block.Bytes, result.Trusted[0].Raw)

	stop()
	assert.Zero(t, <-served)
	logged := <-rest
	assert.Contains(t, logged, `"msg":"certificate issued"`)
	assert.NotContains(t, logged, secret)
}
