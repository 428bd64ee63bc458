package certservice

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"math/big"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// unbalanced is a valid key of 2,048 bits with primes of 448 and 1,600.
func unbalanced(t *testing.T) *rsa.PrivateKey {
	t.Helper()
	e := big.NewInt(65537)
	for {
		p, err := rand.Prime(rand.Reader, 448)
		require.NoError(t, err)
		q, err := rand.Prime(rand.Reader, 1600)
		require.NoError(t, err)
		one := big.NewInt(1)
		phi := new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one))
		d := new(big.Int).ModInverse(e, phi)
		if d == nil {
			continue
		}
		public := rsa.PublicKey{N: new(big.Int).Mul(p, q), E: int(e.Int64())}
		key := &rsa.PrivateKey{PublicKey: public, D: d, Primes: []*big.Int{p, q}}
		key.Precompute()
		require.NoError(t, key.Validate(), "crypto/rsa takes it")
		return key
	}
}

func TestHandler_costlyRSAKeys_areRefused(t *testing.T) {
	//lint:ignore SA1019 such keys are what this is about
	multiPrime, err := rsa.GenerateMultiPrimeKey(rand.Reader, 4, 2048)
	require.NoError(t, err)
	ordinary, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	s := newService(t, goldenAuthority(t), func(cfg *HandlerConfig) { cfg.MaxRSABits = 2048 })
	const primes = "Wrong key (PK) format: PK is an RSA key with more than two primes, want two"

	for _, row := range []struct {
		name string
		key  *rsa.PrivateKey
		der  func(*rsa.PrivateKey) []byte
		want string // "": served
	}{
		{"ordinary, PKCS#8", ordinary, func(k *rsa.PrivateKey) []byte { return pkcs8(t, k) }, ""},
		{"ordinary, PKCS#1", ordinary, x509.MarshalPKCS1PrivateKey, ""},
		{"four primes, PKCS#8", multiPrime, func(k *rsa.PrivateKey) []byte { return pkcs8(t, k) }, primes},
		{"four primes, PKCS#1", multiPrime, x509.MarshalPKCS1PrivateKey, primes},
		{"primes of different size", unbalanced(t), x509.MarshalPKCS1PrivateKey,
			"Wrong key (PK) format: PK is an RSA key with a number that is too large for its size"},
	} {
		t.Run(row.name, func(t *testing.T) {
			header := http.Header{"Csr": {headerValue("CERTIFICATE REQUEST", newCSR(t, row.key))},
				"Pk": {headerValue("PRIVATE KEY", row.der(row.key))}}

			r := s.get(t, "/v1/certificate/RA", header)

			if row.want == "" {
				assert.Equal(t, http.StatusOK, r.StatusCode, r.text)
				return
			}
			assert.Equal(t, http.StatusBadRequest, r.StatusCode)
			assert.JSONEq(t, `{"errorMessage":"`+row.want+`"}`, r.text)
			assert.Equal(t, strings.TrimPrefix(row.want, "Wrong key (PK) format: "), s.audit(t)["reason"])
		})
	}
}

func TestHandler_maxRSABits_holdsForEachKey(t *testing.T) {
	large, err := rsa.GenerateKey(rand.Reader, 2304)
	require.NoError(t, err)
	path, golden := goldenRequest(t, "update.request.json")
	csr := headerValue("CERTIFICATE REQUEST", newCSR(t, large))
	key := headerValue("PRIVATE KEY", pkcs8(t, large))
	cert := headerValue("CERTIFICATE", selfSigned(t, large))
	const told = " has an RSA key of 2304 bits, want at most 2048 (MAX_RSA_BITS of the CertService)"
	for name, row := range map[string]struct{ header, value, want string }{
		"CSR":      {headerCSR, csr, messageCSR + ": the CSR" + told},
		"PK":       {headerKey, key, messageKey + ": PK" + told},
		"OLD_CERT": {headerOldCert, cert, messageCert + ": OLD_CERT" + told},
		"OLD_PK":   {headerOldKey, key, messageOldKey + ": OLD_PK" + told},
	} {
		t.Run(name, func(t *testing.T) {
			s := newService(t, goldenAuthority(t), func(cfg *HandlerConfig) { cfg.MaxRSABits = 2048 })
			header := golden.Clone()
			header.Set(row.header, row.value)

			r := s.get(t, path, header)

			assert.Equal(t, http.StatusBadRequest, r.StatusCode)
			assert.JSONEq(t, `{"errorMessage":"`+row.want+`"}`, r.text)
		})
	}
	s := newService(t, goldenAuthority(t), nil)
	r := s.get(t, "/v1/certificate/RA", http.Header{"Csr": {csr}, "Pk": {key}})
	assert.Equal(t, http.StatusOK, r.StatusCode, r.text)
}

// Nothing may be computed with numbers that do not belong to a key of that size, whatever else is wrong with them.
func TestFaultInRSAKey_numbers(t *testing.T) {
	type pkcs1 struct {
		Version                  int
		N                        *big.Int
		E                        *big.Int
		D, P, Q, DP, DQ, Inverse *big.Int
	}
	bits := func(n uint) *big.Int { return new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), n), big.NewInt(1)) }
	good := pkcs1{0, bits(2048), big.NewInt(65537), bits(2048), bits(1024), bits(1024), bits(1024), bits(1024), bits(1024)}
	for name, row := range map[string]struct {
		change func(*pkcs1)
		fault  bool
	}{
		"good":             {func(*pkcs1) {}, false},
		"version 1":        {func(k *pkcs1) { k.Version = 1 }, true},
		"version 2":        {func(k *pkcs1) { k.Version = 2 }, true},
		"modulus":          {func(k *pkcs1) { k.N = bits(2049) }, true},
		"public exponent":  {func(k *pkcs1) { k.E = bits(2049) }, true},
		"private exponent": {func(k *pkcs1) { k.D = bits(40_000) }, true},
		"first prime":      {func(k *pkcs1) { k.P = bits(2048) }, true},
		"second prime":     {func(k *pkcs1) { k.Q = bits(40_000) }, true},
		"CRT exponent":     {func(k *pkcs1) { k.DQ = bits(2048) }, true},
		"coefficient":      {func(k *pkcs1) { k.Inverse = bits(2048) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			k := good
			row.change(&k)
			der, err := asn1.Marshal(k)
			require.NoError(t, err)
			wrapped, err := asn1.Marshal(struct {
				Version   int
				Algorithm []asn1.ObjectIdentifier
				Key       []byte
			}{0, []asn1.ObjectIdentifier{{1, 2, 840, 113549, 1, 1, 1}}, der})
			require.NoError(t, err)

			assert.Equal(t, row.fault, faultInRSAKey(der, 2048) != "", "PKCS#1")
			assert.Equal(t, row.fault, faultInRSAKey(wrapped, 2048) != "", "PKCS#8")
		})
	}
	assert.Empty(t, faultInRSAKey(pkcs8(t, newKey(t)), 2048))
	for _, der := range [][]byte{nil, {0x30}, {0x30, 0}, {2, 1, 0}} {
		assert.Empty(t, faultInRSAKey(der, 2048), "parsing says what is wrong with it")
	}
}
