package mtls

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/keystore"
	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/golden"
)

const password = "store-password"

// testPKI is a CA and one identity of it.
type testPKI struct {
	ca    *fixture.CA
	key   crypto.Signer
	chain []*x509.Certificate // with the root
}

func newPKI(t testing.TB, name string) *testPKI {
	t.Helper()
	authority := fixture.Must(fixture.NewCA(name))
	p := &testPKI{ca: authority}
	p.key, p.chain = p.identity(t, name, nil)
	return p
}

func (p *testPKI) identity(t testing.TB, commonName string,
	change func(*x509.Certificate)) (crypto.Signer, []*x509.Certificate) {
	t.Helper()
	p.ca.Change = change
	key, chain, err := p.ca.Identity(commonName)
	require.NoError(t, err)
	return key, append(chain, p.ca.Root)
}

func (p *testPKI) keyEntry(alias string) keystore.Entry {
	return keystore.Entry{Alias: alias, Key: p.key, Chain: p.chain}
}

func (p *testPKI) trustEntry(alias string) keystore.Entry {
	return keystore.Entry{Alias: alias, Chain: []*x509.Certificate{p.ca.Root}, Trusted: true}
}

// store and trust are the identity and its CA as JKS.
func (p *testPKI) store(t testing.TB) []byte { return jks(t, p.keyEntry("a")) }
func (p *testPKI) trust(t testing.TB) []byte { return jks(t, p.trustEntry("ca")) }

func jks(t testing.TB, entries ...keystore.Entry) []byte {
	t.Helper()
	return fixture.Must(keystore.EncodeJKS(entries, password, time.Now()))
}

func p12(t testing.TB, profile keystore.Profile, entries ...keystore.Entry) []byte {
	t.Helper()
	return fixture.Must(keystore.EncodePKCS12(entries, password, profile))
}

func pemCerts(certs ...*x509.Certificate) (data []byte) {
	for _, c := range certs {
		data = append(data, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return data
}

func pemKey(key crypto.Signer) []byte {
	der := fixture.Must(x509.MarshalPKCS8PrivateKey(key))
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// write puts contents into files of a new directory. key may be nil: no file.
func write(t testing.TB, store, key, trust []byte) Files {
	t.Helper()
	f := plainFiles(store, trust)(t, t.TempDir())
	if key != nil {
		f.KeystoreKeyPath = filepath.Join(filepath.Dir(f.KeystorePath), "key")
		require.NoError(t, os.WriteFile(f.KeystoreKeyPath, key, 0o600))
	}
	return f
}

// load reads contents as files.
func load(t testing.TB, store, key, trust []byte) *Identity {
	t.Helper()
	i, err := Load(write(t, store, key, trust))
	require.NoError(t, err)
	return i
}

// shake makes a request with the client's identity to a server with the other, which must both agree.
func shake(t testing.TB, client, server *Identity, version uint16) error {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, len(r.TLS.PeerCertificates))
	}))
	s.TLS = server.ServerConfig(tls.RequireAndVerifyClientCert)
	s.TLS.MaxVersion = version
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: client.ClientConfig(), DisableKeepAlives: true}}
	resp, err := c.Get(s.URL)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body := fixture.Must(io.ReadAll(resp.Body))
	assert.Equal(t, fmt.Sprint(len(client.Certificate.Certificate)), string(body), "the chain is sent whole")
	return nil
}

func TestLoad_every_format_makes_a_handshake(t *testing.T) {
	p := newPKI(t, "Test")
	own, trusted := p.keyEntry("certificate"), p.trustEntry("ca")
	root, chain, key := pemCerts(p.ca.Root), pemCerts(p.chain...), pemKey(p.key)
	const modern, legacy = keystore.ProfileModern, keystore.ProfileLegacy
	for is, row := range map[string]struct {
		store, key, trust []byte
		formats           string
	}{
		"JKS":                        {jks(t, own), nil, jks(t, trusted), "JKS, JKS"},
		"modern PKCS#12":             {p12(t, modern, own), nil, p12(t, modern, trusted), "PKCS12, PKCS12"},
		"legacy PKCS#12":             {p12(t, legacy, own), nil, p12(t, legacy, trusted), "PKCS12, PKCS12"},
		"PEM in one file, key first": {slices.Concat(key, chain), nil, root, "PEM, PEM"},
		"PEM in one file, in disorder": {
			slices.Concat(pemCerts(p.chain[2], p.chain[1], p.chain[0]), key), nil, root, "PEM, PEM",
		},
		"PEM in two files": {chain, key, root, "PEM, PEM"},
		"a mixture":        {jks(t, own), nil, root, "JKS, PEM"},
	} {
		t.Run(is, func(t *testing.T) {
			f := write(t, row.store, row.key, row.trust)
			if strings.HasPrefix(is, "PEM") {
				f.KeystorePassword = ""
			}
			i, err := Load(f)
			require.NoError(t, err)
			assert.Equal(t, row.formats, fmt.Sprintf("%s, %s", i.KeystoreFormat, i.TruststoreFormat))
			assert.Equal(t, p.chain[0], i.Certificate.Leaf)
			assert.Len(t, i.Certificate.Certificate, 3)
			assert.Equal(t, []*x509.Certificate{p.ca.Root}, i.Roots)
			assert.Empty(t, i.Warnings(time.Now()))
			for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
				assert.NoError(t, shake(t, i, i, version))
			}
		})
	}
}

func TestIdentity_strangers_do_not_come_to_terms(t *testing.T) {
	ours, theirs := newPKI(t, "Ours"), newPKI(t, "Theirs")
	of := func(key, trust *testPKI) *Identity { return load(t, key.store(t), nil, trust.trust(t)) }
	assert.ErrorContains(t, shake(t, of(ours, ours), of(theirs, ours), 0),
		"certificate signed by unknown authority", "the server is a stranger")
	assert.ErrorContains(t, shake(t, of(theirs, ours), of(ours, ours), 0),
		"remote error: tls: unknown certificate authority", "the client is a stranger")
}

func TestIdentity_configurations_refuse_old_TLS(t *testing.T) {
	p := newPKI(t, "Test")
	i := load(t, p.store(t), nil, p.trust(t))
	assert.EqualValues(t, tls.VersionTLS12, i.ClientConfig().MinVersion)
	assert.EqualValues(t, tls.VersionTLS12, i.ServerConfig(tls.NoClientCert).MinVersion)
	assert.Same(t, i.Pool(), i.ClientConfig().RootCAs)
	assert.Same(t, i.Pool(), i.ServerConfig(tls.NoClientCert).ClientCAs)
}

func TestLoad_several_keys(t *testing.T) {
	p := newPKI(t, "Test")
	entry := func(alias string, change func(*x509.Certificate)) keystore.Entry {
		key, chain := p.identity(t, alias, change)
		return keystore.Entry{Alias: alias, Key: key, Chain: chain}
	}
	usage := func(usages ...x509.ExtKeyUsage) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.ExtKeyUsage = usages }
	}
	expired := func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) }
	encipher := func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }
	client, server, other := usage(x509.ExtKeyUsageClientAuth), usage(x509.ExtKeyUsageServerAuth),
		usage(x509.ExtKeyUsageCodeSigning)
	a, b, c := entry("a", nil), entry("b", nil), entry("c", nil)
	for is, row := range map[string]struct {
		entries            []keystore.Entry
		asClient, asServer string
	}{
		"the first alias of equals":           {[]keystore.Entry{b, a, c}, "a", "a"},
		"a valid one before one that expired": {[]keystore.Entry{entry("a", expired), b}, "b", "b"},
		"one for the purpose before others": {[]keystore.Entry{entry("a", server), entry("b", client), c},
			"b", "a"},
		"one for anything before one for others": {[]keystore.Entry{entry("a", other), entry("b", usage())}, "b", "b"},
		"one that can sign before others":        {[]keystore.Entry{entry("a", encipher), b}, "b", "b"},
		"one that expired as the only one":       {[]keystore.Entry{entry("a", expired)}, "a", "a"},
	} {
		f := write(t, jks(t, row.entries...), nil, p.trust(t))
		for _, f.Server = range []bool{false, true} {
			i, err := Load(f)
			require.NoError(t, err, is)
			assert.Equal(t, map[bool]string{false: row.asClient, true: row.asServer}[f.Server],
				i.Certificate.Leaf.Subject.CommonName, is)
		}
	}
}

func TestLoad_truststores(t *testing.T) {
	p, q := newPKI(t, "Test"), newPKI(t, "Other")
	one, both := []*x509.Certificate{p.ca.Root}, []*x509.Certificate{p.ca.Root, q.ca.Root}
	key, trusted := q.keyEntry("key"), p.trustEntry("a")
	for is, row := range map[string]struct {
		data []byte
		want []*x509.Certificate
	}{
		"a JKS with several":                                {jks(t, trusted, q.trustEntry("b")), both},
		"a JKS with a key beside, which is not trusted":     {jks(t, key, trusted), one},
		"a PKCS#12 with a key beside, which is not trusted": {p12(t, keystore.ProfileModern, key, trusted), one},
		"a PEM with several, one twice":                     {pemCerts(p.ca.Root, q.ca.Root, p.ca.Root), both},
	} {
		assert.ElementsMatch(t, row.want, load(t, p.store(t), nil, row.data).Roots, is)
	}
}

func TestLoad_truststore_of_openssl(t *testing.T) {
	openssl := fixture.RequirePrograms(t, "openssl")[0]
	p := newPKI(t, "Test")
	f := write(t, p.store(t), nil, pemCerts(p.ca.Root, p.ca.Issuing))
	out := filepath.Join(t.TempDir(), "trust.jks")
	text, err := exec.Command(openssl, "pkcs12", "-export", "-nokeys", "-in", f.TruststorePath,
		"-out", out, "-passout", "pass:"+password).CombinedOutput()
	require.NoError(t, err, string(text))
	f.TruststorePath = out
	i, err := Load(f)
	require.NoError(t, err)
	assert.Equal(t, keystore.PKCS12, i.TruststoreFormat)
	assert.ElementsMatch(t, []*x509.Certificate{p.ca.Root, p.ca.Issuing}, i.Roots)
}

func TestLoad_faults(t *testing.T) {
	p, q := newPKI(t, "Test"), newPKI(t, "Other")
	good, trust, chain := p.store(t), p.trust(t), pemCerts(p.chain...)
	// changed has good files but for a change.
	changed := func(change func(f *Files)) Files {
		f := write(t, good, nil, trust)
		change(&f)
		return f
	}
	want := golden.Load(t, "faults.txt")
	for is, f := range map[string]Files{
		"no keystore named": changed(func(f *Files) { f.KeystorePath = "" }),
		"both missing": changed(func(f *Files) {
			require.NoError(t, os.Remove(f.KeystorePath))
			require.NoError(t, os.Remove(f.TruststorePath))
		}),
		"a directory": changed(func(f *Files) { f.TruststorePath = filepath.Dir(f.TruststorePath) }),
		"a named pipe that no one writes to": changed(func(f *Files) {
			require.NoError(t, os.Remove(f.KeystorePath))
			require.NoError(t, syscall.Mkfifo(f.KeystorePath, 0o600))
		}),
		"wrong passwords": changed(func(f *Files) { f.KeystorePassword, f.TruststorePassword = "geheim", "geheim" }),
		"a password's file missing": changed(func(f *Files) {
			f.KeystorePasswordFile = filepath.Join(filepath.Dir(f.KeystorePath), "password")
		}),
		"a password with a newline": changed(func(f *Files) { f.TruststorePassword = password + "\n" }),
		"no password": changed(func(f *Files) {
			*f = write(t, p12(t, keystore.ProfileModern, p.keyEntry("a")), nil, trust)
			f.KeystorePassword = ""
		}),
		"an unknown format": write(t, []byte("hello"), nil, trust),
		"an empty file":     write(t, good, nil, []byte{}),
		"a file too large": write(t, good, nil,
			append(pemCerts(p.ca.Root), make([]byte, keystore.MaxSize)...)),
		"a truststore as keystore":                 write(t, trust, nil, trust),
		"a keystore as truststore":                 write(t, good, nil, good),
		"a key alone":                              write(t, pemKey(p.key), nil, trust),
		"a key of another certificate in one file": write(t, append(pemKey(q.key), chain...), nil, trust),
		"a key file for another certificate":       write(t, chain, pemKey(q.key), trust),
		"a key file with certificates only":        write(t, chain, pemCerts(p.ca.Root), trust),
		"a key file beside a JKS":                  write(t, good, pemKey(p.key), trust),
	} {
		_, err := Load(f)
		require.Error(t, err, is)
		want.Equal(t, is, tempDir.ReplaceAllString(err.Error(), "{dir}"))
		assert.NotContains(t, err.Error(), "geheim")
		assert.NotContains(t, err.Error(), password)
		assert.NotContains(t, err.Error(), "\n")
		assert.Equal(t, strings.Contains(err.Error(), "is not opened by"), errors.Is(err, keystore.ErrPassword), is)
	}
}

var tempDir = regexp.MustCompile(`/[^" ]*/TestLoad_faults\w*/\d+`)

func TestIdentity_Warnings(t *testing.T) {
	p := newPKI(t, "Test")
	// A life of 100 days, of which the last fifth is worth a warning.
	p.key, p.chain = p.identity(t, "app", func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
			time.Date(2026, 4, 11, 0, 0, 0, 0, time.UTC)
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	})
	f := write(t, p.store(t), nil, p.trust(t))
	client, err := Load(f)
	require.NoError(t, err)
	f.Server = true
	server, err := Load(f)
	require.NoError(t, err)
	client.Certificate.Certificate = client.Certificate.Certificate[:1] // the CAs live from now on
	server.Certificate.Certificate = server.Certificate.Certificate[:1]
	client.Roots, server.Roots = nil, nil
	for at, want := range map[string][]string{
		"2025-12-31T00:00:00Z": {`the certificate "CN=app" in KEYSTORE_PATH is not valid before 2026-01-01T00:00:00Z`},
		"2026-03-21T23:00:00Z": nil,
		"2026-03-22T01:00:00Z": {`the certificate "CN=app" in KEYSTORE_PATH expires at ` +
			`2026-04-11T00:00:00Z, in 479h0m0s`},
		"2026-04-12T00:00:00Z": {`the certificate "CN=app" in KEYSTORE_PATH expired at 2026-04-11T00:00:00Z`},
	} {
		now := fixture.Must(time.Parse(time.RFC3339, at))
		assert.Equal(t, want, client.Warnings(now), at)
		assert.Equal(t,
			append([]string{`the certificate "CN=app" in KEYSTORE_PATH has usages that do not ` +
				`allow a server to show it`}, want...), server.Warnings(now), at)
	}
	client.Roots = []*x509.Certificate{p.chain[0]}
	assert.Contains(t, client.Warnings(time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)),
		`the certificate "CN=app" in TRUSTSTORE_PATH expired at 2026-04-11T00:00:00Z`)
}

func TestLoad_stores_of_keytool(t *testing.T) {
	keytool := func(args ...string) {
		out, err := fixture.Keytool(t, "", args...)
		require.NoError(t, err, out)
	}
	for _, row := range []struct {
		kind, keyName, trustName string
		want                     keystore.Format
	}{
		{"JKS", "client.p12", "trust.pem", keystore.JKS},
		{"PKCS12", "client.jks", "trust.jks", keystore.PKCS12},
	} {
		t.Run(row.kind+" by misleading names", func(t *testing.T) {
			dir := t.TempDir()
			f := Files{KeystorePath: filepath.Join(dir, row.keyName), KeystorePassword: password,
				TruststorePath: filepath.Join(dir, row.trustName), TruststorePassword: password}
			cert := filepath.Join(dir, "cert")
			keytool("-genkeypair", "-alias", "me", "-keyalg", "EC", "-groupname", "secp256r1",
				"-dname", "CN=me", "-ext", "san=ip:127.0.0.1",
				"-ext", "bc=ca:true", "-keystore", f.KeystorePath, "-storetype", row.kind,
				"-storepass", password, "-keypass", password)
			keytool("-exportcert", "-alias", "me", "-keystore", f.KeystorePath, "-storepass", password, "-file", cert)
			keytool("-importcert", "-noprompt", "-alias", "ca", "-file", cert, "-keystore",
				f.TruststorePath, "-storetype", row.kind, "-storepass", password)
			i, err := Load(f)
			require.NoError(t, err)
			assert.Equal(t, row.want, i.KeystoreFormat)
			assert.Equal(t, row.want, i.TruststoreFormat)
			assert.NoError(t, shake(t, i, i, tls.VersionTLS13))
		})
	}
}

func FuzzLoad(f *testing.F) {
	p := newPKI(f, "Test")
	f.Add(jks(f, p.keyEntry("a")), jks(f, p.trustEntry("b")))
	f.Add(pemKey(p.key), pemCerts(p.ca.Root))
	f.Add(append(pemKey(p.key), pemCerts(p.chain...)...), append(pemCerts(p.ca.Root), pemKey(p.key)...))
	f.Fuzz(func(t *testing.T, store, trust []byte) {
		c := contents{keystore: store, truststore: trust}
		i, err := c.identity(Files{KeystorePassword: password, TruststorePassword: password})
		if err != nil {
			return
		}
		if len(i.Roots) == 0 || !pki.SameKey(i.Certificate.PrivateKey.(crypto.Signer).Public(),
			i.Certificate.Leaf.PublicKey) {
			t.Fatal("an identity without roots or with another key's certificate")
		}
	})
}

// Identities and truststores as editors, shells and other programs leave them.
func TestLoad_filesAsTheyAreFound(t *testing.T) {
	stored := func(name string) string { return filepath.Join("../../test/testdata/stores", name) }
	for name, password := range map[string]string{
		"byte-order-mark.pem": "", "utf-16.pem": "", "cr-only.pem": "", "escaped-line-ends.pem": "", "one-line.pem": "",
		"indented.pem": "", "leading-space.pem": "", "joined-key.pem": "", "dh-parameters.pem": "",
		"key-scrypt.pem": "changeit", "key-hmac-sha512-256.pem": "changeit",
		"bouncycastle-ber.p12": "changeit", "mac-sha512-256.p12": "changeit", "sha1-2des.p12": "changeit",
	} {
		t.Run(name, func(t *testing.T) {
			identity, err := LoadKeystore(Files{KeystorePath: stored(name), KeystorePassword: password})
			require.NoError(t, err)
			assert.NotNil(t, identity.Certificate.PrivateKey)
			assert.NotEmpty(t, identity.Certificate.Certificate)
			if filepath.Ext(name) == ".pem" {
				// The key may be in a file of its own, too.
				_, err = LoadKeystore(Files{KeystorePath: stored(name),
					KeystoreKeyPath: stored(name), KeystorePassword: password})
				require.NoError(t, err)
			}
		})
	}
	for name, password := range map[string]string{
		"byte-order-mark-trusted.pem": "", "crl.pem": "", "joined.pem": "", "trusted-certificate.pem": "",
		"x509-certificate.pem": "", "bouncycastle-ber-trusted.p12": "changeit", "null-password.p12": "",
		// Its key cannot be read, and nothing asks for it.
		"key-md5-des.pem": "",
	} {
		t.Run(name, func(t *testing.T) {
			identity, err := LoadRoots(Files{TruststorePath: stored(name), TruststorePassword: password})
			require.NoError(t, err)
			assert.NotEmpty(t, identity.Roots)
			assert.Empty(t, identity.Skipped)
		})
	}
}

func negative(t *testing.T, cert *x509.Certificate) *x509.Certificate {
	t.Helper()
	outline := fixture.Must(pki.Parse(fixture.NegativeSerial(cert)))
	require.Nil(t, outline.PublicKey)
	return outline
}

// stores encodes one key entry in each format.
func stores(t *testing.T, key keystore.Entry) map[string][]byte {
	t.Helper()
	return map[string][]byte{
		"JKS": jks(t, key), "PKCS12": p12(t, keystore.ProfileModern, key),
		"PEM": append(pemKey(key.Key), pemCerts(key.Chain...)...),
	}
}

func TestLoad_rootOfTheOwnChainThatCannotBeParsed_isNotShown(t *testing.T) {
	p := newPKI(t, "Own")
	trust := jks(t, p.trustEntry("root"))
	entry := keystore.Entry{Alias: "own", Key: p.key,
		Chain: []*x509.Certificate{p.chain[0], p.chain[1], negative(t, p.ca.Root)}}
	for format, store := range stores(t, entry) {
		identity, err := Load(write(t, store, nil, trust))
		require.NoError(t, err, format)
		assert.Len(t, identity.Certificate.Certificate, 2, format)
		assert.NoError(t, shake(t, identity, identity, tls.VersionTLS13), format)
	}
}

func TestLoad_ownCertificateThatCannotBeParsed_isNamed(t *testing.T) {
	p := newPKI(t, "Own")
	entry := keystore.Entry{Alias: "own", Key: p.key, Chain: []*x509.Certificate{negative(t, p.chain[0]), p.chain[1]}}
	for format, store := range stores(t, entry) {
		f := write(t, store, nil, jks(t, p.trustEntry("root")))
		_, err := Load(f)
		assert.EqualError(t, err,
			fmt.Sprintf(
				`KEYSTORE_PATH %q has a certificate "CN=Own" that cannot be used: it cannot be `+
					`parsed: x509: negative serial number`, f.KeystorePath), format)
	}
}

func TestLoad_anchors_skipsThoseThatCanVerifyNothing(t *testing.T) {
	p := newPKI(t, "Own")
	bad := keystore.Entry{Alias: "bad", Chain: []*x509.Certificate{negative(t, p.ca.Root)}, Trusted: true}
	f := write(t, jks(t, p.keyEntry("own")), nil, jks(t, p.trustEntry("root"), bad))
	identity, err := Load(f)
	require.NoError(t, err)
	assert.Equal(t, []*x509.Certificate{p.ca.Root}, identity.Roots)
	want := fmt.Sprintf(
		`TRUSTSTORE_PATH %q: entry "bad", "CN=Own Root CA,O=Throwaway", can verify nothing here: it cannot be `+
			`parsed: x509: negative serial number; it is skipped`, f.TruststorePath)
	assert.Equal(t, []string{want}, identity.Skipped)
	assert.Equal(t, []string{want}, identity.Warnings(time.Now().Add(-time.Minute/2)))

	only, err := LoadRoots(f)
	require.NoError(t, err)
	assert.Equal(t, identity.Skipped, only.Skipped)

	var many []*x509.Certificate
	for range 7 {
		many = append(many, negative(t, newPKI(t, "Own").ca.Root))
	}
	_, err = LoadRoots(write(t, nil, nil, pemCerts(many...)))
	require.ErrorContains(t, err, "has no certificate that can be used: certificate 1, ")
	assert.ErrorContains(t, err, "; and 2 more")
	assert.Equal(t, 5, strings.Count(err.Error(), "can verify nothing here"))
}
