package cmp

import (
	"bytes"
	"encoding/asn1"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestVerifyMAC_PBMAC1KeyDerivation_isPBKDF2ByEitherName(t *testing.T) {
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

			_, err = VerifyMAC(reparse(t, m), []byte("secret"))

			if row.want != "" {
				assert.EqualError(t, err, row.want)
				return
			}
			assert.NoError(t, err)
		})
	}
}
