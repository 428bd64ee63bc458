// Package keystore reads and writes the entries of key stores and trust stores: JKS (Java's own old
// format), PKCS#12 (RFC 7292) and PEM (RFC 7468). It recognises formats by content, because Java
// deployments name PKCS#12 files .jks and the other way round.
//
// It works on bytes and knows nothing of files; it does not check signatures, dates or trust; it
// does not read JCEKS, BCFKS or BKS, nor the secret keys that a Java store may hold.
package keystore

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/certfetcher/certfetcher/internal/files"
	"github.com/certfetcher/certfetcher/internal/pkcs12"
	"github.com/certfetcher/certfetcher/internal/pki"
)

// Format is a store's format.
type Format string

const (
	JKS    Format = "JKS"
	PKCS12 Format = "PKCS12"
	PEM    Format = "PEM"
)

// MaxSize is the largest store that Decode reads, in bytes. All the public roots that a JDK ships
// make 0.2 MB; a larger file is not a store.
const MaxSize = 8 << 20

var (
	// ErrPassword says that a store or a key in it cannot be opened with the given password. It
	// comes wrapped in an error that says which.
	ErrPassword = pkcs12.ErrPassword
	// ErrEmpty says that a store is well-formed and has no entry. It comes wrapped.
	ErrEmpty = errors.New("holds neither a private key nor a certificate")
)

// Unreadable is an entry that could not be read. It does not affect the others of its store.
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
	// Entries, at least one. Keys come before trusted certificates for PKCS#12 and PEM, otherwise
	// entries keep the order of the store.
	Entries    []Entry
	Unreadable []Unreadable
	// Names are those of all entries, also of kinds that are not read. A new entry under one of
	// them would hide the old one from a JVM. None in PEM.
	Names []string
}

func (s *Store) unreadable(where string, key bool, err error) {
	s.Unreadable = append(s.Unreadable, Unreadable{where, key, err})
}

// Open reads a store of any format. A wrong password gives an error that is ErrPassword; the
// password is not needed for PEM without an encrypted key, nor for a PKCS#12 without protection.
// It is an error when no entry can be read.
func Open(data []byte, password string) (Store, error) { return open(data, password, true) }

// OpenClosed is Open for readers that need no keys: they are not decrypted, as each may have a
// password of its own. Of PEM, they are left out.
func OpenClosed(data []byte, password string) (Store, error) { return open(data, password, false) }

// Decode is Open for stores that this program wrote: it is an error when an entry cannot be read.
func Decode(data []byte, password string) (entries []Entry, format Format, err error) {
	store, err := Open(data, password)
	if err != nil {
		return nil, "", err
	}
	if err := store.Damage(); err != nil {
		return nil, "", err
	}
	return store.Entries, store.Format, nil
}

// Damage says which entries cannot be read; nil when there is none.
func (s *Store) Damage() error {
	if len(s.Unreadable) == 0 {
		return nil
	}
	return fmt.Errorf("reading %s store: %w", s.Format, joinUnreadable(s.Unreadable))
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
		if s.Format == PKCS12 && !slices.ContainsFunc(s.Unreadable, func(u Unreadable) bool { return u.Key }) {
			err = fmt.Errorf("%w that can be read: %w", ErrEmpty, err)
		}
	default:
		err = ErrEmpty
	}
	return Store{}, fmt.Errorf("reading %s store: %w", s.Format, err)
}

// TrustedEntries returns the certificates to trust, an entry for each, in the order of the store.
// In JKS and PKCS#12 they are the entries marked as trusted, as in a JVM. A PKCS#12 without any
// such mark was made by openssl: there they are all certificates that belong to no key. In PEM,
// which cannot mark anything, they are all certificates.
func (s Store) TrustedEntries() []Entry {
	marked := slices.ContainsFunc(s.Entries, func(e Entry) bool { return e.Key == nil && e.Trusted })
	var trusted []Entry
	for _, e := range s.Entries {
		if s.Format != PEM && (e.Key != nil || e.Closed || marked && !e.Trusted) {
			continue
		}
		for _, cert := range e.Chain {
			trusted = append(trusted, Entry{Alias: e.Alias, Chain: []*x509.Certificate{cert}, Trusted: e.Trusted})
		}
	}
	return trusted
}

// Append adds trusted certificates, one to an entry, to a store that OpenClosed read with the
// password. The store keeps its format and what it holds keeps its bytes, encrypted keys included;
// only PEM that other programs do not read is written again. Aliases must be free (see Names), and
// in JKS in lower case. The time dates the new entries of a JKS.
//
// Of the certificates in a PKCS#12, those of marked become trusted ones in Java's way, under the
// aliases given there.
func Append(data []byte, password string, added, marked []Entry, now time.Time) (out []byte, err error) {
	defer forbidden(&err)
	format, err := Detect(data)
	if err != nil {
		return nil, err
	}
	switch format {
	case JKS:
		return appendJKS(data, password, added, now)
	case PKCS12:
		return appendPKCS12(data, password, added, marked)
	}
	return appendPEM(data, added), nil
}

// joinUnreadable puts the first of them on one line.
func joinUnreadable(all []Unreadable) error {
	const most = 5
	shown := all[:min(len(all), most)]
	format := strings.TrimPrefix(strings.Repeat("; %w", len(shown)), "; ")
	if len(all) > most {
		format += fmt.Sprintf("; and %d more", len(all)-most)
	}
	errs := make([]any, len(shown))
	for i, u := range shown {
		errs[i] = u
	}
	return fmt.Errorf(format, errs...)
}

// forbidden, deferred, makes an error of the panic with which Go's FIPS 140-only mode refuses what
// older stores are made with, such as SHA-1. Other panics go on.
func forbidden(err *error) {
	v := recover()
	if v == nil {
		return
	}
	text := fmt.Sprint(v)
	if !strings.Contains(text, "FIPS 140-only mode") {
		panic(v)
	}
	*err = fmt.Errorf("this store cannot be used here: %s: want PEM, or PKCS#12 with AES-256 and HmacSHA256", text)
}

var (
	magicJKS   = []byte{0xfe, 0xed, 0xfe, 0xed}
	magicJCEKS = []byte{0xce, 0xce, 0xce, 0xce}

	pemBegin = []byte("-----BEGIN ")
)

const (
	accepted  = "want JKS, PKCS#12 or PEM"
	byKeytool = accepted + " (convert it with keytool -importkeystore -deststoretype PKCS12)"
)

// Detect finds a store's format by its first bytes, without reading
// the rest. The error says what the data looks like instead; it never
// quotes the data, which may be a password put in the wrong place.
func Detect(data []byte) (Format, error) {
	if len(data) == 0 {
		return "", errors.New("store is empty, " + accepted)
	}
	switch {
	case bytes.HasPrefix(data, magicJKS):
		return JKS, nil
	case bytes.HasPrefix(data, magicJCEKS):
		return "", errors.New("store is a JCEKS key store, " + byKeytool)
	case data[0] == 0x30:
		return detectDER(data)
	case bytes.HasPrefix(data, []byte{0, 0, 0, 1, 0, 0, 0}), bytes.HasPrefix(data, []byte{0, 0, 0, 2, 0, 0, 0}):
		// BouncyCastle's BKS: a version, then the length of a salt of 20 bytes.
		return "", errors.New("store looks like a BouncyCastle BKS key store, " + byKeytool)
	}
	if pki.HasPEM(data) {
		return PEM, nil
	}
	return "", fmt.Errorf("store %s, %s", describeText(data), accepted)
}

func describeText(data []byte) string {
	text, _ := files.Text(data)
	text = bytes.TrimSpace(text)
	switch {
	case len(text) == 0:
		return "is blank"
	case text[0] == '<':
		return "looks like HTML or XML"
	case isBase64Store(text):
		return "looks like the Base64 of a store, which must be decoded first"
	}
	return "is in no known format"
}

// isBase64Store says whether text is Base64 of one of the formats: a Secret copied out of
// Kubernetes with its encoding.
func isBase64Store(text []byte) bool {
	head := text[:min(len(text), 16)]
	head = head[:len(head)/4*4]
	raw, err := base64.StdEncoding.DecodeString(string(head))
	if err != nil || len(raw) < 9 {
		return false
	}
	return bytes.HasPrefix(raw, magicJKS) || bytes.HasPrefix(raw, pemBegin[:9]) ||
		raw[0] == 0x30 && raw[1] >= 0x80
}

// detectDER tells DER structures apart by their first elements. Lengths are not compared with the
// size of the data, so that a PKCS#12 file cut short is still called one.
func detectDER(data []byte) (Format, error) {
	body := skipHeader(data)
	switch {
	case len(body) >= 3 && body[0] == byte(cbasn1.INTEGER) && body[1] == 1:
		version, next := body[2], byte(0)
		if len(body) > 3 {
			next = body[3]
		}
		switch {
		case version == 3:
			return PKCS12, nil
		case version == 0 && next == byte(cbasn1.INTEGER):
			return "", derKey("a PKCS#1 RSA private key", "rsa")
		case version == 0 && next == byte(cbasn1.SEQUENCE):
			return "", derKey("a PKCS#8 private key", "pkey")
		case version == 1 && next == byte(cbasn1.OCTET_STRING):
			return "", derKey("a SEC 1 private key", "ec")
		}
	case len(body) > 0 && body[0] == byte(cbasn1.OBJECT_IDENTIFIER):
		return "", errors.New("store looks like a PKCS#7 structure (.p7b), which holds no keys and is not read, " +
			accepted + " (convert it with openssl pkcs7 -inform DER -print_certs)")
	case len(body) > 0 && body[0] == byte(cbasn1.SEQUENCE):
		return "", describeSigned(body)
	}
	return "", errors.New("store is DER or BER of no known format, " + accepted)
}

// skipHeader returns what follows the tag and length of data's first element.
func skipHeader(data []byte) []byte {
	if len(data) < 2 {
		return nil
	}
	n := 2
	if data[1] > 0x80 {
		n += int(data[1] & 0x7f)
	}
	return data[min(n, len(data)):]
}

func derKey(what, command string) error {
	return fmt.Errorf("store looks like %s in DER, %s (convert it with openssl %s -inform DER)",
		what, accepted, command)
}

// describeSigned tells what starts with two SEQUENCEs: a certificate, whose inner one starts with
// its version or serial number, or something encrypted, whose inner one starts with an algorithm.
func describeSigned(body []byte) error {
	inner := skipHeader(body)
	if len(inner) == 0 || inner[0] != byte(cbasn1.OBJECT_IDENTIFIER) {
		if len(inner) > 0 && inner[0] == byte(cbasn1.SEQUENCE) {
			return errors.New("store looks like a BouncyCastle BCFKS key store, " + byKeytool)
		}
		return errors.New("store looks like a certificate in DER, " + accepted +
			" (convert it with openssl x509 -inform DER)")
	}
	s := cryptobyte.String(body)
	var algorithm cryptobyte.String
	if s.ReadASN1(&algorithm, cbasn1.SEQUENCE) && s.PeekASN1Tag(cbasn1.OCTET_STRING) {
		return errors.New("store looks like an encrypted PKCS#8 private key in DER, " + accepted +
			" (convert it with openssl pkcs8 -inform DER)")
	}
	return errors.New("store is DER or BER of no known format, " + accepted)
}
