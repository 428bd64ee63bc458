package keystore_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/keystore"
	"github.com/certfetcher/certfetcher/test/fixture"
)

// The tests here start a JVM, about a second each; those that can run side by side.

// Each store of keys has a trusted certificate, too, in all formats under names that mislead: Java goes by content, and
// shows and finds aliases in lower case.
func TestEncode_stores_openInJavaAndCompleteMutualTLS(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name+".pem")
		require.NoError(t, os.WriteFile(path, data, 0o600))
		return path
	}
	algorithms := map[string]string{"RSA": "RSA", "ECDSA": "EC", "Ed25519": "EdDSA"} // in Java
	passwordFile := write("pass", []byte(password))
	var args, want []string
	for name, e := range encoders {
		roots := write(name+"trust", must(e.encode(trustEntries()[:1], password)))
		for kind := range fixtures().entities {
			entries := append(keyEntries(kind), trusted("z-other", fixtures().other))
			entries[0].Alias = "My-Key"
			args = append(args, write(name+kind, must(e.encode(entries, password))), passwordFile, roots, passwordFile)
			want = append(want,
				"keystore "+string(e.format),
				"my-key PrivateKeyEntry "+algorithms[kind]+" chain 2",
				"z-other trustedCertEntry CN=Other Root CA, O=Throwaway",
				"truststore "+string(e.format),
				"trusted-certificate-1 trustedCertEntry CN=Test Root CA, O=Throwaway",
				"mutual handshake TLSv1.3 CN=localhost", "")
		}
	}
	out, err := fixture.Java(t, "", "../../test/java/OpenStores.java", args...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	// JKS lists entries in the order of a hash table.
	assert.ElementsMatch(t, want, strings.Split(strings.TrimSuffix(string(out), "\n"), "\n"))
}

func TestDecode_storesOfKeytool_areRead(t *testing.T) {
	var want []keystore.Entry
	for _, kind := range []string{"ECDSA", "Ed25519", "RSA"} {
		e := fixtures().entities[kind]
		want = append(want, keystore.Entry{Alias: "key-" + strings.ToLower(kind), Key: e.key, Chain: e.chain})
	}
	want = append(want, trusted("other root", fixtures().other))
	ours := must(keystore.EncodePKCS12(want, password, keystore.ProfileModern))
	const property = "-J-Dkeystore.pkcs12."
	for name, row := range map[string]struct {
		format  keystore.Format
		options []string
	}{
		"JKS":           {keystore.JKS, nil},
		"PKCS12":        {keystore.PKCS12, nil},
		"PKCS12 legacy": {keystore.PKCS12, []string{property + "legacy"}},
		"PKCS12 with other algorithms": {keystore.PKCS12, []string{
			property + "keyProtectionAlgorithm=PBEWithHmacSHA512AndAES_128",
			property + "certProtectionAlgorithm=PBEWithHmacSHA1AndAES_256", property + "macAlgorithm=HmacPBESHA384"}},
		"PKCS12 with certificates in the clear": {keystore.PKCS12, []string{
			property + "certProtectionAlgorithm=NONE", property + "macAlgorithm=NONE"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, dir := run(t, ours, fixture.Keytool(t,
				append(row.options, "-importkeystore", "-noprompt", "-srckeystore", "in",
					"-srcstorepass:env", "PW", "-destkeystore", "out", "-deststorepass:env", "PW",
					"-deststoretype", string(row.format))...))
			data := must(os.ReadFile(filepath.Join(dir, "out")))
			got, format, err := keystore.Decode(data, password)
			require.NoError(t, err)
			assert.Equal(t, row.format, format)
			slices.SortFunc(got, func(a, b keystore.Entry) int { return strings.Compare(a.Alias, b.Alias) })
			assert.Equal(t, want, got)

			_, _, err = keystore.Decode(data, "other")
			assert.ErrorIs(t, err, keystore.ErrPassword)
		})
	}
	t.Run("JCEKS is refused", func(t *testing.T) {
		t.Parallel()
		_, dir := run(t, certificates(fixtures().other), fixture.Keytool(t, "-importcert", "-noprompt", "-file", "in",
			"-keystore", "out", "-storetype", "JCEKS", "-alias", "root", "-storepass:env", "PW"))
		_, err := keystore.Detect(must(os.ReadFile(filepath.Join(dir, "out"))))
		assert.ErrorContains(t, err, "store is a JCEKS key store")
	})
}
