package e2e

import (
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/service"
)

// A PEM identity and truststore as editors, shells, YAML and other programs leave them work in a whole run.
func TestPEM_asItIsFound_isRead(t *testing.T) {
	s := start(t)
	parameters := string(pem.EncodeToMemory(&pem.Block{Type: "DH PARAMETERS", Bytes: []byte{0x30, 0}}))
	replace := func(old, with string) func(string) string {
		return func(text string) string { return strings.ReplaceAll(text, old, with) }
	}
	for name, change := range map[string]func(string) string{
		"a byte order mark": func(text string) string { return "\ufeff" + text },
		"UTF-16":            toUTF16,
		"CR":                replace("\n", "\r"),
		"escaped line ends": replace("\n", `\n`),
		"spaces":            replace("\n", " "),
		"indented":          func(text string) string { return "  " + strings.ReplaceAll(text, "\n", "\n  ") },
		"joined blocks":     replace("-----\n-----", "----------"),
		"an old label":      replace(" CERTIFICATE-----", " X509 CERTIFICATE-----"),
		"trust settings":    replace(" CERTIFICATE-----", " TRUSTED CERTIFICATE-----"),
		"parameters and a CRL": func(text string) string {
			return parameters + text + strings.ReplaceAll(parameters, "DH PARAMETERS", "X509 CRL")
		},
		"a damaged block beside": func(text string) string {
			return "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n" + text
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for _, file := range []string{"client.pem", "truststore.pem"} {
				text, err := os.ReadFile(filepath.Join(s.Dir, file))
				require.NoError(t, err)
				require.NoError(t, os.WriteFile(filepath.Join(dir, file), []byte(change(string(text))), 0o600))
			}
			environment := []string{"KEYSTORE_PATH=" + filepath.Join(dir, "client.pem"), "TRUSTSTORE_PATH=" + filepath.Join(dir, "truststore.pem")}
			code, log := runs(t, s, filepath.Join(dir, "volume"), nil, environment...)
			require.Equal(t, 0, code, log)
			if strings.Contains(name, "damaged") {
				assert.Equal(t, 1, strings.Count(log, `at line 1 cannot be read`), log)
			}
		})
	}
}

func toUTF16(text string) string {
	var out strings.Builder
	out.WriteString("\xff\xfe")
	for _, c := range []byte(text) {
		out.Write([]byte{c, 0})
	}
	return out.String()
}

// What cannot be read is refused with what to do about it, and without a word of the key.
func TestStore_thatCannotBeRead_saysWhatToDo(t *testing.T) {
	s := start(t)
	stored := func(name string) string {
		path, err := filepath.Abs("../testdata/stores/" + name)
		require.NoError(t, err)
		return path
	}
	for name, want := range map[string]string{
		"md5-des.p12":      "pbeWithMD5AndDES) is too weak and not supported",
		"sha1-rc4-128.p12": "pbeWithSHA1And128BitRC4) is too weak and not supported",
		"key-md5-des.pem":  "openssl pkcs8 -topk8 -provider legacy -provider default",
	} {
		code, log := runs(t, s, filepath.Join(t.TempDir(), "volume"), []string{"--check"}, "KEYSTORE_PATH="+stored(name))
		assert.Equal(t, 9, code, "%s: %s", name, log)
		assert.Contains(t, log, want, name)
	}
	text, err := os.ReadFile(filepath.Join(s.Dir, "client.pem"))
	require.NoError(t, err)
	cut := filepath.Join(t.TempDir(), "cut.pem")
	require.NoError(t, os.WriteFile(cut, text[:120], 0o600))
	code, log := runs(t, s, filepath.Join(t.TempDir(), "volume"), []string{"--check"}, "KEYSTORE_PATH="+cut)
	assert.Equal(t, 9, code, log)
	assert.Contains(t, log, "it has no END line: the file was cut short, or lines are missing")
	assert.NotContains(t, log, string(text[40:80]), "the key")
}

// Stores of other writers: a keystore, a truststore and a post-processor's source each.
func TestStores_ofOtherWriters_areRead(t *testing.T) {
	s := start(t)
	for _, name := range []string{"bouncycastle-ber-trusted.p12", "null-password.p12", "x509-certificate.pem", "crl.pem"} {
		path, err := filepath.Abs("../testdata/stores/" + name)
		require.NoError(t, err)
		password := service.Password
		if name == "null-password.p12" {
			password = ""
		}
		code, log := runs(t, s, filepath.Join(t.TempDir(), "volume"), []string{"--check"}, "TRUSTSTORE_PATH="+path, "TRUSTSTORE_PASSWORD="+password)
		assert.Equal(t, 0, code, "%s: %s", name, log)

		dir := t.TempDir()
		base, secret := filepath.Join(dir, "base.jks"), filepath.Join(dir, "pass")
		for from, to := range map[string]string{filepath.Join(s.Dir, "truststore.jks"): base, path: filepath.Join(dir, name)} {
			data, err := os.ReadFile(from)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(to, data, 0o600))
		}
		require.NoError(t, os.WriteFile(secret, []byte(service.Password), 0o600))
		second := secret
		if password == "" {
			second = filepath.Join(dir, "empty")
			require.NoError(t, os.WriteFile(second, nil, 0o600))
		}
		code, log = runs(t, s, dir, []string{"postprocess"}, "TRUSTSTORES_PATHS="+base+":"+filepath.Join(dir, name),
			"TRUSTSTORES_PASSWORDS_PATHS="+secret+":"+second)
		assert.Equal(t, 0, code, "%s: %s", name, log)
		assert.Contains(t, log, "certificate added to truststore", name)
	}
}
