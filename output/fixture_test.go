package output

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/tempdir"
)

var (
	start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

	serial atomic.Int64
	ca     = sync.OnceValue(newAuthority)
)

// authority is a root with an intermediate, enough to issue chains from.
type authority struct {
	root, intermediate *x509.Certificate
	key                crypto.Signer
}

func TestMain(m *testing.M) {
	tempdir.InMemory()
	runChild()
	os.Exit(m.Run())
}

func newAuthority() authority {
	root, rootKey := issue("Root", nil, nil)
	intermediate, key := issue("Intermediate", root, rootKey)
	return authority{root, intermediate, key}
}

func issue(name string, parent *x509.Certificate, parentKey crypto.Signer) (*x509.Certificate, crypto.Signer) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial.Add(1)), Subject: pkix.Name{CommonName: name}, NotBefore: start, NotAfter: start.AddDate(1, 0, 0),
		IsCA: name != "leaf", BasicConstraintsValid: true,
	}
	if parent == nil {
		parent, parentKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		panic(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return cert, key
}

// newBundle issues a new certificate for a new key.
func newBundle() Bundle {
	a := ca()
	leaf, key := issue("leaf", a.intermediate, a.key)
	return Bundle{
		Key: key, Chain: []*x509.Certificate{leaf, a.intermediate}, Trusted: []*x509.Certificate{a.root},
		Note: fmt.Appendf(nil, "asked for %d", leaf.SerialNumber),
	}
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
	v, err := Open(cfg)
	require.NoError(t, err)
	return v
}

func mustPublish(t *testing.T, v *Volume, b Bundle) Publication {
	t.Helper()
	p, err := v.Publish(b)
	require.NoError(t, err)
	return p
}

func requireCurrent(t *testing.T, cfg Config, want Bundle) {
	t.Helper()
	has, err := mustOpen(t, cfg).Current()
	require.NoError(t, err)
	require.True(t, has.equal(want), "the volume has another bundle")
}

// listing maps every name on the volume, hidden ones too but the lock, to its mode; files of generations are left out.
func listing(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	names := map[string]string{}
	for _, entry := range entries {
		info, err := entry.Info()
		require.NoError(t, err)
		if entry.Name() == lockName {
			continue // it comes with the first process that works there, and stays
		}
		names[entry.Name()] = info.Mode().String()
		if info.Mode()&fs.ModeSymlink != 0 {
			target, err := os.Readlink(filepath.Join(dir, entry.Name()))
			require.NoError(t, err)
			names[entry.Name()] = "-> " + target
		}
	}
	return names
}

func readFile(t *testing.T, dir, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	require.NoError(t, err)
	return string(data)
}

// opaque hides a key as a hardware token does.
type opaque struct{ crypto.Signer }
