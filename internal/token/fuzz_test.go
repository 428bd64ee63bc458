package token

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

// FuzzVerify holds that nothing is accepted but what the issuer signed, byte for byte.
func FuzzVerify(f *testing.F) {
	x := newTrial()
	x.run(f, "keys RS256 ES256")
	// The same key in each process that fuzzes.
	x.key = fixture.IssuerKey{ID: "fixed", Algorithm: "EdDSA", Key: ed25519.NewKeyFromSeed(make([]byte, 32))}
	x.jwks = append(x.jwks, x.key.JWK())
	x.header = map[string]any{"alg": "EdDSA", "kid": "fixed"}
	genuine := []string{x.token()}
	x.header["jku"], x.header["jwk"] = "https://attacker.example", x.key.JWK()
	genuine = append(genuine, x.token())
	delete(x.header, "kid")
	genuine = append(genuine, x.token())
	for _, token := range genuine {
		f.Add(token)
	}
	for name := range changes {
		if !strings.Contains(name, "HS256") && !strings.Contains(name, "megabyte") {
			f.Add(changes[name](genuine[0]))
		}
	}
	v := x.verifier(f)
	require.NoError(f, v.Reload("start"))
	f.Fuzz(func(t *testing.T, token string) {
		c, err := v.Verify(token)
		_, _, decodeErr := Decode(token)
		if err != nil {
			assert.Zero(t, c)
			assert.Contains(t, Reasons, err.(*Error).Reason)
			assert.Less(t, len(err.Error()), 2000)
			return
		}
		assert.True(t, slices.Contains(genuine, token), "accepted: %q", token)
		assert.NoError(t, decodeErr)
	})
}

// FuzzReadObject holds that what is read is what encoding/json reads, too.
func FuzzReadObject(f *testing.F) {
	for _, text := range []string{`{"a":[1,2.5e3,"\u00e9",null,true,{"b":{}}]}`, `{"a":1,"A":2}`, `[]`, `{} {}`,
		`{"a":1,}`, `{"a" 1}`, `{"a":[1 2]}`, `{"a":01}`, "{\"\xff\":1}", `{"a":"\ud800"}`, ` {"a":-0} `} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		object, err := readObject(data, 100)
		if err != nil {
			assert.Nil(t, object)
			return
		}
		var want map[string]any
		decoder := json.NewDecoder(bytes.NewReader(data))
		decoder.UseNumber()
		require.True(t, json.Valid(data), "%q", data)
		require.NoError(t, decoder.Decode(&want))
		assert.Equal(t, want, object)
	})
}

// FuzzParseSet holds that no set has keys that are not to be used.
func FuzzParseSet(f *testing.F) {
	f.Add(fixture.JWKS(keyNamed("RS256"), keyNamed("ES256"), keyNamed("EdDSA")))
	f.Add(fixture.JWKS(keyNamed("ES384"), keyNamed("ES512")))
	for _, text := range []string{`{"keys":[]}`, `{"keys":[{"kty":"oct","k":"AAAA"}]}`,
		`{"keys":[{"kty":"RSA","n":"AQ","e":"AQAB"}]}`, `{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AA"}]}`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		set, _, err := parseSet(data)
		if err != nil {
			assert.Nil(t, set)
			return
		}
		assert.NotEmpty(t, set.keys)
		for _, k := range set.keys {
			assert.NotEmpty(t, k.algorithms)
			assert.Subset(t, algorithmsOf(k.public), k.algorithms)
		}
	})
}

// BenchmarkVerify has tokens that were verified before, those that were not, and wrong ones.
func BenchmarkVerify(b *testing.B) {
	for _, algorithm := range []string{"RS256", "ES256"} {
		x := newTrial()
		x.run(b, "keys "+algorithm)
		x.run(b, "by "+algorithm)
		v := x.verifier(b)
		require.NoError(b, v.Reload("start"))
		token := x.token()
		measure := func(name, token string, want Reason, before func()) {
			b.Run(algorithm+"/"+name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					before()
					if reasonOf(v, token) != want {
						b.Fatal(name)
					}
				}
			})
		}
		nothing := func() {}
		measure("remembered", token, "", nothing)
		measure("fresh", token, "", func() { clear(v.keys.Load().verified) })
		measure("wrong signature", changes["with a changed signature"](token), ReasonSignature, nothing)
		x.run(b, `claim aud "vault"`)
		measure("wrong audience", x.token(), ReasonAudience, nothing)
		list := []byte(`{"a":[` + strings.Repeat("0,", 5500) + `0]}`)
		measure("16 KiB of lists", part(token, 1, encode(list)), ReasonMalformed, nothing)
		measure("a megabyte", changes["with a megabyte of claims"](token), ReasonMalformed, nothing)
	}
}
