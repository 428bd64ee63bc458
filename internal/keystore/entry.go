package keystore

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/certfetcher/certfetcher/internal/pki"
)

// Entry is a private key with its certificate chain, or a trusted certificate.
type Entry struct {
	// Alias is empty in PEM, which has none. A PKCS#12 entry
	// without one is given a number, as a JVM does.
	Alias string
	Key   crypto.Signer // nil: a trusted certificate
	// Chain has the key's own certificate first, each followed by its issuer as far as the store
	// has it; it is empty for a key without certificate. A trusted entry has exactly one.
	Chain []*x509.Certificate
	// Trusted says that the store marks the certificate as trusted in Java's way: every trusted
	// entry of a JKS, those with the trusted-key-usage attribute in PKCS#12. It is false for other
	// certificates that belong to no key, which a JVM ignores and of which PEM files and the trust
	// stores of openssl consist.
	Trusted bool
	// Closed says that the private key was not decrypted; of OpenClosed only.
	Closed bool
}

// Chain puts the certificates of a key in order: the first one that holds its public key, then the
// issuer of each as far as certs has it, up to a self-issued one. It is nil when no certificate
// holds the public key. Issuers are found by names and key identifiers; no signature is checked.
func Chain(pub crypto.PublicKey, certs []*x509.Certificate) []*x509.Certificate {
	i := slices.IndexFunc(certs, func(c *x509.Certificate) bool { return holds(c, pub) })
	if i < 0 {
		return nil
	}
	return follow(certs[i], certs)
}

// follow is the chain that begins with the certificate.
func follow(cert *x509.Certificate, certs []*x509.Certificate) []*x509.Certificate {
	chain := []*x509.Certificate{cert}
	for {
		last := chain[len(chain)-1]
		issuer := issuerOf(last, certs)
		// Cross-signed CAs can issue each other.
		if issuer == nil || slices.ContainsFunc(chain, issuer.Equal) {
			return chain
		}
		chain = append(chain, issuer)
	}
}

// holds says whether the certificate is for the public key. Of one that crypto/x509 refuses, only
// the bytes are known.
func holds(c *x509.Certificate, pub crypto.PublicKey) bool {
	if c.PublicKey == nil {
		der, err := x509.MarshalPKIXPublicKey(pub)
		return err == nil && bytes.Equal(der, c.RawSubjectPublicKeyInfo)
	}
	return pki.SameKey(c.PublicKey, pub)
}

// issuerOf finds the certificate's issuer, nil when it is its own or not there. Where several have
// the name, the one whose key identifier fits is taken before one that cannot tell.
func issuerOf(c *x509.Certificate, certs []*x509.Certificate) *x509.Certificate {
	if bytes.Equal(c.RawSubject, c.RawIssuer) {
		return nil
	}
	var found *x509.Certificate
	for _, candidate := range certs {
		if !bytes.Equal(candidate.RawSubject, c.RawIssuer) {
			continue
		}
		if len(c.AuthorityKeyId) > 0 && bytes.Equal(candidate.SubjectKeyId, c.AuthorityKeyId) {
			return candidate
		}
		unknown := len(c.AuthorityKeyId) == 0 || len(candidate.SubjectKeyId) == 0
		if found == nil && unknown {
			found = candidate
		}
	}
	return found
}

// KeyError says that an entry's private key cannot be encoded.
type KeyError struct {
	Alias string
	Err   error
}

func (e *KeyError) Error() string { return fmt.Sprintf("encoding private key %q: %v", e.Alias, e.Err) }
func (e *KeyError) Unwrap() error { return e.Err }

// checkEntries refuses what would make a store that no JVM can use, or not all of it.
func checkEntries(entries []Entry, password string) error {
	if err := checkPassword(password); err != nil {
		return err
	}
	if len(entries) == 0 {
		return errors.New("store has no entries, want at least one")
	}
	aliases := map[string]bool{}
	for _, e := range entries {
		// A JVM compares aliases without regard to case: of two it would see one.
		alias := strings.ToLower(e.Alias)
		switch {
		case e.Alias == "":
			return errors.New("entry has no alias")
		case aliases[alias]:
			return fmt.Errorf("two entries have the alias %q, which Java compares without case", e.Alias)
		}
		aliases[alias] = true
		if err := checkEntry(e); err != nil {
			return err
		}
	}
	return nil
}

func checkEntry(e Entry) error {
	if e.Key == nil {
		if len(e.Chain) != 1 {
			return fmt.Errorf("trusted entry %q has %d certificates, want 1", e.Alias, len(e.Chain))
		}
		return nil
	}
	if len(e.Chain) == 0 {
		return fmt.Errorf("key entry %q has no certificate", e.Alias)
	}
	if !holds(e.Chain[0], e.Key.Public()) {
		return fmt.Errorf("key entry %q has a certificate for another key", e.Alias)
	}
	if _, err := x509.MarshalPKCS8PrivateKey(e.Key); err != nil {
		return &KeyError{e.Alias, err}
	}
	return nil
}

// checkPassword allows printable ASCII. JDKs up to 17 at least refuse any other character for PBES2
// ("Password is not ASCII").
func checkPassword(password string) error {
	if password == "" {
		return errors.New("store has no password")
	}
	for i := range len(password) {
		if password[i] < ' ' || password[i] > '~' {
			return errors.New("password has a character that is not printable ASCII, which Java does not read")
		}
	}
	return nil
}
