package keystore_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/keystore"
)

// encoders are all ways to write a store.
var encoders = map[string]struct {
	format keystore.Format
	encode func([]keystore.Entry, string) ([]byte, error)
}{
	"JKS": {keystore.JKS, func(e []keystore.Entry, password string) ([]byte, error) {
		return keystore.EncodeJKS(e, password, now)
	}},
	"PKCS12 modern": {keystore.PKCS12, func(e []keystore.Entry, password string) ([]byte, error) {
		return keystore.EncodePKCS12(e, password, keystore.ProfileModern)
	}},
	"PKCS12 legacy": {keystore.PKCS12, func(e []keystore.Entry, password string) ([]byte, error) {
		return keystore.EncodePKCS12(e, password, keystore.ProfileLegacy)
	}},
}

// requireEntries compares entries by alias, key and certificates.
func requireEntries(t *testing.T, want, got []keystore.Entry) {
	t.Helper()
	require.Len(t, got, len(want))
	for i, w := range want {
		assert.Equal(t, w.Alias, got[i].Alias)
		assert.Equal(t, w.Trusted, got[i].Trusted, "trusted mark of %q", w.Alias)
		assert.Equal(t, w.Key, got[i].Key, "key of %q", w.Alias)
		require.Len(t, got[i].Chain, len(w.Chain), "chain of %q", w.Alias)
		for j := range w.Chain {
			assert.Equal(t, w.Chain[j].Raw, got[i].Chain[j].Raw, "certificate %d of %q", j, w.Alias)
		}
	}
}

func TestDecode_ownStores_giveBackWhatWasEncoded(t *testing.T) {
	stores := map[string][]keystore.Entry{"trusted certificates": trustEntries(t)}
	for kind := range fixtures(t).entities {
		stores[kind+" key"] = keyEntries(t, kind)
	}
	for name, e := range encoders {
		for content, want := range stores {
			t.Run(name+" with "+content, func(t *testing.T) {
				data, err := e.encode(want, password)
				require.NoError(t, err)
				got, format, err := keystore.Decode(data, password)
				require.NoError(t, err)
				assert.Equal(t, e.format, format)
				requireEntries(t, want, got)

				_, _, err = keystore.Decode(data, password+"x")
				assert.ErrorIs(t, err, keystore.ErrPassword)
			})
		}
	}
}

// BenchmarkEncode writes what one fetch writes: a key store and a trust store.
func BenchmarkEncode(b *testing.B) {
	keys, trusted := keyEntries(b, "RSA"), trustEntries(b)
	for name, e := range encoders {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				for _, entries := range [][]keystore.Entry{keys, trusted} {
					if _, err := e.encode(entries, password); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

// BenchmarkDecode reads both stores again.
func BenchmarkDecode(b *testing.B) {
	for name, e := range encoders {
		keys, err := e.encode(keyEntries(b, "RSA"), password)
		require.NoError(b, err)
		trusted, err := e.encode(trustEntries(b), password)
		require.NoError(b, err)
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				for _, data := range [][]byte{keys, trusted} {
					if _, _, err := keystore.Decode(data, password); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
