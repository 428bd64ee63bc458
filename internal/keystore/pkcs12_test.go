package keystore_test

import (
	"crypto/x509"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	gopkcs12 "software.sslmate.com/src/go-pkcs12"

	"github.com/certfetcher/certfetcher/internal/keystore"
	"github.com/certfetcher/certfetcher/test/fixture"
)

func TestPKCS12_filesOfGoPKCS12_areReadAndToldApart(t *testing.T) {
	p := fixtures()
	for name, row := range map[string]struct {
		encoder  *gopkcs12.Encoder
		password string
		profile  string // or why there is none
	}{
		"RC2 for certificates": {gopkcs12.LegacyRC2, password,
			`has the MAC of profile "legacy" and contents encrypted in another way`},
		"3DES":                       {gopkcs12.LegacyDES, password, "legacy"},
		"AES":                        {gopkcs12.Modern2023, password, "modern"},
		"AES and PBMAC1":             {gopkcs12.Modern2026, password, "has a PBMAC1 MAC, which no profile has"},
		"neither encryption nor MAC": {gopkcs12.Passwordless, "", "has no MAC, which every profile has"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, e := range p.entities {
				data := must(row.encoder.Encode(e.key, e.chain[0], e.chain[1:], row.password))
				requireDecoded(t, []keystore.Entry{{Alias: "1", Key: e.key, Chain: e.chain}},
					keystore.PKCS12, data, row.password)
				profile, err := keystore.ProfileOf(data)
				if err != nil {
					assert.EqualError(t, err, "reading PKCS12 store: "+row.profile)
				} else {
					assert.Equal(t, row.profile, string(profile))
				}
			}
			data := must(row.encoder.EncodeTrustStoreEntries([]gopkcs12.TrustStoreEntry{
				{Cert: p.root, FriendlyName: "the root"}, {Cert: p.intermediate, FriendlyName: "l'intermédiaire"},
			}, row.password))
			requireDecoded(t, []keystore.Entry{trusted("the root", p.root), trusted("l'intermédiaire", p.intermediate)},
				keystore.PKCS12, data, row.password)
		})
	}
}

// The library gives the localKeyID to the certificate that it is told belongs to the key.
func TestDecodePKCS12_twoCertificatesForOneKey_localKeyIDDecides(t *testing.T) {
	e := fixtures().entities["RSA"]
	renewed := must(must(fixture.NewCA("Renewed")).Issue(request(e.key)))[0]
	for _, order := range [][]*x509.Certificate{{e.chain[0], renewed}, {renewed, e.chain[0]}} {
		data := must(gopkcs12.Modern.Encode(e.key, order[0], order[1:], password))
		requireDecoded(t, []keystore.Entry{{Alias: "1", Key: e.key, Chain: order[:1]}, {Alias: "2", Chain: order[1:]}},
			keystore.PKCS12, data, password)
		closed := must(keystore.OpenClosed(data, password))
		assert.Equal(t, []keystore.Entry{{Alias: "1", Closed: true, Chain: order[:1]}, {Alias: "2", Chain: order[1:]}},
			closed.Entries)
	}
}

func TestDecodePKCS12_filesOfOpenSSL_areRead(t *testing.T) {
	e, p := fixtures().entities["ECDSA"], fixtures()
	input := slices.Concat(block("PRIVATE KEY", pkcs8("ECDSA")), certificates(e.chain...))
	for name, args := range opensslArguments(t, "pkcs12") {
		t.Run(name, func(t *testing.T) {
			data := openssl(t, input, append(args, "-export", "-in", "in", "-name", "my name", "-passout", "env:PW")...)
			got, format, err := keystore.Decode(data, password)
			require.NoError(t, err)
			assert.Equal(t, keystore.PKCS12, format)
			assert.Equal(t, []keystore.Entry{{Alias: "my name", Key: e.key, Chain: e.chain}}, got)
		})
	}
	data := openssl(t, certificates(p.root, p.intermediate), "pkcs12", "-export", "-nokeys", "-in", "in",
		"-caname", "the root", "-passout", "env:PW")
	want := []keystore.Entry{trusted("the root", p.root), trusted("1", p.intermediate)}
	want[0].Trusted, want[1].Trusted = false, false // it has no mark of trust
	requireDecoded(t, want, keystore.PKCS12, data, password)
}
