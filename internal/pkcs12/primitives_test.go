package pkcs12

import (
	"crypto"
	"encoding/hex"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	require.NoError(t, err)
	return b
}

// The vectors of RFC 2268 section 5 whose key bits are all effective.
func TestRC2Key_decryptBlock_vectorsOfRFC2268(t *testing.T) {
	for _, row := range []struct{ key, plain, cipher string }{
		{"ffffffffffffffff", "ffffffffffffffff", "278b27e42e2f0d49"},
		{"3000000000000000", "1000000000000001", "30649edf9be7d2c2"},
		{"88bca90e90875a7f0f79c384627bafb2", "0000000000000000", "2269552ab0f85ca6"},
	} {
		out := make([]byte, rc2BlockSize)
		newRC2Key(unhex(t, row.key)).decryptBlock(out, unhex(t, row.cipher))
		assert.Equal(t, row.plain, hex.EncodeToString(out), "key %s", row.key)
	}
}

// Widely used vectors for the derivation of RFC 7292 appendix B with SHA-1, which has none itself.
func TestDeriveKey_publishedVectors(t *testing.T) {
	for _, row := range []struct {
		password   string
		salt       string
		purpose    byte
		iterations int
		want       string
	}{
		{"smeg", "0a58cf64530d823f", purposeKey, 1, "8aaae6297b6cb04642ab5b077851284eb7128f1a2a7fbca3"},
		{"smeg", "0a58cf64530d823f", purposeIV, 1, "79993dfe048d3b76"},
		{"smeg", "3d83c0e4546ac140", purposeMAC, 1, "8d967d88f6caa9d714800ab3d48051d63f73a312"},
		{"queeg", "05dec959acff72f7", purposeKey, 1000, "ed2034e36328830ff09df1e1a07dd357185dac0d4f9eb3d4"},
		{"queeg", "05dec959acff72f7", purposeIV, 1000, "11dedad7758d4860"},
		{"queeg", "263216fcc2fab31c", purposeMAC, 1000, "5ec4c7a80df652294c3925b6489a7ab857c83476"},
		{"sesame", "ffffffffffffffff", purposeKey, 2048, "7cd9fd3e2b3be7691a44e3bef0f9ea0fb9b897d4e325d9d1"},
	} {
		want := unhex(t, row.want)
		got := deriveKey(crypto.SHA1, row.purpose, passphrase{text: row.password}.bmp(), unhex(t, row.salt), row.iterations, len(want))
		assert.Equal(t, row.want, hex.EncodeToString(got), "%s, purpose %d", row.password, row.purpose)
	}
}

func TestBMPString_beyondTheBasicPlane_isASurrogatePair(t *testing.T) {
	assert.Equal(t, "0041d83dde00", hex.EncodeToString(bmpString("A😀")))
}
