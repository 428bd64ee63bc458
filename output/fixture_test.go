package output

import (
	"crypto"
	"crypto/x509"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/files"
	"github.com/certfetcher/certfetcher/test/fixture"
)

// childVariable has the test binary publish once, in another process: it names a layout and a directory.
const childVariable = "OUTPUT_TEST_CHILD"

var (
	start   = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	layouts = []string{LayoutSymlink, LayoutInplace}

	authority = sync.OnceValue(newCA)
)

func TestMain(m *testing.M) {
	fixture.UseMemory()
	if layout, dir, isChild := strings.Cut(os.Getenv(childVariable), " "); isChild {
		v, err := Open(Config{Dir: dir, Types: []string{TypePEM}, Layout: layout})
		if err == nil {
			_, err = v.Publish(newBundle())
		}
		if err != nil {
			panic(err)
		}
		return
	}
	os.Exit(m.Run())
}

func newCA() *fixture.CA { return fixture.Must(fixture.NewCA("Test")) }

// newBundle issues a new certificate for a new key.
func newBundle() Bundle {
	key, chain, err := authority().Identity("app.example.org")
	return Bundle{Key: fixture.Must(key, err), Chain: chain, Trusted: []*x509.Certificate{authority().Root},
		Note: fmt.Appendf(nil, "asked for %d", chain[0].SerialNumber)}
}

// newConfig is for an empty volume of the test's own. Its clock goes on by a second with each look.
func newConfig(t *testing.T, layout string, types ...string) Config {
	now := start
	return Config{
		Dir: filepath.Join(t.TempDir(), "certs"), Types: types, Layout: layout,
		Now: func() time.Time { now = now.Add(time.Second); return now },
	}
}

func mustOpen(t *testing.T, cfg Config) *Volume {
	t.Helper()
	return openWith(t, cfg, nil)
}

// openWith opens a volume with a step function.
func openWith(t *testing.T, cfg Config, step files.StepFunc) *Volume {
	t.Helper()
	v, err := open(cfg, step)
	require.NoError(t, err)
	return v
}

func mustPublish(t *testing.T, v *Volume, b Bundle) Publication {
	t.Helper()
	p, err := v.Publish(b)
	require.NoError(t, err)
	return p
}

// published is a new volume with a set on it.
func published(t *testing.T, layout string, types ...string) (Config, *Volume, Bundle) {
	t.Helper()
	cfg, b := newConfig(t, layout, types...), newBundle()
	v := mustOpen(t, cfg)
	mustPublish(t, v, b)
	return cfg, v, b
}

// reopened is the volume for another process that has read it.
func reopened(t *testing.T, cfg Config) *Volume {
	t.Helper()
	v := mustOpen(t, cfg)
	_, err := v.Current()
	require.NoError(t, err)
	return v
}

func requireCurrent(t *testing.T, cfg Config, want Bundle) {
	t.Helper()
	require.True(t, reopened(t, cfg).published.bundle.equal(want), "the volume has another bundle")
}

// eachLayout runs a test in either layout.
func eachLayout(t *testing.T, test func(t *testing.T, layout string)) {
	for _, layout := range layouts {
		t.Run(layout, func(t *testing.T) { test(t, layout) })
	}
}

// listing maps every name on the volume, hidden ones too but the lock, to its mode; files of generations are left out.
func listing(t *testing.T, dir string) map[string]string {
	t.Helper()
	names := map[string]string{}
	for _, entry := range fixture.Must(os.ReadDir(dir)) {
		info := fixture.Must(entry.Info())
		names[entry.Name()] = info.Mode().String()
		if info.Mode()&fs.ModeSymlink != 0 {
			names[entry.Name()] = "-> " + readlink(filepath.Join(dir, entry.Name()))
		}
	}
	delete(names, lockName) // it comes with the first process that works there, and stays
	return names
}

func stat(path string) os.FileInfo { return fixture.Must(os.Stat(path)) }
func readlink(path string) string  { return fixture.Must(os.Readlink(path)) }
func readFile(dir, name string) string {
	return string(fixture.Must(os.ReadFile(filepath.Join(dir, name))))
}

func writeFile(t *testing.T, dir, name, data string) {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600))
}

// opaque hides a key as a hardware token does.
type opaque struct{ crypto.Signer }
