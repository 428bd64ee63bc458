package keystore_test

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"time"

	library "github.com/pavlo-v-chernykh/keystore-go/v4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	gopkcs12 "software.sslmate.com/src/go-pkcs12"

	"github.com/certfetcher/certfetcher/internal/keystore"
	"github.com/certfetcher/certfetcher/test/golden"
)

func TestEncode_stores_areReadByDecodeAndOtherLibraries(t *testing.T) {
	p := fixtures()
	for name, e := range encoders {
		t.Run(name, func(t *testing.T) {
			roots := must(e.encode(trustEntries(), password))
			requireDecoded(t, trustEntries(), e.format, roots, password)
			if e.format == keystore.PKCS12 { // the library refuses certificates without Java's attribute
				certs := must(gopkcs12.DecodeTrustStore(roots, password))
				assert.Equal(t, []*x509.Certificate{p.root, p.intermediate}, certs)
			}
			for kind, entity := range p.entities {
				data := must(e.encode(keyEntries(kind), password))
				requireDecoded(t, keyEntries(kind), e.format, data, password)
				if e.format == keystore.PKCS12 {
					key, leaf, issuers, err := gopkcs12.DecodeChain(data, password)
					require.NoError(t, err)
					assert.Equal(t, entity, entityOf(key, append([]*x509.Certificate{leaf}, issuers...)))
					continue
				}
				store := library.New()
				require.NoError(t, store.Load(bytes.NewReader(data), []byte(password)))
				entry := must(store.GetPrivateKeyEntry("certificate", []byte(password)))
				assert.Equal(t, pkcs8(kind), entry.PrivateKey)
				assert.Equal(t, entity.chain[1].Raw, entry.CertificateChain[1].Content)
				assert.True(t, now.Equal(entry.CreationTime))
			}
		})
	}
}

func entityOf(key any, chain []*x509.Certificate) entity { return entity{key.(crypto.Signer), chain} }

// remoteKey is a key that cannot be written, as one in a security module.
type remoteKey struct{ crypto.Signer }

func (k remoteKey) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) { panic("not called") }

func TestEncode_entriesThatNoJVMCouldUse_areRefused(t *testing.T) {
	rsa, ec := fixtures().entities["RSA"], fixtures().entities["ECDSA"]
	root := []*x509.Certificate{fixtures().root}
	type entries = []keystore.Entry
	want := golden.Read(t, "encode.txt")
	for sentence, row := range map[string]struct {
		entries  entries
		password string
	}{
		"no entries":                          {nil, password},
		"no password":                         {keyEntries("RSA"), ""},
		"a password beyond ASCII":             {keyEntries("RSA"), "päss"},
		"a password with a newline":           {keyEntries("RSA"), "pass\n"},
		"no alias":                            {entries{{Chain: root}}, password},
		"a trusted entry without certificate": {entries{{Alias: "a"}}, password},
		"a key without certificate":           {entries{{Alias: "a", Key: rsa.key}}, password},
		"another key's certificate":           {entries{{Alias: "a", Key: rsa.key, Chain: ec.chain}}, password},
		"aliases that differ in case": {entries{{Alias: "a", Chain: root}, {Alias: "A", Chain: root}},
			password},
		"a key in a security module": {entries{{Alias: "a", Key: remoteKey{rsa.key}, Chain: rsa.chain}}, password},
	} {
		for name, e := range encoders {
			_, err := e.encode(row.entries, row.password)
			assert.EqualError(t, err, want[sentence], "%s in %s", sentence, name)
			var keyError *keystore.KeyError
			assert.Equal(t, sentence == "a key in a security module", errors.As(err, &keyError), sentence)
		}
	}
}

func TestEncodeJKS_entries_areSortedLowerCaseAndDated(t *testing.T) {
	var entries []keystore.Entry
	for _, alias := range []string{"Zulu", "alpha", "Mike"} {
		entries = append(entries, trusted(alias, fixtures().root))
	}
	created := time.UnixMilli(1_700_000_000_123)
	data := must(keystore.EncodeJKS(entries, password, created))
	store := must(keystore.Open(data, password))
	assert.Equal(t, []string{"alpha", "mike", "zulu"}, store.Names)
	assert.Equal(t, 3, bytes.Count(data, binary.BigEndian.AppendUint64(nil, uint64(created.UnixMilli()))))
	assert.Equal(t, data, must(keystore.EncodeJKS(entries, password, created)), "a trust store has nothing random")
}

func TestEncodePKCS12_files_areReadByOpenSSL(t *testing.T) {
	for _, profile := range []keystore.Profile{keystore.ProfileModern, keystore.ProfileLegacy} {
		for kind, e := range fixtures().entities {
			data := must(keystore.EncodePKCS12(keyEntries(kind), password, profile))
			out := openssl(t, data, "pkcs12", "-in", "in", "-nodes", "-passin", "env:PW")
			assert.Equal(t, 2, bytes.Count(out, []byte("friendlyName: certificate\n")), "key and certificate are named")
			assert.Equal(t, 2, bytes.Count(out, []byte("localKeyID: ")))
			requireDecoded(t, []keystore.Entry{{Key: e.key, Chain: e.chain}}, keystore.PEM, out, "")
		}
	}
}
