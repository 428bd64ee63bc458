package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/keystore"
	"github.com/certfetcher/certfetcher/test/peer"
	"github.com/certfetcher/certfetcher/test/service"
)

// bench is a CertService, and a directory with stores that a client is given.
type bench struct {
	*testing.T
	service *service.Service
	dir     string
}

func newBench(t *testing.T) bench { return bench{t, start(t), t.TempDir()} }

func (b bench) own(name string) string  { return filepath.Join(b.service.Dir, name) }
func (b bench) path(name string) string { return filepath.Join(b.dir, name) }

func (b bench) read(path string) []byte {
	b.Helper()
	data, err := os.ReadFile(path)
	require.NoError(b, err)
	return data
}

func (b bench) write(name string, data []byte) string {
	b.Helper()
	require.NoError(b, os.WriteFile(b.path(name), data, 0o600))
	return b.path(name)
}

// run is runs with a volume of its own.
func (b bench) run(t *testing.T, arguments []string, environment ...string) (code int, out string) {
	t.Helper()
	return runs(t, b.service, filepath.Join(t.TempDir(), "volume"), arguments, environment...)
}

func (b bench) openssl(stdin []byte, args ...string) []byte {
	b.Helper()
	command := exec.Command(peer.Require(b, "openssl")[0], args...)
	command.Stdin = strings.NewReader(string(stdin))
	command.Env = append(os.Environ(), "PW="+service.Password)
	out, err := command.Output()
	require.NoError(b, err, "openssl %v", args)
	return out
}

func littleEndianUTF16(text []byte) []byte {
	out := []byte("\xff\xfe")
	for _, unit := range utf16.Encode([]rune(string(text))) {
		out = binary.LittleEndian.AppendUint16(out, unit)
	}
	return out
}

// revocationList is that of a CA of its own.
var revocationList = sync.OnceValue(func() []byte {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	issuer := &x509.Certificate{Subject: pkix.Name{CommonName: "CRL"}, SubjectKeyId: []byte{1}, KeyUsage: x509.KeyUsageCRLSign}
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(1), NextUpdate: time.Now().Add(time.Hour)}, issuer, key)
	if err != nil {
		panic(err)
	}
	return der
})

// mangled are the ways in which PEM arrives.
func mangled(text []byte) map[string][]byte {
	s := string(text)
	flat := strings.TrimSpace(s)
	other := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	return map[string][]byte{
		"byte order mark":           []byte("\ufeff" + s),
		"UTF-16":                    littleEndianUTF16(text),
		"literal line breaks":       []byte(strings.ReplaceAll(flat, "\n", `\n`)),
		"one line":                  []byte(strings.ReplaceAll(flat, "\n", " ")),
		"CR alone":                  []byte(strings.ReplaceAll(s, "\n", "\r")),
		"indented":                  []byte("  " + strings.ReplaceAll(flat, "\n", "\n  ")),
		"white space ahead":         []byte("  " + s),
		"glued":                     []byte(strings.ReplaceAll(s, "-----\n-----", "----------")),
		"further blocks":            []byte(other("DH PARAMETERS", []byte{0x30, 0}) + s + other("X509 CRL", revocationList())),
		"old label":                 []byte(strings.ReplaceAll(s, " CERTIFICATE-", " X509 CERTIFICATE-")),
		"OpenSSL's trusted label":   []byte(strings.ReplaceAll(s, " CERTIFICATE-", " TRUSTED CERTIFICATE-")),
		"a damaged certificate too": []byte(s + "-----BEGIN CERTIFICATE-----\nMIIB\n"),
	}
}

func TestStores_mangledPEM_isRead(t *testing.T) {
	b := newBench(t)
	keys, roots := mangled(b.read(b.own("client.pem"))), mangled(b.read(b.own("truststore.pem")))
	for kind := range keys {
		t.Run(kind, func(t *testing.T) {
			code, out := b.run(t, nil, "KEYSTORE_PATH="+b.write("k "+kind, keys[kind]), "TRUSTSTORE_PATH="+b.write("t "+kind, roots[kind]),
				"KEYSTORE_PASSWORD=", "TRUSTSTORE_PASSWORD=")
			require.Equal(t, 0, code, out)
			if kind == "a damaged certificate too" {
				assert.Equal(t, 2, strings.Count(out, "it has no END line: the file was cut short, or lines are missing; it is skipped"), out)
			}
		})
	}
	code, out := b.run(t, nil, "TRUSTSTORE_PATH="+b.write("cut", b.read(b.own("truststore.pem"))[:200]))
	assert.Equal(t, 9, code, out)
	assert.Contains(t, out, `the PEM block \"CERTIFICATE\" at line 1 cannot be read: it has no END line: the file was cut short`)
}

func TestStores_algorithmsOfOpenSSL(t *testing.T) {
	b := newBench(t)
	text := b.read(b.own("client.pem"))
	export := func(args ...string) []byte {
		return b.openssl(text, append([]string{"pkcs12", "-export", "-passout", "env:PW"}, args...)...)
	}
	key := func(args ...string) []byte {
		plain := b.openssl(text, "pkey")
		return slices.Concat(b.openssl(plain, append([]string{"pkcs8", "-topk8", "-passout", "env:PW",
			"-provider", "legacy", "-provider", "default"}, args...)...), text[strings.Index(string(text), "-----BEGIN CERT"):])
	}
	legacy := func(cipher string) []byte { return export("-legacy", "-keypbe", cipher, "-certpbe", "PBE-SHA1-3DES") }
	for name, row := range map[string]struct {
		data []byte
		want string // "": it is read
	}{
		"MAC with SHA-512/256":              {export("-macalg", "sha512-256"), ""},
		"MAC with SHA-512/224":              {export("-macalg", "sha512-224"), ""},
		"two-key 3DES":                      {legacy("PBE-SHA1-2DES"), ""},
		"RC2, 40 bits":                      {legacy("PBE-SHA1-RC2-40"), ""},
		"RC2, 128 bits":                     {legacy("PBE-SHA1-RC2-128"), ""},
		"scrypt":                            {key("-scrypt"), ""},
		"PBKDF2 with HMAC-SHA512/256":       {key("-v2", "aes-256-cbc", "-v2prf", "hmacWithSHA512-256"), ""},
		"PBKDF2 with HMAC-SHA512/224":       {key("-v2", "aes-128-cbc", "-v2prf", "hmacWithSHA512-224"), ""},
		"RC4":                               {legacy("PBE-SHA1-RC4-128"), "(pbeWithSHA1And128BitRC4) is too weak"},
		"RC4, 40 bits":                      {legacy("PBE-SHA1-RC4-40"), "(pbeWithSHA1And40BitRC4) is too weak"},
		"DES":                               {legacy("PBE-MD5-DES"), "(pbeWithMD5AndDES) is too weak"},
		"DES with SHA-1":                    {legacy("PBE-SHA1-DES"), "(pbeWithSHA1AndDES) is too weak"},
		"PKCS#8 with MD5 and DES":           {key("-v1", "PBE-MD5-DES"), "(pbeWithMD5AndDES) is too weak"},
		"MAC with MD5":                      {export("-legacy", "-macalg", "md5"), "MAC algorithm 1.2.840.113549.2.5 (MD5) is too weak"},
		"PBES2 with DES, in a PKCS#8 block": {key("-v2", "des"), "(DES-CBC) is too weak"},
	} {
		t.Run(name, func(t *testing.T) {
			code, out := b.run(t, nil, "KEYSTORE_PATH="+b.write(strings.ReplaceAll(name, "/", ""), row.data))
			if row.want == "" {
				require.Equal(t, 0, code, out)
				return
			}
			assert.Equal(t, 9, code, out)
			assert.Contains(t, out, row.want)
			assert.Contains(t, out, "openssl pkcs12 -legacy -in FILE")
		})
	}
	// What the text says to do makes a store that is read.
	old := b.write("old.p12", legacy("PBE-SHA1-RC4-128"))
	b.openssl(nil, "pkcs12", "-legacy", "-in", old, "-nodes", "-passin", "env:PW", "-out", b.path("plain"))
	renewed := b.openssl(nil, "pkcs12", "-export", "-in", b.path("plain"), "-passout", "env:PW")
	code, out := b.run(t, nil, "KEYSTORE_PATH="+b.write("new.p12", renewed))
	assert.Equal(t, 0, code, out)
	oldKey := b.write("old.pem", key("-v1", "PBE-MD5-DES"))
	renewed = slices.Concat(b.openssl(nil, "pkey", "-provider", "legacy", "-provider", "default", "-in", oldKey, "-passin", "env:PW",
		"-aes256", "-passout", "env:PW"), text[strings.Index(string(text), "-----BEGIN CERT"):])
	code, out = b.run(t, nil, "KEYSTORE_PATH="+b.write("new.pem", renewed))
	assert.Equal(t, 0, code, out)
}

// bouncyCastle writes a store again, in BER.
func (b bench) bouncyCastle(source, name string) string {
	b.Helper()
	const jar = "/usr/share/java/bcprov.jar"
	if _, err := os.Stat(jar); err != nil {
		peer.Missing(b, "Bouncy Castle (libbcprov-java)")
	}
	out, err := peer.Java(b, jar, "../java/WriteStore.java", source, service.Password, b.path(name)).CombinedOutput()
	require.NoError(b, err, string(out))
	require.Equal(b, []byte{0x30, 0x80}, b.read(b.path(name))[:2], "Bouncy Castle wrote DER")
	return b.path(name)
}

func TestStores_BERofBouncyCastle_isReadAndMergedInto(t *testing.T) {
	b := newBench(t)
	key, trust := b.bouncyCastle(b.own("client.p12"), "k.p12"), b.bouncyCastle(b.own("truststore.p12"), "t.p12")
	code, out := b.run(t, nil, "KEYSTORE_PATH="+key, "TRUSTSTORE_PATH="+trust)
	require.Equal(t, 0, code, out)
	entries, _, err := keystore.Decode(b.read(key), service.Password)
	require.NoError(t, err)
	assert.NotNil(t, entries[0].Key)

	other := start(t)
	password := b.write("pass", []byte(service.Password))
	code, out = b.run(t, []string{"postprocess"}, "TRUSTSTORES_PATHS="+trust+":"+filepath.Join(other.Dir, "truststore.pem"), "TRUSTSTORES_PASSWORDS_PATHS="+password+":")
	require.Equal(t, 0, code, out)
	list := keytool(t, "-list", "-keystore", trust, "-storepass", service.Password)
	assert.Contains(t, list, "contains 2 entries")
	assert.Equal(t, 2, strings.Count(list, "trustedCertEntry"))
	shown := b.openssl(nil, "pkcs12", "-in", trust, "-nokeys", "-passin", "env:PW")
	assert.Equal(t, 2, strings.Count(string(shown), "BEGIN CERTIFICATE"))
}

// A truststore's keys are of no use to who reads it, and their passwords do not matter.
func TestStores_keyWithAnotherPassword_doesNotMatterInATruststore(t *testing.T) {
	b := newBench(t)
	root := b.own("truststore.pem")
	stores := map[string]string{"PKCS12": b.path("mixed.p12"), "JKS": b.path("mixed.jks")}
	for format, path := range stores {
		keypass := "another-1"
		if format == "PKCS12" {
			keypass = service.Password // a JVM writes one password; the openssl below does not
		}
		keytool(t, "-genkeypair", "-alias", "app", "-keyalg", "EC", "-dname", "CN=x", "-storetype", format, "-keystore", path,
			"-storepass", service.Password, "-keypass", keypass)
		keytool(t, "-importcert", "-noprompt", "-alias", "ca", "-file", root, "-keystore", path, "-storepass", service.Password)
	}
	plain := b.read(b.own("client.pem"))
	locked := b.openssl(b.openssl(plain, "pkey"), "pkcs8", "-topk8", "-passout", "pass:another-1")
	stores["PEM"] = b.write("mixed.pem", slices.Concat(locked, b.read(root)))
	added := filepath.Join(start(t).Dir, "truststore.pem")
	password := b.write("pass", []byte(service.Password))
	for format, path := range stores {
		t.Run(format, func(t *testing.T) {
			code, out := b.run(t, nil, "TRUSTSTORE_PATH="+path)
			require.Equal(t, 0, code, out)
			passwords := "TRUSTSTORES_PASSWORDS_PATHS=" + password + ":"
			if format == "PEM" {
				passwords = "TRUSTSTORES_PASSWORDS_PATHS=:"
			}
			code, out = b.run(t, []string{"postprocess"}, "TRUSTSTORES_PATHS="+path+":"+added, passwords)
			require.Equal(t, 0, code, out)
			if format != "PEM" {
				list := keytool(t, "-list", "-keystore", path, "-storepass", service.Password)
				assert.Contains(t, list, "contains 3 entries")
				assert.Contains(t, list, "PrivateKeyEntry")
			}
		})
	}
}

// What others have mangled is put right by who merges into it.
func TestStores_mergeIntoMangledPEM_isReadByOpenSSL(t *testing.T) {
	b := newBench(t)
	added := filepath.Join(start(t).Dir, "truststore.pem")
	for kind, data := range mangled(b.read(b.own("truststore.pem"))) {
		t.Run(kind, func(t *testing.T) {
			base := b.write("base "+kind+".pem", data)
			code, out := b.run(t, []string{"postprocess"}, "TRUSTSTORES_PATHS="+base+":"+added, "TRUSTSTORES_PASSWORDS_PATHS=:")
			require.Equal(t, 0, code, out)
			if kind == "a damaged certificate too" {
				assert.Contains(t, out, "it is skipped")
				return // it keeps its bytes
			}
			shown := b.openssl(b.openssl(nil, "crl2pkcs7", "-nocrl", "-certfile", base), "pkcs7", "-print_certs", "-noout")
			assert.Equal(t, 2, strings.Count(string(shown), "subject="), string(shown))
			code, out = b.run(t, []string{"postprocess"}, "TRUSTSTORES_PATHS="+added+":"+base, "TRUSTSTORES_PASSWORDS_PATHS=:")
			require.Equal(t, 0, code, out)
		})
	}
}

// openssl gives several certificates one name; marked as trusted, a JVM would see one of them, and not the key.
func TestStores_mergeHidesNothingFromAJVM(t *testing.T) {
	b := newBench(t)
	second, third := start(t), start(t)
	cas := slices.Concat(b.read(b.own("truststore.pem")), b.read(filepath.Join(second.Dir, "truststore.pem")))
	bundle := b.write("ca.pem", cas)
	base := b.write("base.p12", b.openssl(b.read(b.own("client.pem")), "pkcs12", "-export", "-name", "Server", "-passout", "env:PW",
		"-certfile", bundle, "-caname", "server", "-caname", "SERVER", "-caname", "Server"))
	password := b.write("pass", []byte(service.Password))
	code, out := b.run(t, []string{"postprocess"}, "TRUSTSTORES_PATHS="+base+":"+filepath.Join(third.Dir, "truststore.pem"), "TRUSTSTORES_PASSWORDS_PATHS="+password+":")
	require.Equal(t, 0, code, out)
	list := keytool(t, "-list", "-keystore", base, "-storepass", service.Password)
	assert.Regexp(t, `(?m)^server, .*PrivateKeyEntry`, list)
	assert.Equal(t, 2, strings.Count(list, "trustedCertEntry"), list)
	// Its key still opens.
	assert.Contains(t, string(b.openssl(nil, "pkcs12", "-in", base, "-nocerts", "-nodes", "-passin", "env:PW")), "BEGIN PRIVATE KEY")
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
