package config

import (
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
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
	for _, v := range program.DescribeVariables(&environment{}) {
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
	assert.Equal(t, mtls.Files{KeystorePath: "/etc/ks.jks", KeystorePassword: "secret-keystore", TruststorePath: "/etc/ts.jks", TruststorePassword: "secret-truststore"}, got.TLS)
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
			"3077311630140603550407130d53616e2d4672616e636973636f310d300b060355040b13044f4e415031193017060355040a13104c696e75782d466f756e646174696f6e311330110603550408130a43616c69666f726e6961310b30090603550406130255533111300f060355040313086f6e61702e6f7267",
		},
		"UTF-8 where the characters ask for it": {
			map[string]string{"COMMON_NAME": "café", "COUNTRY": "DE", "STATE": "Bayern", "ORGANIZATION": "Müller & Söhne"},
			"304931193017060355040a0c104dc3bc6c6c657220262053c3b6686e65310f300d0603550408130642617965726e310b3009060355040613024445310e300c06035504030c05636166c3a9",
		},
		"ampersand, underscore, apostrophe, colon and equals sign": {
			map[string]string{"COMMON_NAME": "a:b", "COUNTRY": "SE", "STATE": "x'y-z.=", "ORGANIZATION": "A&B", "ORGANIZATION_UNIT": "p_q"},
			"3049310c300a060355040b0c03705f71310c300a060355040a0c034126423110300e060355040813077827792d7a2e3d310b3009060355040613025345310c300a06035504031303613a62",
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
	setenv(t, map[string]string{"SANS": "a@example.org, 192.0.2.7,2001:db8::1 ,svc.ns.svc.cluster.local,single,*.example.org,spiffe://td/ns/x,urn:isbn:1,single,::ffff:192.0.2.7,"})
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
		"REQUEST_TIMEOUT": "10s", "OUTPUT_TYPE": "pem, jks,P12,PEM", "KEY_ALGORITHM": "ed25519", "RETRY_MAX_ELAPSED": "0",
		"OUTPUT_FILE_MODE": "0400", "OUTPUT_LAYOUT": "inplace", "P12_PROFILE": "legacy", "FORCE_ENROLL": "TRUE", "LOG_FORMAT": "text",
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

func TestLoad_oneFault_saysVariableValueAndRule(t *testing.T) {
	cn := "want a name without any of ~#@*$+%!()?/{}<>|_^, without a scheme, an IPv4 address or a port"
	san := "want e-mail addresses, IP addresses, host names (a leading *. allowed) or URIs, separated by single commas; each may have its kind before it: DNS:, IP:, email:, URI:"
	for name, row := range map[string]struct {
		variable, value, want string
		part                  enroll.Stage
	}{
		"URL in the clear":                       {"REQUEST_URL", "http://h/v1/", `REQUEST_URL has "http://h/v1/" (the private key must not travel in the clear), want an https:// URL with a host and without user, query or fragment`, enroll.StageClientConfiguration},
		"URL with credentials that do not parse": {"REQUEST_URL", "https://u:p%zw@h/", `REQUEST_URL has a user name or password in it, want an https:// URL with a host and without user, query or fragment`, enroll.StageClientConfiguration},
		"URL with credentials":                   {"REQUEST_URL", "https://u:pw@h/", `REQUEST_URL has a user name or password in it, want an https:// URL with a host and without user, query or fragment`, enroll.StageClientConfiguration},
		"URL with a query":                       {"REQUEST_URL", "https://h/?a=b", `REQUEST_URL has "https://h/?a=b", want an https:// URL with a host and without user, query or fragment`, enroll.StageClientConfiguration},
		"URL that is none":                       {"REQUEST_URL", "https://[::1", `REQUEST_URL has "https://[::1" (not a URL), want an https:// URL with a host and without user, query or fragment`, enroll.StageClientConfiguration},
		"URL with a port too big":                {"REQUEST_URL", "https://h:65536/", `REQUEST_URL has "https://h:65536/" (a port is a number from 1 to 65535), want an https:// URL with a host and without user, query or fragment`, enroll.StageClientConfiguration},
		"URL with port zero":                     {"REQUEST_URL", "https://h:0/", `REQUEST_URL has "https://h:0/" (a port is a number from 1 to 65535), want an https:// URL with a host and without user, query or fragment`, enroll.StageClientConfiguration},
		"timeout of letters":                     {"REQUEST_TIMEOUT", "abc", `REQUEST_TIMEOUT has "abc", want milliseconds, or a duration such as 10s; more than 0`, enroll.StageClientConfiguration},
		"timeout of zero":                        {"REQUEST_TIMEOUT", "0", `REQUEST_TIMEOUT has "0", want milliseconds, or a duration such as 10s; more than 0`, enroll.StageClientConfiguration},
		"CA name with a slash":                   {"CA_NAME", "a/b", `CA_NAME has "a/b", want 1 to 128 of A-Z a-z 0-9 _ . ~ -`, enroll.StageClientConfiguration},
		"CA name of dots":                        {"CA_NAME", "..", `CA_NAME has ".." (in a URL that is another path), want 1 to 128 of A-Z a-z 0-9 _ . ~ -`, enroll.StageClientConfiguration},
		"CA name missing":                        {"CA_NAME", "", `CA_NAME is not set, want 1 to 128 of A-Z a-z 0-9 _ . ~ -`, enroll.StageClientConfiguration},
		"relative path":                          {"OUTPUT_PATH", "certs", `OUTPUT_PATH has "certs", want an absolute path`, enroll.StageClientConfiguration},
		"unknown type":                           {"OUTPUT_TYPE", "P12,DER", `OUTPUT_TYPE has "P12,DER", want P12, JKS or PEM, or several of them separated by commas`, enroll.StageClientConfiguration},
		"unknown layout":                         {"OUTPUT_LAYOUT", "copy", `OUTPUT_LAYOUT has "copy", want symlink or inplace`, enroll.StageClientConfiguration},
		"executable mode":                        {"OUTPUT_FILE_MODE", "0750", `OUTPUT_FILE_MODE has "0750", want an octal file mode that lets the owner read and nobody execute, such as 0640`, enroll.StageClientConfiguration},
		"mode without owner":                     {"OUTPUT_FILE_MODE", "0040", `OUTPUT_FILE_MODE has "0040", want an octal file mode that lets the owner read and nobody execute, such as 0640`, enroll.StageClientConfiguration},
		"short password":                         {"OUTPUT_KEYSTORE_PASSWORD", "hush!", `OUTPUT_KEYSTORE_PASSWORD has a value that is not shown, want at least 6 characters, all of them printable ASCII`, enroll.StageClientConfiguration},
		"alias that JKS cannot hold":             {"TRUSTSTORE_ALIAS_PREFIX", "🔑", `TRUSTSTORE_ALIAS_PREFIX has "🔑", want 1 to 128 printable characters up to U+FFFF`, enroll.StageClientConfiguration},
		"group that is none":                     {"OUTPUT_GROUP", "no-such-group", `OUTPUT_GROUP has "no-such-group" (no group of that name is in /etc/group, give its number), want a group's name or number`, enroll.StageClientConfiguration},
		"alias with a newline":                   {"KEYSTORE_ALIAS", "a\nb", `KEYSTORE_ALIAS has "a\nb", want 1 to 128 printable characters up to U+FFFF`, enroll.StageClientConfiguration},
		"initial interval too big":               {"RETRY_INITIAL_INTERVAL", "1m", `RETRY_INITIAL_INTERVAL has "1m" (RETRY_MAX_INTERVAL is 30s), want a duration such as 500ms, more than 0 and not more than RETRY_MAX_INTERVAL`, enroll.StageClientConfiguration},
		"interval without unit":                  {"RETRY_MAX_INTERVAL", "30", `RETRY_MAX_INTERVAL has "30" (a unit is missing: write 30s, 30m or 30h), want a duration such as 30s, more than 0`, enroll.StageClientConfiguration},
		"boolean of another kind":                {"FORCE_ENROLL", "yes", `FORCE_ENROLL has "yes" (write true), want true or false`, enroll.StageClientConfiguration},
		"log level":                              {"LOG_LEVEL", "trace", `LOG_LEVEL has "trace", want debug, info, warn or error`, enroll.StageClientConfiguration},
		"unknown algorithm":                      {"KEY_ALGORITHM", "RSA-1024", `KEY_ALGORITHM has "RSA-1024", want one of RSA-2048, RSA-3072, RSA-4096, ECDSA-P256, ECDSA-P384, ECDSA-P521, Ed25519`, enroll.StageClientConfiguration},
		"CN with a scheme":                       {"COMMON_NAME", "https://onap.org", `COMMON_NAME has "https://onap.org" (it contains a scheme), ` + cn, enroll.StageCSRConfiguration},
		"CN with underscore":                     {"COMMON_NAME", "a_b", `COMMON_NAME has "a_b" (it contains _), ` + cn, enroll.StageCSRConfiguration},
		"CN with an IPv4 address":                {"COMMON_NAME", "x10.0.0.1", `COMMON_NAME has "x10.0.0.1" (it contains 10.0.0.1), ` + cn, enroll.StageCSRConfiguration},
		"CN with a port":                         {"COMMON_NAME", "onap.org:443", `COMMON_NAME has "onap.org:443" (it contains :443), ` + cn, enroll.StageCSRConfiguration},
		"CN with a control char":                 {"COMMON_NAME", "a\tb", `COMMON_NAME has "a\tb" (it has control characters or is no UTF-8), ` + cn, enroll.StageCSRConfiguration},
		"CN of spaces":                           {"COMMON_NAME", "  ", `COMMON_NAME has "  " (it is blank), ` + cn, enroll.StageCSRConfiguration},
		"O of spaces":                            {"ORGANIZATION", " ", `ORGANIZATION has " " (it is blank), want a name without any of ~#@*$+%!()?/{}<>|_^`, enroll.StageCSRConfiguration},
		"state of spaces":                        {"STATE", " ", `STATE has " " (it is blank), want text`, enroll.StageCSRConfiguration},
		"O with a star":                          {"ORGANIZATION", "Acme*", `ORGANIZATION has "Acme*" (it contains *), want a name without any of ~#@*$+%!()?/{}<>|_^`, enroll.StageCSRConfiguration},
		"country in lower case":                  {"COUNTRY", "us", `COUNTRY has "us" (write US), want an ISO 3166-1 alpha-2 code in upper case, such as SE`, enroll.StageCSRConfiguration},
		"country that is none":                   {"COUNTRY", "XX", `COUNTRY has "XX", want an ISO 3166-1 alpha-2 code in upper case, such as SE`, enroll.StageCSRConfiguration},
		"two countries":                          {"COUNTRY", "SE US", `COUNTRY has "SE US", want an ISO 3166-1 alpha-2 code in upper case, such as SE`, enroll.StageCSRConfiguration},
		"empty SAN":                              {"SANS", "a.example,,b.example", `SANS has "a.example,,b.example" (an entry is empty), ` + san, enroll.StageCSRConfiguration},
		"SAN with a host that is none":           {"SANS", "https://example.org./x", `SANS has "https://example.org./x" ("https://example.org./x" has a host that readers of certificates refuse), ` + san, enroll.StageCSRConfiguration},
		"SAN of no kind":                         {"SANS", "a b", `SANS has "a b" ("a b" is none of these), ` + san, enroll.StageCSRConfiguration},
		"SAN like a bad address":                 {"SANS", "10.0.0.300", `SANS has "10.0.0.300" ("10.0.0.300" is none of these), ` + san, enroll.StageCSRConfiguration},
		"SAN with an inner star":                 {"SANS", "a.*.example", `SANS has "a.*.example" ("a.*.example" is none of these), ` + san, enroll.StageCSRConfiguration},
		"SAN with underscore":                    {"SANS", "a_b.example", `SANS has "a_b.example" ("a_b.example" is none of these), ` + san, enroll.StageCSRConfiguration},
		"keystore missing":                       {"KEYSTORE_PATH", "", `KEYSTORE_PATH is not set, want the path of a JKS, PKCS#12 or PEM file with the client certificate and its key`, enroll.StageTLSConfiguration},
		"password twice":                         {"KEYSTORE_PASSWORD_FILE", "/run/secrets/ks", `KEYSTORE_PASSWORD_FILE and KEYSTORE_PASSWORD are both set, want one of them`, enroll.StageTLSConfiguration},
	} {
		t.Run(name, func(t *testing.T) {
			setenv(t, map[string]string{row.variable: row.value})
			_, err := Load()
			require.EqualError(t, err, row.want)
			assert.Equal(t, row.part, err.(Faults).Stage())
		})
	}
}

func TestLoad_sans_withTheirKind_areUnderstood(t *testing.T) {
	setenv(t, map[string]string{"SANS": "DNS:app.example.org, dns:*.example.org,IP:10.0.0.1,IP Address:2001:DB8::1,ip address: 10.0.0.2,email:a@example.org," +
		"URI:spiffe://td/ns/x,uri:custom:thing,DNSName: b.example.org, IPAddress: 10.0.0.3,RFC822Name: b@example.org,URIName: https://h/x,dns:app.example.org"})
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
		"urn:isbn:1", "sip:a@b.example", "sips:a@b.example", "tel:+4612345", "mailto:a@b.example", "tag:example.org:x", "xmpp:a@b.example", "did:web:b.example",
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

// Each would give a name that no TLS client compares, or none that the user meant.
func TestLoad_sans_notWhatIsMeant_sayWhatToWrite(t *testing.T) {
	for entry, want := range map[string]string{
		"app.example.org:8443":    `"app.example.org:8443" has a port, which no certificate names: write "app.example.org"`,
		"localhost:8443":          `"localhost:8443" has a port, which no certificate names: write "localhost"`,
		"app.example.org.:8443":   `"app.example.org.:8443" has a port, which no certificate names: write "app.example.org"`,
		"10.0.0.1:443":            `"10.0.0.1:443" has a port, which no certificate names: write "10.0.0.1"`,
		"[2001:db8::1]:443":       `"[2001:db8::1]:443" has a port, which no certificate names: write "2001:db8::1"`,
		"[fe80::1%eth0]:443":      `"[fe80::1%eth0]:443" has a port, which no certificate names: write "fe80::1"`,
		"[2001:db8::1]":           `"[2001:db8::1]" has brackets: write "2001:db8::1"`,
		"DNS:app.example.org:443": `"app.example.org:443" has a port, which no certificate names: write "app.example.org"`,
		"fe80::1%eth0":            `"fe80::1%eth0" has a zone, which no certificate can name: write "fe80::1"`,
		"IP:fe80::1%eth0":         `"fe80::1%eth0" has a zone, which no certificate can name: write "fe80::1"`,
		"10.0.0.0/8":              `"10.0.0.0/8" is a network, and a certificate names single addresses`,
		"foo:bar":                 `"foo:bar" has the unknown scheme or kind "foo": write DNS:, IP: or email: before a name, and URI:foo:bar if it is a URI`,
		"host.example:8443/v1":    `"host.example:8443/v1" has the unknown scheme or kind "host.example"`,
		"otherName:1.2.3;UTF8:x":  `is of a kind that cannot be asked for, want DNS, IP, email or URI`,
		"RID:1.2.3":               `"RID:1.2.3" is of a kind that cannot be asked for`,
		"DNS:":                    `"DNS:" has nothing after the colon`,
		"DNS:10.0.0.1":            `"10.0.0.1" is no host name: write "IP:10.0.0.1"`,
		"IP:app.example.org":      `"app.example.org" is no IP address: write "DNS:app.example.org"`,
		"email:app.example.org":   `"app.example.org" is no e-mail address: write "DNS:app.example.org"`,
		"DNS:a_b.example":         `"a_b.example" is no host name`,
		"URI:relative":            `"relative" is none of these`,
	} {
		setenv(t, map[string]string{"SANS": entry})
		_, err := Load()
		require.Error(t, err, entry)
		assert.Contains(t, strings.ReplaceAll(err.Error(), `\"`, `"`), want, entry)
		assert.Equal(t, enroll.StageCSRConfiguration, err.(Faults).Stage())
	}
}

func TestLoad_dotAtTheEndOfAHostName_isDroppedWithAWarning(t *testing.T) {
	setenv(t, map[string]string{"SANS": "example.com.,DNS:*.example.org.,example.com"})
	got, err := Load()
	require.NoError(t, err)
	assert.Equal(t, []string{"example.com", "*.example.org"}, got.Certificate.Template.DNSNames)
	assert.Equal(t, []Fault{
		{enroll.StageCSRConfiguration, "SANS", `has "example.com.": certificates have host names without the dot at the end, so it is left out`},
		{enroll.StageCSRConfiguration, "SANS", `has "*.example.org.": certificates have host names without the dot at the end, so it is left out`},
	}, got.Warnings)
}

func TestLoad_subjectBeyondTheUpperBounds_isWarnedOf(t *testing.T) {
	long := strings.Repeat("é", 65)
	setenv(t, map[string]string{"COMMON_NAME": long, "ORGANIZATION": long, "ORGANIZATION_UNIT": long, "STATE": long, "LOCATION": long + long})
	got, err := Load()
	require.NoError(t, err)
	var names []string
	for _, w := range got.Warnings {
		names = append(names, w.Variable)
	}
	assert.Equal(t, []string{"COMMON_NAME", "ORGANIZATION", "ORGANIZATION_UNIT", "LOCATION"}, names)
	assert.Equal(t, "has 65 characters, more than the 64 that RFC 5280 allows in CN (ub-common-name): many CAs refuse the request or cut the name off"+
		": put the long host name into SANS, and a shorter one here", got.Warnings[0].Problem)
	setenv(t, map[string]string{"COMMON_NAME": strings.Repeat("é", 64)})
	got, err = Load()
	require.NoError(t, err)
	assert.Empty(t, got.Warnings)
}

func TestLoad_valuesOfOtherPrograms_sayWhatToWrite(t *testing.T) {
	for _, row := range [][3]string{
		{"COUNTRY", "UK", "write GB"}, {"COUNTRY", "USA", "write US"}, {"COUNTRY", "DEU", "write DE"}, {"COUNTRY", "se", "write SE"},
		{"OUTPUT_TYPE", "PKCS12", "write P12"}, {"OUTPUT_TYPE", "pkcs#12", "write P12"}, {"OUTPUT_TYPE", "PFX", "write P12"}, {"OUTPUT_TYPE", "crt", "write PEM"},
		{"KEY_ALGORITHM", "RSA", "write RSA-2048"}, {"KEY_ALGORITHM", "RSA4096", "write RSA-4096"}, {"KEY_ALGORITHM", "2048", "write RSA-2048"},
		{"KEY_ALGORITHM", "EC", "write ECDSA-P256"}, {"KEY_ALGORITHM", "secp384r1", "write ECDSA-P384"}, {"KEY_ALGORITHM", "P-521", "write ECDSA-P521"},
		{"KEY_ALGORITHM", "prime256v1", "write ECDSA-P256"}, {"KEY_ALGORITHM", "EC_256", "write ECDSA-P256"}, {"KEY_ALGORITHM", "ed-25519", "write Ed25519"},
		{"RENEW_BEFORE", "30d", "write 720h"}, {"REQUEST_TIMEOUT", "10 sec", "write 10s"}, {"RETRY_MAX_ELAPSED", "5min", "write 5m"},
		{"LOG_LEVEL", "warning", "write warn"}, {"MODE", "side-car", "write sidecar"}, {"OUTPUT_LAYOUT", "in-place", "write inplace"},
		{"OUTPUT_FILE_MODE", "416", `write "0640", with quotes in YAML`}, {"FORCE_ENROLL", "1", "write true"},
		{"REQUEST_URL", "localhost:8443/v1", "the scheme is missing: write https://localhost:8443/v1"},
		{"REQUEST_URL", "10.0.0.1:8443/v1/certificate/", "the scheme is missing: write https://10.0.0.1:8443/v1/certificate/"},
		{"REQUEST_URL", "oom-cert-service/v1/certificate/", "the scheme is missing: write https://oom-cert-service/v1/certificate/"},
		{"REQUEST_URL", " https://h/", "it begins or ends with white space"}, {"REQUEST_URL", "ftp://h/", `its scheme is "ftp"`},
	} {
		setenv(t, map[string]string{row[0]: row[1]})
		_, err := Load()
		require.ErrorContains(t, err, " ("+row[2]+"), want ", row[0]+"="+row[1])
	}
	setenv(t, map[string]string{"KEY_ALGORITHM": "DSA"})
	_, err := Load()
	require.ErrorContains(t, err, `has "DSA", want one of`)
}

func TestLoad_everyFault_isReportedAtOnceInTheContractsOrder(t *testing.T) {
	setenv(t, map[string]string{"TRUSTSTORE_PATH": "", "COUNTRY": "usa", "COMMON_NAME": "", "REQUEST_TIMEOUT": "abc", "CA_NAME": "-/-"})
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
		filepath.Join(dir, "none"): `TRUSTSTORE_PASSWORD_FILE has "` + filepath.Join(dir, "none") + `", which does not exist: check the path and the volume mounted there (no such file or directory)`,
		empty:                      `TRUSTSTORE_PASSWORD_FILE has "` + empty + `", which is empty, want the password of TRUSTSTORE_PATH; not needed for PEM`,
	} {
		setenv(t, map[string]string{"TRUSTSTORE_PASSWORD": "", "TRUSTSTORE_PASSWORD_FILE": path})
		_, err := Load()
		require.EqualError(t, err, want)
		assert.Equal(t, enroll.StageTLSConfiguration, err.(Faults).Stage())
	}
}

func TestLoad_faults_neverShowASecret(t *testing.T) {
	for _, v := range program.DescribeVariables(&environment{}) {
		if !v.Secret {
			continue
		}
		setenv(t, map[string]string{v.Name: "hu\x01sh-hush", "CA_NAME": ""})
		_, err := Load()
		require.Error(t, err)
		assert.NotContains(t, err.Error(), "sh-hush", v.Name)
	}
}

func TestWriteUsage_andMarkdown_nameEveryVariable(t *testing.T) {
	var usage, markdown strings.Builder
	require.NoError(t, WriteUsage(&usage))
	require.NoError(t, WriteMarkdown(&markdown))
	for _, v := range program.DescribeVariables(&environment{}) {
		assert.NotEmpty(t, v.Rule, v.Name)
		assert.NotEmpty(t, v.Description, v.Name)
		assert.NotEmpty(t, v.Group, v.Name)
		assert.Contains(t, usage.String(), "  "+v.Name+" (")
		assert.Contains(t, markdown.String(), "| `"+v.Name+"`")
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
	for _, seed := range []string{"a@b.example,10.0.0.1,::1,a.example,*.a.example,urn:x", "a,,b", "http://[::1]:80/%zz", "@", ":", "\x00"} {
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
