package cmp

import (
	"crypto"
	"crypto/pbkdf2"
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// pbmac1Iterations is PBKDF2's iteration count in what is sent, Bouncy Castle's default. The secrets are
// made by machines, so more would cost time and gain nothing.
const pbmac1Iterations = 8192

// Bounds of a PBMAC1 key in bytes.
const (
	minKeyLength = 20
	maxKeyLength = 512
)

func newPBMAC1() MAC {
	salt := make([]byte, saltSize)
	rand.Read(salt)
	return MAC{Protection: ProtectionPBMAC1, KeyHash: crypto.SHA256, Hash: crypto.SHA256, Salt: salt,
		Iterations: pbmac1Iterations, keyLength: crypto.SHA256.Size()}
}

// parsePBMAC1 reads the parameters of id-PBMAC1 (RFC 8018, A.5 and A.2; RFC 9481, 6.1.2):
//
//	PBMAC1-params ::= SEQUENCE {
//	    keyDerivationFunc AlgorithmIdentifier,   -- PBKDF2
//	    messageAuthScheme AlgorithmIdentifier }
//	PBKDF2-params ::= SEQUENCE {
//	    salt CHOICE { specified OCTET STRING, otherSource AlgorithmIdentifier },
//	    iterationCount INTEGER (1..MAX),
//	    keyLength INTEGER (1..MAX) OPTIONAL,
//	    prf AlgorithmIdentifier DEFAULT algid-hmacWithSHA1 }
func parsePBMAC1(parameters []byte) (MAC, error) {
	if parameters == nil {
		return MAC{}, errors.New("PBMAC1-params are absent")
	}
	outer := newDecoder(parameters, "PBMAC1-params")
	d := outer.sequence("PBMAC1-params")
	derivation := parseAlgorithm(d, "keyDerivationFunc")
	scheme := parseAlgorithm(d, "messageAuthScheme")
	d.end()
	if err := outer.end(); err != nil {
		return MAC{}, err
	}
	m, err := parsePBKDF2(derivation)
	if err != nil {
		return MAC{}, fmt.Errorf("PBMAC1-params: %w", err)
	}
	if m.Hash, err = hmacOf(scheme); err != nil {
		return MAC{}, fmt.Errorf("PBMAC1-params: messageAuthScheme: %w", err)
	}
	if m.keyLength == 0 {
		m.keyLength = m.Hash.Size()
	}
	return m, nil
}

func parsePBKDF2(derivation AlgorithmIdentifier) (MAC, error) {
	// Bouncy Castle, and EJBCA with it, names PBES2 here and writes PBKDF2's parameters all the same.
	if !derivation.Algorithm.Equal(oidPBKDF2) && !derivation.Algorithm.Equal(oidPBES2) {
		return MAC{}, fmt.Errorf("key derivation %s is not supported, want PBKDF2", derivation.Algorithm)
	}
	outer := newDecoder(derivation.Parameters, "PBKDF2-params")
	d := outer.sequence("PBKDF2-params")
	salt := d.octets("salt")
	iterations := d.bigInt(cbasn1.INTEGER, "iterationCount")
	var length *big.Int
	if d.next(cbasn1.INTEGER) {
		length = d.bigInt(cbasn1.INTEGER, "keyLength")
	}
	prf := hmacIdentifier(crypto.SHA1)
	if d.more() {
		prf = parseAlgorithm(d, "prf")
	}
	d.end()
	if err := outer.end(); err != nil {
		return MAC{}, err
	}
	if err := checkMACBounds(salt, iterations, maxPBMAC1Iterations); err != nil {
		return MAC{}, fmt.Errorf("PBKDF2-params: %w", err)
	}
	m := MAC{Protection: ProtectionPBMAC1, Salt: salt, Iterations: int(iterations.Int64())}
	if length != nil {
		if !between(length, minKeyLength, maxKeyLength) {
			return MAC{}, fmt.Errorf("PBKDF2-params: keyLength is %s, want %d to %d", shortInt(length), minKeyLength, maxKeyLength)
		}
		m.keyLength = int(length.Int64())
	}
	var err error
	if m.KeyHash, err = hmacOf(prf); err != nil {
		return MAC{}, fmt.Errorf("PBKDF2-params: prf: %w", err)
	}
	return m, nil
}

func (m MAC) pbmac1Identifier() (AlgorithmIdentifier, error) {
	derivation, err := encode(func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1OctetString(m.Salt)
			b.AddASN1Int64(int64(m.Iterations))
			b.AddASN1Int64(int64(m.keyLength))
			hmacIdentifier(m.KeyHash).marshal(b)
		})
	})
	if err != nil {
		return AlgorithmIdentifier{}, err
	}
	parameters, err := encode(func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			AlgorithmIdentifier{Algorithm: oidPBKDF2, Parameters: derivation}.marshal(b)
			hmacIdentifier(m.Hash).marshal(b)
		})
	})
	return AlgorithmIdentifier{Algorithm: oidPBMAC1, Parameters: parameters}, err
}

func (m MAC) pbmac1Key(secret []byte) ([]byte, error) {
	return pbkdf2.Key(m.KeyHash.New, string(secret), m.Salt, m.Iterations, m.keyLength)
}

// checkMACBounds refuses parameters by which a peer could have us compute for ever, or learn the secret
// by guessing cheaply (RFC 4211, 4.4; RFC 9045, 4).
func checkMACBounds(salt []byte, iterations *big.Int, most int64) error {
	if len(salt) < minSaltSize || len(salt) > maxSaltSize {
		return fmt.Errorf("salt has %d bytes, want %d to %d", len(salt), minSaltSize, maxSaltSize)
	}
	if !between(iterations, minIterations, most) {
		return fmt.Errorf("iterationCount is %s, want %d to %d", shortInt(iterations), minIterations, most)
	}
	return nil
}

func between(n *big.Int, least, most int64) bool {
	return n.IsInt64() && n.Int64() >= least && n.Int64() <= most
}

// shortInt prints a foreign number without letting it fill the log.
func shortInt(n *big.Int) string {
	if n.IsInt64() {
		return n.String()
	}
	return fmt.Sprintf("a number of %d bits", n.BitLen())
}
