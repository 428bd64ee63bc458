package ca

import (
	"crypto/rsa"
	"math/big"
)

// OversizedRSA returns a working RSA key of 8,676 bits, a little more than anybody here computes with. Its primes
// are Mersenne's, so that it takes no time to find and protects nothing.
func OversizedRSA() *rsa.PrivateKey {
	one := big.NewInt(1)
	mersenne := func(exponent uint) *big.Int {
		n := new(big.Int).Lsh(one, exponent)
		return n.Sub(n, one)
	}
	p, q := mersenne(4423), mersenne(4253)
	phi := new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one))
	key := &rsa.PrivateKey{
		PublicKey: rsa.PublicKey{N: new(big.Int).Mul(p, q), E: 65537},
		D:         new(big.Int).ModInverse(big.NewInt(65537), phi),
		Primes:    []*big.Int{p, q},
	}
	key.Precompute()
	return key
}
