package e2e

import (
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/ca"
	"github.com/certfetcher/certfetcher/test/peer"
	"github.com/certfetcher/certfetcher/test/service"
)

// storedCA reads an authority of test/testdata/constraints, below the root there.
func storedCA(t *testing.T, name string) *ca.CA {
	t.Helper()
	read := func(name string) []byte {
		text, err := os.ReadFile("../testdata/constraints/" + name + ".pem")
		require.NoError(t, err)
		block, _ := pem.Decode(text)
		return block.Bytes
	}
	root, err := x509.ParseCertificate(read("root"))
	require.NoError(t, err)
	issuing, err := x509.ParseCertificate(read(name))
	require.NoError(t, err)
	key, err := x509.ParsePKCS8PrivateKey(read(name + "-key"))
	require.NoError(t, err)
	return &ca.CA{Root: root, Issuing: issuing, IssuingKey: key.(crypto.Signer)}
}

// countryFirst is the subject that is asked for, with the country as its first part: constraints on directory names are
// on how a name begins.
func countryFirst(t *testing.T) []byte {
	t.Helper()
	one := func(oid asn1.ObjectIdentifier, value string) pkix.RelativeDistinguishedNameSET {
		return pkix.RelativeDistinguishedNameSET{{Type: oid, Value: value}}
	}
	subject, err := asn1.Marshal(pkix.RDNSequence{one(asn1.ObjectIdentifier{2, 5, 4, 6}, "SE"), one(asn1.ObjectIdentifier{2, 5, 4, 8}, "Skane"),
		one(asn1.ObjectIdentifier{2, 5, 4, 10}, "Example"), one(asn1.ObjectIdentifier{2, 5, 4, 3}, "app.example.org")})
	require.NoError(t, err)
	return subject
}

// CAs with critical name constraints that crypto/x509 has no part in. What is published verifies with openssl as well, and
// what is refused it refuses.
func TestConstrainedCA(t *testing.T) {
	openssl := peer.Require(t, "openssl")[0]
	const forbids = `does not permit the directory name \"CN=app.example.org,`
	for name, refused := range map[string]string{ // of a subject that does not begin with the country
		"directory": forbids, "mixed": forbids, "not-critical": forbids, "dns": "", "other-name": "",
	} {
		for _, good := range []bool{true, false} {
			authority := storedCA(t, name)
			if good {
				subject := countryFirst(t)
				authority.Change = func(leaf *x509.Certificate) { leaf.RawSubject = subject }
			}
			var leaf *x509.Certificate
			s, err := service.Start(t.TempDir(), service.Options{Wrap: func(s *service.Service, next http.Handler) http.Handler {
				*s.CA = *authority
				change := authority.Change
				s.CA.Change = func(l *x509.Certificate) {
					if change != nil {
						change(l)
					}
					leaf = l
				}
				return next
			}})
			require.NoError(t, err)
			t.Cleanup(s.Stop)
			volume := filepath.Join(t.TempDir(), "volume")

			code, log := runs(t, s, volume, nil, "OUTPUT_TYPE=PEM")

			require.NotNil(t, leaf, log)
			if !good && refused != "" {
				assert.Equal(t, 11, code, log)
				assert.Contains(t, log, refused, name)
				assert.NoFileExists(t, filepath.Join(volume, "keystore.pem"))
				continue
			}
			require.Equal(t, 0, code, "%s: %s", name, log)
			text, err := os.ReadFile(filepath.Join(volume, "keystore.pem"))
			require.NoError(t, err)
			first, _, _ := strings.Cut(string(text), "-----END CERTIFICATE-----")
			path := filepath.Join(t.TempDir(), "leaf.pem")
			require.NoError(t, os.WriteFile(path, []byte(first+"-----END CERTIFICATE-----\n"), 0o600))
			out, err := exec.Command(openssl, "verify", "-CAfile", filepath.Join(volume, "truststore.pem"),
				"-untrusted", filepath.Join(volume, "keystore.pem"), path).CombinedOutput()
			assert.NoError(t, err, "%s: %s", name, out)
		}
	}
}

func TestIssuerSignedWithSHA1_isNamed(t *testing.T) {
	authority := storedCA(t, "sha1")
	s, err := service.Start(t.TempDir(), service.Options{Wrap: func(s *service.Service, next http.Handler) http.Handler {
		*s.CA = *authority
		return next
	}})
	require.NoError(t, err)
	t.Cleanup(s.Stop)
	code, log := runs(t, s, filepath.Join(t.TempDir(), "volume"), nil)
	assert.Equal(t, 11, code, log)
	assert.Contains(t, log, `\"CN=Sub SHA1,O=Example\" is signed with SHA-1 with RSA (1.2.840.113549.1.1.5), which is not accepted`)
}

// Truststores that keytool and openssl made, each with one root that crypto/x509 refuses.
func TestStoredTruststores_areRead(t *testing.T) {
	s := start(t)
	stores, err := filepath.Glob("../testdata/truststores/*.*")
	require.NoError(t, err)
	require.Len(t, stores, 10)
	for _, store := range stores {
		path, err := filepath.Abs(store)
		require.NoError(t, err)
		code, log := runs(t, s, filepath.Join(t.TempDir(), "volume"), []string{"--check"}, "TRUSTSTORE_PATH="+path)
		assert.Equal(t, 0, code, "%s: %s", store, log)
		skipped := 1
		if filepath.Base(store) == "underscore.pem" { // which crypto/x509 refuses, and is read all the same
			skipped = 0
		}
		assert.Equal(t, skipped, strings.Count(log, "; it is skipped"), "%s: %s", store, log)

		dir := t.TempDir()
		base := filepath.Join(dir, filepath.Base(store))
		before, err := os.ReadFile(store)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(base, before, 0o600))
		password := filepath.Join(dir, "pass")
		require.NoError(t, os.WriteFile(password, []byte(service.Password), 0o600))
		code, log = runs(t, s, dir, []string{"postprocess"}, "TRUSTSTORES_PATHS="+base+":"+filepath.Join(s.Dir, "truststore.pem"),
			"TRUSTSTORES_PASSWORDS_PATHS="+password+":")
		assert.Equal(t, 0, code, "%s: %s", store, log)
		assert.FileExists(t, base+".bak", "it was merged")
		if filepath.Ext(base) != ".pem" {
			listed := keytool(t, "-list", "-keystore", base, "-storepass", service.Password)
			assert.Contains(t, listed, "Your keystore contains 3 entries", store)
		}
	}
}
