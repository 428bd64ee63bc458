package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/service"
)

// situation is what a row of the guide's table of exit codes is about.
type situation struct {
	env       map[string]string // DIR is the service's directory with the client's files
	behaviour []string          // of the CertService, each in a run of its own
	terminate bool              // while the request is under way
	tls       func(s *service.Service, config *tls.Config)
}

var situations = map[string]situation{
	"`REQUEST_TIMEOUT=abc`":                       {env: map[string]string{"REQUEST_TIMEOUT": "abc"}},
	"an answer that is HTML, empty or wrong JSON": {behaviour: []string{"html", "html-502", "empty", "not-json"}},
	"a redirect": {behaviour: []string{"redirect"}},
	"the same certificate twice in the answer": {behaviour: []string{"duplicates"}},
	"status 503, twice, and then an answer": {behaviour: []string{"busy-twice"},
		env: map[string]string{"RETRY_MAX_ELAPSED": "20s"}},
	"`OUTPUT_TYPE=P12,PEM`":             {env: map[string]string{"OUTPUT_TYPE": "P12,PEM"}},
	"a dot or a space in `OUTPUT_PATH`": {env: map[string]string{"OUTPUT_PATH": "DIR/a volume.d"}},
	"a PEM file as " +
		"`KEYSTORE_PATH`": {env: map[string]string{"KEYSTORE_PATH": "DIR/client.pem"}},
	"an internal name in `SANS`: " +
		"`app.ns.svc.cluster.local`": {env: map[string]string{"SANS": "app.ns.svc.cluster.local"}},
	"a host with a port in `SANS`: `app.example.org:8443`": {env: map[string]string{"SANS": "app.example.org:8443"}},
	"a certificate for another key, without names, expired, or of a chain that does not verify": {
		behaviour: []string{"another-key", "names-missing", "expired", "link-missing", "untrusted-root"},
	},
	"a server certificate that has its name in the common name only": {tls: commonNameOnly, env: map[string]string{
		"REQUEST_URL": "https://localhost:PORT/v1/certificate/",
	}},
	"SIGTERM while it waits": {behaviour: []string{"hang"}, terminate: true},
}

// commonNameOnly gives the server a certificate as they were made before subject alternative names.
func commonNameOnly(s *service.Service, config *tls.Config) {
	old := *s.Transport
	old.Change = func(leaf *x509.Certificate) { leaf.DNSNames, leaf.IPAddresses = nil, nil }
	key, chain, err := old.Identity("localhost")
	if err != nil {
		panic(err)
	}
	config.Certificates = []tls.Certificate{{Certificate: [][]byte{chain[0].Raw, chain[1].Raw}, PrivateKey: key}}
}

// Each row of the migration guide's table of exit codes ends with the code that the row has.
func TestMigrationGuide_exitCodes_areAsItSays(t *testing.T) {
	rows := exitCodeRows(t)
	assert.ElementsMatch(t, slices.Collect(maps.Keys(situations)), slices.Collect(maps.Keys(rows)))
	for name, want := range rows {
		given := situations[name]
		if len(given.behaviour) == 0 {
			given.behaviour = []string{""}
		}
		for _, b := range given.behaviour {
			t.Run(name+" "+b, func(t *testing.T) {
				t.Parallel()
				assert.Equal(t, want, strconv.Itoa(given.exitCode(t, b)))
			})
		}
	}
}

// exitCodeRows are the codes of the guide's last column, by the first.
func exitCodeRows(t *testing.T) map[string]string {
	t.Helper()
	content := fixture.Must(os.ReadFile("../../docs/migrating-from-onap.md"))
	_, section, found := strings.Cut(string(content), "\n### Exit codes that differ\n")
	require.True(t, found)
	section, _, _ = strings.Cut(section, "\n#")
	rows := map[string]string{}
	for _, match := range regexp.MustCompile(`(?m)^\| (.*) \| [^|]* \| (\d+)\b[^|]*\|$`).FindAllStringSubmatch(section,
		-1) {
		rows[match[1]] = match[2]
	}
	require.Equal(t, strings.Count(section, "\n| ")-1, len(rows), "every row has a code")
	return rows
}

// exitCode runs certfetcher as a pod would and returns what it ends with.
func (given situation) exitCode(t *testing.T, wanted string) int {
	t.Helper()
	options := service.Options{TLS: given.tls}
	if wanted != "" {
		require.Contains(t, behaviours, wanted)
		options.Wrap = behaviours[wanted]
	}
	s := service.Run(t, options)
	address := fixture.Must(url.Parse(s.URL))
	fill := strings.NewReplacer("DIR", s.Dir, "PORT", address.Port())
	command := certfetcher(s, filepath.Join(s.Dir, "volume"), nil, "SANS=app.example.org")
	if given.terminate {
		command.Env = append(command.Env, "RETRY_MAX_ELAPSED=1m")
	}
	for name, value := range given.env {
		command.Env = append(command.Env, name+"="+fill.Replace(value))
	}
	require.NoError(t, command.Start())
	if given.terminate {
		require.Eventually(t, func() bool { return s.Requests() > 0 }, 20*time.Second, time.Millisecond)
		require.NoError(t, command.Process.Signal(syscall.SIGTERM))
	}
	_ = command.Wait()
	return command.ProcessState.ExitCode()
}
