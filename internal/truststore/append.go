package truststore

import (
	"bytes"
	"crypto/sha1"
	"encoding/binary"
	"encoding/pem"
	"strings"
	"unicode/utf16"

	"golang.org/x/crypto/cryptobyte"

	"github.com/certfetcher/certfetcher/internal/pkcs12"
	"github.com/certfetcher/certfetcher/internal/pki"
)

// appendPKCS12 adds certificates that a JVM trusts. In a store made by openssl, which marks none as
// trusted, it marks all that are loose: else a JVM would see the new ones only, where before the merge
// every reader but a JVM saw the others.
func appendPKCS12(s *store, added []anchor) ([]byte, error) {
	var loose []pkcs12.Certificate
	if !s.marked {
		loose = s.loose(added)
	}
	var certs []pkcs12.Certificate
	for _, a := range added {
		certs = append(certs, pkcs12.Certificate{Certificate: a.cert, FriendlyName: a.alias, Trusted: true})
	}
	return pkcs12.Append(s.file.data, s.password, certs, loose)
}

// loose are the certificates of a store that marks none as trusted, each under a name of its own: openssl gives several
// entries one name, of which a JVM would see the last only, and the key under that name would go first.
func (s *store) loose(added []anchor) []pkcs12.Certificate {
	taken := map[string]bool{}
	for _, name := range s.reserved {
		taken[strings.ToLower(name)] = true
	}
	names := newAliases(s.format, s.aliases)
	for _, a := range added {
		names.taken[strings.ToLower(a.alias)] = true
	}
	var loose []pkcs12.Certificate
	for _, a := range s.anchors {
		alias := a.alias
		if taken[strings.ToLower(alias)] {
			alias = names.free(alias)
		}
		taken[strings.ToLower(alias)] = true
		loose = append(loose, pkcs12.Certificate{Certificate: a.cert, FriendlyName: alias})
	}
	return loose
}

// appendPEM leaves what is there as it is and adds a block for each certificate. Only a file of which other programs do
// not read every block is written again: they would see the added ones alone, where before the merge they saw that
// something is wrong.
func appendPEM(data []byte, added []anchor) []byte {
	out := bytes.Clone(data)
	if !pki.IsCleanPEM(data) {
		out = pki.RewritePEM(data)
	}
	if out[len(out)-1] != '\n' {
		out = append(out, '\n')
	}
	for _, a := range added {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})...)
	}
	return out
}

// A JKS store is a header of three numbers (magic, version, count of entries), the entries, and a
// digest over the password and all of that. (sun.security.provider.JavaKeyStore)
const (
	jksVersion      = 4
	jksCount        = 8
	jksEntries      = 12
	jksTrustedEntry = 2
)

func jksIsEmpty(data []byte) bool {
	return len(data) == jksEntries+sha1.Size && binary.BigEndian.Uint32(data[jksCount:]) == 0
}

// appendJKS adds entries after those that are there, which keep every byte: the dates of creation, the
// case of the aliases, and keys. The data has been read with the password before.
func appendJKS(data []byte, password string, added []anchor, when int64) ([]byte, error) {
	version := binary.BigEndian.Uint32(data[jksVersion:])
	body := cryptobyte.NewBuilder(bytes.Clone(data[:len(data)-sha1.Size]))
	for _, a := range added {
		body.AddUint32(jksTrustedEntry)
		addString(body, a.alias)
		body.AddUint64(uint64(when))
		if version != 1 {
			addString(body, "X.509")
		}
		body.AddUint32(uint32(len(a.cert.Raw)))
		body.AddBytes(a.cert.Raw)
	}
	out, err := body.Bytes()
	if err != nil {
		return nil, err
	}
	count := binary.BigEndian.Uint32(out[jksCount:])
	binary.BigEndian.PutUint32(out[jksCount:], count+uint32(len(added)))

	h := sha1.New()
	for _, unit := range utf16.Encode([]rune(password)) {
		h.Write([]byte{byte(unit >> 8), byte(unit)})
	}
	h.Write([]byte("Mighty Aphrodite"))
	h.Write(out)
	return h.Sum(out), nil
}

// addString writes a string as Java's DataOutput.writeUTF does, which for what readable lets through
// is UTF-8.
func addString(b *cryptobyte.Builder, s string) {
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes([]byte(s)) })
}
