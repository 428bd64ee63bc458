package keystore_test

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/keystore"
)

func TestDetect_stores_areToldByContent(t *testing.T) {
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")})
	for _, row := range []struct {
		sentence string
		data     []byte
		want     keystore.Format
	}{
		{"a JKS", []byte("\xfe\xed\xfe\xed\x00\x00\x00\x02"), keystore.JKS},
		{"a PKCS#12", []byte{0x30, 0x82, 0x01, 0x00, 0x02, 0x01, 0x03, 0x30}, keystore.PKCS12},
		{"a PKCS#12 cut short", []byte{0x30, 0x82, 0x01, 0x00, 0x02, 0x01, 0x03}, keystore.PKCS12},
		{"a PKCS#12 in BER", []byte{0x30, 0x80, 0x02, 0x01, 0x03, 0x30, 0x80}, keystore.PKCS12},
		{"PEM", cert, keystore.PEM},
		{"PEM after text", append([]byte("Bag Attributes\n    friendlyName: x\n"), cert...), keystore.PEM},
		{"PEM after a byte order mark", append([]byte("\xef\xbb\xbf"), cert...), keystore.PEM},
		{"PEM with the line ends of Windows", append([]byte("text\r\n"), bytes.ReplaceAll(cert, []byte("\n"), []byte("\r\n"))...), keystore.PEM},
	} {
		t.Run(row.sentence, func(t *testing.T) {
			got, err := keystore.Detect(row.data)
			require.NoError(t, err)
			assert.Equal(t, row.want, got)
		})
	}
}

func TestDetect_otherData_isNamed(t *testing.T) {
	const convertible = ", want JKS, PKCS#12 or PEM (convert it with keytool -importkeystore -deststoretype PKCS12)"
	leaf := fixtures(t).entities["RSA"]
	pkcs8, err := x509.MarshalPKCS8PrivateKey(leaf.key)
	require.NoError(t, err)
	sec1, err := asn1.Marshal(struct {
		Version int
		Key     []byte
	}{1, []byte("key")})
	require.NoError(t, err)
	type algorithm struct{ ID asn1.ObjectIdentifier }
	type encrypted struct {
		Algorithm algorithm
		Data      []byte
	}
	pbes2 := algorithm{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}}
	encryptedKey, err := asn1.Marshal(encrypted{pbes2, []byte("x")})
	require.NoError(t, err)
	bcfks, err := asn1.Marshal(struct {
		Store     encrypted
		Integrity asn1.RawValue
	}{encrypted{pbes2, []byte("x")}, asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true}})
	require.NoError(t, err)
	pkcs7, err := asn1.Marshal(algorithm{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}})
	require.NoError(t, err)
	jks, err := keystore.EncodeJKS(keyEntries(t, "RSA"), password, now)
	require.NoError(t, err)
	random := make([]byte, 64)
	_, err = rand.Read(random)
	require.NoError(t, err)
	random[0] = 0x99

	for _, row := range []struct {
		sentence string
		data     []byte
		want     string
	}{
		{"nothing", nil, "store is empty, want JKS, PKCS#12 or PEM"},
		{"white space", []byte(" \n"), "store is blank, want JKS, PKCS#12 or PEM"},
		{"a JCEKS store", []byte("\xce\xce\xce\xce\x00\x00\x00\x02"), "store is a JCEKS key store" + convertible},
		{"a BCFKS store", bcfks, "store looks like a BouncyCastle BCFKS key store" + convertible},
		{"a BKS store", []byte{0, 0, 0, 2, 0, 0, 0, 20, 1, 2, 3}, "store looks like a BouncyCastle BKS key store" + convertible},
		{"a certificate in DER", leaf.chain[0].Raw,
			"store looks like a certificate in DER, want JKS, PKCS#12 or PEM (convert it with openssl x509 -inform DER)"},
		{"a PKCS#8 key in DER", pkcs8,
			"store looks like a PKCS#8 private key in DER, want JKS, PKCS#12 or PEM (convert it with openssl pkey -inform DER)"},
		{"a PKCS#1 key in DER", []byte{0x30, 0x06, 2, 1, 0, 2, 1, 5},
			"store looks like a PKCS#1 RSA private key in DER, want JKS, PKCS#12 or PEM (convert it with openssl rsa -inform DER)"},
		{"a SEC 1 key in DER", sec1,
			"store looks like a SEC 1 private key in DER, want JKS, PKCS#12 or PEM (convert it with openssl ec -inform DER)"},
		{"an encrypted key in DER", encryptedKey,
			"store looks like an encrypted PKCS#8 private key in DER, want JKS, PKCS#12 or PEM (convert it with openssl pkcs8 -inform DER)"},
		{"a PKCS#7 structure", pkcs7,
			"store looks like a PKCS#7 structure (.p7b), which holds no keys and is not read, want JKS, PKCS#12 or PEM (convert it with openssl pkcs7 -inform DER -print_certs)"},
		{"some other DER", []byte{0x30, 0x03, 0x04, 0x01, 0x00}, "store is DER or BER of no known format, want JKS, PKCS#12 or PEM"},
		{"a page of HTML", []byte("\n<!DOCTYPE html>"), "store looks like HTML or XML, want JKS, PKCS#12 or PEM"},
		{"the Base64 of a store", []byte(base64.StdEncoding.EncodeToString(jks)),
			"store looks like the Base64 of a store, which must be decoded first, want JKS, PKCS#12 or PEM"},
		{"the Base64 of a PEM file", []byte(base64.StdEncoding.EncodeToString([]byte("-----BEGIN CERTIFICATE-----"))),
			"store looks like the Base64 of a store, which must be decoded first, want JKS, PKCS#12 or PEM"},
		{"a password, which is not shown", []byte(password), "store is in no known format, want JKS, PKCS#12 or PEM"},
		{"random bytes", random, "store is in no known format, want JKS, PKCS#12 or PEM"},
	} {
		t.Run(row.sentence, func(t *testing.T) {
			_, err := keystore.Detect(row.data)
			assert.EqualError(t, err, row.want)
			_, _, err = keystore.Decode(row.data, password)
			assert.EqualError(t, err, row.want)
		})
	}
}

func TestDecode_tooLarge_isRefused(t *testing.T) {
	data := append([]byte("\xfe\xed\xfe\xed"), make([]byte, keystore.MaxSize)...)
	_, _, err := keystore.Decode(data, password)
	assert.EqualError(t, err, "JKS store has 8388612 bytes, want at most 8388608")
}

func FuzzDetect(f *testing.F) {
	f.Add([]byte("\xfe\xed\xfe\xed\x00\x00\x00\x02"))
	f.Add([]byte{0x30, 0x82, 0x01, 0x00, 0x02, 0x01, 0x03, 0x30})
	f.Add([]byte{0x30, 0x84, 0x30, 0x06})
	f.Add([]byte("-----BEGIN CERTIFICATE-----"))
	f.Add([]byte("/u3+7QAAAAIAAAAB"))
	f.Fuzz(func(t *testing.T, data []byte) {
		format, err := keystore.Detect(data)
		if (err == nil) != (format != "") {
			t.Fatalf("format %q, error %v", format, err)
		}
	})
}
