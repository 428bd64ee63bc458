package certservice

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/test/ca"
)

func TestParseRequest_key_isTakenWhateverItsLabel(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	ecKey, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	require.NoError(t, err)
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	sec1, err := x509.MarshalECPrivateKey(ecKey)
	require.NoError(t, err)
	parameters := pem.EncodeToMemory(&pem.Block{Type: "EC PARAMETERS", Bytes: []byte{6, 5, 0x2b, 0x81, 4, 0, 0x22}})
	openssl := append(parameters, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1})...)

	rsaCSR, ecCSR, edCSR := newCSR(t, rsaKey), newCSR(t, ecKey), newCSR(t, edKey)
	for _, row := range []struct {
		name string
		csr  []byte
		key  string
	}{
		{"PKCS#8 RSA", rsaCSR, headerValue("PRIVATE KEY", pkcs8(t, rsaKey))},
		{"PKCS#8 RSA under the label of PKCS#1", rsaCSR, headerValue("RSA PRIVATE KEY", pkcs8(t, rsaKey))},
		{"PKCS#1", rsaCSR, headerValue("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey))},
		{"PKCS#1 under the label of PKCS#8", rsaCSR, headerValue("PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey))},
		{"PKCS#8 ECDSA", ecCSR, headerValue("PRIVATE KEY", pkcs8(t, ecKey))},
		{"PKCS#8 ECDSA under the label of SEC 1", ecCSR, headerValue("EC PRIVATE KEY", pkcs8(t, ecKey))},
		{"SEC 1", ecCSR, headerValue("EC PRIVATE KEY", sec1)},
		{"SEC 1 under the label of PKCS#8", ecCSR, headerValue("PRIVATE KEY", sec1)},
		{"SEC 1 behind its parameters", ecCSR, base64.StdEncoding.EncodeToString(openssl)},
		{"PKCS#8 Ed25519", edCSR, headerValue("PRIVATE KEY", pkcs8(t, edKey))},
		{"Base64 without padding", edCSR, strings.TrimRight(headerValue("PRIVATE KEY", pkcs8(t, edKey)), "=")},
	} {
		t.Run(row.name, func(t *testing.T) {
			for _, label := range []string{"CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"} {
				r, fault := parseRequest(http.Header{"Csr": {headerValue(label, row.csr)}, "Pk": {row.key}}, false, DefaultMaxRSABits)
				require.Nil(t, fault)
				assert.True(t, pki.SameKey(r.Key.Public(), r.CSR.PublicKey))
			}
		})
	}
}

// Clients that read PEM out of YAML or JSON send it as they found it.
func TestParseRequest_PEM_isReadAsItIsFound(t *testing.T) {
	for name, change := range map[string]func(string) string{
		"a byte order mark": func(text string) string { return "\ufeff" + text },
		"escaped":           func(text string) string { return strings.ReplaceAll(text, "\n", `\n`) },
		"one line":          func(text string) string { return strings.ReplaceAll(text, "\n", " ") },
	} {
		t.Run(name, func(t *testing.T) {
			header := http.Header{}
			for field, file := range map[string]string{"Csr": "csr.pem", "Pk": "key.pem", "Old_cert": "old-certificate.pem", "Old_pk": "old-key.pem"} {
				header.Set(field, base64.StdEncoding.EncodeToString([]byte(change(string(golden(t, "pem/"+file))))))
			}
			_, fault := parseRequest(header, true, DefaultMaxRSABits)
			require.Nil(t, fault)
		})
	}
}

func TestParseRequest_update_takesTheChainBehindTheOldCertificate(t *testing.T) {
	_, header := goldenRequest(t, "update.request.json")
	header.Set("OLD_CERT", base64.StdEncoding.EncodeToString(append(golden(t, "pem/old-certificate.pem"), golden(t, "pem/issuing-ca.pem")...)))

	r, fault := parseRequest(header, true, DefaultMaxRSABits)

	require.Nil(t, fault)
	assert.Equal(t, goldenCert(t, "old-certificate.pem"), r.OldCert)
	assert.Equal(t, []*x509.Certificate{goldenCert(t, "issuing-ca.pem")}, r.OldChain)
}

func TestParseRequest_faults_nameTheHeaderAndWhatIsWrong(t *testing.T) {
	key := newKey(t)
	csr := newCSR(t, key)
	forged := append([]byte{}, csr...)
	forged[len(forged)-1] ^= 1
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	exchange, err := ecdh.X25519().GenerateKey(rand.Reader)
	require.NoError(t, err)
	large := ca.OversizedRSA()
	const tooLarge = "has an RSA key of 8676 bits, want at most 4096 (MAX_RSA_BITS of the CertService)"
	small, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	require.NoError(t, err)
	b64 := func(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

	for _, row := range []struct {
		header, value   string
		message, reason string
	}{
		{"CSR", "", messageCSR, "CSR is missing"},
		{"CSR", "-----BEGIN", messageCSR, "CSR is not Base64"},
		{"CSR", base64.URLEncoding.EncodeToString([]byte{0xff, 0xef, 0xff}), messageCSR, "CSR is not Base64"},
		{"CSR", b64("no PEM"), messageCSR, "CSR is not PEM"},
		{"CSR", headerValue("CERTIFICATE REQUEST", []byte("x")), messageCSR, "CSR is not a PKCS#10 request"},
		{"CSR", headerValue("CERTIFICATE REQUEST", append(csr, 0)), messageCSR, "CSR is not a PKCS#10 request"},
		{"CSR", headerValue("CERTIFICATE REQUEST", forged), messageCSR, "CSR has a signature that does not verify"},
		{"CSR", headerValue("CERTIFICATE REQUEST", newCSR(t, large)), messageCSR + ": the CSR " + tooLarge, "CSR " + tooLarge},
		{"CSR", headerValue("CERTIFICATE REQUEST", newCSR(t, small)), messageCSR, "CSR has a public key of a kind or size that is not supported"},
		{"PK", headerValue("PRIVATE KEY", pkcs8(t, large)), messageKey + ": PK " + tooLarge, "PK " + tooLarge},
		{"PK", headerValue("PRIVATE KEY", pkcs8(t, small)), messageKey, "PK is a key of a kind or size that is not supported"},
		{"PK", "", messageKey, "PK is missing"},
		{"PK", "%", messageKey, "PK is not Base64"},
		{"PK", b64("no PEM"), messageKey, "PK is not PEM"},
		{"PK", headerValue("EC PARAMETERS", []byte{5, 0}), messageKey, "PK is not PEM"},
		{"PK", headerValue("ENCRYPTED PRIVATE KEY", []byte{0x30, 0}), messageKey, "PK is neither PKCS#8 nor PKCS#1 nor SEC 1"},
		{"PK", headerValue("PRIVATE KEY", pkcs8(t, exchange)), messageKey, "PK is a key of a kind or size that is not supported"},
		{"PK", headerValue("PRIVATE KEY", make([]byte, maxKeyPEM)), messageKey, "PK is too large"},
		{"PK", headerValue("PRIVATE KEY", pkcs8(t, edKey)), messageKey, "PK is not the key of the CSR"},
		{"OLD_CERT", "", messageCert, "OLD_CERT is missing"},
		{"OLD_CERT", "%", messageCert, "OLD_CERT is not Base64"},
		{"OLD_CERT", b64("no PEM"), messageCert, "OLD_CERT is not PEM"},
		{"OLD_CERT", headerValue("CERTIFICATE", csr), messageCert, "OLD_CERT is not an X.509 certificate"},
		{"OLD_CERT", headerValue("CERTIFICATE", selfSigned(t, large)), messageCert + ": OLD_CERT " + tooLarge, "OLD_CERT " + tooLarge},
		{"OLD_CERT", headerValue("CERTIFICATE", selfSigned(t, small)), messageCert, "OLD_CERT has a public key of a kind or size that is not supported"},
		{"OLD_PK", "", messageOldKey, "OLD_PK is missing"},
		{"OLD_PK", headerValue("PRIVATE KEY", csr), messageOldKey, "OLD_PK is neither PKCS#8 nor PKCS#1 nor SEC 1"},
		{"OLD_PK", headerValue("PRIVATE KEY", pkcs8(t, key)), messageOldKeyMismatch, "OLD_PK is not the key of OLD_CERT"},
	} {
		t.Run(row.reason, func(t *testing.T) {
			_, header := goldenRequest(t, "update.request.json")
			header.Set("CSR", headerValue("CERTIFICATE REQUEST", csr))
			header.Set("PK", headerValue("PRIVATE KEY", pkcs8(t, key)))
			header.Set(row.header, row.value)

			r, fault := parseRequest(header, true, DefaultMaxRSABits)

			assert.Equal(t, &requestError{row.message, row.reason}, fault)
			if row.header == "CSR" {
				assert.Equal(t, Request{}, r)
			} else {
				assert.Equal(t, csr, r.CSR.Raw, "for the audit line")
			}
		})
	}
}

func selfSigned(t *testing.T, key crypto.Signer) []byte {
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "old"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	return der
}

func TestParseRequest_header_givenTwiceIsRefused(t *testing.T) {
	header := enrollHeader(t)
	header.Add("CSR", header.Get("CSR"))

	_, fault := parseRequest(header, false, DefaultMaxRSABits)

	assert.Equal(t, &requestError{messageCSR, "CSR is given more than once"}, fault)
}

func FuzzParseRequest(f *testing.F) {
	_, header := goldenRequest(f, "update.request.json")
	f.Add(header.Get("CSR"), header.Get("PK"), header.Get("OLD_CERT"), header.Get("OLD_PK"))
	good := enrollHeader(f)
	f.Add(good.Get("CSR"), good.Get("PK"), "", "")
	f.Add(headerValue("CERTIFICATE REQUEST", []byte{0x30, 0x80}), headerValue("EC PARAMETERS", nil), "=", "%")
	f.Fuzz(func(t *testing.T, csr, key, oldCert, oldKey string) {
		header := http.Header{"Csr": {csr}, "Pk": {key}, "Old_cert": {oldCert}, "Old_pk": {oldKey}}
		for _, update := range []bool{false, true} {
			r, fault := parseRequest(header, update, DefaultMaxRSABits)
			if fault != nil {
				for _, value := range []string{csr, key, oldCert, oldKey} {
					if len(value) > 40 && strings.Contains(fault.Error(), value) {
						t.Fatal("the error holds a header's value")
					}
				}
				continue
			}
			if !pki.SameKey(r.Key.Public(), r.CSR.PublicKey) {
				t.Fatal("taken with a key that is not the CSR's")
			}
			if update && !pki.SameKey(r.OldKey.Public(), r.OldCert.PublicKey) {
				t.Fatal("taken with an old key that is not the old certificate's")
			}
		}
	})
}
