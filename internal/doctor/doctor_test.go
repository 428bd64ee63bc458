package doctor_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/config"
	"github.com/certfetcher/certfetcher/internal/doctor"
	"github.com/certfetcher/certfetcher/test/resolver"
	"github.com/certfetcher/certfetcher/test/service"
)

// start runs a CertService and returns the options of a deployment that works with it.
func start(t *testing.T, options service.Options) (*service.Service, doctor.Options) {
	t.Helper()
	s, err := service.Start(t.TempDir(), options)
	require.NoError(t, err)
	t.Cleanup(s.Stop)
	return s, doctor.Options{
		Dialer: &net.Dialer{Resolver: resolver.New(t, nil)},
		Config: &config.Fetcher{
			Request: config.Request{URL: s.URL, CAName: service.CAName},
			TLS: config.TLS{
				KeystorePath: filepath.Join(s.Dir, "client.p12"), KeystorePassword: service.Password,
				TruststorePath: filepath.Join(s.Dir, "truststore.jks"), TruststorePassword: service.Password,
			},
			Certificate: config.Certificate{KeyAlgorithm: "ECDSA-P256", Template: &x509.CertificateRequest{ // as publish has it
				Subject:  pkix.Name{Names: []pkix.AttributeTypeAndValue{{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: "app.example.org"}}},
				DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
			}},
			Output: config.Output{
				Dir: t.TempDir(), Types: []string{"P12"}, Layout: "symlink", FileMode: 0o640,
				KeystoreAlias: "certificate", TruststoreAliasPrefix: "trusted-certificate-", P12Profile: "modern",
			},
		},
	}
}

// run makes the checks and indexes them. Whatever they find, they leave the volume as it was and show no secret.
func run(t *testing.T, o doctor.Options) (doctor.Report, map[string]doctor.Check) {
	t.Helper()
	before := listing(t, o.Config.Output.Dir)
	report := doctor.Run(t.Context(), o)
	assert.Equal(t, before, listing(t, o.Config.Output.Dir), "the volume has changed")
	checks := map[string]doctor.Check{}
	for _, c := range report.Checks {
		_, twice := checks[c.Name]
		assert.False(t, twice && c.Name != "variables", "%q comes twice", c.Name)
		checks[c.Name] = c
		assert.NotEmpty(t, c.Found, c.Name)
		assert.Equal(t, c.Status == doctor.Failed, c.ExitCode != 0, c.Name)
		assert.Equal(t, c.Status == doctor.Failed || c.Status == doctor.Warning, c.Advice != "", c.Name)
	}
	written := text(t, report)
	assert.NotContains(t, written, service.Password)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log("\n" + written)
		}
	})
	return report, checks
}

func text(t *testing.T, r doctor.Report) string {
	t.Helper()
	var out strings.Builder
	require.NoError(t, r.WriteText(&out))
	return out.String()
}

// listing is every file below dir with its mode and content; nil when dir is not there.
func listing(t *testing.T, dir string) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		require.NoError(t, err)
		line := path + " " + info.Mode().String()
		if info.Mode().IsRegular() {
			content, err := os.ReadFile(path)
			require.NoError(t, err)
			line += " " + string(content)
		}
		files = append(files, line)
		return nil
	})
	if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
		require.NoError(t, err)
	}
	return files
}

// requireOutcomes compares the statuses of some checks, given as words in their order.
func requireOutcomes(t *testing.T, checks map[string]doctor.Check, want map[string]doctor.Status) {
	t.Helper()
	for name, status := range want {
		require.Equal(t, status, checks[name].Status, "%s: %s", name, checks[name].Found)
	}
}

// others are the checks that a test is not about: all but the named ones, and the one on the file system, which
// depends on where the test runs.
func others(checks map[string]doctor.Check, names ...string) map[string]doctor.Status {
	want := map[string]doctor.Status{}
	for name := range checks {
		want[name] = doctor.OK
	}
	for _, name := range append(names, "file system") {
		delete(want, name)
	}
	return want
}
