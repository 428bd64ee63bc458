package pkcs12

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/pbkdf2"
	_ "crypto/sha1" // the hashes are named by crypto.Hash
	_ "crypto/sha256"
	_ "crypto/sha512"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// errDecrypt says that the plaintext makes no sense: another password, or damage.
var errDecrypt = errors.New("decryption failed")

// pbe is a password-based encryption with all its parameters.
type pbe struct {
	scheme     asn1.ObjectIdentifier // oidPBES2 or one of RFC 7292 appendix C
	cipher     asn1.ObjectIdentifier // PBES2 only
	hash       crypto.Hash
	salt       []byte
	iterations int
	keySize    int
	iv         []byte        // PBES2 only; the others derive it
	scrypt     *scryptParams // PBES2 only; nil: PBKDF2
}

func (a algorithm) pbe() pbe {
	switch {
	case a.oid.Equal(oidPBES2):
		return a.pbes2()
	case a.oid.Equal(oidPBEWithSHA1And3DES):
		return a.appendixC(24)
	case a.oid.Equal(oidPBEWithSHA1And2DES), a.oid.Equal(oidPBEWithSHA1AndRC2128):
		return a.appendixC(16)
	case a.oid.Equal(oidPBEWithSHA1AndRC240):
		return a.appendixC(5)
	}
	a.params.fail(unsupportedError("encryption algorithm", a.oid, "PBES2, or pbeWithSHA1 and 3DES or RC2"))
	return pbe{}
}

// appendixC reads pkcs-12PbeParams, RFC 7292 appendix C.
func (a algorithm) appendixC(keySize int) pbe {
	params := a.params.sequence("encryption parameters")
	p := pbe{scheme: a.oid, hash: crypto.SHA1, keySize: keySize}
	p.salt = params.octets("encryption salt")
	p.iterations = params.count("encryption iteration count")
	return p
}

// pbes2 reads PBES2-params, RFC 8018 appendix A.4.
func (a algorithm) pbes2() pbe {
	params := a.params.sequence("PBES2 parameters")
	kdf := params.algorithm("PBES2 key derivation")
	enc := params.algorithm("PBES2 cipher")
	p := pbe{scheme: a.oid, cipher: enc.oid}
	derived := 0
	if kdf.oid.Equal(oidScrypt) {
		p.scrypt = kdf.scrypt()
		derived, p.iterations = p.scrypt.keySize, p.scrypt.iterations()
	} else {
		k := kdf.pbkdf2()
		p.hash, p.salt, p.iterations, derived = k.hash, k.salt, k.iterations, k.keySize
	}
	ivSize := aes.BlockSize
	switch {
	case enc.oid.Equal(oidAES128CBC):
		p.keySize = 16
	case enc.oid.Equal(oidAES192CBC):
		p.keySize = 24
	case enc.oid.Equal(oidAES256CBC):
		p.keySize = 32
	case enc.oid.Equal(oidDESEDE3CBC):
		p.keySize, ivSize = 24, des.BlockSize
	default:
		params.fail(unsupportedError("PBES2 cipher", enc.oid, "AES-CBC or 3DES-CBC"))
	}
	if derived != 0 && derived != p.keySize {
		params.fail(fmt.Errorf("PBES2 derives a key of %d bytes, its cipher wants %d", derived, p.keySize))
	}
	p.iv = enc.params.octets("PBES2 initialization vector")
	if len(p.iv) != ivSize {
		params.fail(fmt.Errorf("PBES2 initialization vector has %d bytes, want %d", len(p.iv), ivSize))
	}
	return p
}

// key derives the encryption key and the initialization vector.
func (p pbe) key(password passphrase) (key, iv []byte, err error) {
	if p.scrypt != nil {
		key, err = p.scrypt.key(password.text, p.keySize)
		return key, p.iv, err
	}
	if p.scheme.Equal(oidPBES2) {
		// RFC 8018 leaves the password's encoding open. OpenSSL takes its bytes, which are UTF-8
		// nearly everywhere; JDK 25 takes UTF-8, JDK 17 refuses what is not ASCII.
		key, err = pbkdf2.Key(p.hash.New, password.text, p.salt, p.iterations, p.keySize)
		return key, p.iv, err
	}
	bmp := password.bmp()
	key = deriveKey(p.hash, purposeKey, bmp, p.salt, p.iterations, p.keySize)
	return key, deriveKey(p.hash, purposeIV, bmp, p.salt, p.iterations, des.BlockSize), nil
}

// block is the block cipher, for all schemes but RC2.
func (p pbe) block(key []byte) (cipher.Block, error) {
	if p.scheme.Equal(oidPBEWithSHA1And2DES) {
		key = append(bytes.Clone(key), key[:des.BlockSize]...) // the third key is the first
		return des.NewTripleDESCipher(key)
	}
	if p.scheme.Equal(oidPBEWithSHA1And3DES) || p.cipher.Equal(oidDESEDE3CBC) {
		return des.NewTripleDESCipher(key)
	}
	return aes.NewCipher(key)
}

// decrypt returns the plaintext, which in PKCS#12 and PKCS#8 is
// always one SEQUENCE; errDecrypt when it is not. Checking that as
// well as the padding leaves no room for a wrong password to pass.
func (p pbe) decrypt(password passphrase, ciphertext []byte) ([]byte, error) {
	key, iv, err := p.key(password)
	if err != nil {
		return nil, err
	}
	if len(ciphertext) == 0 || len(ciphertext)%len(iv) != 0 {
		return nil, fmt.Errorf("ciphertext has %d bytes, want a multiple of %d", len(ciphertext), len(iv))
	}
	var plain []byte
	if p.scheme.Equal(oidPBEWithSHA1AndRC240) || p.scheme.Equal(oidPBEWithSHA1AndRC2128) {
		plain = newRC2Key(key).decryptCBC(iv, ciphertext)
	} else {
		block, err := p.block(key)
		if err != nil {
			return nil, err
		}
		plain = make([]byte, len(ciphertext))
		cipher.NewCBCDecrypter(block, iv).CryptBlocks(plain, ciphertext)
	}
	n := int(plain[len(plain)-1])
	if n == 0 || n > len(iv) || !bytes.Equal(plain[len(plain)-n:], bytes.Repeat([]byte{byte(n)}, n)) {
		return nil, errDecrypt
	}
	plain = plain[:len(plain)-n]
	if !isSequence(plain) {
		return nil, errDecrypt
	}
	return plain, nil
}

// encrypt pads and encrypts; RC2 is not among the schemes it is asked for.
func (p pbe) encrypt(password passphrase, plain []byte) ([]byte, error) {
	key, iv, err := p.key(password)
	if err != nil {
		return nil, err
	}
	block, err := p.block(key)
	if err != nil {
		return nil, err
	}
	n := block.BlockSize() - len(plain)%block.BlockSize()
	out := append(bytes.Clone(plain), bytes.Repeat([]byte{byte(n)}, n)...)
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(out, out)
	return out, nil
}

// marshal writes the AlgorithmIdentifier.
func (p pbe) marshal(b *cryptobyte.Builder) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(p.scheme)
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			if !p.scheme.Equal(oidPBES2) {
				b.AddASN1OctetString(p.salt)
				b.AddASN1Int64(int64(p.iterations))
				return
			}
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(oidPBKDF2)
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1OctetString(p.salt)
					b.AddASN1Int64(int64(p.iterations))
					// The length may be left out where the cipher fixes it. JDKs write it, so that
					// their readers, old ones too, are sure to take it.
					b.AddASN1Int64(int64(p.keySize))
					b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
						b.AddASN1ObjectIdentifier(oidHMACWithSHA256)
						b.AddASN1NULL()
					})
				})
			})
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(p.cipher)
				b.AddASN1OctetString(p.iv)
			})
		})
	})
}

// weak names the algorithms of old files that are not read
// on purpose: DES, RC4 and MD5 protect nothing.
var weak = map[string]string{
	"1.2.840.113549.1.5.1":    "pbeWithMD2AndDES",
	"1.2.840.113549.1.5.3":    "pbeWithMD5AndDES",
	"1.2.840.113549.1.5.4":    "pbeWithMD2AndRC2",
	"1.2.840.113549.1.5.6":    "pbeWithMD5AndRC2",
	"1.2.840.113549.1.5.10":   "pbeWithSHA1AndDES",
	"1.2.840.113549.1.5.11":   "pbeWithSHA1AndRC2",
	"1.2.840.113549.1.12.1.1": "pbeWithSHA1And128BitRC4",
	"1.2.840.113549.1.12.1.2": "pbeWithSHA1And40BitRC4",
	"1.3.14.3.2.7":            "DES-CBC",
	"1.2.840.113549.3.2":      "RC2-CBC",
	"1.2.840.113549.3.4":      "RC4",
	"1.2.840.113549.2.5":      "MD5",
	"1.2.840.113549.2.6":      "HMAC-MD5",
}

// unsupportedError says that an algorithm is not read, and how the file can be converted.
func unsupportedError(what string, oid asn1.ObjectIdentifier, want string) error {
	name, known := weak[oid.String()]
	if !known {
		return fmt.Errorf("%s %v is not supported, want %s", what, oid, want)
	}
	return fmt.Errorf("%s %v (%s) is too weak and not supported, want %s: convert a PKCS#12 file with "+
		"openssl pkcs12 -legacy -in FILE -out NEW.pem, a key with "+
		"openssl pkcs8 -topk8 -provider legacy -provider default -in FILE -out NEW.pem", what, oid, name, want)
}

const rc2BlockSize = 8

// rc2Key is an expanded RC2 key (RFC 2268). RC2 is only ever decrypted: it is what OpenSSL before 3
// and JDK 8 encrypted certificates with.
type rc2Key [64]uint16

// newRC2Key expands a key of 1 to 128 bytes, RFC 2268 section 2. All its bits are effective, as RFC
// 7292 appendix C has it.
func newRC2Key(key []byte) *rc2Key {
	var l [128]byte
	n := copy(l[:], key)
	for i := n; i < len(l); i++ {
		l[i] = rc2PiTable[l[i-1]+l[i-n]]
	}
	l[128-n] = rc2PiTable[l[128-n]]
	for i := 127 - n; i >= 0; i-- {
		l[i] = rc2PiTable[l[i+1]^l[i+n]]
	}
	var k rc2Key
	for i := range k {
		k[i] = binary.LittleEndian.Uint16(l[2*i:])
	}
	return &k
}

// decryptBlock decrypts the first eight bytes of src into dst, RFC 2268 section 4.
func (k *rc2Key) decryptBlock(dst, src []byte) {
	var r [4]uint16
	for i := range r {
		r[i] = binary.LittleEndian.Uint16(src[2*i:])
	}
	shifts := [4]int{1, 2, 3, 5}
	j := len(k) - 1
	mix := func(rounds int) {
		for range rounds {
			for i := 3; i >= 0; i-- {
				r[i] = bits.RotateLeft16(r[i], -shifts[i])
				r[i] -= k[j] + (r[(i+3)&3] & r[(i+2)&3]) + (^r[(i+3)&3] & r[(i+1)&3])
				j--
			}
		}
	}
	mash := func() {
		for i := 3; i >= 0; i-- {
			r[i] -= k[r[(i+3)&3]&63]
		}
	}
	mix(5)
	mash()
	mix(6)
	mash()
	mix(5)
	for i, w := range r {
		binary.LittleEndian.PutUint16(dst[2*i:], w)
	}
}

// decryptCBC decrypts whole blocks.
func (k *rc2Key) decryptCBC(iv, data []byte) []byte {
	out := make([]byte, len(data))
	for n := 0; n < len(data); n += rc2BlockSize {
		k.decryptBlock(out[n:], data[n:])
		for i := range rc2BlockSize {
			out[n+i] ^= iv[i]
		}
		iv = data[n:]
	}
	return out
}

// rc2PiTable is PITABLE of RFC 2268 section 2, digits of pi.
var rc2PiTable = [256]byte{
	0xd9, 0x78, 0xf9, 0xc4, 0x19, 0xdd, 0xb5, 0xed, 0x28, 0xe9, 0xfd, 0x79, 0x4a, 0xa0, 0xd8, 0x9d,
	0xc6, 0x7e, 0x37, 0x83, 0x2b, 0x76, 0x53, 0x8e, 0x62, 0x4c, 0x64, 0x88, 0x44, 0x8b, 0xfb, 0xa2,
	0x17, 0x9a, 0x59, 0xf5, 0x87, 0xb3, 0x4f, 0x13, 0x61, 0x45, 0x6d, 0x8d, 0x09, 0x81, 0x7d, 0x32,
	0xbd, 0x8f, 0x40, 0xeb, 0x86, 0xb7, 0x7b, 0x0b, 0xf0, 0x95, 0x21, 0x22, 0x5c, 0x6b, 0x4e, 0x82,
	0x54, 0xd6, 0x65, 0x93, 0xce, 0x60, 0xb2, 0x1c, 0x73, 0x56, 0xc0, 0x14, 0xa7, 0x8c, 0xf1, 0xdc,
	0x12, 0x75, 0xca, 0x1f, 0x3b, 0xbe, 0xe4, 0xd1, 0x42, 0x3d, 0xd4, 0x30, 0xa3, 0x3c, 0xb6, 0x26,
	0x6f, 0xbf, 0x0e, 0xda, 0x46, 0x69, 0x07, 0x57, 0x27, 0xf2, 0x1d, 0x9b, 0xbc, 0x94, 0x43, 0x03,
	0xf8, 0x11, 0xc7, 0xf6, 0x90, 0xef, 0x3e, 0xe7, 0x06, 0xc3, 0xd5, 0x2f, 0xc8, 0x66, 0x1e, 0xd7,
	0x08, 0xe8, 0xea, 0xde, 0x80, 0x52, 0xee, 0xf7, 0x84, 0xaa, 0x72, 0xac, 0x35, 0x4d, 0x6a, 0x2a,
	0x96, 0x1a, 0xd2, 0x71, 0x5a, 0x15, 0x49, 0x74, 0x4b, 0x9f, 0xd0, 0x5e, 0x04, 0x18, 0xa4, 0xec,
	0xc2, 0xe0, 0x41, 0x6e, 0x0f, 0x51, 0xcb, 0xcc, 0x24, 0x91, 0xaf, 0x50, 0xa1, 0xf4, 0x70, 0x39,
	0x99, 0x7c, 0x3a, 0x85, 0x23, 0xb8, 0xb4, 0x7a, 0xfc, 0x02, 0x36, 0x5b, 0x25, 0x55, 0x97, 0x31,
	0x2d, 0x5d, 0xfa, 0x98, 0xe3, 0x8a, 0x92, 0xae, 0x05, 0xdf, 0x29, 0x10, 0x67, 0x6c, 0xba, 0xc9,
	0xd3, 0x00, 0xe6, 0xcf, 0xe1, 0x9e, 0xa8, 0x2c, 0x63, 0x16, 0x01, 0x3f, 0x58, 0xe2, 0x89, 0xa9,
	0x0d, 0x38, 0x34, 0x1b, 0xab, 0x33, 0xff, 0xb0, 0xbb, 0x48, 0x0c, 0x5f, 0xb9, 0xb1, 0xcd, 0x2e,
	0xc5, 0xf3, 0xdb, 0x47, 0xe5, 0xa5, 0x9c, 0x77, 0x0a, 0xa6, 0x20, 0x68, 0xfe, 0x7f, 0xc1, 0xad,
}
