package pkcs12

import (
	"bytes"
	"crypto"
	"encoding/hex"
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestToDER_rewritesBER(t *testing.T) {
	for name, test := range map[string]struct{ ber, want []byte }{
		"DER stays":                   {[]byte{0x30, 3, 2, 1, 5}, []byte{0x30, 3, 2, 1, 5}},
		"an indefinite length":        {[]byte{0x30, 0x80, 2, 1, 5, 0, 0}, []byte{0x30, 3, 2, 1, 5}},
		"a length of too many octets": {[]byte{0x30, 0x83, 0, 0, 3, 2, 1, 5}, []byte{0x30, 3, 2, 1, 5}},
		"segments": {[]byte{0x24, 0x80, 4, 1, 'a', 4, 2, 'b', 'c', 0, 0},
			[]byte{4, 3, 'a', 'b', 'c'}},
		"segments of segments":            {[]byte{0x24, 9, 0x24, 0x80, 4, 1, 'a', 0, 0, 4, 0}, []byte{4, 1, 'a'}},
		"no segment":                      {[]byte{0x24, 0x80, 0, 0}, []byte{4, 0}},
		"contents of OCTET STRINGs stay":  {[]byte{4, 4, 0x30, 0x80, 0, 0}, []byte{4, 4, 0x30, 0x80, 0, 0}},
		"a constructed context tag stays": {[]byte{0xa0, 0x80, 4, 1, 'a', 0, 0}, []byte{0xa0, 3, 4, 1, 'a'}},
	} {
		t.Run(name, func(t *testing.T) {
			der, err := toDER(test.ber)
			require.NoError(t, err)
			assert.Equal(t, test.want, der)
		})
	}
}

func TestToDER_isLongWhereTheContentsAre(t *testing.T) {
	for _, size := range []int{127, 128, 255, 256, 65535, 65536} {
		content := bytes.Repeat([]byte{'x'}, size)
		ber := append(append(appendHeader([]byte{0x24, 0x80}, 4, size), content...), 0, 0)
		der, err := toDER(ber)
		require.NoError(t, err)
		assert.Equal(t, append(appendHeader(nil, 4, size), content...), der)
	}
}

func TestToDER_refuses(t *testing.T) {
	for name, test := range map[string]struct {
		ber  []byte
		want string
	}{
		"nothing":                    {nil, "is cut short or has a damaged length"},
		"an element without its end": {[]byte{0x30, 0x80, 2, 1, 5}, "is cut short or has a damaged length"},
		"a primitive without a length": {[]byte{4, 0x80, 0, 0},
			"has a primitive element (ASN.1 tag 0x04) without a length"},
		"a segment of another kind": {[]byte{0x24, 0x80, 2, 1, 5, 0, 0},
			"has a segment with ASN.1 tag 0x02 in an OCTET STRING, want 0x04"},
		"bytes after the end":           {[]byte{0x30, 0, 1, 2}, "has 2 bytes after its end"},
		"a child longer than its frame": {[]byte{0x30, 3, 4, 9, 1}, "is cut short or has a damaged length"},
		"a tag of several octets":       {[]byte{0x3f, 1, 0}, "has ASN.1 tag 0x3f, which PKCS#12 does not use"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := toDER(test.ber)
			require.EqualError(t, err, test.want)
		})
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
		if len(der) > len(data)+maxBERDepth {
			t.Fatalf("%d bytes became %d", len(data), len(der))
		}
		again, err := toDER(der)
		if err != nil || !bytes.Equal(again, der) {
			t.Fatalf("the result is not DER: %v", err)
		}
	})
}

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
		got := deriveKey(crypto.SHA1, row.purpose, passphrase{text: row.password}.bmp(),
			unhex(t, row.salt), row.iterations, len(want))
		assert.Equal(t, row.want, hex.EncodeToString(got), "%s, purpose %d", row.password, row.purpose)
	}
}

func TestBMPString_beyondTheBasicPlane_isASurrogatePair(t *testing.T) {
	assert.Equal(t, "0041d83dde00", hex.EncodeToString(bmpString("A😀")))
}
