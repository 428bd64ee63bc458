package mtls

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/files"
	"github.com/certfetcher/certfetcher/internal/keystore"
	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/golden"
)

const password = "store-password"

// The files of an identity, which commands change before they have it loaded or followed.
func TestIdentity(t *testing.T) {
	golden.Play(t, "identities/*.txt", func(t *testing.T, _, commands string) (outcomes string) {
		t.Parallel()
		s := newScene(t)
		for command := range strings.Lines(commands) {
			verb, rest, _ := strings.Cut(strings.TrimSpace(command[2:]), ": ")
			outcomes += command
			if outcome := s.follow(verb, rest); outcome != "" {
				outcomes += strings.ReplaceAll(outcome, s.dir, "{dir}") + "\n"
			}
		}
		return outcomes
	})
}

// scene has a directory with the files of an identity, which work.
type scene struct {
	t       testing.TB
	dir     string
	began   time.Time // which JKS stores have in them: contents are the same where their words are
	files   Files
	entries map[string]keystore.Entry
	ca      map[string]*fixture.CA

	identity *Identity
	current  func() *Identity // that is followed
	watcher  *Watcher
	reloads  chan reload
	logged   lockedBuffer
}

type reload struct {
	identity *Identity
	err      error
}

type lockedBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Buffer.Write(p)
}

func newScene(t testing.TB) *scene {
	s := &scene{t: t, dir: filepath.Join(t.TempDir(), "certs"), began: time.Now(),
		entries: map[string]keystore.Entry{}, ca: map[string]*fixture.CA{}, reloads: make(chan reload, 100)}
	require.NoError(t, os.Mkdir(s.dir, 0o700))
	for prefix, name := range map[string]string{"": "Test", "other-": "Other"} {
		ca := fixture.Must(fixture.NewCA(name))
		key, chain, err := ca.Identity(name)
		require.NoError(t, err)
		chain = append(chain, ca.Root)
		s.ca[prefix] = ca
		s.entries[prefix+"key"] = keystore.Entry{Key: key, Chain: chain}
		s.entries[prefix+"only-key"] = keystore.Entry{Key: key}
		s.entries[prefix+"chain"] = keystore.Entry{Chain: chain}
		bad := fixture.Each(chain, func(c *x509.Certificate) *x509.Certificate {
			return fixture.Must(pki.Parse(fixture.NegativeSerial(c)))
		})
		s.entries[prefix+"key-bad-leaf"] = keystore.Entry{Key: key, Chain: []*x509.Certificate{bad[0], chain[1]}}
		s.entries[prefix+"key-bad-root"] = keystore.Entry{Key: key, Chain: append(chain[:2:2], bad[2])}
		s.entries[prefix+"bad-chain"] = keystore.Entry{Chain: bad}
		s.entries[prefix+"bad-root"] = keystore.Entry{Chain: bad[2:], Trusted: true}
		for i, name := range []string{"leaf", "issuing", "root"} {
			s.entries[prefix+name] = keystore.Entry{Chain: chain[i : i+1], Trusted: true}
		}
	}
	s.filesIn(s.dir)
	s.put("store", "jks key")
	s.put("trust", "jks root")
	return s
}

func (s *scene) filesIn(dir string) {
	s.files = Files{KeystorePath: filepath.Join(dir, "store"), KeystorePassword: password,
		TruststorePath: filepath.Join(dir, "trust"), TruststorePassword: password}
}

func (s *scene) path(name string) string { return filepath.Join(s.dir, name) }

// made encodes a store of the kind in the first word, with the entries of the others: jks, which may have another
// password behind a slash, p12, legacy, pem, or a text. "alias=change" is a key of our CA, whose certificate has that
// change and the alias as common name.
func (s *scene) made(spec string) []byte {
	kind, words, _ := strings.Cut(spec, " ")
	if kind == "text" {
		return []byte(fixture.Must(strconv.Unquote(`"` + words + `"`)))
	}
	var entries []keystore.Entry
	var text []byte
	for word := range strings.FieldsSeq(words) {
		e, found := s.entries[word]
		if e.Alias = word; !found {
			alias, change, _ := strings.Cut(word, "=")
			change = strings.ReplaceAll(change, "_", " ")
			require.Contains(s.t, fixture.Changes, change)
			ca := *s.ca[""]
			ca.Change = fixture.Changes[change]
			key, chain, err := ca.Identity(alias)
			require.NoError(s.t, err)
			e = keystore.Entry{Alias: alias, Key: key, Chain: append(chain, ca.Root)}
		}
		entries = append(entries, e)
		if e.Key != nil {
			der := fixture.Must(x509.MarshalPKCS8PrivateKey(e.Key))
			text = append(text, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})...)
		}
		text = append(text, fixture.CertificatesPEM(e.Chain...)...)
	}
	kind, own, found := strings.Cut(kind, "/")
	if !found {
		own = password
	}
	switch kind {
	case "jks":
		return fixture.Must(keystore.EncodeJKS(entries, own, s.began))
	case "p12":
		return fixture.Must(keystore.EncodePKCS12(entries, own, keystore.ProfileModern))
	case "legacy":
		return fixture.Must(keystore.EncodePKCS12(entries, own, keystore.ProfileLegacy))
	case "pem":
		return text
	case "large":
		return append(text, make([]byte, keystore.MaxSize)...)
	}
	panic(spec)
}

// put replaces a file by another, as programs do that take care.
func (s *scene) put(name, spec string) {
	require.NoError(s.t, os.WriteFile(s.path(name+".tmp"), s.made(spec), 0o600))
	require.NoError(s.t, os.Rename(s.path(name+".tmp"), s.path(name)))
}

// kubelet publishes a generation of a Secret's volume with a store: a directory with the files, the link ..data swapped
// to it, and for each file a link through that.
func (s *scene) kubelet(dir, generation, spec string) {
	made := filepath.Join(dir, generation)
	require.NoError(s.t, os.MkdirAll(s.path(made), 0o700))
	s.put(filepath.Join(made, "store"), spec)
	s.put(filepath.Join(made, "trust"), "jks root")
	require.NoError(s.t, os.Symlink(generation, s.path(dir+"/..data_tmp")))
	require.NoError(s.t, os.Rename(s.path(dir+"/..data_tmp"), s.path(dir+"/..data")))
	for _, name := range []string{"store", "trust"} {
		if err := os.Symlink("..data/"+name, s.path(dir+"/"+name)); !os.IsExist(err) {
			require.NoError(s.t, err)
		}
	}
}

// follow does what a command says, and returns what comes of it.
func (s *scene) follow(verb, rest string) string {
	first, second, _ := strings.Cut(rest, " ")
	var err error
	switch verb {
	case "store", "trust":
		s.put(verb, rest)
	case "key": // in a file of its own
		s.files.KeystoreKeyPath = s.path(verb)
		s.put(verb, rest)
	case "put":
		s.put(first, second)
	case "write": // over what is there
		err = os.WriteFile(s.path(first), s.made(second), 0o600)
	case "remove":
		err = os.RemoveAll(s.path(rest))
	case "rename":
		err = os.Rename(s.path(first), s.path(second))
	case "link":
		err = os.Symlink(second, s.path(first))
	case "directory":
		err = os.MkdirAll(s.path(rest), 0o700)
	case "pipe":
		err = syscall.Mkfifo(s.path(rest), 0o600)
	case "kubelet":
		generation, spec, _ := strings.Cut(second, " ")
		s.kubelet(first, generation, spec)
	case "files in":
		s.filesIn(s.path(rest))
	case "variable": // of Files, by name, with a value
		fixture.SetPart(fixture.Part(&s.files, first), fixture.Must(strconv.Unquote(
			`"`+strings.ReplaceAll(second, "{dir}", s.dir)+`"`)))
	case "as a server":
		s.files.Server = true
	default:
		return s.act(verb, rest)
	}
	require.NoError(s.t, err, "%s %s", verb, rest)
	return ""
}

// act has an identity loaded or followed.
func (s *scene) act(verb, rest string) string {
	t := s.t
	switch verb {
	case "load", "load whom to trust":
		load := map[string]func(Files) (*Identity, error){"load": Load, "load whom to trust": LoadRoots}[verb]
		var err error
		s.identity, err = load(s.files)
		return told(t, s.identity, err)
	case "shake hands with itself":
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			require.NoError(t, shake(t, s.identity, s.identity, version))
		}
		return "well"
	case "warnings at": // without those of the CAs, which live from now on
		i := &Identity{Certificate: s.identity.Certificate, server: s.identity.server}
		i.Roots = slices.DeleteFunc(slices.Clone(s.identity.Roots), func(c *x509.Certificate) bool { return c.IsCA })
		i.Certificate.Certificate = i.Certificate.Certificate[:1]
		return strings.Join(i.Warnings(fixture.Must(time.Parse(time.RFC3339, rest))), "\n")
	case "watch", "look when asked":
		if s.identity == nil {
			s.identity = fixture.Must(Load(s.files))
		}
		log := slog.New(slog.NewTextHandler(&s.logged, nil))
		onReload := func(i *Identity, err error) { s.reloads <- reload{i, err} }
		ctx, cancel := context.WithCancel(t.Context())
		var changes *files.Watcher
		if verb == "watch" {
			changes = files.NewWatcher(ctx, log)
		}
		s.watcher = Watch(ctx, changes, s.files, s.identity, log, onReload)
		s.current = s.watcher.Current
		if verb == "look when asked" {
			s.current = s.watcher.Fresh
		}
		t.Cleanup(func() { cancel(); <-s.watcher.done })
	case "in use":
		return told(t, s.current(), nil)
	case "reported":
		r := s.next()
		assert.Equal(t, r.err == nil, r.identity != nil)
		return told(t, r.identity, r.err)
	case "reported at last": // there may be others between two steps of a slow machine
		for {
			if r := s.next(); r.err == nil {
				assert.Same(t, r.identity, s.current())
				return told(t, r.identity, nil)
			}
		}
	case "a fault is reported": // which, depends on how far the removal is
		require.Error(t, s.next().err)
	case "nothing more is reported":
		assert.Empty(t, s.reloads)
	case "logged": // last
		s.logged.mu.Lock()
		defer s.logged.mu.Unlock()
		lines := strings.Split(strings.TrimSpace(s.logged.String()), "\n")
		return regexp.MustCompile(`time=\S+ | serial=\S+ not_after=\S+`).ReplaceAllString(lines[len(lines)-1], "")
	default:
		require.Fail(t, "unknown command", verb)
	}
	return ""
}

// next waits for a report.
func (s *scene) next() reload {
	for {
		select {
		case r := <-s.reloads:
			// On a busy machine the watcher may look between the truncation of a file and its write.
			if r.err == nil || !strings.Contains(r.err.Error(), "store is empty") {
				return r
			}
		case <-time.After(20 * time.Second):
			require.Fail(s.t, "no replacement was reported")
		}
	}
}

// told says what an identity is, or why there is none.
func told(t testing.TB, i *Identity, err error) string {
	if err != nil {
		assert.NotContains(t, err.Error(), "geheim")
		assert.NotContains(t, err.Error(), password)
		assert.NotContains(t, err.Error(), "\n")
		assert.Equal(t, strings.Contains(err.Error(), "is not opened by"), errors.Is(err, keystore.ErrPassword))
		return err.Error()
	}
	said, warnings := "", i.Skipped
	if leaf := i.Certificate.Leaf; leaf != nil {
		said = fmt.Sprintf("%s with a chain of %d for %s; ", i.KeystoreFormat, len(i.Certificate.Certificate),
			leaf.Subject.CommonName)
		warnings = i.Warnings(time.Now())
	}
	var roots []string
	for _, root := range i.Roots {
		roots = append(roots, root.Subject.CommonName)
	}
	slices.Sort(roots)
	said += fmt.Sprintf("%s that trusts %s", i.TruststoreFormat, strings.Join(roots, ", "))
	return aTime.ReplaceAllString(strings.Join(append([]string{said}, warnings...), "\n"), "TIME")
}

var aTime = regexp.MustCompile(`\d{4}-\d\d-\d\dT[\d:]+Z`)
