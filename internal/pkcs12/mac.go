package pkcs12

import (
	"crypto"
	"crypto/hmac"
	"crypto/pbkdf2"
	"encoding/asn1"
	"fmt"
	"unicode/utf16"

	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
	"golang.org/x/crypto/scrypt"
)

// mac is MacData, RFC 7292 section 4, over the authenticated safe.
type mac struct {
	hash       crypto.Hash
	salt       []byte
	iterations int
	digest     []byte
	pbmac1     *pbkdf2Params // RFC 9579: the key comes from PBKDF2, and salt is unused; nil: the MAC of RFC 7292
}

func (r *reader) mac() *mac {
	data := r.sequence("MAC")
	info := data.sequence("MAC digest")
	alg := info.algorithm("MAC algorithm")
	m := &mac{iterations: 1, digest: info.octets("MAC value")}
	if alg.oid.Equal(oidPBMAC1) {
		m.readPBMAC1(alg) // what follows is unused and may be anything
		return m
	}
	m.salt = data.octets("MAC salt")
	if data.more() {
		m.iterations = data.count("MAC iteration count")
	}
	for _, h := range hashes {
		if h.digest.Equal(alg.oid) {
			m.hash = h.hash
			return m
		}
	}
	data.fail(unsupportedError("MAC algorithm", alg.oid, "SHA-1, SHA-2 or PBMAC1"))
	return m
}

// maxPBMAC1Key bounds the HMAC keys of PBMAC1, in bytes; those in use have 20 to 64.
const maxPBMAC1Key = 64

// readPBMAC1 reads PBMAC1-params, RFC 8018 appendix A.5 with the rules of RFC 9579 section 4.
func (m *mac) readPBMAC1(alg algorithm) {
	params := alg.params.sequence("PBMAC1 parameters")
	kdf := params.algorithm("PBMAC1 key derivation")
	scheme := params.algorithm("PBMAC1 scheme")
	k := kdf.pbkdf2()
	// RFC 9579 wants the length there; 20 bytes are the least it allows. More than HMAC's block is
	// of no use, and each further hash length costs all iterations once more.
	if k.keySize < 20 || k.keySize > maxPBMAC1Key {
		params.fail(fmt.Errorf("PBMAC1 key has %d bytes, want 20 to %d", k.keySize, maxPBMAC1Key))
	}
	m.hash = params.hmacHash(scheme.oid)
	m.iterations = k.iterations
	m.pbmac1 = &k
}

// compute returns the MAC of the message.
func (m *mac) compute(password passphrase, message []byte) ([]byte, error) {
	var key []byte
	if m.pbmac1 == nil {
		key = deriveKey(m.hash, purposeMAC, password.bmp(), m.salt, m.iterations, m.hash.Size())
	} else {
		k := m.pbmac1
		var err error
		if key, err = pbkdf2.Key(k.hash.New, password.text, k.salt, k.iterations, k.keySize); err != nil {
			return nil, err
		}
	}
	h := hmac.New(m.hash.New, key)
	h.Write(message)
	return h.Sum(nil), nil
}

// The purposes of a derived key, RFC 7292 appendix B.3.
const (
	purposeKey byte = 1
	purposeIV  byte = 2
	purposeMAC byte = 3
)

// bmpString is s in big-endian UTF-16. RFC 7292 allows the Basic Multilingual Plane only; Java and
// OpenSSL write surrogate pairs for the rest, and so do we.
func bmpString(s string) []byte {
	units := utf16.Encode([]rune(s))
	out := make([]byte, 0, 2*len(units)+2)
	for _, u := range units {
		out = append(out, byte(u>>8), byte(u))
	}
	return out
}

// passphrase is a password as the derivations take it.
type passphrase struct {
	text string
	// null is .NET's form of the empty password: no bytes at all, where RFC 7292 has the two zero
	// bytes of an empty BMPString. Only the derivation of RFC 7292 tells the two apart.
	null bool
}

// passphrases are the forms that a password may have in a
// file: OpenSSL and JDKs try both of an empty one.
func passphrases(password string) []passphrase {
	if password == "" {
		return []passphrase{{}, {null: true}}
	}
	return []passphrase{{text: password}}
}

// bmp is the form that the derivation of RFC 7292 takes: a BMPString with its two zero bytes at
// the end (appendix B.1).
func (p passphrase) bmp() []byte {
	if p.null {
		return nil
	}
	return append(bmpString(p.text), 0, 0)
}

// deriveKey is the key derivation of RFC 7292 appendix B.2; the names in the body are those of its
// steps. The password is in the form of passphrase.bmp.
func deriveKey(hash crypto.Hash, purpose byte, password, salt []byte, iterations, size int) []byte {
	h := hash.New()
	v := h.BlockSize()

	d := make([]byte, v)
	for i := range d {
		d[i] = purpose
	}
	i := append(repeatTo(salt, v), repeatTo(password, v)...)

	var out []byte
	for {
		h.Reset()
		h.Write(d)
		h.Write(i)
		a := h.Sum(nil)
		for range iterations - 1 {
			h.Reset()
			h.Write(a)
			a = h.Sum(a[:0])
		}
		out = append(out, a...)
		if len(out) >= size {
			return out[:size]
		}
		b := repeatTo(a, v)[:v]
		for block := i; len(block) > 0; block = block[v:] {
			addWithCarry(block[:v], b)
		}
	}
}

// repeatTo repeats data until its length is the next multiple of v.
func repeatTo(data []byte, v int) []byte {
	out := make([]byte, (len(data)+v-1)/v*v)
	for n := 0; n < len(out); {
		n += copy(out[n:], data)
	}
	return out
}

// addWithCarry sets block to block + b + 1, both big-endian
// numbers of the same length, dropping what runs over.
func addWithCarry(block, b []byte) {
	carry := 1
	for i := len(block) - 1; i >= 0; i-- {
		carry += int(block[i]) + int(b[i])
		block[i] = byte(carry)
		carry >>= 8
	}
}

// pbkdf2Params is PBKDF2-params, RFC 8018 appendix A.2; keySize is 0 when the file leaves it out.
type pbkdf2Params struct {
	hash       crypto.Hash
	salt       []byte
	iterations int
	keySize    int
}

func (a algorithm) pbkdf2() pbkdf2Params {
	if !a.oid.Equal(oidPBKDF2) {
		a.params.fail(unsupportedError("key derivation", a.oid, "PBKDF2 or scrypt"))
	}
	params := a.params.sequence("PBKDF2 parameters")
	k := pbkdf2Params{hash: crypto.SHA1}
	k.salt = params.octets("PBKDF2 salt")
	k.iterations = params.count("PBKDF2 iteration count")
	if params.s.PeekASN1Tag(cbasn1.INTEGER) {
		k.keySize = params.count("PBKDF2 key length")
	}
	if params.more() {
		k.hash = params.hmacHash(params.algorithm("PBKDF2 pseudorandom function").oid)
	}
	return k
}

func (r *reader) hmacHash(oid asn1.ObjectIdentifier) crypto.Hash {
	for _, h := range hashes {
		if h.hmac.Equal(oid) {
			return h.hash
		}
	}
	r.fail(unsupportedError("HMAC algorithm", oid, "HMAC with SHA-1 or SHA-2"))
	return 0
}

// scryptParams is scrypt-params, RFC 7914 section 7; keySize is 0 when the file leaves it out.
type scryptParams struct {
	salt    []byte
	n, r, p int
	keySize int
}

const (
	// maxScryptMemory bounds what scrypt may take, in bytes:
	// twice what openssl pkcs8 -scrypt asks for.
	maxScryptMemory = 32 << 20
	// maxScryptWork bounds memory times parallelization,
	// with which the time grows: less than a second.
	maxScryptWork = 32 << 20
)

func (a algorithm) scrypt() *scryptParams {
	params := a.params.sequence("scrypt parameters")
	k := &scryptParams{}
	k.salt = params.octets("scrypt salt")
	k.n = params.count("scrypt cost")
	k.r = params.count("scrypt block size")
	k.p = params.count("scrypt parallelization")
	if params.more() {
		k.keySize = params.count("scrypt key length")
	}
	if params.err() == nil {
		params.fail(k.check())
	}
	return k
}

// check bounds the work before any is done. The divisions keep products from overflowing.
func (k *scryptParams) check() error {
	const again = "encrypt the key again with openssl pkcs8 -topk8 -scrypt"
	switch {
	case k.r > maxScryptMemory/128 || k.n > maxScryptMemory/128/k.r:
		return fmt.Errorf("scrypt asks for more than %d MiB of memory (N is %d, r is %d): %s",
			maxScryptMemory>>20, k.n, k.r, again)
	case k.p > maxScryptWork/(128*k.r*k.n):
		return fmt.Errorf("scrypt asks for too much work (N is %d, r is %d, p is %d): %s", k.n, k.r, k.p, again)
	}
	return nil
}

// iterations is what scrypt counts for in maxIterations, a
// little more than what PBKDF2 does in the same time.
func (k *scryptParams) iterations() int { return 2 * k.n * k.r * k.p }

func (k *scryptParams) key(password string, size int) ([]byte, error) {
	key, err := scrypt.Key([]byte(password), k.salt, k.n, k.r, k.p, size)
	if err != nil {
		return nil, fmt.Errorf("deriving the key: %w", err)
	}
	return key, nil
}
