package truststore

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/certfetcher/certfetcher/internal/keystore"
	"github.com/certfetcher/certfetcher/internal/pkcs12"
	"github.com/certfetcher/certfetcher/test/ca"
	"github.com/certfetcher/certfetcher/test/tempdir"
)

func TestMain(m *testing.M) {
	tempdir.InMemory()
	os.Exit(m.Run())
}

const password = "changeit"

var fixedTime = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// testPKI is made once: keys and certificates do not change, files do.
var testPKI = sync.OnceValue(func() (p struct {
	roots []*x509.Certificate // six, each with a name of its own
	key   crypto.Signer
	chain []*x509.Certificate
}) {
	for _, name := range []string{"A", "B", "C", "D", "E", "F"} {
		authority, err := ca.New(name)
		if err != nil {
			panic(err)
		}
		p.roots = append(p.roots, authority.Root)
		if p.key == nil {
			if p.key, p.chain, err = authority.Identity("application"); err != nil {
				panic(err)
			}
		}
	}
	return p
})

// root is one of the six root certificates, by number.
func root(n int) *x509.Certificate { return testPKI().roots[n] }

// trusted makes entries with one certificate each; names alternate with numbers of roots.
func trusted(t testing.TB, namesAndRoots ...any) []keystore.Entry {
	t.Helper()
	var entries []keystore.Entry
	for i := 0; i < len(namesAndRoots); i += 2 {
		entries = append(entries, keystore.Entry{
			Alias: namesAndRoots[i].(string), Chain: []*x509.Certificate{root(namesAndRoots[i+1].(int))}, Trusted: true,
		})
	}
	return entries
}

func keyEntry(alias string) keystore.Entry {
	return keystore.Entry{Alias: alias, Key: testPKI().key, Chain: testPKI().chain}
}

func jks(t testing.TB, entries ...keystore.Entry) []byte {
	t.Helper()
	data, err := keystore.EncodeJKS(entries, password, fixedTime)
	require.NoError(t, err)
	return data
}

func p12(t testing.TB, entries ...keystore.Entry) []byte {
	t.Helper()
	data, err := keystore.EncodePKCS12(entries, password, keystore.ProfileModern)
	require.NoError(t, err)
	return data
}

func pemOf(roots ...int) []byte {
	var out []byte
	for _, n := range roots {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root(n).Raw})...)
	}
	return out
}

// passwordless is a PKCS#12 store such as the cacerts of JDK 18 and later.
func passwordless(t testing.TB, entries ...keystore.Entry) []byte {
	t.Helper()
	content := func(b *cryptobyte.Builder, inside cryptobyte.BuilderContinuation) { // ContentInfo, RFC 2315 section 7
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1})
			b.AddASN1(cbasn1.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
				b.AddASN1(cbasn1.OCTET_STRING, func(b *cryptobyte.Builder) { b.AddASN1(cbasn1.SEQUENCE, inside) })
			})
		})
	}
	var empty cryptobyte.Builder
	empty.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(3)
		content(b, func(b *cryptobyte.Builder) { content(b, func(*cryptobyte.Builder) {}) })
	})
	var certs []pkcs12.Certificate
	for _, e := range entries {
		certs = append(certs, pkcs12.Certificate{Certificate: e.Chain[0], FriendlyName: e.Alias, Trusted: true})
	}
	data, err := pkcs12.Append(empty.BytesOrPanic(), "", certs, nil)
	require.NoError(t, err)
	return data
}

// place is a directory with files in it.
type place struct {
	t   testing.TB
	dir string
}

func newPlace(t testing.TB) place {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	p := place{t, dir}
	p.write("changeit.pass", []byte(password))
	return p
}

func (p place) path(name string) string { return filepath.Join(p.dir, name) }

func (p place) write(name string, data []byte) {
	p.t.Helper()
	require.NoError(p.t, os.WriteFile(p.path(name), data, 0o640))
}

func (p place) read(name string) []byte {
	p.t.Helper()
	data, err := os.ReadFile(p.path(name))
	require.NoError(p.t, err)
	return data
}

// merge is the configuration that merges the named files, each with the password changeit unless it is
// PEM by its name.
func (p place) merge(names ...string) Config {
	cfg := Config{Now: func() time.Time { return fixedTime }}
	for _, name := range names {
		s := Store{Path: p.path(name), PasswordPath: p.path("changeit.pass")}
		if strings.HasSuffix(name, ".pem") {
			s.PasswordPath = ""
		}
		cfg.Truststores = append(cfg.Truststores, s)
	}
	return cfg
}

// copying is the configuration that copies; sources and destinations alternate.
func (p place) copying(names ...string) Config {
	var cfg Config
	for i := 0; i < len(names); i += 2 {
		cfg.Keystores = append(cfg.Keystores, Copy{p.path(names[i]), p.path(names[i+1])})
	}
	return cfg
}

func (p place) run(cfg Config) Result {
	p.t.Helper()
	result, err := Run(cfg, slog.New(slog.DiscardHandler))
	require.NoError(p.t, err)
	return result
}

// entry is what a user can see of a file.
type entry struct {
	mode     fs.FileMode
	modified time.Time
	data     string
}

// listing is all that is in the directory.
func (p place) listing() map[string]entry {
	p.t.Helper()
	list := map[string]entry{}
	require.NoError(p.t, filepath.WalkDir(p.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		e := entry{mode: info.Mode(), modified: info.ModTime()}
		if info.Mode().IsRegular() {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			e.data = string(data)
		}
		list[strings.TrimPrefix(path, p.dir)] = e
		return nil
	}))
	return list
}

// names are those of the files in the directory, sorted.
func (p place) names() []string {
	p.t.Helper()
	entries, err := os.ReadDir(p.dir)
	require.NoError(p.t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// contents are the trusted certificates of a store by alias, and in PEM, which has none, by the name of
// the certificate.
func contents(t testing.TB, data []byte) map[string]int {
	t.Helper()
	store, err := keystore.Open(data, password)
	require.NoError(t, err)
	require.Empty(t, store.Unreadable)
	list := map[string]int{}
	for _, e := range store.TrustedEntries() {
		name := e.Alias
		if store.Format == keystore.PEM {
			name = strings.TrimSuffix(e.Chain[0].Subject.CommonName, " Root CA")
		}
		n := numberOf(e.Chain[0])
		require.GreaterOrEqual(t, n, 0)
		require.NotContains(t, list, name)
		list[name] = n
	}
	return list
}

// numberOf is the number under which root gives the certificate, or -1.
func numberOf(cert *x509.Certificate) int {
	for n, r := range testPKI().roots {
		if bytes.Equal(r.Raw, cert.Raw) {
			return n
		}
	}
	return -1
}

// needsNoPassword tells a PKCS#12 store without password, such as the cacerts of JDK 18 and later.
func needsNoPassword(t testing.TB, data []byte) bool {
	t.Helper()
	for _, password := range []string{"", "anything"} {
		if _, err := pkcs12.Decode(data, password); err != nil {
			return false
		}
	}
	return true
}
