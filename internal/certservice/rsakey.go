package certservice

import (
	"crypto"
	"crypto/rsa"
	"fmt"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// The least and the most that HandlerConfig.MaxRSABits may be, and what it is when it is not set. Above 8,192 bits
// nothing here computes with a key, nor does crypto/tls.
const (
	LeastMaxRSABits   = 2048
	DefaultMaxRSABits = 4096
	MostMaxRSABits    = 8192
)

// checkRSABits refuses an RSA key above the bound. The error is a csrFault, which also fits other subjects than a CSR.
func checkRSABits(public crypto.PublicKey, most int) error {
	if key, ok := public.(*rsa.PublicKey); ok {
		return tooManyBits(key.N.BitLen(), most)
	}
	return nil
}

func tooManyBits(bits, most int) error {
	if bits <= most {
		return nil
	}
	const text = "has an RSA key of %d bits, want at most %d (MAX_RSA_BITS of the CertService)"
	return csrFault(fmt.Sprintf(text, bits, most))
}

// faultInRSAKey looks into the DER of a private key before anything is computed with it, and says why an RSA key is
// refused. Signing with more than two primes, or with primes of very different size, takes many times what it takes
// with two of half the size. It is empty for a good RSA key, and for what is none: parsing finds out.
func faultInRSAKey(der []byte, maxBits int) string {
	numbers, ok := rsaNumbers(der)
	if !ok {
		return ""
	}
	version, modulus := numbers[0], numbers[1].BitLen()
	if version.Sign() != 0 { // RFC 8017, A.1.2
		return "is an RSA key with more than two primes, want two"
	}
	if err := tooManyBits(modulus, maxBits); err != nil {
		return err.Error()
	}
	const prime1 = 4
	for i, number := range numbers {
		most := modulus
		if i >= prime1 { // the primes, and what is below one of them
			most = modulus * 5 / 8
		}
		if number.BitLen() > most {
			return "is an RSA key with a number that is too large for its size"
		}
	}
	return ""
}

// rsaNumbers returns the integers that an RSAPrivateKey (RFC 8017, A.1.2) begins with, itself or in PKCS#8, from the
// version to the coefficient.
func rsaNumbers(der []byte) ([]*big.Int, bool) {
	var body, key cryptobyte.String
	s := cryptobyte.String(der)
	if !s.ReadASN1(&body, cbasn1.SEQUENCE) {
		return nil, false
	}
	rest := body
	if rest.SkipASN1(cbasn1.INTEGER) && rest.SkipASN1(cbasn1.SEQUENCE) && rest.ReadASN1(&key, cbasn1.OCTET_STRING) {
		if !key.ReadASN1(&body, cbasn1.SEQUENCE) {
			return nil, false
		}
	}
	var numbers []*big.Int
	for len(numbers) < 9 && body.PeekASN1Tag(cbasn1.INTEGER) {
		number := new(big.Int)
		if !body.ReadASN1Integer(number) {
			return nil, false
		}
		numbers = append(numbers, number)
	}
	return numbers, len(numbers) >= 3 // SEC 1 has one, and an OCTET STRING
}
