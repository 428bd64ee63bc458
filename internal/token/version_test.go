package token

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestKeySet_version_isThatOfTheKeysInAnyOrder(t *testing.T) {
	var keys []jose.JSONWebKey
	for _, id := range []string{"one", "two"} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		require.NoError(t, err)
		keys = append(keys, jose.JSONWebKey{Key: key.Public(), KeyID: id})
	}
	version := func(keys ...jose.JSONWebKey) string {
		text, err := json.Marshal(jose.JSONWebKeySet{Keys: keys})
		require.NoError(t, err)
		set, _, err := parseSet(text)
		require.NoError(t, err)
		return set.version()
	}
	both := version(keys[0], keys[1])
	assert.Regexp(t, "^[0-9a-f]{64}$", both)
	assert.Equal(t, both, version(keys[1], keys[0]))
	assert.NotEqual(t, both, version(keys[0]))
	renamed := keys[1]
	renamed.KeyID = "three"
	assert.NotEqual(t, both, version(keys[0], renamed))
	assert.Empty(t, (*keySet)(nil).version(), "none could be read yet")
}
