package keystore

import (
	"bytes"
	"crypto/sha1"
	"crypto/subtle"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf16"

	"github.com/pavlo-v-chernykh/keystore-go/v4"
	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/certfetcher/certfetcher/internal/pkcs12"
	"github.com/certfetcher/certfetcher/internal/pki"
)

// Reading is done here rather than by keystore-go, which trusts the lengths in the file (a few bytes
// make it allocate gigabytes or panic), forgets the order of the entries, and cannot tell a wrong
// password from damage. The format is that of sun.security.provider.JavaKeyStore.

var oidJKSKeyProtector = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 42, 2, 17, 1, 1}

const (
	jksKeyEntry     = 1
	jksTrustedEntry = 2

	jksSaltSize = sha1.Size
)

var errJKSShort = errors.New("is cut short or has a damaged length")

func (s *Store) decodeJKS(data []byte, password string, keys bool) error {
	if len(data) < len(magicJKS)+sha1.Size {
		return errJKSShort
	}
	body, digest := data[:len(data)-sha1.Size], data[len(data)-sha1.Size:]
	d := jksDecoder{s: body[len(magicJKS):], password: jksPassword(password)}
	if !d.s.ReadUint32(&d.version) {
		return errJKSShort
	}
	if d.version != 1 && d.version != 2 {
		return fmt.Errorf("version is %d, want 1 or 2", d.version)
	}
	var count uint32
	if !d.s.ReadUint32(&count) {
		return errJKSShort
	}
	var raw []jksEntry
	for range count {
		e, err := d.readEntry()
		if err != nil {
			return err
		}
		raw = append(raw, e)
	}
	if !d.s.Empty() {
		return fmt.Errorf("has %d bytes after its last entry", len(d.s))
	}
	// The lengths are right, so damage is unlikely from here on.
	h := sha1.New()
	h.Write(d.password)
	h.Write([]byte("Mighty Aphrodite"))
	h.Write(body)
	if subtle.ConstantTimeCompare(h.Sum(nil), digest) != 1 {
		return fmt.Errorf("%w, or the file was altered: its digest does not fit", ErrPassword)
	}
	for _, r := range raw {
		s.Names = append(s.Names, r.alias)
		entry, err := r.open(d.password, keys)
		if err != nil {
			s.unreadable(fmt.Sprintf("entry %q", r.alias), !r.trusted, err)
			continue
		}
		s.Entries = append(s.Entries, entry)
	}
	return nil
}

// jksPassword is the password in UTF-16, as Java hashes it.
func jksPassword(password string) []byte {
	var out []byte
	for _, unit := range utf16.Encode([]rune(password)) {
		out = binary.BigEndian.AppendUint16(out, unit)
	}
	return out
}

type jksDecoder struct {
	s        cryptobyte.String
	version  uint32
	password []byte
}

// jksEntry is an entry before its key is decrypted.
type jksEntry struct {
	alias   string
	trusted bool
	key     []byte // EncryptedPrivateKeyInfo, of a key entry
	certs   [][]byte
	err     error // why it cannot be used, though its structure was read
}

func (d *jksDecoder) readEntry() (jksEntry, error) {
	var kind uint32
	var alias, created []byte
	if !d.s.ReadUint32(&kind) || !d.readString(&alias) || !d.s.ReadBytes(&created, 8) {
		return jksEntry{}, errJKSShort
	}
	e := jksEntry{alias: string(alias)}
	count := uint32(1)
	switch kind {
	case jksKeyEntry:
		if !d.readLong(&e.key) || !d.s.ReadUint32(&count) {
			return jksEntry{}, errJKSShort
		}
	case jksTrustedEntry:
		e.trusted = true
	default:
		return jksEntry{}, fmt.Errorf("entry %q has type %d, want 1 (key) or 2 (trusted certificate)", alias, kind)
	}
	for range count {
		kind := []byte("X.509")
		if d.version == 2 && !d.readString(&kind) {
			return jksEntry{}, errJKSShort
		}
		var der []byte
		if !d.readLong(&der) {
			return jksEntry{}, errJKSShort
		}
		// Java writes X.509; keystore-go's version 1 says X509.
		if k := string(kind); k != "X.509" && k != "X509" && e.err == nil {
			e.err = fmt.Errorf("has a certificate of type %q, want X.509", kind)
		}
		e.certs = append(e.certs, der)
	}
	return e, nil
}

// readString reads what Java's DataOutput.writeUTF wrote; for what occurs in aliases that is UTF-8.
func (d *jksDecoder) readString(out *[]byte) bool {
	var n uint16
	return d.s.ReadUint16(&n) && d.s.ReadBytes(out, int(n))
}

func (d *jksDecoder) readLong(out *[]byte) bool {
	var n uint32
	return d.s.ReadUint32(&n) && int64(n) <= int64(len(d.s)) && d.s.ReadBytes(out, int(n))
}

// open parses the entry's certificates and, with keys, decrypts its key.
func (e jksEntry) open(password []byte, keys bool) (Entry, error) {
	if e.err != nil {
		return Entry{}, e.err
	}
	entry := Entry{Alias: e.alias, Trusted: e.trusted}
	for _, der := range e.certs {
		cert, err := pki.Parse(der)
		if err != nil {
			return Entry{}, err
		}
		entry.Chain = append(entry.Chain, cert)
	}
	if entry.Closed = !e.trusted && !keys; e.trusted || entry.Closed {
		return entry, nil
	}
	plain, err := openJKSKey(e.key, password)
	if err != nil {
		return Entry{}, err
	}
	entry.Key, err = pkcs12.ParseKey(plain)
	return entry, err
}

// openJKSKey undoes Java's KeyProtector: the key is combined with a SHA-1 key stream, and a digest
// follows it.
func openJKSKey(der, password []byte) ([]byte, error) {
	s := cryptobyte.String(der)
	var info, algorithm, protected cryptobyte.String
	var oid asn1.ObjectIdentifier
	if !s.ReadASN1(&info, cbasn1.SEQUENCE) || !info.ReadASN1(&algorithm, cbasn1.SEQUENCE) ||
		!algorithm.ReadASN1ObjectIdentifier(&oid) || !info.ReadASN1(&protected, cbasn1.OCTET_STRING) {
		return nil, errors.New("encrypted key is damaged")
	}
	if !oid.Equal(oidJKSKeyProtector) {
		return nil, fmt.Errorf("key is encrypted with algorithm %v, want that of JKS, %v", oid, oidJKSKeyProtector)
	}
	if len(protected) < jksSaltSize+sha1.Size {
		return nil, errors.New("encrypted key is damaged")
	}
	stream, digest := protected[:jksSaltSize], protected[len(protected)-sha1.Size:]
	plain := bytes.Clone(protected[jksSaltSize : len(protected)-sha1.Size])
	h := sha1.New()
	for rest := plain; len(rest) > 0; {
		h.Reset()
		h.Write(password)
		h.Write(stream)
		stream = h.Sum(nil)
		rest = rest[subtle.XORBytes(rest, rest, stream):]
	}
	h.Reset()
	h.Write(password)
	h.Write(plain)
	if subtle.ConstantTimeCompare(h.Sum(nil), digest) != 1 {
		return nil, fmt.Errorf("%w for the key: it has another one than the store", ErrPassword)
	}
	return plain, nil
}

// EncodeJKS writes a JKS store, with now as the entries' creation time. Store and keys have the same
// password. Entries stand in alphabetical order of their aliases, which are written in lower case:
// Java looks up in lower case what it loads as it stands, and would not find any other.
func EncodeJKS(entries []Entry, password string, now time.Time) (data []byte, err error) {
	defer forbidden(&err)
	if err := checkEntries(entries, password); err != nil {
		return nil, err
	}
	store := keystore.New(keystore.WithOrderedAliases(), keystore.WithCaseExactAliases())
	for _, e := range entries {
		if err := addJKSEntry(store, e, password, now); err != nil {
			return nil, fmt.Errorf("writing JKS store: entry %q: %w", e.Alias, err)
		}
	}
	var out bytes.Buffer
	if err := store.Store(&out, []byte(password)); err != nil {
		return nil, fmt.Errorf("writing JKS store: %w", err)
	}
	return out.Bytes(), nil
}

func addJKSEntry(store keystore.KeyStore, e Entry, password string, now time.Time) error {
	alias := strings.ToLower(e.Alias)
	chain := make([]keystore.Certificate, len(e.Chain))
	for i, cert := range e.Chain {
		chain[i] = keystore.Certificate{Type: "X.509", Content: cert.Raw}
	}
	if e.Key == nil {
		return store.SetTrustedCertificateEntry(alias,
			keystore.TrustedCertificateEntry{CreationTime: now, Certificate: chain[0]})
	}
	key, err := x509.MarshalPKCS8PrivateKey(e.Key)
	if err != nil {
		return err
	}
	return store.SetPrivateKeyEntry(alias,
		keystore.PrivateKeyEntry{CreationTime: now, PrivateKey: key, CertificateChain: chain}, []byte(password))
}
