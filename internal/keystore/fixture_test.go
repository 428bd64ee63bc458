package keystore_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/keystore"
	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/golden"
)

const password = "Aa0_$#xyzXYZ123456789012"

var now = time.Now().Truncate(time.Second)

func must[T any](value T, err error) T { return fixture.Must(value, err) }

// pki is a root, an intermediate, one end entity for each kind of key, and a root that issued none of them.
type pki struct {
	root, intermediate, other *x509.Certificate
	entities                  map[string]entity
}

type entity struct {
	key   crypto.Signer
	chain []*x509.Certificate // leaf, intermediate
}

// fixtures is made once, because RSA keys take their time.
var fixtures = sync.OnceValue(func() pki {
	authority := must(fixture.NewCA("Test"))
	p := pki{authority.Root, authority.Issuing, must(fixture.NewCA("Other")).Root, map[string]entity{}}
	// Through DER and back, as it comes out of a store: the numbers that are computed ahead may differ in
	// leading zeros, and tests compare keys as a whole.
	rsaKey := must(x509.ParsePKCS1PrivateKey(x509.MarshalPKCS1PrivateKey(must(rsa.GenerateKey(rand.Reader, 2048)))))
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	for kind, key := range map[string]crypto.Signer{
		"RSA": rsaKey, "ECDSA": must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)), "Ed25519": must(edKey, err),
	} {
		p.entities[kind] = entity{key, must(authority.Issue(request(key)))}
	}
	return p
})

func request(key crypto.Signer) *x509.CertificateRequest {
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"}}
	return must(x509.ParseCertificateRequest(must(x509.CreateCertificateRequest(rand.Reader, template, key))))
}

// keyEntries is a key store as the fetcher writes it.
func keyEntries(kind string) []keystore.Entry {
	e := fixtures().entities[kind]
	return []keystore.Entry{{Alias: "certificate", Key: e.key, Chain: e.chain}}
}

func trusted(alias string, cert *x509.Certificate) keystore.Entry {
	return keystore.Entry{Alias: alias, Chain: []*x509.Certificate{cert}, Trusted: true}
}

// trustEntries is a trust store as the fetcher writes it.
func trustEntries() []keystore.Entry {
	p := fixtures()
	return []keystore.Entry{trusted("trusted-certificate-1", p.root), trusted("trusted-certificate-2", p.intermediate)}
}

// encoders are all ways to write a store.
var encoders = map[string]struct {
	format keystore.Format
	encode func([]keystore.Entry, string) ([]byte, error)
}{
	"JKS": {keystore.JKS, func(e []keystore.Entry, password string) ([]byte, error) {
		return keystore.EncodeJKS(e, password, now)
	}},
	"PKCS12 modern": {keystore.PKCS12, func(e []keystore.Entry, password string) ([]byte, error) {
		return keystore.EncodePKCS12(e, password, keystore.ProfileModern)
	}},
	"PKCS12 legacy": {keystore.PKCS12, func(e []keystore.Entry, password string) ([]byte, error) {
		return keystore.EncodePKCS12(e, password, keystore.ProfileLegacy)
	}},
}

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func certificates(certs ...*x509.Certificate) []byte { return fixture.CertificatesPEM(certs...) }

func pkcs8(kind string) []byte {
	return must(x509.MarshalPKCS8PrivateKey(fixtures().entities[kind].key))
}

// requireDecoded reads a store, in which nothing may be unreadable, and expects another password to be wrong.
func requireDecoded(t *testing.T, want []keystore.Entry, format keystore.Format, data []byte, password string) {
	t.Helper()
	got, found, err := keystore.Decode(data, password)
	require.NoError(t, err)
	require.Equal(t, format, found)
	require.Equal(t, want, got)
	if password != "" {
		_, _, err = keystore.Decode(data, password+"x")
		require.ErrorIs(t, err, keystore.ErrPassword)
	}
}

// run runs another program with the test password in PW, in a directory with the input as a file "in".
func run(t *testing.T, input []byte, command *exec.Cmd) (out []byte, dir string) {
	t.Helper()
	dir = t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "in"), input, 0o600))
	command.Dir, command.Env = dir, append(os.Environ(), "PW="+password)
	var stderr bytes.Buffer
	command.Stderr = &stderr
	out, err := command.Output()
	require.NoError(t, err, "%v: %s%s", command.Args, out, &stderr)
	return out, dir
}

func openssl(t *testing.T, input []byte, args ...string) []byte {
	t.Helper()
	out, _ := run(t, input, exec.Command(fixture.RequirePrograms(t, "openssl")[0], args...))
	return out
}

// opensslArguments are those of testdata/openssl.txt for a command, which they begin with, by what they are for.
func opensslArguments(t *testing.T, command string) map[string][]string {
	list := map[string][]string{}
	for title, arguments := range golden.Read(t, "openssl.txt") {
		if name, found := strings.CutPrefix(title, command+" "); found {
			list[name] = append([]string{command}, strings.Fields(arguments)...)
		}
	}
	return list
}
