package e2e

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/keystore"
	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/service"
)

// unreadable are roots that crypto/x509 refuses or has no key for, and what the log says of them.
var unreadable = []struct{ name, reason string }{
	{"negative-serial", "it cannot be parsed: x509: negative serial number"},
	{"ecacc", "it cannot be parsed: x509: negative serial number"},
	{"ed448", "its key is of an unsupported kind (Ed448)"},
	{"brainpool", "it cannot be parsed: x509: unsupported elliptic curve"},
}

func readUnreadable(t *testing.T, name string) (*x509.Certificate, []byte) {
	t.Helper()
	text := fixture.Must(os.ReadFile("../testdata/certificates/" + name + ".pem"))
	block, _ := pem.Decode(text)
	cert, err := pki.Parse(block.Bytes)
	require.NoError(t, err)
	require.Error(t, pki.Unusable(cert))
	return cert, text
}

// writeStores writes a truststore of each format, with the certificates under the aliases entry-1, entry-2 and so on.
func writeStores(t *testing.T, dir, name string, certs ...*x509.Certificate) []string {
	t.Helper()
	var entries []keystore.Entry
	var text []byte
	for i, cert := range certs {
		entries = append(entries, keystore.Entry{Alias: fmt.Sprintf("entry-%d", i+1),
			Chain: []*x509.Certificate{cert}, Trusted: true})
		text = append(text, fixture.CertificatesPEM(cert)...)
	}
	jks, err := keystore.EncodeJKS(entries, fixture.Password, time.Now())
	require.NoError(t, err)
	p12, err := keystore.EncodePKCS12(entries, fixture.Password, keystore.ProfileModern)
	require.NoError(t, err)
	var paths []string
	for extension, data := range map[string][]byte{".jks": jks, ".p12": p12, ".pem": text} {
		path := filepath.Join(dir, name+extension)
		require.NoError(t, os.WriteFile(path, data, 0o600))
		paths = append(paths, path)
	}
	return paths
}

func start(t *testing.T) *service.Service {
	t.Helper()
	s := service.Run(t, service.Options{})
	return s
}

// runs runs certfetcher and returns its exit code and what it printed.
func runs(t *testing.T, s *service.Service, volume string, args []string, environment ...string) (int, string) {
	t.Helper()
	command := certfetcher(s, volume, args, environment...)
	out, err := command.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		require.NoError(t, err)
	}
	return command.ProcessState.ExitCode(), string(out)
}

// certfetcher prepares a run; later variables take the place of earlier ones.
func certfetcher(s *service.Service, volume string, args []string, environment ...string) *exec.Cmd {
	command := exec.Command(filepath.Join(binDir, "certfetcher"), args...)
	command.Env = s.Environment(volume, append([]string{
		"KEYSTORE_PATH=" + filepath.Join(s.Dir, "client.p12"), "KEYSTORE_PASSWORD=" + fixture.Password,
		"TRUSTSTORE_PATH=" + filepath.Join(s.Dir, "truststore.p12"), "TRUSTSTORE_PASSWORD=" + fixture.Password,
		"RETRY_INITIAL_INTERVAL=5ms", "RETRY_MAX_INTERVAL=20ms", "RETRY_MAX_ELAPSED=300ms",
	}, environment...)...)
	return command
}

func TestTruststore_oneUnreadableEntry_isSkippedWithAWarning(t *testing.T) {
	s := start(t)
	for _, bad := range unreadable {
		cert, _ := readUnreadable(t, bad.name)
		dir := t.TempDir()
		for i, path := range writeStores(t, dir, "mixed", cert, s.Transport.Root) {
			entry := `entry \"entry-1\"`
			if filepath.Ext(path) == ".pem" {
				entry = "certificate 1"
			}
			code, log := runs(t, s, filepath.Join(dir, fmt.Sprintf("volume-%d", i)), nil, "TRUSTSTORE_PATH="+path)
			assert.Equal(t, 0, code, log)
			assert.Equal(t, 1, strings.Count(log, bad.reason), log)
			assert.Contains(t, log, entry)
			assert.Contains(t, log, "; it is skipped")
			code, log = runs(t, s, filepath.Join(dir, "checked"), []string{"--check"}, "TRUSTSTORE_PATH="+path)
			assert.Equal(t, 0, code, log)
			assert.Contains(t, log, bad.reason)
		}
		code, report := runs(t, s, filepath.Join(dir, "doctored"), []string{"doctor", "-o", "json"},
			"TRUSTSTORE_PATH="+filepath.Join(dir, "mixed.pem"))
		assert.Equal(t, 0, code, report)
		assert.Contains(t, report, bad.reason)
		for _, path := range writeStores(t, dir, "alone", cert) {
			code, log := runs(t, s, filepath.Join(dir, "none"), nil, "TRUSTSTORE_PATH="+path)
			assert.Equal(t, 9, code, log)
			assert.Contains(t, log, "has no certificate that can be used: ")
			assert.Contains(t, log, bad.reason)
		}
	}
}

func TestAnswer_unreadableTrustedCertificate_isPublished(t *testing.T) {
	var texts []string
	for _, bad := range unreadable {
		_, text := readUnreadable(t, bad.name)
		texts = append(texts, string(text))
	}
	s := service.Run(t, service.Options{Wrap: func(s *service.Service, next http.Handler) http.Handler {
		// The first two in one element, as the API can be read.
		return changed(func(_ *service.Service, a *answer) {
			a.Trusted = append(append(a.Trusted, texts[0]+texts[1]), texts[2:]...)
		})(s, next)
	}})
	volume := filepath.Join(t.TempDir(), "volume")

	code, log := runs(t, s, volume, nil, "OUTPUT_TYPE=P12,JKS,PEM")
	require.Equal(t, 0, code, log)
	for i, bad := range unreadable {
		assert.Contains(t, log, fmt.Sprintf("trusted certificate %d, ", i+2))
		assert.Contains(t, log, bad.reason)
	}
	published := fixture.Must(os.ReadFile(filepath.Join(volume, "truststore.pem")))
	for _, bad := range unreadable {
		cert, _ := readUnreadable(t, bad.name)
		assert.True(t, bytes.Contains(published, fixture.CertificatesPEM(cert)), bad.name)
	}

	code, log = runs(t, s, volume, nil, "OUTPUT_TYPE=P12,JKS,PEM")
	require.Equal(t, 0, code, log)
	assert.Equal(t, 1, s.Requests(), "the set on the volume is read back and kept")
	code, log = runs(t, s, volume, []string{"inspect", volume})
	assert.Equal(t, 0, code, log)
	assert.Contains(t, log, "EC-ACC")

	password := filepath.Join(volume, "truststore.pass")
	openssl := fixture.RequirePrograms(t, "openssl")[0]
	dump, err := exec.Command(openssl, "pkcs12", "-in", filepath.Join(volume, "truststore.p12"),
		"-passin", "file:"+password, "-nokeys").CombinedOutput()
	require.NoError(t, err, string(dump))
	assert.Equal(t, 1+len(unreadable), strings.Count(string(dump), "BEGIN CERTIFICATE"))
	for _, store := range []string{"truststore.p12", "truststore.jks"} {
		listed, err := fixture.Keytool(t, volume, "-list", "-keystore", store, "-storepass:file", password)
		require.NoError(t, err, listed)
		assert.Contains(t, listed, fmt.Sprintf("Your keystore contains %d entries", 1+len(unreadable)), store)
	}
}

func TestPostprocess_unreadableEntries_areMergedAsTheyStand(t *testing.T) {
	s := start(t)
	for _, bad := range unreadable {
		cert, _ := readUnreadable(t, bad.name)
		dir := t.TempDir()
		password := filepath.Join(dir, "pass")
		require.NoError(t, os.WriteFile(password, []byte(fixture.Password), 0o600))
		// Once in the base and once in the source.
		for name, certs := range map[string][2][]*x509.Certificate{
			"base":   {{cert, s.Transport.Root}, {s.CA.Root}},
			"source": {{s.Transport.Root}, {cert, s.CA.Root}},
		} {
			writeStores(t, dir, name+"-source", certs[1]...)
			for _, base := range writeStores(t, dir, name+"-base", certs[0]...) {
				before := fixture.Must(os.ReadFile(base))
				source := strings.Replace(base, "-base", "-source", 1)
				code, log := runs(t, s, dir, []string{"postprocess"}, "TRUSTSTORES_PATHS="+base+":"+source,
					"TRUSTSTORES_PASSWORDS_PATHS="+password+":"+password)
				require.Equal(t, 0, code, "%s %s: %s", bad.name, base, log)
				after := fixture.Must(os.ReadFile(base))
				want, _, err := keystore.Decode(before, fixture.Password)
				require.NoError(t, err)
				got, _, err := keystore.Decode(after, fixture.Password)
				require.NoError(t, err)
				var all [][]byte
				for _, e := range got {
					all = append(all, e.Chain[0].Raw)
				}
				for _, e := range slices.Concat(want,
					[]keystore.Entry{{Chain: certs[1][:1]}, {Chain: certs[1][len(certs[1])-1:]}}) {
					assert.True(t, slices.ContainsFunc(all,
						func(der []byte) bool { return bytes.Equal(der, e.Chain[0].Raw) }), "%s %s", bad.name, base)
				}
				assert.Len(t, all, 3)
				if filepath.Ext(base) == ".pem" {
					assert.True(t, bytes.HasPrefix(after, before), "what was there stands as it stood")
				}
			}
		}
	}
}
