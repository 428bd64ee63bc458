package doctor_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/client"
	"github.com/certfetcher/certfetcher/internal/config"
	"github.com/certfetcher/certfetcher/internal/doctor"
	"github.com/certfetcher/certfetcher/internal/enroll"
	"github.com/certfetcher/certfetcher/internal/mtls"
	"github.com/certfetcher/certfetcher/output"
	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/golden"
	"github.com/certfetcher/certfetcher/test/resolver"
	"github.com/certfetcher/certfetcher/test/service"
)

// start runs a CertService and returns the options of a deployment that works with it.
func start(t *testing.T, options service.Options) (*service.Service, doctor.Options) {
	t.Helper()
	s := service.Run(t, options)
	return s, doctor.Options{
		Dialer: &net.Dialer{Resolver: resolver.New(t, nil)},
		Config: &config.Fetcher{
			Settings: enroll.Settings{
				Request: client.Config{URL: s.URL, CAName: fixture.CAName},
				// as publish has it
				Certificate: enroll.Certificate{KeyAlgorithm: "ECDSA-P256", Template: &x509.CertificateRequest{
					Subject: pkix.Name{Names: []pkix.AttributeTypeAndValue{{Type: asn1.ObjectIdentifier{2, 5, 4, 3},
						Value: "app.example.org"}}},
					DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
				}},
				Output: output.Config{
					Dir: t.TempDir(), Types: []string{"P12"}, Layout: "symlink", FileMode: 0o640,
					KeystoreAlias: "certificate", TruststoreAliasPrefix: "trusted-certificate-", P12Profile: "modern",
				},
			},
			TLS: mtls.Files{
				KeystorePath: filepath.Join(s.Dir, "client.p12"), KeystorePassword: fixture.Password,
				TruststorePath: filepath.Join(s.Dir, "truststore.jks"), TruststorePassword: fixture.Password,
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
	assert.NotContains(t, written, fixture.Password)
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

// row is a deployment, and which checks of it a golden file has even where they are ok.
type row struct {
	options service.Options
	change  func(t *testing.T, s *service.Service, o *doctor.Options)
	show    string // their names, with commas
}

// changed only differs from the good deployment in its options.
func changed(show string, change func(o *doctor.Options)) row {
	return row{show: show, change: func(_ *testing.T, _ *service.Service, o *doctor.Options) { change(o) }}
}

// requireReports compares what is found in each deployment with a golden file.
func requireReports(t *testing.T, name string, rows map[string]row) {
	t.Helper()
	want := golden.Load(t, name)
	for sentence, row := range rows {
		t.Run(sentence, func(t *testing.T) {
			s, o := start(t, row.options)
			dir := o.Config.Output.Dir
			// A volume is a mount point, and nothing above it counts; here the test's own directory does.
			require.NoError(t, os.Chmod(filepath.Dir(dir), 0o755))
			if row.change != nil {
				row.change(t, s, &o)
			}
			report, _ := run(t, o)
			want.Equal(t, sentence, summary(report, row.show, s.Dir, dir))
			assert.NotContains(t, text(t, report), "swordfish")
		})
	}
}

// varying is what differs from run to run and from machine to machine in a report.
var varying = []struct {
	pattern *regexp.Regexp
	text    string
}{
	{regexp.MustCompile(`(127\.0\.0\.\d+):\d{5}\b`), "$1:PORT"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT[\d:]+Z`), "TIME"},
	{regexp.MustCompile(`\([0-9.]+(s|ms|µs)\)`), "(TOOK)"},
	{regexp.MustCompile(`\d+m\d+s (ahead of|behind)`), "MINUTES $1"},
	{regexp.MustCompile(`, groups [\d ]+`), ""},
	{regexp.MustCompile(`serial number [0-9A-F]+`), "serial number SERIAL"},
	{regexp.MustCompile(` on [\d.]+:53`), ""},
	{regexp.MustCompile(`\.\.\d{4}(_\d\d)+\.\d{3}`), "..GENERATION"},
	{regexp.MustCompile(`doctor-[A-Z0-9]+`), "doctor-RANDOM"},
	{regexp.MustCompile(`which has .*: is the application`), "which has SOME: is the application"},
	{regexp.MustCompile(`[^" ]*/TestRun_\w+/\d+`), "{tmp}"},
	{regexp.MustCompile(fmt.Sprintf(`\buid %d\b`, os.Geteuid())), "uid OURS"},
	{regexp.MustCompile(fmt.Sprintf(`\bgid %d\b`, os.Getegid())), "gid OURS"},
	{regexp.MustCompile(fmt.Sprintf(`\buid %d\b`, os.Geteuid()+1000)), "uid ANOTHER"},
	{regexp.MustCompile(fmt.Sprintf(`\bgid %d\b`, os.Getegid()+1000)), "gid ANOTHER"},
}

// summary is the checks that are not ok and those to show, without the ones that depend on the machine.
func summary(report doctor.Report, show, identity, volume string) string {
	lines := []string{fmt.Sprintf("exit code %d", report.ExitCode())}
	because := ""
	for _, c := range report.Checks {
		shown := slices.Contains(strings.Split(show, ","), c.Name)
		machine := slices.Contains([]string{"file system", "free space", "reader"}, c.Name) && c.Status != doctor.Failed
		switch {
		case !shown && (c.Status == doctor.OK || machine):
		case c.Status == doctor.Skipped && c.Found == because:
			lines[len(lines)-1] += ", " + c.Name
		case c.Status == doctor.Skipped:
			because = c.Found
			lines = append(lines, "skipped ("+c.Found+"): "+c.Name)
		default:
			lines = append(lines, string(c.Status)+": "+c.Name+": "+c.Found)
			if c.Advice != "" {
				lines = append(lines, "  -> "+c.Advice)
			}
		}
	}
	all := strings.NewReplacer(identity, "{tls}", volume, "{dir}", filepath.Dir(volume),
		"{tmp}").Replace(strings.Join(lines, "\n"))
	for _, v := range varying {
		all = v.pattern.ReplaceAllString(all, v.text)
	}
	return all
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
