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
	// Closed says that there is a private key which was not decrypted; of OpenClosed only.
	Closed bool
}

// Unreadable is an entry that could not be read. The others of its store are as good as without it.
type Unreadable struct {
	Where string // such as `entry "app"`, or the PEM block with its line
	Key   bool   // whether it is a private key, not a certificate
	Err   error  // ErrPassword among others
}

func (u Unreadable) Error() string { return fmt.Sprintf("%s cannot be read: %v", u.Where, u.Err) }

// Unwrap gives the reason.
func (u Unreadable) Unwrap() error { return u.Err }

// Store is what could be read of a key store or trust store.
type Store struct {
	Format Format
	// Entries, at least one. Keys come before trusted certificates for PKCS#12 and PEM, otherwise entries keep the
	// order of the store.
	Entries    []Entry
	Unreadable []Unreadable
	// Names are the names of all that the store has, of what is neither read nor Unreadable as well. A new entry
	// under one of them would hide the old one from a JVM. None in PEM.
	Names []string
}

func (s *Store) unreadable(where string, key bool, err error) {
	s.Unreadable = append(s.Unreadable, Unreadable{where, key, err})
}

// Open reads a store of any format. A wrong password gives an error that is ErrPassword; the
// password is not needed for PEM without an encrypted key, nor for a PKCS#12 without protection. It is an error when
// no entry can be read.
func Open(data []byte, password string) (Store, error) { return open(data, password, true) }

// OpenClosed is Open for readers who need no keys, each of which may have a password other than the store's: they are
// not decrypted. Of PEM, they are left out.
func OpenClosed(data []byte, password string) (Store, error) { return open(data, password, false) }

// Decode is Open for stores of our own, all of which can be read: it is an error when one entry cannot.
func Decode(data []byte, password string) (entries []Entry, format Format, err error) {
	store, err := Open(data, password)
	if err != nil {
		return nil, "", err
	}
	if len(store.Unreadable) > 0 {
		return nil, "", fmt.Errorf("reading %s store: %w", store.Format, joinUnreadable(store.Unreadable))
	}
	return store.Entries, store.Format, nil
}

func open(data []byte, password string, keys bool) (s Store, err error) {
	defer forbidden(&err)
	if s.Format, err = Detect(data); err != nil {
		return Store{}, err
	}
	if len(data) > MaxSize {
		return Store{}, fmt.Errorf("%s store has %d bytes, want at most %d", s.Format, len(data), MaxSize)
	}
	switch s.Format {
	case JKS:
		err = s.decodeJKS(data, password, keys)
	case PKCS12:
		err = s.decodePKCS12(data, password, keys)
	case PEM:
		err = s.decodePEM(data, password, keys)
	}
	switch {
	case err != nil:
	case len(s.Entries) > 0:
		return s, nil
	case len(s.Unreadable) > 0:
		err = joinUnreadable(s.Unreadable)
	default:
		err = errNoEntries
	}
	return Store{}, fmt.Errorf("reading %s store: %w", s.Format, err)
}

// joinUnreadable puts the first of them on one line.
func joinUnreadable(all []Unreadable) error {
	const most = 5
	if len(all) == 1 {
		return all[0]
	}
	var errs []any
	format := "%w"
	for i, u := range all[:min(len(all), most)] {
		if i > 0 {
			format += "; %w"
		}
		errs = append(errs, u)
	}
	if len(all) > most {
		format += fmt.Sprintf("; and %d more", len(all)-most)
	}
	return fmt.Errorf(format, errs...)
}

var errNoEntries = errors.New("holds neither a private key nor a certificate")
