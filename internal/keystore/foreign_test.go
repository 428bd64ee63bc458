package keystore_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/keystore"
)

func TestOpen_filesAsTheyAreFound(t *testing.T) {
	for name, want := range map[string]struct {
		password     string
		keys, others int // keys with a chain, and certificates of their own
	}{
		"byte-order-mark.pem":          {"", 1, 0},
		"byte-order-mark-trusted.pem":  {"", 0, 1},
		"utf-16.pem":                   {"", 1, 0},
		"cr-only.pem":                  {"", 1, 0},
		"escaped-line-ends.pem":        {"", 1, 0},
		"one-line.pem":                 {"", 1, 0},
		"indented.pem":                 {"", 1, 0},
		"leading-space.pem":            {"", 1, 0},
		"joined-key.pem":               {"", 1, 0},
		"joined.pem":                   {"", 0, 2},
		"dh-parameters.pem":            {"", 1, 0},
		"crl.pem":                      {"", 0, 1},
		"trusted-certificate.pem":      {"", 0, 1},
		"x509-certificate.pem":         {"", 0, 1},
		"key-scrypt.pem":               {"changeit", 1, 0},
		"key-hmac-sha512-256.pem":      {"changeit", 1, 0},
		"bouncycastle-ber.p12":         {"changeit", 1, 0},
		"bouncycastle-ber-trusted.p12": {"changeit", 0, 1},
		"null-password.p12":            {"", 0, 1},
		"mac-sha512-256.p12":           {"changeit", 1, 0},
		"sha1-2des.p12":                {"changeit", 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(filepath.Join("../../test/testdata/stores", name))
			require.NoError(t, err)
			store, err := keystore.Open(data, want.password)
			require.NoError(t, err)
			assert.Empty(t, store.Unreadable)
			keys, others := 0, 0
			for _, e := range store.Entries {
				if e.Key == nil {
					others++
					continue
				}
				keys++
				assert.NotEmpty(t, e.Chain, "the key has no certificate")
			}
			assert.Equal(t, want.keys, keys, "keys")
			assert.Equal(t, want.others, others, "other certificates")
		})
	}
}

// A key that is not needed is not opened: neither one of another password nor one of a kind that is not read keeps
// certificates from being trusted.
func TestOpenClosed_keysAreInNobodysWay(t *testing.T) {
	for _, name := range []string{"key-md5-des.pem", "key-scrypt.pem", "dh-parameters.pem"} {
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(filepath.Join("../../test/testdata/stores", name))
			require.NoError(t, err)
			store, err := keystore.OpenClosed(data, "")
			require.NoError(t, err)
			assert.Empty(t, store.Unreadable)
			require.NotEmpty(t, store.Entries)
			for _, e := range store.Entries {
				assert.Nil(t, e.Key)
			}
		})
	}
}

func TestOpen_weakKey_saysHowToConvert(t *testing.T) {
	data, err := os.ReadFile("../../test/testdata/stores/key-md5-des.pem")
	require.NoError(t, err)
	store, err := keystore.Open(data, "changeit")
	require.NoError(t, err, "the certificates are readable")
	require.Len(t, store.Unreadable, 1)
	assert.EqualError(t, store.Unreadable[0], `the PEM block "ENCRYPTED PRIVATE KEY" at line 1 cannot be read: `+
		"encryption algorithm 1.2.840.113549.1.5.3 (pbeWithMD5AndDES) is too weak and not supported, want PBES2, or pbeWithSHA1 and 3DES or RC2: "+
		"convert a PKCS#12 file with openssl pkcs12 -legacy -in FILE -out NEW.pem, "+
		"a key with openssl pkcs8 -topk8 -provider legacy -provider default -in FILE -out NEW.pem")
}
