package keystore_test

import (
	"crypto"
	"crypto/x509"
	"io"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/keystore"
)

// remoteKey is a key that cannot be written, as one in a security module.
type remoteKey struct{ public crypto.PublicKey }

func (k remoteKey) Public() crypto.PublicKey { return k.public }

func (k remoteKey) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	panic("not called")
}

func TestEncode_entriesThatNoJVMCouldUse_areRefused(t *testing.T) {
	p := fixtures(t)
	rsa, ec := p.entities["RSA"], p.entities["ECDSA"]
	root := []*x509.Certificate{p.root}
	for _, row := range []struct {
		sentence string
		entries  []keystore.Entry
		password string
		want     string
	}{
		{"no entries", nil, password, "store has no entries, want at least one"},
		{"no password", keyEntries(t, "RSA"), "", "store has no password"},
		{"a password beyond ASCII", keyEntries(t, "RSA"), "päss",
			"password has a character other than printable ASCII, which Java does not read"},
		{"a password with a newline", keyEntries(t, "RSA"), "pass\n",
			"password has a character other than printable ASCII, which Java does not read"},
		{"no alias", []keystore.Entry{{Chain: root}}, password, "entry has no alias"},
		{"aliases that differ in case", []keystore.Entry{{Alias: "a", Chain: root}, {Alias: "A", Chain: root}}, password,
			`alias "A" stands for two entries; case makes no difference`},
		{"a trusted entry without certificate", []keystore.Entry{{Alias: "a"}}, password,
			`trusted entry "a" has 0 certificates, want 1`},
		{"a key without certificate", []keystore.Entry{{Alias: "a", Key: rsa.key}}, password,
			`key entry "a" has no certificate`},
		{"another key's certificate", []keystore.Entry{{Alias: "a", Key: rsa.key, Chain: ec.chain}}, password,
			`key entry "a" has a certificate for another key`},
		{"a key that stays where it is", []keystore.Entry{{Alias: "a", Key: remoteKey{rsa.key.Public()}, Chain: rsa.chain}}, password,
			`encoding private key "a": x509: unknown key type while marshaling PKCS#8: keystore_test.remoteKey`},
	} {
		for name, e := range encoders {
			t.Run(row.sentence+" in "+name, func(t *testing.T) {
				_, err := e.encode(row.entries, row.password)
				assert.EqualError(t, err, row.want)
			})
		}
	}
}

func TestEncode_keyThatCannotBeWritten_isAKeyError(t *testing.T) {
	rsa := fixtures(t).entities["RSA"]
	entries := []keystore.Entry{{Alias: "a", Key: remoteKey{rsa.key.Public()}, Chain: rsa.chain}}
	for name, e := range encoders {
		_, err := e.encode(entries, password)
		var keyError *keystore.KeyError
		require.ErrorAs(t, err, &keyError, name)
		assert.Equal(t, "a", keyError.Alias)
		assert.ErrorIs(t, err, keyError.Err)
	}
}
