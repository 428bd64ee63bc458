package cmp

import (
	"crypto"
	"crypto/hmac"
	"crypto/pbkdf2"
	"errors"
	"fmt"
	"math/big"

	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Bounds on what a peer may make us compute; RFC 4211, 4.4
// wants at least 100 iterations and 8 bytes of salt.
const (
	minIterations       = 100
	maxPBMIterations    = 100_000
	maxPBMAC1Iterations = 1_000_000
	minSaltSize         = 8
	maxSaltSize         = 256
	// Bounds of a PBMAC1 key in bytes.
	minKeyLength = 20
	maxKeyLength = 512
	// maxMACWork bounds the iterations for the keys of all answers of a transaction, and for the
	// key of one message.
	maxMACWork = 2_000_000
)

// What is sent: the iterations of PBM that the ONAP server and Bouncy Castle use, few enough for a
// service that protects every message, and those of PBKDF2 that Bouncy Castle has as its default.
// The secrets are made by machines, so that more would cost time and gain nothing.
const (
	pbmIterations    = 1000
	pbmac1Iterations = 8192
	saltSize         = 16 // bytes
)

// MAC is the algorithm that a message is protected with under a shared secret.
type MAC struct {
	Protection Protection  // one of the kinds with a shared secret
	KeyHash    crypto.Hash // derives the key: PBM's one-way function, PBKDF2's PRF
	Hash       crypto.Hash // of the HMAC over the message
	Salt       []byte
	Iterations int
	keyLength  int // PBMAC1 only, in bytes

	encoded *AlgorithmIdentifier // its identifier, where many messages have it; nil: not encoded yet
}

// NewMAC returns the algorithm of a configured protection with a fresh salt.
func NewMAC(protection Protection) (MAC, error) {
	switch protection {
	case ProtectionPBMSHA256:
		return newPBM(protection, crypto.SHA256), nil
	case ProtectionPBMSHA1:
		return newPBM(protection, crypto.SHA1), nil
	case ProtectionPBMAC1:
		return newPBMAC1(), nil
	}
	return MAC{}, fmt.Errorf("protection %q does not use a shared secret", protection)
}

func newPBM(protection Protection, hash crypto.Hash) MAC {
	return MAC{Protection: protection, KeyHash: hash, Hash: hash, Salt: randomBytes(saltSize),
		Iterations: pbmIterations}
}

func newPBMAC1() MAC {
	return MAC{Protection: ProtectionPBMAC1, KeyHash: crypto.SHA256, Hash: crypto.SHA256, Salt: randomBytes(saltSize),
		Iterations: pbmac1Iterations, keyLength: crypto.SHA256.Size()}
}

// parseMAC reads a protectionAlg. Its parameters are within bounds when there is no error.
func parseMAC(algorithm AlgorithmIdentifier) (MAC, error) {
	switch {
	case algorithm.Algorithm.Equal(oidPasswordBasedMAC):
		return parsePBM(algorithm.Parameters)
	case algorithm.Algorithm.Equal(oidPBMAC1):
		return parsePBMAC1(algorithm.Parameters)
	}
	return MAC{}, fmt.Errorf("protection algorithm %s is not a MAC that is supported", algorithm.Algorithm)
}

func (m MAC) identifier() (AlgorithmIdentifier, error) {
	if m.encoded != nil {
		return *m.encoded, nil
	}
	if m.Protection == ProtectionPBMAC1 {
		return m.pbmac1Identifier()
	}
	return m.pbmIdentifier()
}

func (m MAC) sum(key, data []byte) []byte {
	mac := hmac.New(m.Hash.New, key)
	mac.Write(data)
	return mac.Sum(nil)
}

// key derives the key of the MAC, which takes about as long as everything else in a message.
func (m MAC) key(secret []byte) ([]byte, error) {
	if m.Protection == ProtectionPBMAC1 {
		return m.pbmac1Key(secret)
	}
	return m.pbmKey(secret), nil
}

// work is how many iterations the key takes: PBKDF2 makes it in blocks of the hash's length, each
// by as many as are named.
func (m MAC) work() int {
	blocks := (m.keyLength + m.KeyHash.Size() - 1) / m.KeyHash.Size()
	return m.Iterations * max(blocks, 1)
}

// pbmParameters are the parameters of id-PasswordBasedMac (RFC 4211, 4.4; RFC 9481, 6.1.1):
//
//	PBMParameter ::= SEQUENCE {
//	    salt                OCTET STRING,
//	    owf                 AlgorithmIdentifier,
//	    iterationCount      INTEGER,
//	    mac                 AlgorithmIdentifier }
type pbmParameters struct {
	salt       []byte
	owf, mac   AlgorithmIdentifier
	iterations *big.Int
}

func (p *pbmParameters) code(c codec) {
	c.sequence("PBMParameter", func(c codec) {
		c.octets("salt", &p.salt)
		p.owf.code(c, "owf")
		c.bigInt(cbasn1.INTEGER, "iterationCount", &p.iterations)
		p.mac.code(c, "mac")
	})
}

func parsePBM(parameters []byte) (MAC, error) {
	if parameters == nil {
		return MAC{}, errors.New("PBMParameter is absent")
	}
	var p pbmParameters
	if err := decode(parameters, "PBMParameter", p.code); err != nil {
		return MAC{}, err
	}
	if err := checkMACBounds(p.salt, p.iterations, maxPBMIterations); err != nil {
		return MAC{}, fmt.Errorf("PBMParameter: %w", err)
	}
	keyHash, err := hashOf(p.owf)
	if err != nil {
		return MAC{}, fmt.Errorf("PBMParameter: owf: %w", err)
	}
	hash, err := hmacOf(p.mac)
	if err != nil {
		return MAC{}, fmt.Errorf("PBMParameter: mac: %w", err)
	}
	protection := ProtectionPBMSHA256
	if keyHash == crypto.SHA1 {
		protection = ProtectionPBMSHA1
	}
	iterations := int(p.iterations.Int64())
	return MAC{Protection: protection, KeyHash: keyHash, Hash: hash, Salt: p.salt, Iterations: iterations}, nil
}

func (m MAC) pbmIdentifier() (AlgorithmIdentifier, error) {
	p := pbmParameters{m.Salt, hashIdentifier(m.KeyHash), hmacIdentifier(m.Hash), big.NewInt(int64(m.Iterations))}
	parameters, err := encode(p.code)
	return AlgorithmIdentifier{Algorithm: oidPasswordBasedMAC, Parameters: parameters}, err
}

// pbmKey derives the MAC key: the one-way function over secret and salt,
// and then over its own output, iterationCount times in all (RFC 4211,
// 4.4). HMAC takes keys of any length, so the whole output is the key.
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

// pbmac1Parameters are the parameters of id-PBMAC1 (RFC 8018, A.5; RFC 9481, 6.1.2):
//
//	PBMAC1-params ::= SEQUENCE {
//	    keyDerivationFunc AlgorithmIdentifier,   -- PBKDF2
//	    messageAuthScheme AlgorithmIdentifier }
type pbmac1Parameters struct{ derivation, scheme AlgorithmIdentifier }

func (p *pbmac1Parameters) code(c codec) {
	c.sequence("PBMAC1-params", func(c codec) {
		p.derivation.code(c, "keyDerivationFunc")
		p.scheme.code(c, "messageAuthScheme")
	})
}

// pbkdf2Parameters are the parameters of id-PBKDF2 (RFC 8018, A.2):
//
//	PBKDF2-params ::= SEQUENCE {
//	    salt CHOICE { specified OCTET STRING, otherSource AlgorithmIdentifier },
//	    iterationCount INTEGER (1..MAX),
//	    keyLength INTEGER (1..MAX) OPTIONAL,
//	    prf AlgorithmIdentifier DEFAULT algid-hmacWithSHA1 }
type pbkdf2Parameters struct {
	salt       []byte
	iterations *big.Int
	keyLength  *big.Int            // nil: absent
	prf        AlgorithmIdentifier // always written
}

func (p *pbkdf2Parameters) code(c codec) {
	c.sequence("PBKDF2-params", func(c codec) {
		c.octets("salt", &p.salt)
		c.bigInt(cbasn1.INTEGER, "iterationCount", &p.iterations)
		if c.has(cbasn1.INTEGER, p.keyLength != nil) {
			c.bigInt(cbasn1.INTEGER, "keyLength", &p.keyLength)
		}
		if c.out != nil || c.in.more() {
			p.prf.code(c, "prf")
		}
	})
}

func parsePBMAC1(parameters []byte) (MAC, error) {
	if parameters == nil {
		return MAC{}, errors.New("PBMAC1-params are absent")
	}
	var p pbmac1Parameters
	if err := decode(parameters, "PBMAC1-params", p.code); err != nil {
		return MAC{}, err
	}
	m, err := parsePBKDF2(p.derivation)
	if err != nil {
		return MAC{}, fmt.Errorf("PBMAC1-params: %w", err)
	}
	if m.Hash, err = hmacOf(p.scheme); err != nil {
		return MAC{}, fmt.Errorf("PBMAC1-params: messageAuthScheme: %w", err)
	}
	if m.keyLength == 0 {
		m.keyLength = m.Hash.Size()
	}
	return m, nil
}

func parsePBKDF2(derivation AlgorithmIdentifier) (MAC, error) {
	// Bouncy Castle, and EJBCA with it, names PBES2 here and
	// writes PBKDF2's parameters all the same.
	if !derivation.Algorithm.Equal(oidPBKDF2) && !derivation.Algorithm.Equal(oidPBES2) {
		return MAC{}, fmt.Errorf("key derivation %s is not supported, want PBKDF2", derivation.Algorithm)
	}
	p := pbkdf2Parameters{prf: hmacIdentifier(crypto.SHA1)}
	if err := decode(derivation.Parameters, "PBKDF2-params", p.code); err != nil {
		return MAC{}, err
	}
	if err := checkMACBounds(p.salt, p.iterations, maxPBMAC1Iterations); err != nil {
		return MAC{}, fmt.Errorf("PBKDF2-params: %w", err)
	}
	m := MAC{Protection: ProtectionPBMAC1, Salt: p.salt, Iterations: int(p.iterations.Int64())}
	if p.keyLength != nil {
		if !between(p.keyLength, minKeyLength, maxKeyLength) {
			return MAC{}, fmt.Errorf("PBKDF2-params: keyLength is %s, want %d to %d",
				shortInt(p.keyLength), minKeyLength, maxKeyLength)
		}
		m.keyLength = int(p.keyLength.Int64())
	}
	var err error
	if m.KeyHash, err = hmacOf(p.prf); err != nil {
		return MAC{}, fmt.Errorf("PBKDF2-params: prf: %w", err)
	}
	return m, nil
}

func (m MAC) pbmac1Identifier() (AlgorithmIdentifier, error) {
	derivation, err := encode((&pbkdf2Parameters{m.Salt, big.NewInt(int64(m.Iterations)),
		big.NewInt(int64(m.keyLength)),
		hmacIdentifier(m.KeyHash)}).code)
	if err != nil {
		return AlgorithmIdentifier{}, err
	}
	p := pbmac1Parameters{AlgorithmIdentifier{Algorithm: oidPBKDF2, Parameters: derivation}, hmacIdentifier(m.Hash)}
	parameters, err := encode(p.code)
	return AlgorithmIdentifier{Algorithm: oidPBMAC1, Parameters: parameters}, err
}

func (m MAC) pbmac1Key(secret []byte) ([]byte, error) {
	return pbkdf2.Key(m.KeyHash.New, string(secret), m.Salt, m.Iterations, m.keyLength)
}

// checkMACBounds refuses parameters by which a peer could make us compute endlessly, or learn the
// secret by guessing cheaply (RFC 4211, 4.4; RFC 9045, 4).
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
