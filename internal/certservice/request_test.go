package certservice

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/test/fixture"
)

func TestParseRequest_key_isTakenWhateverItsLabel(t *testing.T) {
	rsaKey, edKey := rsaKey(t, 2048), edKey(t)
	ecKey := must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	sec1 := must(x509.MarshalECPrivateKey(ecKey))
	parameters := pemOf("EC PARAMETERS", []byte{6, 5, 0x2b, 0x81, 4, 0, 0x22})
	for _, row := range []struct {
		key crypto.Signer
		der [][]byte
	}{
		{rsaKey, [][]byte{pkcs8(t, rsaKey), x509.MarshalPKCS1PrivateKey(rsaKey)}},
		{ecKey, [][]byte{pkcs8(t, ecKey), sec1}},
		{edKey, [][]byte{pkcs8(t, edKey)}},
	} {
		for _, der := range row.der {
			for _, label := range []string{"PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"} {
				value, behind := headerValue(label, der), b64(slices.Concat(parameters, pemOf(label, der)))
				for _, value := range []string{value, behind, strings.TrimRight(value, "=")} {
					csr := headerValue("NEW CERTIFICATE REQUEST", newCSR(t, row.key))
					r, fault := parseRequest(http.Header{"Csr": {csr}, "Pk": {value}}, false, 4096)
					require.Nil(t, fault, label)
					assert.True(t, pki.SameKey(r.Key.Public(), r.CSR.PublicKey))
				}
			}
		}
	}
}

// Clients that read PEM out of YAML or JSON send it as they found it.
func TestParseRequest_PEM_isReadAsItIsFound(t *testing.T) {
	for name, change := range map[string]func(string) string{
		"a byte order mark": func(text string) string { return "\ufeff" + text },
		"escaped":           func(text string) string { return strings.ReplaceAll(text, "\n", `\n`) },
		"one line":          func(text string) string { return strings.ReplaceAll(text, "\n", " ") },
	} {
		header := http.Header{}
		for field, file := range map[string]string{"CSR": "csr", "PK": "key",
			"OLD_CERT": "old-certificate", "OLD_PK": "old-key"} {
			header.Set(field, b64([]byte(change(string(testFile(t, "pem/"+file+".pem"))))))
		}
		_, fault := parseRequest(header, true, 4096)
		require.Nil(t, fault, name)
	}
}

func TestParseRequest_update_takesTheChainBehindTheOldCertificate(t *testing.T) {
	_, header := goldenRequest(t, "update")
	header.Set("OLD_CERT", b64(append(testFile(t, "pem/old-certificate.pem"), testFile(t, "pem/issuing-ca.pem")...)))
	r, fault := parseRequest(header, true, 4096)
	require.Nil(t, fault)
	assert.Equal(t, goldenCert(t, "old-certificate.pem"), r.OldCert)
	assert.Equal(t, []*x509.Certificate{goldenCert(t, "issuing-ca.pem")}, r.OldChain)
}

func TestParseRequest_faults_nameTheHeaderAndWhatIsWrong(t *testing.T) {
	key := newKey(t)
	csr := newCSR(t, key)
	forged := bytes.Clone(csr)
	forged[len(forged)-1] ^= 1
	exchange := must(ecdh.X25519().GenerateKey(rand.Reader))
	small := must(ecdsa.GenerateKey(elliptic.P224(), rand.Reader))
	large, middle := fixture.OversizedRSA(), rsaKey(t, 2304)
	//lint:ignore SA1019 such keys are refused
	multiPrime := must(rsa.GenerateMultiPrimeKey(rand.Reader, 4, 2048))
	request := func(der []byte) string { return headerValue("CERTIFICATE REQUEST", der) }
	private := func(der []byte) string { return headerValue("PRIVATE KEY", der) }
	certificate := func(key crypto.Signer) string { return headerValue("CERTIFICATE", selfSigned(t, key)) }
	const (
		tooLarge    = "has an RSA key of 8676 bits, want at most 2048 (MAX_RSA_BITS of the CertService)"
		tooManyBits = "has an RSA key of 2304 bits, want at most 2048 (MAX_RSA_BITS of the CertService)"
		fourPrimes  = "is an RSA key with more than two primes, want two"
		unsupported = "has a public key of a kind or size that is not supported"
		wrongKind   = "is a key of a kind or size that is not supported"
	)
	messages := map[string]string{"CSR": messageCSR, "PK": messageKey, "OLD_CERT": messageCert, "OLD_PK": messageOldKey}
	for _, row := range []struct{ header, value, reason string }{
		{"CSR", "-----BEGIN", "is not Base64"},
		{"CSR", base64.URLEncoding.EncodeToString([]byte{0xff, 0xef, 0xff}), "is not Base64"},
		{"CSR", b64([]byte("no PEM")), "is not PEM"},
		{"CSR", request([]byte("x")), "is not a PKCS#10 request"},
		{"CSR", request(append(csr, 0)), "is not a PKCS#10 request"},
		{"CSR", request(forged), "has a signature that does not verify"},
		{"CSR", request(newCSR(t, large)), tooLarge},
		{"CSR", request(newCSR(t, middle)), tooManyBits},
		{"CSR", request(newCSR(t, small)), unsupported},
		{"PK", private(pkcs8(t, large)), tooLarge},
		{"PK", private(pkcs8(t, middle)), tooManyBits},
		{"PK", private(pkcs8(t, multiPrime)), fourPrimes},
		{"PK", private(x509.MarshalPKCS1PrivateKey(multiPrime)), fourPrimes},
		{"PK", private(pkcs8(t, small)), wrongKind},
		{"PK", "%", "is not Base64"},
		{"PK", b64([]byte("no PEM")), "is not PEM"},
		{"PK", headerValue("EC PARAMETERS", []byte{5, 0}), "is not PEM"},
		{"PK", headerValue("ENCRYPTED PRIVATE KEY", []byte{0x30, 0}), "is neither PKCS#8 nor PKCS#1 nor SEC 1"},
		{"PK", private(pkcs8(t, exchange)), wrongKind},
		{"PK", private(make([]byte, maxKeyPEM)), "is too large"},
		{"PK", private(pkcs8(t, edKey(t))), "is not the key of the CSR"},
		{"OLD_CERT", "%", "is not Base64"},
		{"OLD_CERT", b64([]byte("no PEM")), "is not PEM"},
		{"OLD_CERT", headerValue("CERTIFICATE", csr), "is not an X.509 certificate"},
		{"OLD_CERT", certificate(large), tooLarge},
		{"OLD_CERT", certificate(middle), tooManyBits},
		{"OLD_CERT", certificate(small), unsupported},
		{"OLD_PK", private(csr), "is neither PKCS#8 nor PKCS#1 nor SEC 1"},
		{"OLD_PK", private(pkcs8(t, middle)), tooManyBits},
		{"OLD_PK", private(pkcs8(t, key)), "is not the key of OLD_CERT"},
	} {
		_, header := goldenRequest(t, "update")
		header.Set("CSR", request(csr))
		header.Set("PK", private(pkcs8(t, key)))
		header.Set(row.header, row.value)

		r, fault := parseRequest(header, true, 2048)

		reason, message := row.header+" "+row.reason, messages[row.header]
		switch {
		case strings.Contains(reason, "is not the key of OLD_CERT"):
			message = messageOldKeyMismatch
		case strings.Contains(reason, "an RSA key"):
			message += ": " + strings.Replace(reason, "CSR ", "the CSR ", 1)
		}
		assert.Equal(t, &requestError{message, reason}, fault)
		if row.header == "CSR" {
			assert.Equal(t, Request{}, r)
		} else {
			assert.Equal(t, csr, r.CSR.Raw, "for the audit line")
		}
	}
	header := headerOf(t, csr, key)
	header.Add("CSR", header.Get("CSR"))
	_, fault := parseRequest(header, false, 4096)
	assert.Equal(t, &requestError{messageCSR, "CSR is given more than once"}, fault)
	_, fault = parseRequest(headerOf(t, newCSR(t, middle), middle), false, 4096)
	assert.Nil(t, fault, "within the bound")
}

func selfSigned(t *testing.T, key crypto.Signer) []byte {
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "old"}}
	return must(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))
}

func FuzzParseRequest(f *testing.F) {
	_, header := goldenRequest(f, "update")
	f.Add(header.Get("CSR"), header.Get("PK"), header.Get("OLD_CERT"), header.Get("OLD_PK"))
	good := enrollHeader(f)
	f.Add(good.Get("CSR"), good.Get("PK"), "", "")
	f.Add(headerValue("CERTIFICATE REQUEST", []byte{0x30, 0x80}), headerValue("EC PARAMETERS", nil), "=", "%")
	f.Fuzz(func(t *testing.T, csr, key, oldCert, oldKey string) {
		header := http.Header{"Csr": {csr}, "Pk": {key}, "Old_cert": {oldCert}, "Old_pk": {oldKey}}
		for _, update := range []bool{false, true} {
			r, fault := parseRequest(header, update, 4096)
			if fault != nil {
				for _, value := range []string{csr, key, oldCert, oldKey} {
					if len(value) > 40 && strings.Contains(fault.Error(), value) {
						t.Fatal("the error holds a header's value")
					}
				}
				continue
			}
			if !pki.SameKey(r.Key.Public(), r.CSR.PublicKey) ||
				update && !pki.SameKey(r.OldKey.Public(), r.OldCert.PublicKey) {
				t.Fatal("accepted with a key that does not match")
			}
		}
	})
}

// Nothing may be computed with numbers that do not belong to a key of that size, whatever else is wrong with them.
func TestFaultInRSAKey_numbers(t *testing.T) {
	type pkcs1 struct {
		Version                        int
		N, E, D, P, Q, DP, DQ, Inverse *big.Int
	}
	type wrapped struct {
		Version   int
		Algorithm []asn1.ObjectIdentifier
		Key       []byte
	}
	bits := func(n uint) *big.Int { return new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), n), big.NewInt(1)) }
	half := bits(1024)
	good := pkcs1{0, bits(2048), big.NewInt(65537), bits(2048), half, half, half, half, half}
	for name, change := range map[string]func(*pkcs1){
		"good":             func(*pkcs1) {},
		"version 1":        func(k *pkcs1) { k.Version = 1 },
		"version 2":        func(k *pkcs1) { k.Version = 2 },
		"modulus":          func(k *pkcs1) { k.N = bits(2049) },
		"public exponent":  func(k *pkcs1) { k.E = bits(2049) },
		"private exponent": func(k *pkcs1) { k.D = bits(40_000) },
		"first prime":      func(k *pkcs1) { k.P = bits(2048) },
		"unequal primes":   func(k *pkcs1) { k.P, k.Q = bits(448), bits(1600) },
		"second prime":     func(k *pkcs1) { k.Q = bits(40_000) },
		"CRT exponent":     func(k *pkcs1) { k.DQ = bits(2048) },
		"coefficient":      func(k *pkcs1) { k.Inverse = bits(2048) },
	} {
		k := good
		change(&k)
		der := must(asn1.Marshal(k))
		inPKCS8 := must(asn1.Marshal(wrapped{0, []asn1.ObjectIdentifier{{1, 2, 840, 113549, 1, 1, 1}}, der}))
		assert.Equal(t, name != "good", faultInRSAKey(der, 2048) != "", name)
		assert.Equal(t, name != "good", faultInRSAKey(inPKCS8, 2048) != "", name)
	}
	for _, der := range [][]byte{pkcs8(t, newKey(t)), nil, {0x30}, {0x30, 0}, {2, 1, 0}} {
		assert.Empty(t, faultInRSAKey(der, 2048), "parsing says what is wrong with it")
	}
}

func derOf(t testing.TB, name string) []byte {
	t.Helper()
	block, _ := pem.Decode(testFile(t, name))
	require.NotNil(t, block)
	return block.Bytes
}

func TestPreferWait_readsTheHeader(t *testing.T) {
	for value, want := range map[string]time.Duration{
		"": 0, "wait=30": 30 * time.Second, "respond-async, wait=5": 5 * time.Second, "WAIT = 7 ; x": 7 * time.Second,
		"wait=0": 0, "wait=-1": 0, "wait=5s": 0, "wait": 0, "wait=99999999999999999999": 0, "waiting=3": 0,
	} {
		assert.Equal(t, want, preferWait(http.Header{"Prefer": {value}}), value)
	}
}
