package mtls

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Identities and truststores as editors, shells and other programs leave them.
func TestLoad_filesAsTheyAreFound(t *testing.T) {
	stored := func(name string) string { return filepath.Join("../../test/testdata/stores", name) }
	for name, password := range map[string]string{
		"byte-order-mark.pem": "", "utf-16.pem": "", "cr-only.pem": "", "escaped-line-ends.pem": "", "one-line.pem": "",
		"indented.pem": "", "leading-space.pem": "", "joined-key.pem": "", "dh-parameters.pem": "",
		"key-scrypt.pem": "changeit", "key-hmac-sha512-256.pem": "changeit",
		"bouncycastle-ber.p12": "changeit", "mac-sha512-256.p12": "changeit", "sha1-2des.p12": "changeit",
	} {
		t.Run(name, func(t *testing.T) {
			identity, err := LoadKeystore(Files{KeystorePath: stored(name), KeystorePassword: password})
			require.NoError(t, err)
			assert.NotNil(t, identity.Certificate.PrivateKey)
			assert.NotEmpty(t, identity.Certificate.Certificate)
			if filepath.Ext(name) == ".pem" {
				// The key may be in a file of its own, too.
				_, err = LoadKeystore(Files{KeystorePath: stored(name), KeystoreKeyPath: stored(name), KeystorePassword: password})
				require.NoError(t, err)
			}
		})
	}
	for name, password := range map[string]string{
		"byte-order-mark-trusted.pem": "", "crl.pem": "", "joined.pem": "", "trusted-certificate.pem": "",
		"x509-certificate.pem": "", "bouncycastle-ber-trusted.p12": "changeit", "null-password.p12": "",
		// Its key cannot be read, and nothing asks for it.
		"key-md5-des.pem": "",
	} {
		t.Run(name, func(t *testing.T) {
			identity, err := LoadRoots(Files{TruststorePath: stored(name), TruststorePassword: password})
			require.NoError(t, err)
			assert.NotEmpty(t, identity.Roots)
			assert.Empty(t, identity.Skipped)
		})
	}
}
