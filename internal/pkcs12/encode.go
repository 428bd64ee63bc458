package pkcs12

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// writtenIterations is OpenSSL's number. A JDK writes 10,000, which costs five times as much of the
// few milliseconds that a fetch takes (2.2 ms instead of 0.4 ms for each encryption key) and would
// buy nothing: passwords have 142 random bits unless the user gives one, no such number saves a
// weak one, and the password lies in a file beside the store.
const writtenIterations = 2048

// A JDK writes 20 bytes; NIST SP 800-132 asks for 16.
const saltSize = 20

// Encode writes a PKCS#12 file: each key encrypted by itself, then all certificates encrypted
// together, as Java and OpenSSL do. The password is not checked; a JVM reads only printable ASCII.
func Encode(c Contents, password string, profile Profile) ([]byte, error) {
	if profile != ProfileModern && profile != ProfileLegacy {
		return nil, fmt.Errorf("PKCS#12 profile is %q, want %q or %q", profile, ProfileModern, ProfileLegacy)
	}
	e := encoder{passphrase{text: password}, profile}
	var safe cryptobyte.Builder
	safe.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		if len(c.Keys) > 0 {
			e.addKeys(b, c.Keys)
		}
		if len(c.Certificates) > 0 {
			e.addCertificates(b, c.Certificates)
		}
	})
	content, err := safe.Bytes()
	if err != nil {
		return nil, err
	}
	return e.encodePFX(content, true)
}

// encodePFX writes PFX, RFC 7292 section 4, around an authenticated safe.
func (e encoder) encodePFX(safe []byte, mac bool) ([]byte, error) {
	var file cryptobyte.Builder
	file.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(3)
		addDataInfo(b, safe)
		if mac {
			e.addMAC(b, safe)
		}
	})
	return file.Bytes()
}

type encoder struct {
	password passphrase
	profile  Profile
}

// newPBE draws the salt, and the initialization vector where it is not derived.
func (e encoder) newPBE() pbe {
	salt := make([]byte, saltSize)
	rand.Read(salt) // never fails
	if e.profile == ProfileLegacy {
		return pbe{scheme: oidPBEWithSHA1And3DES, hash: crypto.SHA1, salt: salt,
			iterations: writtenIterations, keySize: 24}
	}
	iv := make([]byte, aes.BlockSize)
	rand.Read(iv)
	return pbe{scheme: oidPBES2, cipher: oidAES256CBC, hash: crypto.SHA256, salt: salt,
		iterations: writtenIterations, keySize: 32, iv: iv}
}

func (e encoder) addKeys(b *cryptobyte.Builder, keys []Key) {
	var bags cryptobyte.Builder
	bags.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, k := range keys {
			addBag(b, oidShroudedKeyBag, k.FriendlyName, k.LocalKeyID, false, func(b *cryptobyte.Builder) {
				e.addEncryptedKey(b, k)
			})
		}
	})
	content, err := bags.Bytes()
	if err != nil {
		b.SetError(err)
		return
	}
	addDataInfo(b, content)
}

// addEncryptedKey writes EncryptedPrivateKeyInfo, RFC 5208 section 6.
func (e encoder) addEncryptedKey(b *cryptobyte.Builder, k Key) {
	plain, err := x509.MarshalPKCS8PrivateKey(k.Key)
	if err != nil {
		b.SetError(fmt.Errorf("encoding key %q: %w", k.FriendlyName, err))
		return
	}
	encryption := e.newPBE()
	ciphertext, err := encryption.encrypt(e.password, plain)
	if err != nil {
		b.SetError(fmt.Errorf("encrypting key %q: %w", k.FriendlyName, err))
		return
	}
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		encryption.marshal(b)
		b.AddASN1OctetString(ciphertext)
	})
}

// addCertificates writes all certificates in one encrypted part.
func (e encoder) addCertificates(b *cryptobyte.Builder, certs []Certificate) {
	var bags cryptobyte.Builder
	bags.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, c := range certs {
			addCertificateBag(b, c)
		}
	})
	plain, err := bags.Bytes()
	if err != nil {
		b.SetError(err)
		return
	}
	e.addEncryptedData(b, plain)
}

// addCertificateBag writes SafeBag and CertBag, RFC 7292 section 4.2.3.
func addCertificateBag(b *cryptobyte.Builder, c Certificate) {
	addBag(b, oidCertBag, c.FriendlyName, c.LocalKeyID, c.Trusted, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(oidX509Certificate)
			b.AddASN1(tagExplicit0, func(b *cryptobyte.Builder) { b.AddASN1OctetString(c.Certificate.Raw) })
		})
	})
}

// addEncryptedData writes a ContentInfo with EncryptedData, RFC 2315 section 13, of SafeContents.
func (e encoder) addEncryptedData(b *cryptobyte.Builder, plain []byte) {
	encryption := e.newPBE()
	ciphertext, err := encryption.encrypt(e.password, plain)
	if err != nil {
		b.SetError(fmt.Errorf("encrypting certificates: %w", err))
		return
	}
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oidEncryptedData)
		b.AddASN1(tagExplicit0, func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1Int64(0)
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1ObjectIdentifier(oidData)
					encryption.marshal(b)
					b.AddASN1(tagImplicit0, func(b *cryptobyte.Builder) { b.AddBytes(ciphertext) })
				})
			})
		})
	})
}

// addMAC writes MacData, RFC 7292 section 4.
func (e encoder) addMAC(b *cryptobyte.Builder, message []byte) {
	hash, oid := crypto.SHA256, oidSHA256
	if e.profile == ProfileLegacy {
		hash, oid = crypto.SHA1, oidSHA1
	}
	m := mac{hash: hash, salt: make([]byte, saltSize), iterations: writtenIterations}
	rand.Read(m.salt)
	digest, err := m.compute(e.password, message)
	if err != nil {
		b.SetError(fmt.Errorf("computing the MAC: %w", err))
		return
	}
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(oid)
				b.AddASN1NULL()
			})
			b.AddASN1OctetString(digest)
		})
		b.AddASN1OctetString(m.salt)
		b.AddASN1Int64(int64(m.iterations))
	})
}

// addDataInfo writes a ContentInfo of type data.
func addDataInfo(b *cryptobyte.Builder, content []byte) {
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oidData)
		b.AddASN1(tagExplicit0, func(b *cryptobyte.Builder) { b.AddASN1OctetString(content) })
	})
}

// addBag writes SafeBag, RFC 7292 section 4.2; empty attributes are left out.
func addBag(b *cryptobyte.Builder, id asn1.ObjectIdentifier, name string, localKeyID []byte,
	trusted bool, value func(*cryptobyte.Builder)) {
	var attributes [][]byte
	attribute := func(id asn1.ObjectIdentifier, value func(*cryptobyte.Builder)) {
		var a cryptobyte.Builder
		a.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(id)
			b.AddASN1(cbasn1.SET, value)
		})
		encoded, err := a.Bytes()
		if err != nil {
			b.SetError(err)
		}
		attributes = append(attributes, encoded)
	}
	if name != "" {
		attribute(oidFriendlyName, func(b *cryptobyte.Builder) {
			b.AddASN1(tagBMPString, func(b *cryptobyte.Builder) { b.AddBytes(bmpString(name)) })
		})
	}
	if localKeyID != nil {
		attribute(oidLocalKeyID, func(b *cryptobyte.Builder) { b.AddASN1OctetString(localKeyID) })
	}
	if trusted {
		attribute(oidTrustedKeyUsage, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(oidAnyExtendedKeyUsage)
		})
	}
	// DER wants the elements of a SET in the order of their encodings.
	slices.SortFunc(attributes, bytes.Compare)
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(id)
		b.AddASN1(tagExplicit0, value)
		if len(attributes) > 0 {
			b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) { b.AddBytes(bytes.Join(attributes, nil)) })
		}
	})
}
