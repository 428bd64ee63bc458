// Package set reads published sets as applications do, with other people's libraries.
package set

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
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
	there := 0
	for _, name := range filesOf(types) {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			there++
		}
	}
	if there == 0 {
		return "", ErrNothing
	}
	serial := ""
	for _, kind := range types {
		leaf, err := map[string]func(string) (*x509.Certificate, error){"PEM": ReadPEM,
			"P12": readP12, "JKS": readJKS}[kind](dir)
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

// matches says whether the key, in PKCS#8 or as itself, is that of the chain's first certificate.
func matches(key any, chain [][]byte) (*x509.Certificate, error) {
	pair, err := tls.X509KeyPair(pemOf("CERTIFICATE", chain[0]), pemOfKey(key))
	return pair.Leaf, err
}

func readP12(dir string) (*x509.Certificate, error) {
	data, password, err := readStore(dir, "keystore", ".p12")
	if err != nil {
		return nil, err
	}
	key, leaf, _, err := pkcs12.DecodeChain(data, password)
	if err != nil {
		return nil, err
	}
	if data, password, err = readStore(dir, "truststore", ".p12"); err != nil {
		return nil, err
	}
	if _, err := pkcs12.DecodeTrustStore(data, password); err != nil {
		return nil, err
	}
	return matches(key, [][]byte{leaf.Raw})
}

func readJKS(dir string) (*x509.Certificate, error) {
	data, password, err := readStore(dir, "keystore", ".jks")
	if err != nil {
		return nil, err
	}
	store := jks.New()
	if err := store.Load(bytes.NewReader(data), []byte(password)); err != nil {
		return nil, err
	}
	entry, err := store.GetPrivateKeyEntry(store.Aliases()[0], []byte(password))
	if err != nil {
		return nil, err
	}
	if data, password, err = readStore(dir, "truststore", ".jks"); err != nil {
		return nil, err
	}
	trusted := jks.New()
	if err := trusted.Load(bytes.NewReader(data), []byte(password)); err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(entry.PrivateKey)
	if err != nil {
		return nil, err
	}
	return matches(key, [][]byte{entry.CertificateChain[0].Content})
}

func readStore(dir, name, suffix string) (data []byte, password string, err error) {
	data, err = os.ReadFile(filepath.Join(dir, name+suffix))
	if err != nil {
		return nil, "", err
	}
	text, err := os.ReadFile(filepath.Join(dir, name+".pass"))
	return data, strings.TrimSpace(string(text)), err
}

var generation = regexp.MustCompile(`^\.\.\d{4}(_\d\d){5}\.\d+$`)

// mostGenerations may stand on a volume: the current one and those kept for slow readers.
const mostGenerations = 9

// LeftBehind lists what a volume at rest should not hold.
func LeftBehind(volume, layout string, types []string) []string {
	var found []string
	generations := 0
	entries, err := os.ReadDir(volume)
	if err != nil {
		return []string{err.Error()}
	}
	for _, entry := range entries {
		name := entry.Name()
		switch {
		case slices.Contains(filesOf(types), name):
			if link := entry.Type()&fs.ModeSymlink != 0; link != (layout == "symlink") {
				found = append(found, name+" is of the other layout")
			}
		case name == "..lock":
		case name == "..request" && layout == "inplace", name == "..data" && layout == "symlink":
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

func pemOf(label string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: label, Bytes: der})
}

func pemOfKey(key any) []byte {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil // no key is the certificate's
	}
	return pemOf("PRIVATE KEY", der)
}
