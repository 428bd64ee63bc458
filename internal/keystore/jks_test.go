package keystore_test

import (
	"bytes"
	"crypto/sha1"
	"crypto/x509"
	"slices"
	"strconv"
	"strings"
	"testing"

	library "github.com/pavlo-v-chernykh/keystore-go/v4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/cryptobyte"

	"github.com/certfetcher/certfetcher/internal/keystore"
	"github.com/certfetcher/certfetcher/test/golden"
)

// TestDetect reads testdata/detect.txt: how data begins, as a Go string, and the format or why there is none.
func TestDetect(t *testing.T) {
	for sentence, text := range golden.Read(t, "detect.txt") {
		t.Run(sentence, func(t *testing.T) {
			data, want := parseDetect(text)
			format, err := keystore.Detect(data)
			if err == nil {
				assert.Equal(t, want, string(format))
				return
			}
			assert.EqualError(t, err, want)
			_, _, err = keystore.Decode(data, password)
			assert.EqualError(t, err, want)
		})
	}
}

func parseDetect(text string) (data []byte, want string) {
	quoted, want, _ := strings.Cut(text, "\n")
	return []byte(must(strconv.Unquote(quoted))), want
}

func TestDecode_tooLarge_isRefused(t *testing.T) {
	data := append([]byte("\xfe\xed\xfe\xed"), make([]byte, keystore.MaxSize)...)
	_, _, err := keystore.Decode(data, password)
	assert.EqualError(t, err, "JKS store has 8388612 bytes, want at most 8388608")
}

func FuzzDetect(f *testing.F) {
	for _, text := range golden.Read(f, "detect.txt") {
		data, _ := parseDetect(text)
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		format, err := keystore.Detect(data)
		assert.Equal(t, err == nil, format != "", "format %q, error %v", format, err)
	})
}

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

// jksEntry makes a JKS with one entry, alias "x".
func jksEntry(version, kind uint32, rest func(*cryptobyte.Builder)) []byte {
	return jksFile(password, func(b *cryptobyte.Builder) {
		b.AddUint32(version)
		b.AddUint32(1)
		b.AddUint32(kind)
		addUTF(b, "x")
		b.AddUint64(0)
		rest(b)
	})
}

func numbers(list ...uint32) func(*cryptobyte.Builder) {
	return func(b *cryptobyte.Builder) {
		for _, n := range list {
			b.AddUint32(n)
		}
	}
}

// Version 1 names no type before a certificate. An appended store keeps its version.
func TestJKS_version1_isReadAndAppendedTo(t *testing.T) {
	p := fixtures()
	data := jksEntry(1, 2, func(b *cryptobyte.Builder) {
		b.AddUint32LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(p.root.Raw) })
	})
	want := []keystore.Entry{trusted("x", p.root)}
	requireDecoded(t, want, keystore.JKS, data, password)

	more := append(keyEntries("ECDSA"), trusted("y", p.other))
	appended := must(keystore.Append(data, password, more, nil, now))
	assert.Equal(t, data[:8], appended[:8])
	requireDecoded(t, append(want, more...), keystore.JKS, appended, password)
}

func TestDecode_JKS_keyWithItsOwnPassword_isAPasswordError(t *testing.T) {
	e := fixtures().entities["RSA"]
	store := library.New()
	require.NoError(t, store.SetPrivateKeyEntry("mine", library.PrivateKeyEntry{
		CreationTime: now, PrivateKey: pkcs8("RSA"),
		CertificateChain: []library.Certificate{{Type: "X509", Content: e.chain[0].Raw}},
	}, []byte("another")))
	var data bytes.Buffer
	require.NoError(t, store.Store(&data, []byte(password)))

	_, _, err := keystore.Decode(data.Bytes(), password)
	assert.ErrorIs(t, err, keystore.ErrPassword)
	assert.EqualError(t, err,
		`reading JKS store: entry "mine" cannot be read: wrong password for the key: it has another one than the store`)

	read := must(keystore.OpenClosed(data.Bytes(), password))
	assert.Equal(t, []keystore.Entry{{Alias: "mine", Chain: e.chain[:1], Closed: true}}, read.Entries)
	_, err = keystore.OpenClosed(data.Bytes(), "another")
	assert.ErrorIs(t, err, keystore.ErrPassword, "the store's own password is needed all the same")
}

func TestDecode_JKS_passwordBeyondASCII_isHashedAsJavaDoes(t *testing.T) {
	data := jksFile("p\xe4ss", numbers(2, 0)) // "päss" in UTF-16
	_, _, err := keystore.Decode(data, "päss")
	assert.ErrorIs(t, err, keystore.ErrEmpty)
	assert.EqualError(t, err, "reading JKS store: holds neither a private key nor a certificate")
	_, _, err = keystore.Decode(data, "pass")
	assert.ErrorIs(t, err, keystore.ErrPassword)
}

func TestDecode_JKS_damageIsToldFromAWrongPassword(t *testing.T) {
	data := must(keystore.EncodeJKS(keyEntries("ECDSA"), password, now))
	for n := 4; n < len(data); n++ {
		_, _, err := keystore.Decode(data[:n], password)
		require.Error(t, err, "%d bytes", n)
		require.NotErrorIs(t, err, keystore.ErrPassword, "%d bytes", n)
	}
	_, _, err := keystore.Decode(data, "other")
	assert.EqualError(t, err, "reading JKS store: wrong password, or the file was altered: its digest does not fit")
	_, _, err = keystore.Decode(slices.Concat(data, data), password)
	assert.ErrorContains(t, err, "bytes after its last entry")
}

func TestDecode_JKS_foreignStructures_areNamed(t *testing.T) {
	const short = "is cut short or has a damaged length"
	for sentence, row := range map[string]struct {
		data []byte
		want string
	}{
		"another version": {jksFile(password, numbers(3, 0)), "version is 3, want 1 or 2"},
		"a secret key entry": {jksEntry(2, 3, numbers()),
			`entry "x" has type 3, want 1 (key) or 2 (trusted certificate)`},
		"four thousand million entries":      {jksFile(password, numbers(2, 1<<32-1)), short},
		"a key of four gigabytes":            {jksEntry(2, 1, numbers(1<<32-1)), short},
		"four thousand million certificates": {jksEntry(2, 1, numbers(0, 1<<32-1)), short},
		"an empty key": {jksEntry(2, 1, numbers(0, 0)),
			`entry "x" cannot be read: encrypted key is damaged`},
		"a PGP certificate": {jksEntry(2, 2, func(b *cryptobyte.Builder) { addUTF(b, "PGP"); b.AddUint32(0) }),
			`entry "x" cannot be read: has a certificate of type "PGP", want X.509`},
	} {
		_, _, err := keystore.Decode(row.data, password)
		assert.EqualError(t, err, "reading JKS store: "+row.want, sentence)
	}
}

func FuzzDecodeJKS(f *testing.F) {
	f.Add(must(keystore.EncodeJKS(keyEntries("ECDSA"), password, now)))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) < 24 {
			return
		}
		// A digest that fits lets the fuzzer past the check.
		data = jksFile(password, func(b *cryptobyte.Builder) { b.AddBytes(data[4 : len(data)-20]) })
		store, err := keystore.Open(data, password)
		if err != nil {
			return
		}
		// What can be read can be appended to, and keeps what it has.
		added := keystore.Entry{Alias: "added", Chain: []*x509.Certificate{fixtures().root}}
		data, err = keystore.Append(data, password, []keystore.Entry{added}, nil, now)
		require.NoError(t, err)
		after := must(keystore.Open(data, password))
		require.Equal(t, len(store.Entries)+1, len(after.Entries))
	})
}
