package truststore

import (
	"cmp"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	gopkcs12 "software.sslmate.com/src/go-pkcs12"

	"github.com/certfetcher/certfetcher/internal/files"
	"github.com/certfetcher/certfetcher/internal/keystore"
	"github.com/certfetcher/certfetcher/internal/pkcs12"
	"github.com/certfetcher/certfetcher/test/fixture"
)

func TestMain(m *testing.M) {
	fixture.UseMemory()
	syscall.Umask(0o022) // modes are in texts
	os.Exit(m.Run())
}

const password = "changeit"

var (
	fixedTime = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	noLog     = slog.New(slog.DiscardHandler)
	kinds     = []string{"jks", "p12", "pem", "clear"}
)

// testPKI is made once: keys and certificates do not change, files do.
var testPKI = sync.OnceValue(func() (p struct {
	roots []*x509.Certificate // six, each with a name of its own
	key   crypto.Signer
	chain []*x509.Certificate
}) {
	for _, name := range []string{"A", "B", "C", "D", "E", "F"} {
		authority := fixture.Must(fixture.NewCA(name))
		p.roots = append(p.roots, authority.Root)
		var err error
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

// entries are given as words: "ca=0" trusts the first root, as "0" does without alias, "ca=0?" has it without a mark of
// trust, and "app=key" is a key with its chain.
func entries(words string) (list []keystore.Entry) {
	for word := range strings.FieldsSeq(words) {
		alias, what, named := strings.Cut(word, "=")
		if !named {
			alias, what = "", word
		}
		e := keystore.Entry{Alias: alias, Key: testPKI().key, Chain: testPKI().chain}
		if what != "key" {
			number, unmarked := strings.CutSuffix(what, "?")
			cert := root(fixture.Must(strconv.Atoi(number)))
			e = keystore.Entry{Alias: alias, Chain: []*x509.Certificate{cert}, Trusted: !unmarked}
		}
		list = append(list, e)
	}
	return list
}

// made encodes a store of the kind in the first word, which may have a password of its own behind a slash, with the
// entries of the others: jks, jks1 and jks2 (of those versions, also without entries), p12, marks (a PKCS#12 file of
// certificates of which some have no mark of trust), clear (without password, as the cacerts of JDK 18 and later),
// pem, and half (of that).
func made(spec string) []byte {
	kind, words, _ := strings.Cut(spec, " ")
	kind, own, _ := strings.Cut(kind, "/")
	own = cmp.Or(own, password)
	var contents pkcs12.Contents
	var clear []gopkcs12.TrustStoreEntry
	var text []byte
	list := entries(words)
	for _, e := range list {
		contents.Certificates = append(contents.Certificates,
			pkcs12.Certificate{Certificate: e.Chain[0], FriendlyName: e.Alias, Trusted: e.Trusted})
		clear = append(clear, gopkcs12.TrustStoreEntry{Cert: e.Chain[0], FriendlyName: e.Alias})
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: e.Chain[0].Raw})...)
	}
	switch kind {
	case "jks":
		return fixture.Must(keystore.EncodeJKS(list, own, fixedTime))
	case "jks1", "jks2":
		header := append([]byte{0xfe, 0xed, 0xfe, 0xed, 0, 0, 0, kind[3] - '0'}, make([]byte, 24)...)
		return fixture.Must(keystore.Append(header, own, list, nil, fixedTime))
	case "p12":
		return fixture.Must(keystore.EncodePKCS12(list, own, keystore.ProfileModern))
	case "marks":
		return fixture.Must(pkcs12.Encode(contents, own, pkcs12.ProfileModern))
	case "clear":
		return fixture.Must(gopkcs12.Passwordless.EncodeTrustStoreEntries(clear, ""))
	case "pem":
		return text
	case "half":
		return text[:200]
	}
	panic(spec)
}

// place is a directory with files in it.
type place struct {
	t   testing.TB
	dir string
}

// newPlace has the files, as for putAll, and a password file.
func newPlace(t testing.TB, namesAndContents ...string) place {
	p := place{t, fixture.Must(filepath.EvalSymlinks(t.TempDir()))}
	p.putAll(append([]string{"changeit.pass", password}, namesAndContents...)...)
	return p
}

// putAll writes files, whose names alternate with their contents. After "=" there is what made is to make.
func (p place) putAll(namesAndContents ...string) {
	p.t.Helper()
	for pair := range slices.Chunk(namesAndContents, 2) {
		content := []byte(pair[1])
		if spec, isSpec := strings.CutPrefix(pair[1], "="); isSpec {
			content = made(spec)
		}
		require.NoError(p.t, os.WriteFile(p.path(pair[0]), content, 0o640))
	}
}

func (p place) path(name string) string { return filepath.Join(p.dir, name) }
func (p place) read(name string) []byte { return fixture.Must(os.ReadFile(p.path(name))) }

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
	p := newPlace(t, "base.jks", "=jks a=0", "other.pem", "=pem 1", "key.p12", "new", "app.p12", "old")
	return p, p.copying(p.merge("base.jks", "other.pem"), "key.p12", "app.p12")
}

func (p place) run(cfg Config) Result {
	p.t.Helper()
	return fixture.Must(Run(cfg, noLog))
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
		name, info := path[len(p.dir)+1:], fixture.Must(d.Info())
		e := entry{mode: info.Mode(), modified: info.ModTime()}
		if info.Mode().IsRegular() {
			e.data = string(p.read(name))
		}
		list[name] = e
		return nil
	}))
	return list
}

// names are those of all files below the directory, sorted.
func (p place) names() []string { return slices.Sorted(maps.Keys(p.listing())) }

// contents are the trusted certificates of a store, as words for entries, sorted by alias, or in PEM, which has none,
// by the name of the certificate.
func (p place) contents(name string) string {
	p.t.Helper()
	store := fixture.Must(keystore.Open(p.read(name), password))
	require.Empty(p.t, store.Unreadable)
	var list []string
	for _, e := range store.TrustedEntries() {
		if store.Format == keystore.PEM {
			e.Alias = strings.TrimSuffix(e.Chain[0].Subject.CommonName, " Root CA")
		}
		list = append(list, fmt.Sprintf("%s=%d", e.Alias, numberOf(e.Chain[0])))
	}
	slices.Sort(list)
	require.Equal(p.t, slices.Compact(slices.Clone(list)), list)
	return strings.Join(list, " ")
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
