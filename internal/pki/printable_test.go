package pki

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParseAnyPrintable_underscore_isReadAndVerifies(t *testing.T) {
	data, err := os.ReadFile("../../test/testdata/certificates/underscore.pem")
	require.NoError(t, err)
	block, _ := pem.Decode(data)
	_, err = x509.ParseCertificate(block.Bytes)
	require.Error(t, err)

	cert, err := ParseAnyPrintable(block.Bytes)

	require.NoError(t, err)
	outline, err := Parse(block.Bytes)
	require.NoError(t, err)
	assert.Equal(t, block.Bytes, cert.Raw)
	assert.Equal(t, outline.RawSubject, cert.RawSubject)
	assert.Equal(t, outline.RawIssuer, cert.RawIssuer)
	assert.NotNil(t, cert.PublicKey)
	assert.NoError(t, cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature))
	assert.True(t, SelfSigned(cert))
	cert.RawTBSCertificate[20] ^= 1
	assert.Error(t, cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature))
}

func FuzzParseAnyPrintable(f *testing.F) {
	for _, name := range []string{"underscore", "negative-serial", "brainpool"} {
		data, err := os.ReadFile("../../test/testdata/certificates/" + name + ".pem")
		require.NoError(f, err)
		block, _ := pem.Decode(data)
		f.Add(block.Bytes)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		cert, err := ParseAnyPrintable(der)
		if err != nil {
			return
		}
		outline, err := Parse(der)
		if err != nil || string(cert.Raw) != string(outline.Raw) ||
			string(cert.RawSubject) != string(outline.RawSubject) ||
			string(cert.RawIssuer) != string(outline.RawIssuer) {
			t.Fatal("what is kept is not what came")
		}
	})
}
