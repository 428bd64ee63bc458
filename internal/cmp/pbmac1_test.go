package cmp

import (
	"bytes"
	"crypto"
	"encoding/asn1"
	"math/big"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// keyLength is optional; without it the key is as long as the hash of the HMAC (RFC 9481, 6.1.2).
func TestParseMAC_PBMAC1WithoutKeyLength_takesTheHashs(t *testing.T) {
	derivation, err := encode((&pbkdf2Parameters{salt: make([]byte, saltSize), iterations: big.NewInt(pbmac1Iterations),
		prf: hmacIdentifier(crypto.SHA256)}).code)
	require.NoError(t, err)
	for hash, want := range map[crypto.Hash]int{crypto.SHA1: 20, crypto.SHA256: 32, crypto.SHA512: 64} {
		p := pbmac1Parameters{AlgorithmIdentifier{Algorithm: oidPBKDF2, Parameters: derivation}, hmacIdentifier(hash)}
		parameters, err := encode(p.code)
		require.NoError(t, err)

		mac, err := parseMAC(AlgorithmIdentifier{Algorithm: oidPBMAC1, Parameters: parameters})

		require.NoError(t, err)
		assert.Equal(t, want, mac.keyLength)
	}
}

func TestMACKeys_Verify_PBMAC1KeyDerivation_isPBKDF2ByEitherName(t *testing.T) {
	der := func(oid asn1.ObjectIdentifier) []byte {
		encoded, err := asn1.Marshal(oid)
		require.NoError(t, err)
		return encoded
	}
	for name, row := range map[string]struct {
		oid  asn1.ObjectIdentifier
		want string
	}{
		"PBKDF2":                            {oidPBKDF2, ""},
		"PBES2, as Bouncy Castle writes it": {oidPBES2, ""},
		"PBMAC1":                            {oidPBMAC1, "PBMAC1-params: key derivation 1.2.840.113549.1.5.14 is not supported, want PBKDF2"},
	} {
		t.Run(name, func(t *testing.T) {
			mac := newPBMAC1()
			algorithm, err := mac.identifier()
			require.NoError(t, err)
			algorithm.Parameters = bytes.Replace(algorithm.Parameters, der(oidPBKDF2), der(row.oid), 1)
			m := confirmation(t)
			m.Header.ProtectionAlg = &algorithm
			part, err := m.protectedPart()
			require.NoError(t, err)
			key, err := mac.key([]byte("secret"))
			require.NoError(t, err)
			m.Protection = mac.sum(key, part)

			_, err = NewMACKeys([]byte("secret")).Verify(reparse(t, m))

			if row.want != "" {
				assert.EqualError(t, err, row.want)
				return
			}
			assert.NoError(t, err)
		})
	}
}
