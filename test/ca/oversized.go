package ca

import (
	"crypto/rsa"
	"math/big"
)

// OversizedRSA returns a working RSA key of 8,676 bits, a little more than anybody here computes with.
func OversizedRSA() *rsa.PrivateKey { return mersenneRSA(4423, 4253) }

// LargeRSA returns a working RSA key of 7,470 bits, with which a signature takes a hundred times as long as with 2,048.
func LargeRSA() *rsa.PrivateKey { return mersenneRSA(3217, 4253) }

// mersenneRSA makes a key of Mersenne primes, so that it takes no time to find and protects nothing.
func mersenneRSA(p, q uint) *rsa.PrivateKey {
	one, e := big.NewInt(1), big.NewInt(65537)
	lessOne := func(exponent uint) *big.Int { // the prime's predecessor
		n := new(big.Int).Lsh(one, exponent)
		return n.Sub(n, big.NewInt(2))
	}
	d := new(big.Int).ModInverse(e, new(big.Int).Mul(lessOne(p), lessOne(q)))
	primes := []*big.Int{new(big.Int).Add(lessOne(p), one), new(big.Int).Add(lessOne(q), one)}
	key := &rsa.PrivateKey{
		PublicKey: rsa.PublicKey{N: new(big.Int).Mul(primes[0], primes[1]), E: int(e.Int64())}, D: d, Primes: primes,
	}
	key.Precompute()
	return key
}
