package keystore_test

import (
	"crypto/x509"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	gopkcs12 "software.sslmate.com/src/go-pkcs12"

	"github.com/certfetcher/certfetcher/internal/keystore"
)

func TestDecodePKCS12_filesOfGoPKCS12_areRead(t *testing.T) {
	p := fixtures(t)
	for name, row := range map[string]struct {
		encoder  *gopkcs12.Encoder
		password string
	}{
		"RC2 for certificates":       {gopkcs12.LegacyRC2, password},
		"3DES":                       {gopkcs12.LegacyDES, password},
		"AES":                        {gopkcs12.Modern2023, password},
		"AES and PBMAC1":             {gopkcs12.Modern2026, password},
		"neither encryption nor MAC": {gopkcs12.Passwordless, ""},
	} {
		t.Run(name, func(t *testing.T) {
			for kind, e := range p.entities {
				data, err := row.encoder.Encode(e.key, e.chain[0], e.chain[1:], row.password)
				require.NoError(t, err)
				got, format, err := keystore.Decode(data, row.password)
				require.NoError(t, err, kind)
				assert.Equal(t, keystore.PKCS12, format)
				requireEntries(t, []keystore.Entry{{Alias: "1", Key: e.key, Chain: e.chain}}, got)

				if row.password != "" {
					_, _, err = keystore.Decode(data, "other")
					assert.ErrorIs(t, err, keystore.ErrPassword)
				}
			}
			data, err := row.encoder.EncodeTrustStoreEntries([]gopkcs12.TrustStoreEntry{
				{Cert: p.root, FriendlyName: "the root"}, {Cert: p.intermediate, FriendlyName: "l'intermédiaire"},
			}, row.password)
			require.NoError(t, err)
			got, _, err := keystore.Decode(data, row.password)
			require.NoError(t, err)
			requireEntries(t, []keystore.Entry{
				{Alias: "the root", Chain: []*x509.Certificate{p.root}, Trusted: true},
				{Alias: "l'intermédiaire", Chain: []*x509.Certificate{p.intermediate}, Trusted: true},
			}, got)
		})
	}
}

func TestEncodePKCS12_files_areReadByGoPKCS12(t *testing.T) {
	p := fixtures(t)
	for _, profile := range []keystore.Profile{keystore.ProfileModern, keystore.ProfileLegacy} {
		t.Run(string(profile), func(t *testing.T) {
			for kind, e := range p.entities {
				data, err := keystore.EncodePKCS12(keyEntries(t, kind), password, profile)
				require.NoError(t, err)
				key, leaf, issuers, err := gopkcs12.DecodeChain(data, password)
				require.NoError(t, err)
				assert.Equal(t, e.key, key)
				assert.Equal(t, e.chain, append([]*x509.Certificate{leaf}, issuers...))
			}
			data, err := keystore.EncodePKCS12(trustEntries(t), password, profile)
			require.NoError(t, err)
			// It refuses certificates without Java's attribute.
			certs, err := gopkcs12.DecodeTrustStore(data, password)
			require.NoError(t, err)
			assert.Equal(t, []*x509.Certificate{p.root, p.intermediate}, certs)
		})
	}
}

func TestProfileOf_filesOfGoPKCS12_areToldApart(t *testing.T) {
	e := fixtures(t).entities["RSA"]
	for name, row := range map[string]struct {
		encoder *gopkcs12.Encoder
		want    keystore.Profile
		err     string
	}{
		"RC2 for certificates": {gopkcs12.LegacyRC2, "",
			`reading PKCS12 store: has the MAC of profile "legacy" and contents encrypted in another way`},
		"3DES": {gopkcs12.LegacyDES, keystore.ProfileLegacy, ""},
		"AES":  {gopkcs12.Modern2023, keystore.ProfileModern, ""},
		"AES and PBMAC1": {gopkcs12.Modern2026, "",
			"reading PKCS12 store: has a PBMAC1 MAC, which no profile has"},
	} {
		t.Run(name, func(t *testing.T) {
			data, err := row.encoder.Encode(e.key, e.chain[0], e.chain[1:], password)
			require.NoError(t, err)
			got, err := keystore.ProfileOf(data)
			assert.Equal(t, row.want, got)
			if row.err == "" {
				assert.NoError(t, err)
			} else {
				assert.EqualError(t, err, row.err)
			}
		})
	}
}

func TestDecodePKCS12_twoCertificatesForOneKey_localKeyIDDecides(t *testing.T) {
	// go-pkcs12 gives the localKeyID to the certificate that it is told belongs to the key.
	e := fixtures(t).entities["RSA"]
	renewed, err := issue("localhost", e.key, nil, e.key)
	require.NoError(t, err)
	data, err := gopkcs12.Modern.Encode(e.key, e.chain[0], []*x509.Certificate{renewed}, password)
	require.NoError(t, err)
	got, _, err := keystore.Decode(data, password)
	require.NoError(t, err)
	requireEntries(t, []keystore.Entry{
		{Alias: "1", Key: e.key, Chain: e.chain[:1]}, {Alias: "2", Chain: []*x509.Certificate{renewed}},
	}, got)

	data, err = gopkcs12.Modern.Encode(e.key, renewed, e.chain[:1], password)
	require.NoError(t, err)
	got, _, err = keystore.Decode(data, password)
	require.NoError(t, err)
	assert.Equal(t, []*x509.Certificate{renewed}, got[0].Chain)
}
