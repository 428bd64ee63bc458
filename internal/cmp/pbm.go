package cmp

import (
	"crypto"
	"crypto/rand"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// pbmIterations is how often PBM's one-way function is applied in what is sent: what the ONAP server and
// Bouncy Castle use, and few enough for a service that protects every message anew.
const pbmIterations = 1000

// saltSize is the length in bytes of the salts that are made here.
const saltSize = 16

func newPBM(protection Protection, hash crypto.Hash) MAC {
	salt := make([]byte, saltSize)
	rand.Read(salt)
	return MAC{Protection: protection, KeyHash: hash, Hash: hash, Salt: salt, Iterations: pbmIterations}
}

// parsePBM reads the parameters of id-PasswordBasedMac (RFC 4211, 4.4; RFC 9481, 6.1.1):
//
//	PBMParameter ::= SEQUENCE {
//	    salt                OCTET STRING,
//	    owf                 AlgorithmIdentifier,
//	    iterationCount      INTEGER,
//	    mac                 AlgorithmIdentifier }
func parsePBM(parameters []byte) (MAC, error) {
	if parameters == nil {
		return MAC{}, errors.New("PBMParameter is absent")
	}
	outer := newDecoder(parameters, "PBMParameter")
	d := outer.sequence("PBMParameter")
	salt := d.octets("salt")
	owf := parseAlgorithm(d, "owf")
	iterations := d.bigInt(cbasn1.INTEGER, "iterationCount")
	mac := parseAlgorithm(d, "mac")
	d.end()
	if err := outer.end(); err != nil {
		return MAC{}, err
	}
	if err := checkMACBounds(salt, iterations, maxPBMIterations); err != nil {
		return MAC{}, fmt.Errorf("PBMParameter: %w", err)
	}
	keyHash, err := hashOf(owf)
	if err != nil {
		return MAC{}, fmt.Errorf("PBMParameter: owf: %w", err)
	}
	hash, err := hmacOf(mac)
	if err != nil {
		return MAC{}, fmt.Errorf("PBMParameter: mac: %w", err)
	}
	protection := ProtectionPBMSHA256
	if keyHash == crypto.SHA1 {
		protection = ProtectionPBMSHA1
	}
	return MAC{Protection: protection, KeyHash: keyHash, Hash: hash, Salt: salt, Iterations: int(iterations.Int64())}, nil
}

func (m MAC) pbmIdentifier() (AlgorithmIdentifier, error) {
	parameters, err := encode(func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1OctetString(m.Salt)
			hashIdentifier(m.KeyHash).marshal(b)
			b.AddASN1Int64(int64(m.Iterations))
			hmacIdentifier(m.Hash).marshal(b)
		})
	})
	return AlgorithmIdentifier{Algorithm: oidPasswordBasedMAC, Parameters: parameters}, err
}

// pbmKey derives the MAC key: the one-way function over secret and salt, and then over its own output,
// iterationCount times in all (RFC 4211, 4.4). HMAC takes keys of any length, so the whole output is the key.
func (m MAC) pbmKey(secret []byte) []byte {
	h := m.KeyHash.New()
	h.Write(secret)
	h.Write(m.Salt)
	key := h.Sum(nil)
	for range m.Iterations - 1 {
		h.Reset()
		h.Write(key)
		key = h.Sum(key[:0])
	}
	return key
}
