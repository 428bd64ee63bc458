// Package mtls reads the identities of mutual TLS (RFC 8446, RFC 5246) from files: a key with its
// certificate chain, and the certificates that the other side must chain to. Files are JKS,
// PKCS#12 or PEM, told apart by content. It follows the files when they are replaced.
//
// Nothing but the truststore is ever trusted: the system's roots are not looked at.
package mtls

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/certfetcher/certfetcher/internal/files"
	"github.com/certfetcher/certfetcher/internal/keystore"
	"github.com/certfetcher/certfetcher/internal/program"
	"github.com/certfetcher/certfetcher/internal/stack"
)

// Files say where an identity is. The names of the environment variables in errors are those that
// both programs read these from.
type Files struct {
	KeystorePath string // KEYSTORE_PATH: the key and its chain
	// KEYSTORE_KEY_PATH: a PEM key, where KeystorePath is PEM with certificates only; empty: none
	KeystoreKeyPath  string
	KeystorePassword string // KEYSTORE_PASSWORD: of the store and its key; empty: none

	TruststorePath     string // TRUSTSTORE_PATH
	TruststorePassword string // TRUSTSTORE_PASSWORD; empty: none

	// KeystorePasswordFile and TruststorePasswordFile, KEYSTORE_PASSWORD_FILE and
	// TRUSTSTORE_PASSWORD_FILE, take the place of the passwords; they are read with the stores, as
	// a store may be replaced by one with another password. Empty: the passwords above.
	KeystorePasswordFile, TruststorePasswordFile string

	// Partial: a store that is not named is not needed.
	Partial bool
	// Server prefers, among several keys, one whose
	// certificate is good for a server, not for a client.
	Server bool
	// SignsOnly: the key signs messages and is shown in no TLS handshake, whose usages the certificate
	// need not have.
	SignsOnly bool
}

// Identity is a key with its chain, and whom to trust. It does not change.
type Identity struct {
	Certificate tls.Certificate     // Leaf is set; the chain is as complete as the store has it
	Roots       []*x509.Certificate // those that can verify something
	Skipped     []string            // one sentence for each entry of the files that was passed over

	KeystoreFormat, TruststoreFormat keystore.Format

	digest [sha256.Size]byte // of the files read
	server bool
	// signsOnly: see Files
	signsOnly bool
	poolOnce  sync.Once
	pool      *x509.CertPool
}

// Load reads the files. Errors name the variable, the path, what is wrong and what to try, and
// never hold a password. An expired certificate is not an error, see Warnings.
func Load(f Files) (*Identity, error) {
	c, err := read(f)
	if err != nil {
		return nil, err
	}
	return c.identity(f)
}

// LoadKeystore is Load for the key and its chain alone: the identity has no roots.
func LoadKeystore(f Files) (*Identity, error) {
	var c contents
	if err := c.readKeystore(f); err != nil {
		return nil, err
	}
	i := &Identity{server: f.Server, signsOnly: f.SignsOnly}
	own, err := c.certificate(f)
	if err != nil {
		return nil, err
	}
	i.Certificate, i.KeystoreFormat, i.Skipped = own.certificate, own.format, own.skipped
	return i, nil
}

// LoadRoots is Load for whom to trust alone: the identity has no key.
func LoadRoots(f Files) (*Identity, error) {
	var c contents
	if err := c.readTruststore(f); err != nil {
		return nil, err
	}
	i := &Identity{server: f.Server, signsOnly: f.SignsOnly}
	return i, c.trust(f, i)
}

// contents are the files' bytes and the passwords at one time.
type contents struct {
	keystore, key, truststore            []byte
	keystorePassword, truststorePassword string
}

func read(f Files) (contents, error) {
	var c contents
	err := JoinErrors(c.readKeystore(f), c.readTruststore(f))
	return c, err
}

func (c *contents) readKeystore(f Files) error {
	if f.Partial && f.KeystorePath == "" {
		return nil
	}
	var errs [3]error
	c.keystore, errs[0] = readFile("KEYSTORE_PATH", f.KeystorePath)
	if f.KeystoreKeyPath != "" {
		c.key, errs[1] = readFile("KEYSTORE_KEY_PATH", f.KeystoreKeyPath)
	}
	c.keystorePassword, errs[2] = readPassword("KEYSTORE_PASSWORD_FILE", f.KeystorePasswordFile, f.KeystorePassword)
	return JoinErrors(errs[:]...)
}

func (c *contents) readTruststore(f Files) error {
	if f.Partial && f.TruststorePath == "" {
		return nil
	}
	var errs [2]error
	c.truststore, errs[0] = readFile("TRUSTSTORE_PATH", f.TruststorePath)
	c.truststorePassword, errs[1] = readPassword("TRUSTSTORE_PASSWORD_FILE",
		f.TruststorePasswordFile, f.TruststorePassword)
	return JoinErrors(errs[:]...)
}

// readPassword reads a password's file, where there is one.
func readPassword(variable, path, password string) (string, error) {
	if path == "" {
		return password, nil
	}
	password, err := program.ReadSecret(path)
	if err != nil {
		return "", fmt.Errorf("%s %q %w", variable, path, files.Explain(path, err))
	}
	return password, nil
}

// passwordVariable is the variable that a password came by.
func passwordVariable(name, file string) string {
	if file != "" {
		return name + "_FILE"
	}
	return name
}

// JoinErrors puts errors on one line, as they end in a termination message; nil when there is none.
func JoinErrors(errs ...error) (all error) {
	for _, err := range errs {
		switch {
		case all == nil:
			all = err
		case err != nil:
			all = fmt.Errorf("%w; %w", all, err)
		}
	}
	return all
}

// digest tells whether the files are the same as before.
// Lengths keep two from running into another two.
func (c contents) digest() [sha256.Size]byte {
	h := sha256.New()
	for _, data := range [][]byte{c.keystore, c.key, c.truststore, []byte(c.keystorePassword),
		[]byte(c.truststorePassword)} {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(data))))
		h.Write(data)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

func readFile(variable, path string) ([]byte, error) {
	if path == "" {
		return nil, fmt.Errorf("%s is not set, want the path of a JKS, PKCS#12 or PEM file", variable)
	}
	data, _, err := files.Read(path, keystore.MaxSize) // one byte more is what Decode refuses
	if err != nil {
		return nil, fmt.Errorf("%s %q %w", variable, path, files.Explain(path, err))
	}
	return data, nil
}

func (c contents) identity(f Files) (*Identity, error) {
	i := &Identity{digest: c.digest(), server: f.Server, signsOnly: f.SignsOnly}
	var errs [2]error
	var own chosen
	// Opening a PKCS#12 store is slow on purpose, and a
	// start should not wait for one after the other.
	var both sync.WaitGroup
	if !f.Partial || f.TruststorePath != "" {
		both.Go(func() {
			stack.Grow()
			errs[1] = c.trust(f, i)
		})
	}
	if !f.Partial || f.KeystorePath != "" {
		own, errs[0] = c.certificate(f)
	}
	both.Wait()
	if err := JoinErrors(errs[:]...); err != nil {
		return nil, err
	}
	i.Certificate, i.KeystoreFormat = own.certificate, own.format
	i.Skipped = append(own.skipped, i.Skipped...)
	return i, nil
}

// opened is a store that was read, with what its errors are about.
type opened struct {
	keystore.Store
	variable, path, passwordVariable, password string
}

// open reads one store, explaining its errors. Where no keys are wanted, none is decrypted.
func open(variable, path, passwordVariable, password string, data []byte, keys bool) (opened, error) {
	read := keystore.OpenClosed
	if keys {
		read = keystore.Open
	}
	store, err := read(data, password)
	o := opened{store, variable, path, passwordVariable, password}
	if err != nil {
		return opened{}, o.explain(err)
	}
	return o, nil
}

// unreadableKey explains why the first key that cannot be read cannot; it is nil when all can.
func (o opened) unreadableKey() error {
	for _, u := range o.Unreadable {
		if u.Key {
			return o.explain(u)
		}
	}
	return nil
}

// skippedEntries says of each entry that cannot be read that it was passed over.
func (o opened) skippedEntries() []string {
	var sentences []string
	for _, u := range o.Unreadable {
		sentences = append(sentences, fmt.Sprintf("%s %q: %v; it is skipped", o.variable, o.path, u))
	}
	return sentences
}

func (o opened) explain(err error) error {
	if !errors.Is(err, keystore.ErrPassword) {
		return fmt.Errorf("%s %q: %w", o.variable, o.path, err)
	}
	hint := "check that the password belongs to this file"
	switch {
	case o.password == "":
		hint = "it is not set"
	case strings.TrimSpace(o.password) != o.password:
		hint = "it begins or ends with white space; a Secret made with echo has a newline at its end"
	}
	return fmt.Errorf("%s %q is not opened by %s: %s (%w)", o.variable, o.path, o.passwordVariable, hint, err)
}
