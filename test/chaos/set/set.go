// Package set reads published sets as applications do, with other people's libraries.
package set

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	jks "github.com/pavlo-v-chernykh/keystore-go/v4"
	"software.sslmate.com/src/go-pkcs12"
)

// files are those of each output type.
var files = map[string][]string{
	"PEM": {"key.pem", "keystore.pem", "keystore-combined.pem", "truststore.pem"},
	"P12": {"keystore.pass", "keystore.p12", "truststore.pass", "truststore.p12"},
	"JKS": {"keystore.pass", "keystore.jks", "truststore.pass", "truststore.jks"},
}

func filesOf(types []string) []string {
	var names []string
	for _, kind := range types {
		names = append(names, files[kind]...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// ErrNothing says that there is no set at all, not even in part.
var ErrNothing = errors.New("there is no set")

// Read reads a set with other people's libraries and returns the serial number of its certificate. It is an error
// when a file is missing, when the key is not the certificate's, and when the types differ.
func Read(dir string, types []string) (string, error) {
	if !slices.ContainsFunc(filesOf(types), func(name string) bool {
		_, err := os.Stat(filepath.Join(dir, name))
		return err == nil
	}) {
		return "", ErrNothing
	}
	serial := ""
	for _, kind := range types {
		leaf, err := readers[kind](dir)
		if err != nil {
			return "", fmt.Errorf("%s: %w", kind, err)
		}
		found := leaf.SerialNumber.String()
		if serial != "" && serial != found {
			return "", fmt.Errorf("%s holds certificate %s, another type %s", kind, found, serial)
		}
		serial = found
	}
	return serial, nil
}

var readers = map[string]func(dir string) (*x509.Certificate, error){"PEM": ReadPEM, "P12": readP12, "JKS": readJKS}

// ReadPEM is Read for the files of the type PEM, and returns the certificate. A missing file is fs.ErrNotExist.
func ReadPEM(dir string) (*x509.Certificate, error) {
	at := func(name string) string { return filepath.Join(dir, name) }
	pair, err := tls.LoadX509KeyPair(at("keystore.pem"), at("key.pem"))
	if err != nil {
		return nil, err
	}
	combined, err := tls.LoadX509KeyPair(at("keystore-combined.pem"), at("keystore-combined.pem"))
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(pair.Certificate[0], combined.Certificate[0]) {
		return nil, errors.New("keystore.pem and keystore-combined.pem differ")
	}
	roots, err := os.ReadFile(at("truststore.pem"))
	if err != nil {
		return nil, err
	}
	if !x509.NewCertPool().AppendCertsFromPEM(roots) {
		return nil, errors.New("truststore.pem has no certificate")
	}
	return pair.Leaf, nil
}

// ReadCarefully reads as docs/applications.md says: it resolves ..data once and reads the PEM files, and those of the
// other types, below that; or in the inplace layout the one file that holds key and chain, and each other type's store.
func ReadCarefully(volume, layout string, others ...string) (*x509.Certificate, error) {
	if layout == "inplace" {
		combined, err := os.ReadFile(volume + "/keystore-combined.pem")
		if errors.Is(err, fs.ErrNotExist) {
			return nil, ErrNothing
		} else if err != nil {
			return nil, err
		}
		pair, err := tls.X509KeyPair(combined, combined)
		for _, kind := range others {
			_, failed := Read(volume, []string{kind})
			err = errors.Join(err, failed)
		}
		return pair.Leaf, err
	}
	target, err := os.Readlink(volume + "/..data")
	if err != nil {
		return nil, ErrNothing
	}
	dir := filepath.Join(volume, target)
	if _, err := Read(dir, append(others, "PEM")); errors.Is(err, ErrNothing) {
		return nil, fs.ErrNotExist // this generation is gone
	} else if err != nil {
		return nil, err
	}
	return ReadPEM(dir)
}

// matches returns the certificate, whose key it must be.
func matches(key any, der []byte) (*x509.Certificate, error) {
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	signer, isSigner := key.(crypto.Signer)
	public, _ := leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !isSigner || public == nil || !public.Equal(signer.Public()) {
		return nil, errors.New("the key is not the certificate's")
	}
	return leaf, nil
}

func readP12(dir string) (*x509.Certificate, error) {
	s := stores{dir: dir, suffix: ".p12"}
	_, err := pkcs12.DecodeTrustStore(s.read("truststore"))
	key, leaf, _, err2 := pkcs12.DecodeChain(s.read("keystore"))
	if err := errors.Join(s.err, err, err2); err != nil {
		return nil, err
	}
	return matches(key, leaf.Raw)
}

func readJKS(dir string) (*x509.Certificate, error) {
	s := stores{dir: dir, suffix: ".jks"}
	load := func(name string) (store jks.KeyStore, password []byte, err error) {
		data, text := s.read(name)
		store, password = jks.New(), []byte(text)
		return store, password, errors.Join(s.err, store.Load(bytes.NewReader(data), password))
	}
	_, _, err := load("truststore")
	store, password, err2 := load("keystore")
	if err := errors.Join(err, err2); err != nil {
		return nil, err
	}
	entry, err := store.GetPrivateKeyEntry(store.Aliases()[0], password)
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(entry.PrivateKey)
	if err != nil {
		return nil, err
	}
	return matches(key, entry.CertificateChain[0].Content)
}

// stores are those of a type.
type stores struct {
	dir, suffix string
	err         error // of the reading so far
}

// read returns a store and its password.
func (s *stores) read(name string) (data []byte, password string) {
	data, err := os.ReadFile(filepath.Join(s.dir, name+s.suffix))
	text, err2 := os.ReadFile(filepath.Join(s.dir, name+".pass"))
	s.err = errors.Join(s.err, err, err2)
	return data, strings.TrimSpace(string(text))
}

// mostGenerations may stand on a volume: the current one and those kept for slow readers.
const mostGenerations = 9

var (
	generation = regexp.MustCompile(`^\.\.\d{4}(_\d\d){5}\.\d+$`)
	own        = map[string][]string{"symlink": {"..lock", "..data"}, "inplace": {"..lock", "..request"}}
)

// LeftBehind lists what a volume at rest should not hold.
func LeftBehind(volume, layout string, types []string) []string {
	var found []string
	generations := 0
	entries, err := os.ReadDir(volume)
	if err != nil {
		return []string{err.Error()}
	}
	for _, entry := range entries {
		name, isLink := entry.Name(), entry.Type()&fs.ModeSymlink != 0
		switch {
		case slices.Contains(filesOf(types), name) && isLink == (layout == "symlink"):
		case slices.Contains(own[layout], name):
		case generation.MatchString(name) && layout == "symlink":
			generations++
		default:
			found = append(found, name)
		}
	}
	if generations > mostGenerations {
		found = append(found, fmt.Sprintf("%d generations", generations))
	}
	return found
}
