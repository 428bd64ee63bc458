package doctor_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
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
	"github.com/certfetcher/certfetcher/internal/checks"
	"github.com/certfetcher/certfetcher/internal/config"
	"github.com/certfetcher/certfetcher/internal/doctor"
	"github.com/certfetcher/certfetcher/internal/enroll"
	"github.com/certfetcher/certfetcher/internal/mtls"
	"github.com/certfetcher/certfetcher/internal/notify"
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
func run(t *testing.T, o doctor.Options) (checks.Report, map[string]checks.Check) {
	t.Helper()
	before := listing(t, o.Config.Output.Dir)
	report := doctor.Run(t.Context(), o)
	assert.Equal(t, before, listing(t, o.Config.Output.Dir), "the volume has changed")
	found := map[string]checks.Check{}
	for _, c := range report.Checks {
		_, twice := found[c.Name]
		assert.False(t, twice && c.Name != "variables", "%q comes twice", c.Name)
		found[c.Name] = c
		assert.NotEmpty(t, c.Found, c.Name)
		assert.NotEmpty(t, c.Expected, c.Name)
		assert.Equal(t, c.Status == checks.Failed, c.ExitCode != 0, c.Name)
		assert.Equal(t, c.Status == checks.Failed || c.Status == checks.Warning, c.Advice != "", c.Name)
	}
	written := text(t, report)
	assert.NotContains(t, written, fixture.Password)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log("\n" + written)
		}
	})
	return report, found
}

func text(t *testing.T, r checks.Report) string {
	t.Helper()
	var out strings.Builder
	require.NoError(t, r.WriteText(&out, checks.Style{}))
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
		info := fixture.Must(entry.Info())
		line := path + " " + info.Mode().String()
		if info.Mode().IsRegular() {
			line += " " + string(fixture.Must(os.ReadFile(path)))
		}
		files = append(files, line)
		return nil
	})
	if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
		require.NoError(t, err)
	}
	return files
}

// TestRun_deployments reads golden files: each text has the commands that make a deployment, and what is found in it.
func TestRun_deployments(t *testing.T) {
	golden.Play(t, "deployments/*.txt", func(t *testing.T, _, commands string) string {
		t.Parallel()
		d := deploy(t, commands)
		// A volume is a mount point, and nothing above it counts; here the test's own directory does.
		require.NoError(t, os.Chmod(filepath.Dir(d.dir), 0o755))
		report, _ := run(t, d.Options)
		assert.NotContains(t, text(t, report), "swordfish")
		for part := range strings.SplitSeq(d.token, ".") {
			assert.True(t, part == "" || !strings.Contains(text(t, report), part), "a token is shown")
		}
		return commands + d.summary(report)
	})
}

// varying is what differs from run to run and from machine to machine in a report.
var varying = []struct {
	pattern *regexp.Regexp
	text    string
}{
	{regexp.MustCompile(`(127\.0\.0\.\d+):\d{5}\b`), "$1:PORT"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT[\d:]+Z`), "TIME"},
	{regexp.MustCompile(`\([0-9.]+(s|ms|µs)\)`), "(TOOK)"},
	{regexp.MustCompile(`, for \d+m0s`), ", for MINUTES"},
	{regexp.MustCompile(`\d+m\d+s (ahead of|behind)`), "MINUTES $1"},
	{regexp.MustCompile(`, groups [\d ]+`), ""},
	{regexp.MustCompile(`serial number [0-9A-F]+`), "serial number SERIAL"},
	{regexp.MustCompile(` on [\d.]+:53`), ""},
	{regexp.MustCompile(`\.\.\d{4}(_\d\d)+\.\d{3}`), "..GENERATION"},
	{regexp.MustCompile(`doctor-[A-Z0-9]+`), "doctor-RANDOM"},
	{regexp.MustCompile(`which has .*: is the application`), "which has SOME: is the application"},
	{regexp.MustCompile(`[^" ]*/TestRun_[^/" ]+/\d+`), "{tmp}"},
	{regexp.MustCompile(fmt.Sprintf(`\buid %d\b`, os.Geteuid())), "uid OURS"},
	{regexp.MustCompile(fmt.Sprintf(`\bgid %d\b`, os.Getegid())), "gid OURS"},
	{regexp.MustCompile(fmt.Sprintf(`\buid %d\b`, os.Geteuid()+1000)), "uid ANOTHER"},
	{regexp.MustCompile(fmt.Sprintf(`\bgid %d\b`, os.Getegid()+1000)), "gid ANOTHER"},
}

// summary is the checks that are not ok and those to show, without the ones that depend on the machine.
func (d *deployment) summary(report checks.Report) string {
	lines := []string{fmt.Sprintf("exit code %d", report.ExitCode())}
	because := ""
	for _, c := range report.Checks {
		shown := slices.Contains(strings.Split(d.show, ","), c.Name)
		machine := slices.Contains([]string{"file system", "free space", "reader"}, c.Name) && c.Status != checks.Failed
		switch {
		case !shown && (c.Status == checks.OK || machine):
		case c.Status == checks.Skipped && c.Found == because:
			lines[len(lines)-1] += ", " + c.Name
		case c.Status == checks.Skipped:
			because = c.Found
			lines = append(lines, "skipped ("+c.Found+"): "+c.Name)
		default:
			lines = append(lines, string(c.Status)+": "+c.Name+": "+c.Found)
			if c.Advice != "" {
				lines = append(lines, "  -> "+c.Advice)
			}
		}
	}
	all := strings.NewReplacer(d.s.Dir, "{tls}", d.dir, "{dir}", d.tmp, "{tmp}",
		filepath.Dir(d.dir), "{tmp}").Replace(strings.Join(lines, "\n"))
	for _, v := range varying {
		all = v.pattern.ReplaceAllString(all, v.text)
	}
	return all
}

func TestRun_goodDeployment_isOKAndAsksForNoCertificate(t *testing.T) {
	s, o := start(t, handled(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		assert.Equal(t, http.MethodGet, r.Method)
		for _, secret := range []string{"CSR", "PK", "OLD_CERT", "OLD_PK"} {
			assert.Empty(t, r.Header[secret])
		}
		assert.Regexp(t, ` \(doctor\)$`, r.UserAgent(),
			"by which the CertService takes it for no client that does not work")
		next.ServeHTTP(w, r)
	}))
	report, _ := run(t, o)
	assert.Equal(t, 0, report.ExitCode())
	assert.Equal(t, 3, s.Requests(), "the CA, a CA that does not exist, and whether it is ready")
}

func TestRun_signal_toAProcessOfAnotherUser(t *testing.T) {
	_, o := start(t, service.Options{})
	o.Config.Sidecar.Enabled = true
	path := filepath.Join(t.TempDir(), "init.pid")
	require.NoError(t, os.WriteFile(path, []byte("1\n"), 0o600))
	o.Notify = newNotifiers(t, notify.Settings{Signal: "HUP", PIDFile: path})
	_, found := run(t, o)
	if os.Geteuid() == 0 {
		assert.Equal(t, checks.OK, found["notify signal"].Status)
		return
	}
	assert.Equal(t, checks.Warning, found["notify signal"].Status)
	assert.Equal(t, fmt.Sprintf("the process of %q may not be signalled", path), found["notify signal"].Found)
}

// Scripts may rely on these names, and on the keys of report.json.
func TestRun_hasTheDocumentedNamesInOrder(t *testing.T) {
	_, o := start(t, service.Options{})
	report, _ := run(t, o)
	names := fixture.Each(report.Checks, func(c checks.Check) string { return c.Name })
	golden.File(t, "names.txt", strings.Join(names, "\n")+"\n")
}
