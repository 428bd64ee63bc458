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
	"github.com/certfetcher/certfetcher/test/fixture"
)

// keytool runs it in the directory of p and returns what it prints.
func keytool(p place, arguments ...string) string {
	p.t.Helper()
	out, err := fixture.Keytool(p.t, p.dir, arguments...)
	require.NoError(p.t, err, out)
	return out
}

// javaEntry is an entry as keytool lists it, with the fingerprint of its first certificate in hexadecimal.
var javaEntry = regexp.MustCompile(
	`(?m)^(.+), [^,]+, \d+, (\w+), *\n(?:Certificate fingerprint \(SHA-256\): ([0-9A-F:]+))?`)

// javaEntries are the kinds and fingerprints that keytool lists, by alias.
func javaEntries(p place, file, password string) map[string]string {
	p.t.Helper()
	list := map[string]string{}
	listed := keytool(p, "-list", "-keystore", file, "-storepass", password)
	for _, match := range javaEntry.FindAllStringSubmatch(listed, -1) {
		list[match[1]] = match[2] + " " + strings.ToLower(strings.ReplaceAll(match[3], ":", ""))
	}
	return list
}

func javaTrusted(cert *x509.Certificate) string { return "trustedCertEntry " + digestOf(cert.Raw) }

// Stores that keytool made, with an entry of each kind that they can have, keep all of it. Keys are never opened: that
// of the JKS has a password of its own. Only who has a private key can make a request.
func TestKeytool_storesItMadeAreMergedInto(t *testing.T) {
	p12 := []string{"-storetype", "PKCS12"}
	for name, options := range map[string][]string{
		"JKS":                        {"-storetype", "JKS"},
		"PKCS#12":                    p12,
		"PKCS#12 as JDK 8 writes it": append(p12, "-J-Dkeystore.pkcs12.legacy"),
		"the cacerts of JDK 18 and later": append(p12, "-J-Dkeystore.pkcs12.macAlgorithm=NONE",
			"-J-Dkeystore.pkcs12.certProtectionAlgorithm=NONE"),
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t, "a.pem", "=pem 0", "other.pem", "=pem 1", "third.jks", "=jks SECRET=2")
			store := append([]string{"-keystore", "base", "-storepass", password}, options...)
			own := password
			if name == "JKS" {
				own = "swordfish"
			}
			with := func(arguments ...string) []string { return append(arguments, store...) }
			keytool(p, with("-importcert", "-noprompt", "-alias", "Ä 1", "-file", "a.pem")...)
			want := 3
			if clear := strings.HasPrefix(name, "the cacerts"); !clear {
				want++
				keytool(p, with("-genkeypair", "-alias", "app", "-keyalg", "EC", "-dname", "CN=app",
					"-keypass", own)...)
			}
			if name == "PKCS#12" {
				want++
				keytool(p, with("-genseckey", "-alias", "secret", "-keyalg", "AES", "-keysize", "128")...)
			}
			before := p.read("base")

			p.run(p.merge("base", "other.pem", "third.jks"))

			got := javaEntries(p, "base", password)
			assert.Len(t, got, want)
			assert.Equal(t, javaTrusted(root(1)), got["pem-trusted-certificate-0"])
			switch name {
			case "JKS":
				assert.Contains(t, string(p.read("base")), string(before[12:len(before)-20]), "entries keep every byte")
				p.putAll("into.jks", "=jks b=2")
				p.run(p.merge("into.jks", "base"))
				assert.Equal(t, "b=2 pem-trusted-certificate-0=1 ä 1=0", p.contents("into.jks"),
					"a certificate that only a key has is not added to another store")
			case "PKCS#12":
				assert.Contains(t, got["secret"], "SecretKeyEntry")
				assert.Equal(t, javaTrusted(root(2)), got["secret-2"], "no certificate takes its alias")
			case "PKCS#12 as JDK 8 writes it":
				assert.Equal(t, keystore.ProfileLegacy, fixture.Must(keystore.ProfileOf(p.read("base"))))
			default: // an application that gives no password, or any, sees all of it
				assert.True(t, needsNoPassword(p.read("base")))
				assert.Len(t, javaEntries(p, "base", ""), 3)
				assert.Len(t, javaEntries(p, "base", "anything"), 3)
			}
			if want > 3 {
				assert.Contains(t, keytool(p, with("-certreq", "-alias", "app", "-keypass", own)...),
					"NEW CERTIFICATE REQUEST")
			}
			assert.False(t, p.run(p.merge("base", "other.pem", "third.jks")).Changed())
		})
	}
}

// The trust store of the JDK that keytool belongs to. A pod has no file with its password.
func TestKeytool_cacertsOfTheJDK(t *testing.T) {
	program := fixture.Must(filepath.EvalSymlinks(fixture.RequirePrograms(t, "keytool")[0]))
	cacerts := string(fixture.Must(os.ReadFile(filepath.Join(filepath.Dir(program), "../lib/security/cacerts"))))
	keyEntry := "PrivateKeyEntry " + digestOf(testPKI().chain[0].Raw)
	for name, base := range map[string]string{"cacerts": cacerts, "base.jks": "=jks mine=0 application=key",
		"base.p12": "=p12 mine=0 application=key", "base.pem": "=pem 0"} {
		t.Run("is merged into "+name, func(t *testing.T) {
			p := newPlace(t, "cacerts", cacerts, "base", base, "other.p12", "=p12 Mine=0")
			want := map[string]bool{javaTrusted(root(0)): true}
			for _, e := range javaEntries(p, "cacerts", password) {
				want[e] = true
			}
			require.Greater(t, len(want), 50)
			cfg := p.merge("base", "cacerts", "other.p12")
			cfg.Truststores[0].PasswordPath, cfg.Truststores[1].PasswordPath = "", ""

			p.run(cfg)

			got := map[string]bool{}
			if name == "base.pem" {
				for line := range strings.Lines(keytool(p, "-printcert", "-file", "base")) {
					if fingerprint, ok := strings.CutPrefix(strings.TrimSpace(line), "SHA256: "); ok {
						got["trustedCertEntry "+strings.ToLower(strings.ReplaceAll(fingerprint, ":", ""))] = true
					}
				}
			} else {
				for _, e := range javaEntries(p, "base", password) {
					got[e] = true
				}
				if name != "cacerts" {
					assert.Contains(t, got, keyEntry)
					delete(got, keyEntry)
				}
			}
			assert.Equal(t, want, got)
			assert.False(t, p.run(cfg).Changed())
		})
	}
}

// Files of other writers as the truststore that is merged into, and as one that is merged. keytool reads the result.
func TestKeytool_storesOfOtherWritersAreMerged(t *testing.T) {
	all := newPlace(t, "target.p12", "=p12 mine=0")
	names := []string{"target.p12"}
	for _, name := range []string{
		"bouncycastle-ber-trusted.p12", "bouncycastle-ber.p12", "mac-sha512-256.p12", "sha1-2des.p12",
		"byte-order-mark-trusted.pem", "crl.pem", "joined.pem", "trusted-certificate.pem", "x509-certificate.pem",
		"utf-16.pem", "cr-only.pem", "one-line.pem", "indented.pem",
	} {
		data := fixture.Must(os.ReadFile(filepath.Join("../../test/testdata/stores", name)))
		all.putAll(name, string(data))
		names = append(names, name)
		t.Run(name, func(t *testing.T) {
			p := newPlace(t, "base", string(data), "other.pem", "=pem 1")
			before := fixture.Must(keystore.OpenClosed(data, password))

			p.run(p.merge("base", "other.pem"))

			after := fixture.Must(keystore.OpenClosed(p.read("base"), password))
			assert.Len(t, after.Entries, len(before.Entries)+1)
			assert.Empty(t, after.Unreadable)
			if before.Format != keystore.PEM {
				assert.Contains(t, javaEntries(p, "base", password), "pem-trusted-certificate-0")
			}
		})
	}
	t.Run("all into one", func(t *testing.T) {
		added := all.run(all.merge(names...)).Added
		require.NotEmpty(t, added)
		listed := javaEntries(all, "target.p12", password)
		for _, a := range added {
			assert.Contains(t, listed, a.Alias)
		}
	})
}
