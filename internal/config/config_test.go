package config

import (
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/client"
	"github.com/certfetcher/certfetcher/internal/enroll"
	"github.com/certfetcher/certfetcher/internal/mtls"
	"github.com/certfetcher/certfetcher/internal/program"
	"github.com/certfetcher/certfetcher/keygen"
	"github.com/certfetcher/certfetcher/output"
)

// valid is the least that runs, as an ONAP manifest gives it.
var valid = map[string]string{
	"OUTPUT_PATH": "/var/certs", "CA_NAME": "RA",
	"COMMON_NAME": "onap.org", "ORGANIZATION": "Linux-Foundation", "STATE": "California", "COUNTRY": "US",
	"KEYSTORE_PATH": "/etc/ks.jks", "KEYSTORE_PASSWORD": "secret-keystore",
	"TRUSTSTORE_PATH": "/etc/ts.jks", "TRUSTSTORE_PASSWORD": "secret-truststore",
}

func setenv(t *testing.T, changes map[string]string) {
	t.Helper()
	for _, v := range Variables {
		t.Setenv(v.Name, "")
		t.Setenv(v.Name+"_FILE", "")
	}
	for name, value := range valid {
		t.Setenv(name, value)
	}
	for name, value := range changes {
		t.Setenv(name, value)
	}
}

func TestLoad_onapManifest_getsTheDocumentedDefaults(t *testing.T) {
	setenv(t, nil)
	got, err := Load()
	require.NoError(t, err)
	assert.Equal(t, client.Config{
		URL: "https://oom-cert-service:8443/v1/certificate/", Timeout: 30 * time.Second, CAName: "RA",
		Retry: &client.Retry{InitialInterval: time.Second, MaxInterval: 30 * time.Second, MaxElapsed: 5 * time.Minute},
	}, got.Request)
	assert.Equal(t, mtls.Files{KeystorePath: "/etc/ks.jks", KeystorePassword: "secret-keystore",
		TruststorePath: "/etc/ts.jks", TruststorePassword: "secret-truststore"}, got.TLS)
	assert.Equal(t, output.Config{
		Dir: "/var/certs", Types: []string{"P12"}, Layout: "symlink", FileMode: 0o640,
		KeystoreAlias: "certificate", TruststoreAliasPrefix: "trusted-certificate-", P12Profile: "modern",
	}, got.Output)
	assert.Equal(t, "RSA-2048", got.Certificate.KeyAlgorithm)
	assert.Equal(t, program.LogSettings{}, got.Log)
	assert.False(t, got.ForceEnroll)
}

// The bytes come from the ONAP client's way of making them: JDK 17's
// new X500Principal("CN=…, C=…, ST=…, O=…, OU=…, L=…").getEncoded().
func TestLoad_subject_isEncodedAsTheJDKDid(t *testing.T) {
	for name, row := range map[string]struct {
		changes map[string]string
		der     string
	}{
		"all printable": {
			map[string]string{"ORGANIZATION_UNIT": "ONAP", "LOCATION": "San-Francisco"},
			"3077311630140603550407130d53616e2d4672616e636973636f310d300b060355040b13044f4e415031193017060355" +
				"040a13104c696e75782d466f756e646174696f6e311330110603550408130a43616c69666f726e6961310b3009060355" +
				"0406130255533111300f060355040313086f6e61702e6f7267",
		},
		"UTF-8 where the characters ask for it": {
			map[string]string{"COMMON_NAME": "café", "COUNTRY": "DE", "STATE": "Bayern",
				"ORGANIZATION": "Müller & Söhne"},
			"304931193017060355040a0c104dc3bc6c6c657220262053c3b6686e65310f300d0603550408130642617965726e310b" +
				"3009060355040613024445310e300c06035504030c05636166c3a9",
		},
		"ampersand, underscore, apostrophe, colon and equals sign": {
			map[string]string{"COMMON_NAME": "a:b", "COUNTRY": "SE", "STATE": "x'y-z.=",
				"ORGANIZATION": "A&B", "ORGANIZATION_UNIT": "p_q"},
			"3049310c300a060355040b0c03705f71310c300a060355040a0c034126423110300e060355040813077827792d7a2e3d" +
				"310b3009060355040613025345310c300a06035504031303613a62",
		},
	} {
		t.Run(name, func(t *testing.T) {
			setenv(t, row.changes)
			got, err := Load()
			require.NoError(t, err)
			assert.Equal(t, row.der, hex.EncodeToString(got.Certificate.Template.RawSubject))
		})
	}
}

func TestLoad_sans_areSortedByTheFirstKindThatFits(t *testing.T) {
	setenv(t, map[string]string{"SANS": "a@example.org, 192.0.2.7,2001:db8::1 " +
		",svc.ns.svc.cluster.local,single,*.example.org,spiffe://td/ns/x,urn:isbn:1,single,::ffff:192.0.2.7,"})
	got, err := Load()
	require.NoError(t, err)
	template := got.Certificate.Template
	assert.Equal(t, []string{"a@example.org"}, template.EmailAddresses)
	assert.Equal(t, []string{"svc.ns.svc.cluster.local", "single", "*.example.org"}, template.DNSNames)
	require.Len(t, template.IPAddresses, 2, "the IPv4-mapped address is the first one again")
	assert.Equal(t, "192.0.2.7", template.IPAddresses[0].String())
	assert.Len(t, template.IPAddresses[0], 4)
	assert.Equal(t, "2001:db8::1", template.IPAddresses[1].String())
	require.Len(t, template.URIs, 2)
	assert.Equal(t, "spiffe://td/ns/x", template.URIs[0].String())
	assert.Equal(t, "urn:isbn:1", template.URIs[1].String())
}

func TestLoad_values_areReadInEveryDocumentedForm(t *testing.T) {
	setenv(t, map[string]string{
		"REQUEST_TIMEOUT": "10s", "OUTPUT_TYPE": "pem, jks,P12,PEM", "KEY_ALGORITHM": "ed25519",
		"RETRY_MAX_ELAPSED": "0",
		"OUTPUT_FILE_MODE":  "0400", "OUTPUT_LAYOUT": "inplace", "P12_PROFILE": "legacy",
		"FORCE_ENROLL": "TRUE", "LOG_FORMAT": "text",
		"LOG_LEVEL": "warn", "OUTPUT_PATH": "/a.b/../c d/", "OUTPUT_GROUP": "1000",
	})
	got, err := Load()
	require.NoError(t, err)
	assert.Equal(t, 10*time.Second, got.Request.Timeout)
	assert.Equal(t, time.Duration(0), got.Request.Retry.MaxElapsed)
	assert.Equal(t, []string{"PEM", "JKS", "P12"}, got.Output.Types)
	assert.Equal(t, "Ed25519", got.Certificate.KeyAlgorithm)
	assert.Equal(t, os.FileMode(0o400), got.Output.FileMode)
	assert.Equal(t, "/c d", got.Output.Dir)
	assert.Equal(t, "inplace", got.Output.Layout)
	assert.Equal(t, "legacy", got.Output.P12Profile)
	assert.Equal(t, "1000", got.Output.Group)
	assert.True(t, got.ForceEnroll)
	assert.Equal(t, program.LogSettings{Text: true, Level: slog.LevelWarn}, got.Log)
}

func TestLoad_faults_areWordedAsDocumented(t *testing.T) {
	text, err := os.ReadFile("testdata/faults.txt")
	require.NoError(t, err)
	for _, block := range strings.Split(strings.TrimSpace(string(text)), "\n\n")[1:] {
		lines := strings.Split(block, "\n")
		changes, want := map[string]string{}, lines[len(lines)-1]
		for _, line := range lines[1 : len(lines)-1] {
			name, quoted, _ := strings.Cut(line, "=")
			changes[name], err = strconv.Unquote(quoted)
			require.NoError(t, err, line)
		}
		t.Run(strings.TrimPrefix(lines[0], "# "), func(t *testing.T) {
			setenv(t, changes)
			_, err := Load()
			require.Error(t, err)
			assert.Equal(t, want, fmt.Sprintf("%d %v", err.(Faults).Stage().ExitCode(), err))
		})
	}
}

func TestLoad_sans_withTheirKind_areUnderstood(t *testing.T) {
	setenv(t, map[string]string{"SANS": "DNS:app.example.org, dns:*.example.org,IP:10.0.0.1,IP " +
		"Address:2001:DB8::1,ip address: 10.0.0.2,email:a@example.org," +
		"URI:spiffe://td/ns/x,uri:custom:thing,DNSName: b.example.org, IPAddress: " +
		"10.0.0.3,RFC822Name: b@example.org,URIName: https://h/x,dns:app.example.org"})
	got, err := Load()
	require.NoError(t, err)
	template := got.Certificate.Template
	assert.Equal(t, []string{"app.example.org", "*.example.org", "b.example.org"}, template.DNSNames)
	assert.Equal(t, []string{"a@example.org", "b@example.org"}, template.EmailAddresses)
	assert.Equal(t, []string{"10.0.0.1", "2001:db8::1", "10.0.0.2", "10.0.0.3"}, texts(template.IPAddresses))
	assert.Equal(t, []string{"spiffe://td/ns/x", "custom:thing", "https://h/x"}, texts(template.URIs))
	assert.Empty(t, got.Warnings)
}

func TestLoad_sans_urisOfKnownSchemes_needNoKind(t *testing.T) {
	uris := []string{
		"urn:isbn:1", "sip:a@b.example", "sips:a@b.example", "tel:+4612345", "mailto:a@b.example",
		"tag:example.org:x", "xmpp:a@b.example", "did:web:b.example",
		"opc.tcp://host.example:4840/x", "spiffe://td/x", "https://h.example:8443/x",
	}
	setenv(t, map[string]string{"SANS": strings.Join(uris, ",")})
	got, err := Load()
	require.NoError(t, err)
	assert.Equal(t, uris, texts(got.Certificate.Template.URIs))
}

func texts[T fmt.Stringer](list []T) []string {
	var all []string
	for _, one := range list {
		all = append(all, one.String())
	}
	return all
}

func TestLoad_dotAtTheEndOfAHostName_isDroppedWithAWarning(t *testing.T) {
	setenv(t, map[string]string{"SANS": "example.com.,DNS:*.example.org.,example.com"})
	got, err := Load()
	require.NoError(t, err)
	assert.Equal(t, []string{"example.com", "*.example.org"}, got.Certificate.Template.DNSNames)
	assert.Equal(t, []Fault{
		{enroll.StageCSRConfiguration, "SANS",
			`has "example.com.": certificates have host names without the dot at the end, so it is left out`},
		{enroll.StageCSRConfiguration, "SANS",
			`has "*.example.org.": certificates have host names without the dot at the end, so it is left out`},
	}, got.Warnings)
}

func TestLoad_subjectBeyondTheUpperBounds_isWarnedOf(t *testing.T) {
	long := strings.Repeat("é", 65)
	setenv(t, map[string]string{"COMMON_NAME": long, "ORGANIZATION": long,
		"ORGANIZATION_UNIT": long, "STATE": long, "LOCATION": long + long})
	got, err := Load()
	require.NoError(t, err)
	var names []string
	for _, w := range got.Warnings {
		names = append(names, w.Variable)
	}
	assert.Equal(t, []string{"COMMON_NAME", "ORGANIZATION", "ORGANIZATION_UNIT", "LOCATION"}, names)
	assert.Equal(t,
		"has 65 characters, more than the 64 that RFC 5280 allows in CN (ub-common-name): many "+
			"CAs refuse the request or cut the name off"+
			": put the long host name into SANS, and a shorter one here", got.Warnings[0].Problem)
	setenv(t, map[string]string{"COMMON_NAME": strings.Repeat("é", 64)})
	got, err = Load()
	require.NoError(t, err)
	assert.Empty(t, got.Warnings)
}

func TestLoad_everyFault_isReportedAtOnceInTheContractsOrder(t *testing.T) {
	setenv(t, map[string]string{"TRUSTSTORE_PATH": "", "COUNTRY": "usa", "COMMON_NAME": "",
		"REQUEST_TIMEOUT": "abc", "CA_NAME": "-/-"})
	_, err := Load()
	var faults Faults
	require.ErrorAs(t, err, &faults)
	var names []string
	for _, f := range faults {
		names = append(names, f.Variable)
	}
	assert.Equal(t, []string{"REQUEST_TIMEOUT", "CA_NAME", "COMMON_NAME", "COUNTRY", "TRUSTSTORE_PATH"}, names)
	assert.Equal(t, enroll.StageClientConfiguration, faults.Stage())
	assert.True(t, strings.HasPrefix(err.Error(), "5 faults: REQUEST_TIMEOUT has "), err.Error())
}

func TestLoad_secretFile_losesOneTrailingNewline(t *testing.T) {
	path := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(path, []byte("from file \n"), 0o600))
	setenv(t, map[string]string{"KEYSTORE_PASSWORD": "", "KEYSTORE_PASSWORD_FILE": path})
	got, err := Load()
	require.NoError(t, err)
	assert.Equal(t, "from file ", got.TLS.KeystorePassword)
}

func TestLoad_secretFile_thatCannotBeUsed_isAFaultOfItsVariable(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	require.NoError(t, os.WriteFile(empty, []byte("\n"), 0o600))
	for path, want := range map[string]string{
		filepath.Join(dir, "none"): `TRUSTSTORE_PASSWORD_FILE has "` + filepath.Join(dir, "none") +
			`", which does not exist: check the path and the volume mounted there (no such file or directory)`,
		empty: `TRUSTSTORE_PASSWORD_FILE has "` + empty +
			`", which is empty, want the password of TRUSTSTORE_PATH; not needed for PEM`,
	} {
		setenv(t, map[string]string{"TRUSTSTORE_PASSWORD": "", "TRUSTSTORE_PASSWORD_FILE": path})
		_, err := Load()
		require.EqualError(t, err, want)
		assert.Equal(t, enroll.StageTLSConfiguration, err.(Faults).Stage())
	}
}

func TestLoad_faults_neverShowASecret(t *testing.T) {
	for _, v := range Variables {
		if !v.Secret {
			continue
		}
		setenv(t, map[string]string{v.Name: "hu\x01sh-hush", "CA_NAME": ""})
		_, err := Load()
		require.Error(t, err)
		assert.NotContains(t, err.Error(), "sh-hush", v.Name)
	}
}

func TestVariables_areDocumented(t *testing.T) {
	for _, v := range Variables {
		assert.NotEmpty(t, v.Rule, v.Name)
		assert.NotEmpty(t, v.Help, v.Name)
		assert.NotEmpty(t, v.Group, v.Name)
		assert.Contains(t, stages, v.Part, v.Name)
	}
}

func TestTerminationMessagePath_theKubelets_isUsedWhereItExists(t *testing.T) {
	kubelets := filepath.Join(t.TempDir(), "termination-log")
	assert.Empty(t, terminationMessagePath(kubelets, kubelets))
	assert.Equal(t, "/another", terminationMessagePath("/another", kubelets))
	require.NoError(t, os.WriteFile(kubelets, nil, 0o600))
	assert.Equal(t, kubelets, terminationMessagePath(kubelets, kubelets))
}

func FuzzLoad_sans(f *testing.F) {
	for _, seed := range []string{"a@b.example,10.0.0.1,::1,a.example,*.a.example,urn:x", "a,,b",
		"http://[::1]:80/%zz", "@", ":", "\x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.ContainsRune(text, 0) {
			return // an environment variable cannot hold one
		}
		setenv(t, map[string]string{"SANS": text})
		got, err := Load()
		if err == nil {
			require.NotNil(t, got.Certificate.Template)
		}
	})
}

func TestLoad_keyAlgorithms_areKeygens(t *testing.T) {
	for _, name := range keygen.Algorithms() {
		setenv(t, map[string]string{"KEY_ALGORITHM": name})
		got, err := Load()
		require.NoError(t, err)
		assert.Equal(t, name, got.Certificate.KeyAlgorithm)
	}
}
