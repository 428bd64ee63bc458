package devca_test

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/internal/devca"
)

// withUsage asks for a certificate with a keyUsage of these bits.
func withUsage(t *testing.T, key crypto.Signer, bytes []byte, length int) *cmp.PKIMessage {
	t.Helper()
	value, err := asn1.Marshal(asn1.BitString{Bytes: bytes, BitLength: length})
	require.NoError(t, err)
	return change(t, key, func(template *cmp.CertTemplate) {
		usage := pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 15}, Critical: true, Value: value}
		template.Extensions = append(template.Extensions, usage)
	})
}

// RFC 8813, 3 and RFC 8410, 5: a key that only signs enciphers nothing.
func TestCA_keyUsageThatTheKeyCannotHave_isLeftOutOrRefused(t *testing.T) {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	const sign, commit = x509.KeyUsageDigitalSignature, x509.KeyUsageContentCommitment
	const encipher = x509.KeyUsageKeyEncipherment
	for _, row := range []struct {
		name   string
		key    crypto.Signer
		asked  []byte
		length int
		want   x509.KeyUsage // 0: refused
		left   string        // what is left out
	}{
		{"RSA", rsaKey, []byte{0xe0}, 3, sign | commit | encipher, ""},
		{"ECDSA", newKey(t), []byte{0xe0}, 3, sign | commit, "keyEncipherment"},
		{"ECDSA, fit", newKey(t), []byte{0xc0}, 2, sign | commit, ""},
		{"ECDSA, key agreement", newKey(t), []byte{0x88}, 5, sign | x509.KeyUsageKeyAgreement, ""},
		{"ECDSA, data encipherment and decipherOnly", newKey(t), []byte{0x98, 0x80}, 9,
			sign | x509.KeyUsageKeyAgreement | x509.KeyUsageDecipherOnly, "dataEncipherment"},
		{"ECDSA, nothing else", newKey(t), []byte{0x20}, 3, 0, "keyEncipherment"},
		{"Ed25519", ed, []byte{0xe8}, 5, sign | commit, "keyEncipherment, keyAgreement"},
	} {
		t.Run(row.name, func(t *testing.T) {
			m := withUsage(t, row.key, row.asked, row.length)
			refused := "ip rejection badCertTemplate: keyUsage asks for " + row.left + ", which a key of this kind cannot do"
			lenient, err := devca.New(devca.Config{})
			require.NoError(t, err)
			answer := send(t, lenient, m)
			switch {
			case row.want == 0:
				assert.Equal(t, refused, outcome(answer))
			case row.left == "":
				assert.Equal(t, "ip accepted", outcome(answer))
			default:
				want := "ip grantedWithMods: the key usage " + row.left + " is left out, which a key of this kind cannot do"
				assert.Equal(t, want, outcome(answer))
			}
			if row.want != 0 {
				assert.Equal(t, row.want, granted(t, answer).KeyUsage)
			}

			strict, err := devca.New(devca.Config{StrictKeyUsage: true})
			require.NoError(t, err)
			if row.left == "" {
				assert.Equal(t, row.want, granted(t, send(t, strict, m)).KeyUsage)
			} else {
				assert.Equal(t, refused, outcome(send(t, strict, m)))
			}
		})
	}
}

// What nobody asks for is given as far as the key can have it.
func TestCA_noKeyUsage_isTheKeysOwn(t *testing.T) {
	ca, err := devca.New(devca.Config{StrictKeyUsage: true})
	require.NoError(t, err)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	certificate := granted(t, send(t, ca, change(t, rsaKey, func(*cmp.CertTemplate) {})))
	const signing = x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment
	assert.Equal(t, signing|x509.KeyUsageKeyEncipherment, certificate.KeyUsage)
	certificate = granted(t, send(t, ca, change(t, newKey(t), func(*cmp.CertTemplate) {})))
	assert.Equal(t, signing, certificate.KeyUsage)
}
