package pkcs12

import (
	"bytes"
	"crypto"
	"encoding/hex"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/golden"
)

// TestToDER reads testdata/ber.txt.
func TestToDER(t *testing.T) {
	for sentence, text := range golden.Read(t, "ber.txt") {
		ber, want, _ := strings.Cut(text, "\n")
		der, err := toDER(unhex(strings.ReplaceAll(ber, " ", "")))
		got := fmt.Sprintf("% x", der)
		if err != nil {
			got = err.Error()
		}
		assert.Equal(t, want, got, sentence)
	}
}

func TestToDER_isLongWhereTheContentsAre(t *testing.T) {
	for _, size := range []int{127, 128, 255, 256, 65535, 65536} {
		content := bytes.Repeat([]byte{'x'}, size)
		ber := append(append(appendHeader([]byte{0x24, 0x80}, 4, size), content...), 0, 0)
		assert.Equal(t, append(appendHeader(nil, 4, size), content...), must(toDER(ber)))
	}
}

func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// FuzzToDER: the result is DER that stays as it is, and never longer than what came.
func FuzzToDER(f *testing.F) {
	addStores(f, func(data []byte) { f.Add(data) })
	f.Add([]byte{0x24, 9, 0x24, 0x80, 4, 1, 'a', 0, 0, 4, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		der, err := toDER(data)
		if err != nil {
			return
		}
		require.LessOrEqual(t, len(der), len(data)+maxBERDepth)
		require.Equal(t, der, must(toDER(der)), "the result is DER")
	})
}

func unhex(s string) []byte { return must(hex.DecodeString(s)) }

// The vectors of RFC 2268 section 5 whose key bits are all effective.
func TestRC2Key_decryptBlock_vectorsOfRFC2268(t *testing.T) {
	for _, row := range []struct{ key, plain, cipher string }{
		{"ffffffffffffffff", "ffffffffffffffff", "278b27e42e2f0d49"},
		{"3000000000000000", "1000000000000001", "30649edf9be7d2c2"},
		{"88bca90e90875a7f0f79c384627bafb2", "0000000000000000", "2269552ab0f85ca6"},
	} {
		out := make([]byte, rc2BlockSize)
		newRC2Key(unhex(row.key)).decryptBlock(out, unhex(row.cipher))
		assert.Equal(t, row.plain, hex.EncodeToString(out), "key %s", row.key)
	}
}

// Widely used vectors for the derivation of RFC 7292 appendix B with SHA-1, which has none itself.
func TestDeriveKey_publishedVectors(t *testing.T) {
	for _, row := range []struct {
		password, salt string
		purpose        byte
		iterations     int
		want           string
	}{
		{"smeg", "0a58cf64530d823f", purposeKey, 1, "8aaae6297b6cb04642ab5b077851284eb7128f1a2a7fbca3"},
		{"smeg", "0a58cf64530d823f", purposeIV, 1, "79993dfe048d3b76"},
		{"smeg", "3d83c0e4546ac140", purposeMAC, 1, "8d967d88f6caa9d714800ab3d48051d63f73a312"},
		{"queeg", "05dec959acff72f7", purposeKey, 1000, "ed2034e36328830ff09df1e1a07dd357185dac0d4f9eb3d4"},
		{"queeg", "05dec959acff72f7", purposeIV, 1000, "11dedad7758d4860"},
		{"queeg", "263216fcc2fab31c", purposeMAC, 1000, "5ec4c7a80df652294c3925b6489a7ab857c83476"},
		{"sesame", "ffffffffffffffff", purposeKey, 2048, "7cd9fd3e2b3be7691a44e3bef0f9ea0fb9b897d4e325d9d1"},
	} {
		got := deriveKey(crypto.SHA1, row.purpose, passphrase{text: row.password}.bmp(),
			unhex(row.salt), row.iterations, len(row.want)/2)
		assert.Equal(t, row.want, hex.EncodeToString(got), "%s, purpose %d", row.password, row.purpose)
	}
}

func TestBMPString_beyondTheBasicPlane_isASurrogatePair(t *testing.T) {
	assert.Equal(t, "0041d83dde00", hex.EncodeToString(bmpString("A😀")))
}
