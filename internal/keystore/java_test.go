package keystore_test

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/keystore"
	"github.com/certfetcher/certfetcher/test/peer"
)

// The tests here start a JVM, about a second each; those that can run side by side.

// keytool runs the program in dir, with the test password in PW.
func keytool(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := peer.Keytool(t, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "PW="+password)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "keytool %v: %s", args, out)
	return string(out)
}

// otherRoot issued none of the other certificates: a JVM would add the root of a chain to it.
func otherRoot(t *testing.T) *x509.Certificate {
	key := fixtures(t).entities["RSA"].key
	cert, err := issue("Other Root", key, nil, key)
	require.NoError(t, err)
	return cert
}

func TestEncode_stores_areListedByKeytool(t *testing.T) {
	entries := append(keyEntries(t, "RSA"),
		keystore.Entry{Alias: "trusted-certificate-1", Chain: []*x509.Certificate{otherRoot(t)}},
		keystore.Entry{Alias: "trusted-certificate-2", Chain: []*x509.Certificate{otherRoot(t)}})
	for name, e := range encoders {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			data, err := e.encode(entries, password)
			require.NoError(t, err)
			dir := t.TempDir()
			// The name misleads on purpose: Java goes by content, too.
			require.NoError(t, os.WriteFile(filepath.Join(dir, "store.pem"), data, 0o600))
			var found []string
			for line := range strings.Lines(keytool(t, dir, "-list", "-v", "-keystore", "store.pem", "-storepass:env", "PW")) {
				for _, field := range []string{"Keystore type:", "Your keystore contains", "Alias name:", "Entry type:", "Certificate chain length:"} {
					if strings.HasPrefix(line, field) {
						found = append(found, strings.TrimSpace(line))
					}
				}
			}
			slices.Sort(found) // JKS lists in the order of a hash table
			assert.Equal(t, []string{
				"Alias name: certificate",
				"Alias name: trusted-certificate-1",
				"Alias name: trusted-certificate-2",
				"Certificate chain length: 2",
				"Entry type: PrivateKeyEntry",
				"Entry type: trustedCertEntry",
				"Entry type: trustedCertEntry",
				"Keystore type: " + string(e.format),
				"Your keystore contains 3 entries",
			}, found)
		})
	}
}

func TestEncode_stores_openInJavaAndCompleteMutualTLS(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, data, 0o600))
		return path
	}
	// Java's names of the key algorithms.
	algorithms := map[string]string{"RSA": "RSA", "ECDSA": "EC", "Ed25519": "EdDSA"}
	passwordFile := write("pass", []byte(password))
	var args, want []string
	for name, e := range encoders {
		trusted, err := e.encode(trustEntries(t)[:1], password)
		require.NoError(t, err)
		for kind := range fixtures(t).entities {
			entries := keyEntries(t, kind)
			entries[0].Alias = "My-Key"
			keys, err := e.encode(entries, password)
			require.NoError(t, err)
			args = append(args, write(name+kind, keys), passwordFile, write(name+kind+"trust", trusted), passwordFile)
			want = append(want, strings.Join([]string{
				"keystore " + string(e.format),
				// A JVM shows and finds aliases in lower case.
				"my-key PrivateKeyEntry " + algorithms[kind] + " chain 2",
				"truststore " + string(e.format),
				"trusted-certificate-1 trustedCertEntry CN=Test Root, O=Tests",
				"mutual handshake TLSv1.3 CN=localhost, O=Tests",
			}, "\n")+"\n\n")
		}
	}
	out, err := peer.Java(t, "", "../../test/java/OpenStores.java", args...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	assert.Equal(t, strings.Join(want, ""), string(out))
}

func TestDecode_storesOfKeytool_areRead(t *testing.T) {
	var want []keystore.Entry
	for kind, e := range fixtures(t).entities {
		want = append(want, keystore.Entry{Alias: "key-" + strings.ToLower(kind), Key: e.key, Chain: e.chain})
	}
	want = append(want, keystore.Entry{Alias: "other root", Chain: []*x509.Certificate{otherRoot(t)}, Trusted: true})
	byAlias := func(a, b keystore.Entry) int { return strings.Compare(a.Alias, b.Alias) }
	slices.SortFunc(want, byAlias)
	ours, err := keystore.EncodePKCS12(want, password, keystore.ProfileModern)
	require.NoError(t, err)

	const property = "-J-Dkeystore.pkcs12."
	for name, row := range map[string]struct {
		format  keystore.Format
		options []string
	}{
		"JKS":           {keystore.JKS, nil},
		"PKCS12":        {keystore.PKCS12, nil},
		"PKCS12 legacy": {keystore.PKCS12, []string{property + "legacy"}},
		"PKCS12 with other algorithms": {keystore.PKCS12, []string{property + "keyProtectionAlgorithm=PBEWithHmacSHA512AndAES_128",
			property + "certProtectionAlgorithm=PBEWithHmacSHA1AndAES_256", property + "macAlgorithm=HmacPBESHA384"}},
		"PKCS12 with certificates in the clear": {keystore.PKCS12, []string{property + "certProtectionAlgorithm=NONE",
			property + "macAlgorithm=NONE"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(dir, "ours"), ours, 0o600))
			keytool(t, dir, append(row.options, "-importkeystore", "-noprompt", "-srckeystore", "ours", "-srcstorepass:env", "PW",
				"-destkeystore", "theirs", "-deststorepass:env", "PW", "-deststoretype", string(row.format))...)
			data, err := os.ReadFile(filepath.Join(dir, "theirs"))
			require.NoError(t, err)
			got, format, err := keystore.Decode(data, password)
			require.NoError(t, err)
			assert.Equal(t, row.format, format)
			slices.SortFunc(got, byAlias)
			requireEntries(t, want, got)

			_, _, err = keystore.Decode(data, "other")
			assert.ErrorIs(t, err, keystore.ErrPassword)
		})
	}
}

func TestDecode_JCEKSOfKeytool_isNamed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "root.pem"), certificates(otherRoot(t)), 0o600))
	keytool(t, dir, "-importcert", "-noprompt", "-file", "root.pem", "-keystore", "store", "-storetype", "JCEKS",
		"-alias", "root", "-storepass:env", "PW")
	data, err := os.ReadFile(filepath.Join(dir, "store"))
	require.NoError(t, err)
	_, _, err = keystore.Decode(data, password)
	assert.EqualError(t, err, "store is a JCEKS key store, want JKS, PKCS#12 or PEM "+
		"(convert it with keytool -importkeystore -deststoretype PKCS12)")
}
