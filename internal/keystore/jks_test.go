package keystore_test

import (
	"bytes"
	"crypto/sha1"
	"crypto/x509"
	"encoding/binary"
	"slices"
	"testing"
	"time"

	library "github.com/pavlo-v-chernykh/keystore-go/v4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/cryptobyte"

	"github.com/certfetcher/certfetcher/internal/keystore"
)

// jksFile makes a JKS with a valid digest of what body adds after the magic number.
func jksFile(password string, body func(*cryptobyte.Builder)) []byte {
	var b cryptobyte.Builder
	b.AddUint32(0xfeedfeed)
	body(&b)
	data := b.BytesOrPanic()
	h := sha1.New()
	for _, c := range []byte(password) {
		h.Write([]byte{0, c})
	}
	h.Write([]byte("Mighty Aphrodite"))
	h.Write(data)
	return h.Sum(data)
}

func addUTF(b *cryptobyte.Builder, s string) {
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes([]byte(s)) })
}

func TestDecode_JKSVersion1_isRead(t *testing.T) {
	root := fixtures(t).root
	data := jksFile(password, func(b *cryptobyte.Builder) {
		b.AddUint32(1) // version: certificates have no type
		b.AddUint32(1) // entries
		b.AddUint32(2) // trusted certificate
		addUTF(b, "old root")
		b.AddUint64(0)
		b.AddUint32(uint32(len(root.Raw)))
		b.AddBytes(root.Raw)
	})
	got, _, err := keystore.Decode(data, password)
	require.NoError(t, err)
	requireEntries(t, []keystore.Entry{{Alias: "old root", Chain: []*x509.Certificate{root}, Trusted: true}}, got)
}

func TestDecode_JKS_keyWithItsOwnPassword_isAPasswordError(t *testing.T) {
	e := fixtures(t).entities["RSA"]
	store := library.New()
	require.NoError(t, store.SetPrivateKeyEntry("mine", library.PrivateKeyEntry{
		CreationTime: now, PrivateKey: pkcs8(t, "RSA"),
		CertificateChain: []library.Certificate{{Type: "X509", Content: e.chain[0].Raw}},
	}, []byte("another")))
	var data bytes.Buffer
	require.NoError(t, store.Store(&data, []byte(password)))

	_, _, err := keystore.Decode(data.Bytes(), password)
	assert.ErrorIs(t, err, keystore.ErrPassword)
	assert.EqualError(t, err, `reading JKS store: entry "mine" cannot be read: wrong password for the key: it has another one than the store`)

	read, err := keystore.OpenClosed(data.Bytes(), password)
	require.NoError(t, err)
	assert.Equal(t, keystore.JKS, read.Format)
	assert.Equal(t, []keystore.Entry{{Alias: "mine", Chain: e.chain[:1], Closed: true}}, read.Entries)
	_, err = keystore.OpenClosed(data.Bytes(), "another")
	assert.ErrorIs(t, err, keystore.ErrPassword, "the store's own password is needed all the same")
}

func TestDecode_JKS_passwordBeyondASCII_isHashedAsJavaDoes(t *testing.T) {
	data := jksFile("p\xe4ss", func(b *cryptobyte.Builder) { // "päss" in UTF-16
		b.AddUint32(2)
		b.AddUint32(0)
	})
	_, _, err := keystore.Decode(data, "päss")
	assert.EqualError(t, err, "reading JKS store: holds neither a private key nor a certificate")
	_, _, err = keystore.Decode(data, "pass")
	assert.ErrorIs(t, err, keystore.ErrPassword)
}

func TestDecode_JKS_damageIsToldFromAWrongPassword(t *testing.T) {
	data, err := keystore.EncodeJKS(keyEntries(t, "ECDSA"), password, now)
	require.NoError(t, err)
	for n := 4; n < len(data); n++ {
		_, _, err := keystore.Decode(data[:n], password)
		require.Error(t, err, "%d bytes", n)
		require.NotErrorIs(t, err, keystore.ErrPassword, "%d bytes", n)
	}
	_, _, err = keystore.Decode(data, "other")
	assert.EqualError(t, err, "reading JKS store: wrong password, or the file was altered: its digest does not fit")
	_, _, err = keystore.Decode(slices.Concat(data, data), password)
	assert.ErrorContains(t, err, "bytes after its last entry")
}

func TestDecode_JKS_foreignStructures_areNamed(t *testing.T) {
	entry := func(kind uint32, rest func(*cryptobyte.Builder)) []byte {
		return jksFile(password, func(b *cryptobyte.Builder) {
			b.AddUint32(2)
			b.AddUint32(1)
			b.AddUint32(kind)
			addUTF(b, "x")
			b.AddUint64(0)
			rest(b)
		})
	}
	for _, row := range []struct {
		sentence string
		data     []byte
		want     string
	}{
		{"another version", jksFile(password, func(b *cryptobyte.Builder) { b.AddUint32(3); b.AddUint32(0) }),
			"reading JKS store: version is 3, want 1 or 2"},
		{"a secret key entry", entry(3, func(*cryptobyte.Builder) {}),
			`reading JKS store: entry "x" has type 3, want 1 (key) or 2 (trusted certificate)`},
		{"four thousand million entries", jksFile(password, func(b *cryptobyte.Builder) { b.AddUint32(2); b.AddUint32(1<<32 - 1) }),
			"reading JKS store: is cut short or has a damaged length"},
		{"a key of four gigabytes", entry(1, func(b *cryptobyte.Builder) { b.AddUint32(1<<32 - 1) }),
			"reading JKS store: is cut short or has a damaged length"},
		{"four thousand million certificates", entry(1, func(b *cryptobyte.Builder) { b.AddUint32(0); b.AddUint32(1<<32 - 1) }),
			"reading JKS store: is cut short or has a damaged length"},
		{"an empty key", entry(1, func(b *cryptobyte.Builder) { b.AddUint32(0); b.AddUint32(0) }),
			`reading JKS store: entry "x" cannot be read: encrypted key is damaged`},
		{"a PGP certificate", entry(2, func(b *cryptobyte.Builder) { addUTF(b, "PGP"); b.AddUint32(0) }),
			`reading JKS store: entry "x" cannot be read: has a certificate of type "PGP", want X.509`},
	} {
		t.Run(row.sentence, func(t *testing.T) {
			_, _, err := keystore.Decode(row.data, password)
			assert.EqualError(t, err, row.want)
		})
	}
}

func TestEncodeJKS_entries_areSortedLowerCaseAndDated(t *testing.T) {
	p := fixtures(t)
	var entries []keystore.Entry
	for _, alias := range []string{"Zulu", "alpha", "Mike"} {
		entries = append(entries, keystore.Entry{Alias: alias, Chain: []*x509.Certificate{p.root}})
	}
	created := time.UnixMilli(1_700_000_000_123)
	data, err := keystore.EncodeJKS(entries, password, created)
	require.NoError(t, err)
	got, _, err := keystore.Decode(data, password)
	require.NoError(t, err)
	var aliases []string
	for _, e := range got {
		aliases = append(aliases, e.Alias)
	}
	assert.Equal(t, []string{"alpha", "mike", "zulu"}, aliases)
	assert.Equal(t, 3, bytes.Count(data, binary.BigEndian.AppendUint64(nil, uint64(created.UnixMilli()))))

	again, err := keystore.EncodeJKS(entries, password, created)
	require.NoError(t, err)
	assert.Equal(t, data, again, "a trust store has nothing random")
}

func FuzzDecodeJKS(f *testing.F) {
	data, err := keystore.EncodeJKS(keyEntries(f, "ECDSA"), password, now)
	require.NoError(f, err)
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) < 24 {
			return
		}
		// A digest that fits lets the fuzzer past the check.
		data = jksFile(password, func(b *cryptobyte.Builder) { b.AddBytes(data[4 : len(data)-20]) })
		_, _, _ = keystore.Decode(data, password)
	})
}
