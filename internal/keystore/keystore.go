// Package keystore reads and writes the entries of key stores and trust stores: JKS (Java's own old
// format), PKCS#12 (RFC 7292) and PEM (RFC 7468). Formats are told apart by content, because Java
// deployments name PKCS#12 files .jks and the other way round.
//
// It works on bytes and knows nothing of files; it does not check signatures, dates or trust; it does
// not read JCEKS, BCFKS or BKS, nor the secret keys that a Java store may hold.
package keystore

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/certfetcher/certfetcher/internal/pkcs12"
)

// Format is a store's format.
type Format string

const (
	JKS    Format = "JKS"
	PKCS12 Format = "PKCS12"
	PEM    Format = "PEM"
)

// MaxSize is the largest store that Decode reads, in bytes. All the public roots that a JDK ships
// make 0.2 MB; whatever is larger than this is not a store, and reading it whole helps nobody.
const MaxSize = 8 << 20

// ErrPassword says that a store or a key in it cannot be opened with the given password. It comes
// wrapped in an error that says which.
var ErrPassword = pkcs12.ErrPassword

// Entry is a private key with its certificate chain, or a trusted certificate.
type Entry struct {
	// Alias is empty in PEM, which has none. A PKCS#12 entry without one is given a number, as a JVM does.
	Alias string
	Key   crypto.Signer // nil: a trusted certificate
	// Chain has the key's own certificate first, each followed by its issuer as far as the store has
	// it; it is empty for a key without certificate. A trusted entry has exactly one.
	Chain []*x509.Certificate
	// Trusted says that the store marks the certificate as trusted in Java's way: every trusted
	// entry of a JKS, those with the trusted-key-usage attribute in PKCS#12. It is false for other
	// certificates that belong to no key, which a JVM passes over and which PEM files and the trust
	// stores of openssl consist of.
	Trusted bool
	// Closed says that there is a private key which was not decrypted; of DecodeClosed only.
	Closed bool
}

// Decode reads a store of any format. A wrong password gives an error that is ErrPassword; the
// password is not needed for PEM without an encrypted key, nor for a PKCS#12 without protection.
// Keys come before trusted certificates for PKCS#12 and PEM, otherwise entries keep the order of the
// store.
func Decode(data []byte, password string) (entries []Entry, format Format, err error) {
	return decode(data, password, true)
}

// DecodeClosed is Decode for who needs no keys: those of a JKS store, each of which may have a password other than
// the store's, are not decrypted.
func DecodeClosed(data []byte, password string) (entries []Entry, format Format, err error) {
	return decode(data, password, false)
}

func decode(data []byte, password string, keys bool) (entries []Entry, format Format, err error) {
	defer forbidden(&err)
	format, err = Detect(data)
	if err != nil {
		return nil, "", err
	}
	if len(data) > MaxSize {
		return nil, "", fmt.Errorf("%s store has %d bytes, want at most %d", format, len(data), MaxSize)
	}
	switch format {
	case JKS:
		entries, err = decodeJKS(data, password, keys)
	case PKCS12:
		entries, err = decodePKCS12(data, password)
	case PEM:
		entries, err = decodePEM(data, password)
	}
	if err != nil {
		return nil, "", fmt.Errorf("reading %s store: %w", format, err)
	}
	if len(entries) == 0 {
		return nil, "", fmt.Errorf("reading %s store: %w", format, errNoEntries)
	}
	return entries, format, nil
}

var errNoEntries = errors.New("holds neither a private key nor a certificate")
