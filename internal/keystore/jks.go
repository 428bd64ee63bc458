package keystore

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha1"
	"crypto/subtle"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"
	"unicode/utf16"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/certfetcher/certfetcher/internal/pkcs12"
	"github.com/certfetcher/certfetcher/internal/pki"
)

// The format is that of sun.security.provider.JavaKeyStore: a header
// of three numbers (magic, version, count of entries), the entries,
// and a SHA-1 digest over the password, a phrase and all of that.
const (
	jksVersion = 4 // where the numbers of the header begin
	jksCount   = 8
	jksEntries = 12

	jksKeyEntry     = 1
	jksTrustedEntry = 2

	jksSaltSize = sha1.Size
)

var (
	oidJKSKeyProtector = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 42, 2, 17, 1, 1}

	errJKSShort = errors.New("is cut short or has a damaged length")
)

func jksDigest(parts ...[]byte) []byte {
	h := sha1.New()
	for _, part := range parts {
		h.Write(part)
	}
	return h.Sum(nil)
}

// jksStoreDigest is the digest at the end of a store.
func jksStoreDigest(password, body []byte) []byte {
	return jksDigest(password, []byte("Mighty Aphrodite"), body)
}

// jksPassword is the password in UTF-16, as Java hashes it.
func jksPassword(password string) []byte {
	var out []byte
	for _, unit := range utf16.Encode([]rune(password)) {
		out = binary.BigEndian.AppendUint16(out, unit)
	}
	return out
}

func (s *Store) decodeJKS(data []byte, password string, keys bool) error {
	if len(data) < jksEntries+sha1.Size {
		return errJKSShort
	}
	body, digest := data[:len(data)-sha1.Size], data[len(data)-sha1.Size:]
	version := binary.BigEndian.Uint32(body[jksVersion:])
	if version != 1 && version != 2 {
		return fmt.Errorf("version is %d, want 1 or 2", version)
	}
	d := jksDecoder{s: body[jksEntries:], version: version}
	var raw []jksEntry
	for range binary.BigEndian.Uint32(body[jksCount:]) {
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
	secret := jksPassword(password)
	if fits := subtle.ConstantTimeCompare(jksStoreDigest(secret, body), digest) == 1; !fits && len(raw) == 0 {
		return fmt.Errorf("%w, and %w", ErrPassword, ErrEmpty)
	} else if !fits {
		return fmt.Errorf("%w, or the file was altered: its digest does not fit", ErrPassword)
	}
	for _, r := range raw {
		s.Names = append(s.Names, r.alias)
		entry, err := r.open(secret, keys)
		if err != nil {
			s.unreadable(fmt.Sprintf("entry %q", r.alias), !r.trusted, err)
			continue
		}
		s.Entries = append(s.Entries, entry)
	}
	return nil
}

type jksDecoder struct {
	s       cryptobyte.String
	version uint32
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
		// Java writes X.509; version 1 of the Go library keystore-go wrote X509.
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

// openJKSKey reads what sealJKSKey writes.
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
	salt, digest := protected[:jksSaltSize], protected[len(protected)-sha1.Size:]
	plain := applyJKSKeyStream(protected[jksSaltSize:len(protected)-sha1.Size], password, salt)
	if subtle.ConstantTimeCompare(jksDigest(password, plain), digest) != 1 {
		return nil, fmt.Errorf("%w for the key: it has another one than the store", ErrPassword)
	}
	return plain, nil
}

// sealJKSKey encrypts a key as Java's KeyProtector does, an EncryptedPrivateKeyInfo (RFC 5208,
// section 6) around the salt, the key combined with the key stream, and a digest.
func sealJKSKey(key crypto.Signer, password []byte) ([]byte, error) {
	plain, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	salt := make([]byte, jksSaltSize)
	rand.Read(salt) // never fails
	protected := slices.Concat(salt, applyJKSKeyStream(plain, password, salt), jksDigest(password, plain))
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(oidJKSKeyProtector)
			b.AddASN1NULL()
		})
		b.AddASN1OctetString(protected)
	})
	return b.Bytes()
}

// applyJKSKeyStream encrypts or decrypts: the stream is a
// chain of SHA-1 digests that begins with the salt.
func applyJKSKeyStream(data, password, salt []byte) []byte {
	out, block := bytes.Clone(data), salt
	for rest := out; len(rest) > 0; {
		block = jksDigest(password, block)
		rest = rest[subtle.XORBytes(rest, rest, block):]
	}
	return out
}

// EncodeJKS writes a JKS store, with now as the entries' creation time. Store and keys have the
// same password. Entries stand in alphabetical order of their aliases, which are written in lower
// case: Java looks up in lower case what it loads as it stands, and would not find any other.
func EncodeJKS(entries []Entry, password string, now time.Time) (data []byte, err error) {
	defer forbidden(&err)
	if err := checkEntries(entries, password); err != nil {
		return nil, err
	}
	entries = slices.Clone(entries)
	for i := range entries {
		entries[i].Alias = strings.ToLower(entries[i].Alias)
	}
	sort.Slice(entries, func(i, j int) bool { return entries[i].Alias < entries[j].Alias })
	empty := make([]byte, jksEntries+sha1.Size)
	copy(empty, magicJKS)
	binary.BigEndian.PutUint32(empty[jksVersion:], 2)
	if data, err = appendJKS(empty, password, entries, now); err != nil {
		return nil, fmt.Errorf("writing JKS store: %w", err)
	}
	return data, nil
}

// appendJKS adds entries after those that are there, which keep every byte: dates of creation, the
// case of aliases, keys.
func appendJKS(data []byte, password string, added []Entry, now time.Time) ([]byte, error) {
	secret := jksPassword(password)
	version := binary.BigEndian.Uint32(data[jksVersion:])
	b := cryptobyte.NewBuilder(bytes.Clone(data[:len(data)-sha1.Size]))
	for _, e := range added {
		if err := addJKSEntry(b, e, version, secret, now); err != nil {
			return nil, fmt.Errorf("entry %q: %w", e.Alias, err)
		}
	}
	out, err := b.Bytes()
	if err != nil {
		return nil, err
	}
	count := binary.BigEndian.Uint32(out[jksCount:])
	binary.BigEndian.PutUint32(out[jksCount:], count+uint32(len(added)))
	return append(out, jksStoreDigest(secret, out)...), nil
}

func addJKSEntry(b *cryptobyte.Builder, e Entry, version uint32, password []byte, now time.Time) error {
	kind := uint32(jksTrustedEntry)
	if e.Key != nil {
		kind = jksKeyEntry
	}
	b.AddUint32(kind)
	addJKSString(b, e.Alias)
	b.AddUint64(uint64(now.UnixMilli()))
	if e.Key != nil {
		key, err := sealJKSKey(e.Key, password)
		if err != nil {
			return err
		}
		b.AddUint32LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(key) })
		b.AddUint32(uint32(len(e.Chain)))
	}
	for _, cert := range e.Chain {
		if version != 1 {
			addJKSString(b, "X.509")
		}
		b.AddUint32LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(cert.Raw) })
	}
	return nil
}

// addJKSString writes a string as Java's DataOutput.writeUTF
// does, which for characters of up to 16 bits is UTF-8.
func addJKSString(b *cryptobyte.Builder, s string) {
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes([]byte(s)) })
}
