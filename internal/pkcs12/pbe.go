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
	"errors"
	"fmt"

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

// decrypt returns the plaintext, which in PKCS#12 and PKCS#8 is always one SEQUENCE; errDecrypt when
// it is not. Checking that as well as the padding leaves no room for a wrong password to pass.
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

// weak names the algorithms of old files that are not read on purpose: DES, RC4 and MD5 protect nothing.
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
