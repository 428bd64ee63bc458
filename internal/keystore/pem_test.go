package keystore_test

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	gopkcs12 "software.sslmate.com/src/go-pkcs12"

	"github.com/certfetcher/certfetcher/internal/keystore"
	"github.com/certfetcher/certfetcher/test/golden"
)

func TestOpen_filesAsTheyAreFound(t *testing.T) {
	for name, want := range golden.Read(t, "found.txt") {
		data := must(os.ReadFile(filepath.Join("../../test/testdata/stores", name)))
		store := must(keystore.Open(data, "changeit"))
		assert.Empty(t, store.Unreadable, name)
		keys := slices.DeleteFunc(slices.Clone(store.Entries), func(e keystore.Entry) bool { return e.Key == nil })
		for _, e := range keys {
			assert.NotEmpty(t, e.Chain, "the key in %s has no certificate", name)
		}
		assert.Equal(t, want, fmt.Sprintf("%d %d", len(keys), len(store.Entries)-len(keys)), name)
	}
}

// A key that is not needed is not opened: neither one of another password nor one of a kind that is not read keeps
// certificates from being trusted.
func TestOpenClosed_keysDoNoHarm(t *testing.T) {
	for _, name := range []string{"key-md5-des.pem", "key-scrypt.pem", "dh-parameters.pem"} {
		store := must(keystore.OpenClosed(must(os.ReadFile(filepath.Join("../../test/testdata/stores", name))), ""))
		assert.Empty(t, store.Unreadable, name)
		require.NotEmpty(t, store.Entries, name)
		for _, e := range store.Entries {
			assert.Nil(t, e.Key, name)
		}
	}
}

var parameters = block("EC PARAMETERS", []byte{6, 5, 0x2b, 0x81, 4, 0, 0x22})

func TestDecode_PEM_keysFindTheirChains(t *testing.T) {
	p := fixtures()
	rsaEntity, ecEntity, edEntity := p.entities["RSA"], p.entities["ECDSA"], p.entities["Ed25519"]
	rsaEntry := keystore.Entry{Key: rsaEntity.key, Chain: rsaEntity.chain}
	ecEntry := keystore.Entry{Key: ecEntity.key, Chain: ecEntity.chain}
	certEntry := func(c *x509.Certificate) keystore.Entry { return keystore.Entry{Chain: []*x509.Certificate{c}} }
	rsaKey, ecKey := block("PRIVATE KEY", pkcs8("RSA")), block("PRIVATE KEY", pkcs8("ECDSA"))
	pkcs1 := block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaEntity.key.(*rsa.PrivateKey)))
	sec1 := block("EC PRIVATE KEY", must(x509.MarshalECPrivateKey(ecEntity.key.(*ecdsa.PrivateKey))))
	chain := certificates(rsaEntity.chain...)
	for sentence, row := range map[string]struct {
		data [][]byte
		want []keystore.Entry
	}{
		"PKCS#8 key, then chain": {[][]byte{rsaKey, chain}, []keystore.Entry{rsaEntry}},
		"chain upside down, then PKCS#1 key": {[][]byte{certificates(p.intermediate, rsaEntity.chain[0]), pkcs1},
			[]keystore.Entry{rsaEntry}},
		"PKCS#8 under the label of PKCS#1, as the ONAP client wrote it": {
			[][]byte{block("RSA PRIVATE KEY", pkcs8("RSA")), chain}, []keystore.Entry{rsaEntry}},
		"SEC 1 key after its parameters": {[][]byte{parameters, sec1, certificates(ecEntity.chain...)},
			[]keystore.Entry{ecEntry}},
		"two keys and what belongs to none": {[][]byte{rsaKey, ecKey,
			certificates(edEntity.chain[0], ecEntity.chain[0], rsaEntity.chain[0], p.intermediate)},
			[]keystore.Entry{rsaEntry, ecEntry, certEntry(edEntity.chain[0])}},
		"a certificate listed twice": {[][]byte{rsaKey, chain, chain}, []keystore.Entry{rsaEntry}},
		"a key alone": {[][]byte{block("PRIVATE KEY", pkcs8("Ed25519"))},
			[]keystore.Entry{{Key: edEntity.key}}},
		"text between certificates": {[][]byte{[]byte("subject=CN\n"), certificates(p.root), []byte("\n# second\n"),
			certificates(p.intermediate)}, []keystore.Entry{certEntry(p.root), certEntry(p.intermediate)}},
	} {
		t.Run(sentence, func(t *testing.T) {
			requireDecoded(t, row.want, keystore.PEM, slices.Concat(row.data...), "")
		})
	}
}

func TestDecode_PEM_faultsAreNamed(t *testing.T) {
	root := certificates(fixtures().root)
	x25519 := must(x509.MarshalPKCS8PrivateKey(must(ecdh.X25519().GenerateKey(rand.Reader))))
	want := golden.Read(t, "pem.txt")
	for sentence, data := range map[string][]byte{
		"a block cut short":                   slices.Concat(root, root[:len(root)-40]),
		"a block that is not Base64":          []byte("-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n"),
		"a certificate that cannot be parsed": slices.Concat(root, block("CERTIFICATE", []byte{1})),
		"a key that cannot sign":              block("PRIVATE KEY", x25519),
		"a key of OpenSSH":                    block("OPENSSH PRIVATE KEY", []byte{1}),
		"a key encrypted in the old way": pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY",
			Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "DES-EDE3-CBC,00"}, Bytes: []byte{1}}),
		"a key encrypted with MD5 and DES": must(os.ReadFile("../../test/testdata/stores/key-md5-des.pem")),
		"only parameters":                  parameters,
	} {
		_, _, err := keystore.Decode(data, password)
		assert.EqualError(t, err, "reading PEM store: "+want[sentence], sentence)
	}
}

func TestDecodePEM_encryptedKeysOfOpenSSL_areRead(t *testing.T) {
	e := fixtures().entities["RSA"]
	for name, args := range opensslArguments(t, "pkcs8") {
		t.Run(name, func(t *testing.T) {
			args = append(args, "-topk8", "-in", "in", "-passout", "env:PW")
			data := openssl(t, block("PRIVATE KEY", pkcs8("RSA")), args...)
			data = append(data, certificates(e.chain...)...)
			requireDecoded(t, []keystore.Entry{{Key: e.key, Chain: e.chain}}, keystore.PEM, data, password)

			_, _, err := keystore.Decode(data, "")
			assert.EqualError(t, err,
				`reading PEM store: the PEM block "ENCRYPTED PRIVATE KEY" at line 1 cannot be read: `+
					"wrong password for the key, or it is damaged")
		})
	}
}

func TestChain_severalIssuersOfOneName_keyIdentifierDecides(t *testing.T) {
	p := fixtures()
	leaf := p.entities["RSA"].chain[0]
	other, unidentified := *p.intermediate, *p.intermediate
	other.SubjectKeyId, unidentified.SubjectKeyId = []byte("of another key"), nil
	type list = []*x509.Certificate
	for sentence, row := range map[string]struct{ pool, want list }{
		"the right one after others": {list{&other, &unidentified, p.intermediate, p.root, leaf},
			list{leaf, p.intermediate, p.root}},
		"one without identifier may be it":   {list{leaf, &other, &unidentified}, list{leaf, &unidentified}},
		"one with another identifier is not": {list{leaf, &other}, list{leaf}},
		"no certificate for the key":         {list{p.intermediate, p.root}, nil},
	} {
		assert.Equal(t, row.want, keystore.Chain(leaf.PublicKey, row.pool), sentence)
	}
}

func FuzzDecode(f *testing.F) {
	e := fixtures().entities["ECDSA"]
	f.Add(slices.Concat(block("PRIVATE KEY", pkcs8("ECDSA")), certificates(e.chain...)))
	f.Add(block("RSA PRIVATE KEY", []byte{0x30, 0}))
	f.Add([]byte("-----BEGIN EC PARAMETERS-----\n-----END EC PARAMETERS-----\n"))
	f.Add(must(gopkcs12.Passwordless.Encode(e.key, e.chain[0], e.chain[1:], "")))
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, _, err := keystore.Decode(data, "")
		if err != nil {
			return
		}
		for _, entry := range entries {
			if entry.Key == nil && len(entry.Chain) != 1 {
				t.Fatalf("entry without key has %d certificates", len(entry.Chain))
			}
		}
	})
}
