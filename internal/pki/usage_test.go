package pki

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestLeafKeyUsage_enciphermentIsForRSAOnly(t *testing.T) {
	for public, want := range map[any][]x509.KeyUsage{
		&rsa.PublicKey{}: {x509.KeyUsageDigitalSignature, x509.KeyUsageContentCommitment,
			x509.KeyUsageKeyEncipherment},
		&ecdsa.PublicKey{}: {x509.KeyUsageDigitalSignature, x509.KeyUsageContentCommitment},
	} {
		assert.Equal(t, want, bits(t, LeafKeyUsage(public).Value))
	}
	assert.Equal(t, []x509.KeyUsage{x509.KeyUsageDigitalSignature, x509.KeyUsageContentCommitment},
		bits(t, LeafKeyUsage(ed25519.PublicKey{}).Value))
}

// bits reads a KeyUsage, which as a named bit list has no zero bits at its end (X.690, 11.2.2).
func bits(t *testing.T, der []byte) (usages []x509.KeyUsage) {
	var list asn1.BitString
	rest, err := asn1.Unmarshal(der, &list)
	require.NoError(t, err)
	require.Empty(t, rest)
	require.Equal(t, 1, list.At(list.BitLength-1))
	for bit := range list.BitLength {
		if list.At(bit) == 1 {
			usages = append(usages, x509.KeyUsage(1<<bit))
		}
	}
	return usages
}
