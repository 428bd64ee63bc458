package truststore

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	gopkcs12 "software.sslmate.com/src/go-pkcs12"

	"github.com/certfetcher/certfetcher/internal/files"
	"github.com/certfetcher/certfetcher/internal/keystore"
	"github.com/certfetcher/certfetcher/test/fixture"
)

func TestMain(m *testing.M) {
	fixture.UseMemory()
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
		authority, err := fixture.NewCA(name)
		if err != nil {
			panic(err)
		}
		p.roots = append(p.roots, authority.Root)
		if p.key, p.chain, err = authority.Identity("application"); err != nil {
			panic(err)
		}
	}
	return p
})

// root is one of the six root certificates, by number.
func root(n int) *x509.Certificate { return testPKI().roots[n] }

// numberOf is the number under which root gives the certificate, or -1.
func numberOf(cert *x509.Certificate) int {
	return slices.IndexFunc(testPKI().roots, cert.Equal)
}

// trusted makes entries with one certificate each; names alternate with numbers of roots.
func trusted(namesAndRoots ...any) []keystore.Entry {
	var entries []keystore.Entry
	for pair := range slices.Chunk(namesAndRoots, 2) {
		entries = append(entries, keystore.Entry{
			Alias: pair[0].(string), Chain: []*x509.Certificate{root(pair[1].(int))}, Trusted: true,
		})
	}
	return entries
}

// keyAnd adds the entry of a key to others.
func keyAnd(alias string, entries ...keystore.Entry) []keystore.Entry {
	return append(entries, keystore.Entry{Alias: alias, Key: testPKI().key, Chain: testPKI().chain})
}

// must is for encoders, which do not fail here.
func must(data []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return data
}

func jks(entries ...keystore.Entry) []byte {
	return must(keystore.EncodeJKS(entries, password, fixedTime))
}

func p12(entries ...keystore.Entry) []byte {
	return must(keystore.EncodePKCS12(entries, password, keystore.ProfileModern))
}

func pemOf(roots ...int) []byte {
	var out []byte
	for _, n := range roots {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root(n).Raw})...)
	}
	return out
}

// passwordless is a PKCS#12 store such as the cacerts of JDK 18 and later.
func passwordless(entries ...keystore.Entry) []byte {
	var list []gopkcs12.TrustStoreEntry
	for _, e := range entries {
		list = append(list, gopkcs12.TrustStoreEntry{Cert: e.Chain[0], FriendlyName: e.Alias})
	}
	return must(gopkcs12.Passwordless.EncodeTrustStoreEntries(list, ""))
}

// baseOf makes a store of each kind with the entries; PEM drops what it cannot hold.
var baseOf = map[string]func(entries ...keystore.Entry) []byte{
	"base.jks": jks, "base.p12": p12, "cacerts": passwordless,
	"base.pem": func(entries ...keystore.Entry) (out []byte) {
		for _, e := range entries {
			out = append(out, pemOf(numberOf(e.Chain[0]))...)
		}
		return out
	},
}

// emptyJKS is a store without entries, with the header of the version.
func emptyJKS(version byte) []byte {
	header := []byte{0xfe, 0xed, 0xfe, 0xed, 0, 0, 0, version, 0, 0, 0, 0}
	return must(keystore.Append(append(header, make([]byte, 20)...), password, nil, nil, fixedTime))
}

// place is a directory with files in it.
type place struct {
	t   testing.TB
	dir string
}

// newPlace has the files, as for putAll, and a password file.
func newPlace(t testing.TB, namesAndContents ...any) place {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	p := place{t, dir}
	p.write("changeit.pass", password)
	p.putAll(namesAndContents...)
	return p
}

// putAll writes files, whose names alternate with their contents.
func (p place) putAll(namesAndContents ...any) {
	p.t.Helper()
	for pair := range slices.Chunk(namesAndContents, 2) {
		p.write(pair[0].(string), pair[1])
	}
}

func (p place) path(name string) string { return filepath.Join(p.dir, name) }

func (p place) write(name string, content any) {
	p.t.Helper()
	require.NoError(p.t, os.WriteFile(p.path(name), fmt.Appendf(nil, "%s", content), 0o640))
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

// copying adds copies to a configuration; sources and destinations alternate.
func (p place) copying(cfg Config, names ...string) Config {
	for pair := range slices.Chunk(names, 2) {
		cfg.Keystores = append(cfg.Keystores, Copy{p.path(pair[0]), p.path(pair[1])})
	}
	return cfg
}

// newScene is a place for a run that merges other.pem into base.jks and copies key.p12 over app.p12.
func newScene(t testing.TB) (place, Config) {
	p := newPlace(t, "base.jks", jks(trusted("a", 0)...), "other.pem", pemOf(1), "key.p12", "new", "app.p12", "old")
	return p, p.copying(p.merge("base.jks", "other.pem"), "key.p12", "app.p12")
}

func (p place) run(cfg Config) Result {
	p.t.Helper()
	result, _ := p.runLogged(cfg)
	return result
}

// runLogged returns what was logged as well, without times.
func (p place) runLogged(cfg Config) (Result, string) {
	p.t.Helper()
	var text strings.Builder
	result, err := Run(cfg, slog.New(slog.NewTextHandler(&text, nil)))
	require.NoError(p.t, err)
	return result, regexp.MustCompile(`(?m)^time=\S+ `).ReplaceAllString(text.String(), "")
}

// entry is what a user can see of a file.
type entry struct {
	mode     fs.FileMode
	modified time.Time
	data     string
}

// listing is all that is below the directory.
func (p place) listing() map[string]entry {
	p.t.Helper()
	list := map[string]entry{}
	require.NoError(p.t, filepath.WalkDir(p.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == p.dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		e := entry{mode: info.Mode(), modified: info.ModTime()}
		if info.Mode().IsRegular() {
			e.data = string(p.read(path[len(p.dir):]))
		}
		list[path[len(p.dir)+1:]] = e
		return nil
	}))
	return list
}

// names are those of all files below the directory, sorted.
func (p place) names() []string { return slices.Sorted(maps.Keys(p.listing())) }

// contents are the trusted certificates of a store by alias, and in PEM, which has none, by the name of
// the certificate.
func (p place) contents(name string) map[string]int {
	p.t.Helper()
	store, err := keystore.Open(p.read(name), password)
	require.NoError(p.t, err)
	require.Empty(p.t, store.Unreadable)
	list := map[string]int{}
	for _, e := range store.TrustedEntries() {
		alias := e.Alias
		if store.Format == keystore.PEM {
			alias = strings.TrimSuffix(e.Chain[0].Subject.CommonName, " Root CA")
		}
		require.NotContains(p.t, list, alias)
		list[alias] = numberOf(e.Chain[0])
	}
	return list
}

// needsNoPassword tells a PKCS#12 store without password, such as the cacerts of JDK 18 and later.
func needsNoPassword(data []byte) bool {
	for _, password := range []string{"", "anything"} {
		if _, err := keystore.Open(data, password); err != nil {
			return false
		}
	}
	return true
}

// full is a disk on which the operation fails for a file, also under its temporary name.
func full(op, name string) files.StepFunc {
	return func(o, path string) error {
		final, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(path), "."), temporaryMark)
		if o == op && final == name {
			return syscall.ENOSPC
		}
		return nil
	}
}
