package truststore

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/keystore"
	"github.com/certfetcher/certfetcher/test/peer"
)

// keytool runs it in the directory of p and returns what it prints.
func keytool(p place, arguments ...string) string {
	p.t.Helper()
	command := peer.Keytool(p.t, arguments...)
	command.Dir = p.dir
	out, err := command.CombinedOutput()
	require.NoError(p.t, err, string(out))
	return string(out)
}

// javaEntry is an entry as keytool lists it, with the fingerprint of its first certificate in hexadecimal.
var javaEntry = regexp.MustCompile(`(?m)^(.+), [^,]+, \d+, (\w+), *\n(?:Certificate fingerprint \(SHA-256\): ([0-9A-F:]+))?`)

// javaEntries are the kinds and fingerprints that keytool lists, by alias.
func javaEntries(p place, file, password string) map[string]string {
	p.t.Helper()
	list := map[string]string{}
	for _, match := range javaEntry.FindAllStringSubmatch(keytool(p, "-list", "-keystore", file, "-storepass", password), -1) {
		list[match[1]] = match[2] + " " + strings.ToLower(strings.ReplaceAll(match[3], ":", ""))
	}
	return list
}

func javaTrusted(cert *x509.Certificate) string { return "trustedCertEntry " + digestOf(cert.Raw) }

func TestKeytool_listsMergedStores(t *testing.T) {
	for _, name := range []string{"base.jks", "base.p12", "cacerts"} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			base := trusted(t, "mine", 0)
			want := map[string]string{"mine": javaTrusted(root(0)), "pem-trusted-certificate-0": javaTrusted(root(1)), "mine-2": javaTrusted(root(2))}
			if name != "cacerts" {
				base = append(base, keyEntry("application"))
				want["application"] = "PrivateKeyEntry " + digestOf(testPKI().chain[0].Raw)
			}
			p.write(name, baseOf[name](t, base...))
			p.write("other.pem", pemOf(0, 1))
			p.write("other.jks", jks(t, trusted(t, "Mine", 2)...))

			p.run(p.merge(name, "other.pem", "other.jks"))

			assert.Equal(t, want, javaEntries(p, name, password))
		})
	}
}

func TestKeytool_storesItMadeAreMergedInto(t *testing.T) {
	tests := []struct {
		name    string
		options []string
		check   func(t *testing.T, p place)
	}{
		{"JKS", []string{"-storetype", "JKS"}, nil},
		{"PKCS#12", []string{"-storetype", "PKCS12"}, nil},
		{"PKCS#12 as JDK 8 writes it", []string{"-storetype", "PKCS12", "-J-Dkeystore.pkcs12.legacy"}, func(t *testing.T, p place) {
			profile, err := keystore.ProfileOf(p.read("base"))
			require.NoError(t, err)
			assert.Equal(t, keystore.ProfileLegacy, profile)
		}},
		{"PKCS#12 as the cacerts of JDK 18 and later", []string{"-storetype", "PKCS12",
			"-J-Dkeystore.pkcs12.macAlgorithm=NONE", "-J-Dkeystore.pkcs12.certProtectionAlgorithm=NONE"}, func(t *testing.T, p place) {
			assert.True(t, needsNoPassword(t, p.read("base")))
			// An application that gives no password, or any, sees all of it.
			assert.Len(t, javaEntries(p, "base", ""), 2)
			assert.Len(t, javaEntries(p, "base", "anything"), 2)
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := newPlace(t)
			p.write("a.pem", pemOf(0))
			p.write("other.pem", pemOf(1))
			keytool(p, append([]string{"-importcert", "-noprompt", "-alias", "Ä 1", "-file", "a.pem", "-keystore", "base", "-storepass", password}, test.options...)...)

			p.run(p.merge("base", "other.pem"))

			entries, _, err := keystore.Decode(p.read("base"), password)
			require.NoError(t, err)
			require.Len(t, entries, 2)
			got := javaEntries(p, "base", password)
			require.Len(t, got, 2)
			assert.Equal(t, javaTrusted(root(1)), got["pem-trusted-certificate-0"])
			if test.check != nil {
				test.check(t, p)
			}
			assert.False(t, p.run(p.merge("base", "other.pem")).Changed())
		})
	}
}

func TestKeytool_keysOfAMergedStoreStayUsable(t *testing.T) {
	for _, format := range []string{"JKS", "PKCS12"} {
		t.Run(format, func(t *testing.T) {
			p := newPlace(t)
			p.write("a.pem", pemOf(0))
			p.write("other.pem", pemOf(1))
			keytool(p, "-genkeypair", "-alias", "application", "-keyalg", "EC", "-dname", "CN=application", "-keystore", "base", "-storetype", format, "-storepass", password, "-keypass", password)
			keytool(p, "-importcert", "-noprompt", "-alias", "a", "-file", "a.pem", "-keystore", "base", "-storepass", password)

			p.run(p.merge("base", "other.pem"))

			// Only who has the private key can make a request.
			request := keytool(p, "-certreq", "-alias", "application", "-keystore", "base", "-storepass", password)
			assert.Contains(t, request, "BEGIN NEW CERTIFICATE REQUEST")
			assert.Len(t, javaEntries(p, "base", password), 3)
		})
	}
}

// The post-processor never opened keys, so their passwords need not be the store's.
func TestKeytool_keyWithAPasswordOfItsOwn_staysAsItIs(t *testing.T) {
	p := newPlace(t)
	p.write("a.pem", pemOf(0))
	p.write("other.pem", pemOf(1))
	const own = "swordfish"
	keytool(p, "-genkeypair", "-alias", "application", "-keyalg", "EC", "-dname", "CN=application", "-keystore", "base", "-storetype", "JKS", "-storepass", password, "-keypass", own)
	keytool(p, "-importcert", "-noprompt", "-alias", "a", "-file", "a.pem", "-keystore", "base", "-storepass", password)
	before := p.read("base")

	p.run(p.merge("base", "other.pem"))

	after := p.read("base")
	assert.Equal(t, before[12:len(before)-20], after[12:len(before)-20], "entries keep every byte")
	assert.Contains(t, keytool(p, "-certreq", "-alias", "application", "-keystore", "base", "-storepass", password, "-keypass", own), "BEGIN NEW CERTIFICATE REQUEST")
	assert.Len(t, javaEntries(p, "base", password), 3)
	assert.False(t, p.run(p.merge("base", "other.pem")).Changed())
	// Nor is what only a key has added to others.
	p.write("third.jks", jks(t, trusted(t, "b", 2)...))
	p.run(p.merge("third.jks", "base"))
	assert.Equal(t, map[string]int{"b": 2, "a": 0, "pem-trusted-certificate-0": 1}, contents(t, p.read("third.jks")))
}

func TestKeytool_secretKeysAreNotLost(t *testing.T) {
	p := newPlace(t)
	p.write("a.pem", pemOf(0))
	p.write("other.pem", pemOf(1))
	keytool(p, "-genseckey", "-alias", "secret", "-keyalg", "AES", "-keysize", "128", "-keystore", "base.p12", "-storepass", password)
	keytool(p, "-importcert", "-noprompt", "-alias", "a", "-file", "a.pem", "-keystore", "base.p12", "-storepass", password)
	p.write("pem-named.jks", jks(t, trusted(t, "Secret", 2)...))

	p.run(p.merge("base.p12", "other.pem", "pem-named.jks"))

	// The secret key opens, and no certificate took its alias.
	got := javaEntries(p, "base.p12", password)
	assert.Len(t, got, 4)
	assert.Equal(t, javaTrusted(root(1)), got["pem-trusted-certificate-0"])
	assert.Equal(t, javaTrusted(root(2)), got["secret-2"])
	assert.Contains(t, keytool(p, "-list", "-keystore", "base.p12", "-storepass", password), "SecretKeyEntry")
}

// cacerts is the trust store of the JDK that keytool belongs to.
func cacerts(t *testing.T) []byte {
	t.Helper()
	program, err := filepath.EvalSymlinks(peer.Require(t, "keytool")[0])
	require.NoError(t, err)
	data, err := os.ReadFile(filepath.Join(filepath.Dir(program), "../lib/security/cacerts"))
	require.NoError(t, err)
	return data
}

func TestKeytool_cacertsOfTheJDK(t *testing.T) {
	original := cacerts(t)
	for name, base := range map[string][]byte{
		"is merged into":                 original,
		"is merged into a JKS store":     jks(t, trusted(t, "mine", 0)...),
		"is merged into a PKCS#12 store": p12(t, trusted(t, "mine", 0)...),
		"is merged into a PEM store":     pemOf(0),
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			p.write("cacerts", original)
			p.write("base", base)
			p.write("other.p12", p12(t, trusted(t, "mine", 0)...))
			want := map[string]bool{javaTrusted(root(0)): true}
			for _, e := range javaEntries(p, "cacerts", password) {
				want[e] = true
			}
			require.Greater(t, len(want), 50)

			p.run(p.merge("base", "cacerts", "other.p12"))

			got := map[string]bool{}
			if strings.HasSuffix(name, "PEM store") {
				for _, line := range strings.Split(keytool(p, "-printcert", "-file", "base"), "\n") {
					if fingerprint, ok := strings.CutPrefix(strings.TrimSpace(line), "SHA256: "); ok {
						got["trustedCertEntry "+strings.ToLower(strings.ReplaceAll(fingerprint, ":", ""))] = true
					}
				}
			} else {
				for _, e := range javaEntries(p, "base", password) {
					got[e] = true
				}
			}
			assert.Equal(t, want, got)
			assert.False(t, p.run(p.merge("base", "cacerts", "other.p12")).Changed())
		})
	}
}

// A pod has no file with the password of its JDK's cacerts.
func TestKeytool_cacertsOfTheJDK_needNoPasswordFile(t *testing.T) {
	p := newPlace(t)
	p.write("cacerts", cacerts(t))
	p.write("other.pem", pemOf(1))
	want := javaEntries(p, "cacerts", password)
	require.Greater(t, len(want), 50)
	want["pem-trusted-certificate-0"] = javaTrusted(root(1))
	cfg := p.merge("cacerts", "other.pem")
	cfg.Truststores[0].PasswordPath = ""

	p.run(cfg)

	assert.Equal(t, want, javaEntries(p, "cacerts", password))
	assert.False(t, p.run(cfg).Changed())
}
