package keystore_test

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	gopkcs12 "software.sslmate.com/src/go-pkcs12"

	"github.com/certfetcher/certfetcher/internal/keystore"
)

func block(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func certificates(certs ...*x509.Certificate) []byte {
	var out []byte
	for _, c := range certs {
		out = append(out, block("CERTIFICATE", c.Raw)...)
	}
	return out
}

func pkcs8(t testing.TB, kind string) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(fixtures(t).entities[kind].key)
	require.NoError(t, err)
	return der
}

func TestDecode_PEM_keysFindTheirChains(t *testing.T) {
	p := fixtures(t)
	rsaEntity, ecEntity := p.entities["RSA"], p.entities["ECDSA"]
	rsaEntry := keystore.Entry{Key: rsaEntity.key, Chain: rsaEntity.chain}
	ecEntry := keystore.Entry{Key: ecEntity.key, Chain: ecEntity.chain}
	sec1, err := x509.MarshalECPrivateKey(ecEntity.key.(*ecdsa.PrivateKey))
	require.NoError(t, err)
	certEntry := func(c *x509.Certificate) keystore.Entry { return keystore.Entry{Chain: []*x509.Certificate{c}} }

	for _, row := range []struct {
		sentence string
		data     []byte
		want     []keystore.Entry
	}{
		{"PKCS#8 key, then chain", slices.Concat(block("PRIVATE KEY", pkcs8(t, "RSA")), certificates(rsaEntity.chain...)),
			[]keystore.Entry{rsaEntry}},
		{"chain upside down, then PKCS#1 key", slices.Concat(certificates(p.intermediate, rsaEntity.chain[0]),
			block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaEntity.key.(*rsa.PrivateKey)))),
			[]keystore.Entry{rsaEntry}},
		{"PKCS#8 under the label of PKCS#1, as the ONAP client wrote it", slices.Concat(block("RSA PRIVATE KEY", pkcs8(t, "RSA")),
			certificates(rsaEntity.chain...)), []keystore.Entry{rsaEntry}},
		{"SEC 1 key after its parameters", slices.Concat(block("EC PARAMETERS", []byte{6, 5, 0x2b, 0x81, 4, 0, 0x22}),
			block("EC PRIVATE KEY", sec1), certificates(ecEntity.chain...)), []keystore.Entry{ecEntry}},
		{"two keys and what belongs to none", slices.Concat(block("PRIVATE KEY", pkcs8(t, "RSA")), block("PRIVATE KEY", pkcs8(t, "ECDSA")),
			certificates(p.entities["Ed25519"].chain[0], ecEntity.chain[0], rsaEntity.chain[0], p.intermediate)),
			[]keystore.Entry{rsaEntry, ecEntry, certEntry(p.entities["Ed25519"].chain[0])}},
		{"a certificate listed twice", slices.Concat(block("PRIVATE KEY", pkcs8(t, "RSA")),
			certificates(rsaEntity.chain...), certificates(rsaEntity.chain...)), []keystore.Entry{rsaEntry}},
		{"a key alone", block("PRIVATE KEY", pkcs8(t, "Ed25519")), []keystore.Entry{{Key: p.entities["Ed25519"].key}}},
		{"certificates alone", certificates(p.root, p.intermediate), []keystore.Entry{certEntry(p.root), certEntry(p.intermediate)}},
		{"text between blocks", slices.Concat([]byte("subject=CN\n"), certificates(p.root), []byte("\n# second\n"), certificates(p.intermediate)),
			[]keystore.Entry{certEntry(p.root), certEntry(p.intermediate)}},
	} {
		t.Run(row.sentence, func(t *testing.T) {
			got, format, err := keystore.Decode(row.data, "")
			require.NoError(t, err)
			assert.Equal(t, keystore.PEM, format)
			requireEntries(t, row.want, got)
		})
	}
}

func TestDecode_PEM_faultsAreNamed(t *testing.T) {
	root := certificates(fixtures(t).root)
	x25519, err := ecdh.X25519().GenerateKey(rand.Reader)
	require.NoError(t, err)
	x25519DER, err := x509.MarshalPKCS8PrivateKey(x25519)
	require.NoError(t, err)
	for _, row := range []struct {
		sentence string
		data     []byte
		want     string
	}{
		{"a block cut short", slices.Concat(root, root[:len(root)-40]),
			`reading PEM store: the PEM block "CERTIFICATE" at line 12 cannot be read: it has no END line: the file was cut short, or lines are missing`},
		{"a block that is no Base64", []byte("-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n"),
			`reading PEM store: the PEM block "CERTIFICATE" at line 1 cannot be read: it has a character that is not Base64 (number 1, U+0021); ` +
				"copy the file again as it was made; in YAML use a block scalar (key: |) and indent each line alike"},
		{"a certificate that is none", slices.Concat(root, block("CERTIFICATE", []byte{1})),
			`reading PEM store: the PEM block "CERTIFICATE" at line 12 cannot be read: x509: malformed certificate`},
		{"a key that cannot sign", block("PRIVATE KEY", x25519DER),
			`reading PEM store: the PEM block "PRIVATE KEY" at line 1 cannot be read: has a key of type *ecdh.PrivateKey, want one that can sign`},
		{"a key of OpenSSH", block("OPENSSH PRIVATE KEY", []byte{1}),
			`reading PEM store: the PEM block "OPENSSH PRIVATE KEY" at line 1 cannot be read: want PRIVATE KEY, ENCRYPTED PRIVATE KEY, RSA PRIVATE KEY or EC PRIVATE KEY ` +
				"(convert it to PKCS#8 with openssl pkcs8 -topk8 or ssh-keygen -p -m PKCS8)"},
		{"a key encrypted in the old way", pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY",
			Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "DES-EDE3-CBC,00"}, Bytes: []byte{1}}),
			`reading PEM store: the PEM block "RSA PRIVATE KEY" at line 1 cannot be read: is encrypted in OpenSSL's old way, want PKCS#8 (rewrite it with openssl pkcs8 -topk8)`},
		{"only parameters", block("EC PARAMETERS", []byte{6, 5, 0x2b, 0x81, 4, 0, 0x22}),
			`reading PEM store: holds neither a private key nor a certificate, only PEM blocks ["EC PARAMETERS"]`},
	} {
		t.Run(row.sentence, func(t *testing.T) {
			_, _, err := keystore.Decode(row.data, password)
			assert.EqualError(t, err, row.want)
		})
	}
}

func TestChain_severalIssuersOfOneName_keyIdentifierDecides(t *testing.T) {
	p := fixtures(t)
	leaf := p.entities["RSA"].chain[0]
	other := *p.intermediate
	other.SubjectKeyId = []byte("of another key")
	unidentified := *p.intermediate
	unidentified.SubjectKeyId = nil

	for _, row := range []struct {
		sentence string
		pool     []*x509.Certificate
		want     []*x509.Certificate
	}{
		{"the right one after others", []*x509.Certificate{&other, &unidentified, p.intermediate, p.root, leaf},
			[]*x509.Certificate{leaf, p.intermediate, p.root}},
		{"one without identifier may be it", []*x509.Certificate{leaf, &other, &unidentified},
			[]*x509.Certificate{leaf, &unidentified}},
		{"one with another identifier is not", []*x509.Certificate{leaf, &other}, []*x509.Certificate{leaf}},
		{"no certificate for the key", []*x509.Certificate{p.intermediate, p.root}, nil},
	} {
		t.Run(row.sentence, func(t *testing.T) {
			assert.Equal(t, row.want, keystore.Chain(leaf.PublicKey, row.pool))
		})
	}
}

func FuzzDecode(f *testing.F) {
	e := fixtures(f).entities["ECDSA"]
	f.Add(slices.Concat(block("PRIVATE KEY", pkcs8(f, "ECDSA")), certificates(e.chain...)))
	f.Add(block("RSA PRIVATE KEY", []byte{0x30, 0}))
	f.Add([]byte("-----BEGIN EC PARAMETERS-----\n-----END EC PARAMETERS-----\n"))
	passwordless, err := gopkcs12.Passwordless.Encode(e.key, e.chain[0], e.chain[1:], "")
	require.NoError(f, err)
	f.Add(passwordless)
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
