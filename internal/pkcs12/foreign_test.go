package pkcs12

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/certfetcher/certfetcher/test/peer"
)

// opensslKey is the key of a file, in PKCS#8, as openssl reads it.
func opensslKey(t *testing.T, path, password string) []byte {
	t.Helper()
	openssl := peer.Require(t, "openssl")[0]
	export := exec.Command(openssl, "pkcs12", "-in", path, "-legacy", "-nocerts", "-noenc", "-passin", "pass:"+password)
	text, err := export.Output()
	require.NoError(t, err)
	convert := exec.Command(openssl, "pkcs8", "-topk8", "-nocrypt", "-outform", "DER")
	convert.Stdin = bytes.NewReader(text)
	der, err := convert.Output()
	require.NoError(t, err)
	return der
}

func TestDecode_filesOfOthers(t *testing.T) {
	for name, want := range map[string]struct {
		password           string
		keys, certificates int
		trusted            bool
	}{
		"bouncycastle-ber.p12":         {"changeit", 1, 2, false},
		"bouncycastle-ber-trusted.p12": {"changeit", 0, 1, true},
		"null-password.p12":            {"", 0, 1, true},
		"mac-sha512-256.p12":           {"changeit", 1, 2, false},
		"sha1-2des.p12":                {"changeit", 1, 2, false},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(stores, name)
			data, err := os.ReadFile(path)
			require.NoError(t, err)
			contents, err := Decode(data, want.password)
			require.NoError(t, err)
			assert.Empty(t, contents.Unreadable)
			require.Len(t, contents.Keys, want.keys)
			require.Len(t, contents.Certificates, want.certificates)
			assert.Equal(t, want.trusted, contents.Certificates[0].Trusted)
			if want.keys > 0 {
				key, err := ParseKey(opensslKey(t, path, want.password))
				require.NoError(t, err)
				assert.Equal(t, key, contents.Keys[0].Key)
			}
			closed, err := DecodeClosed(data, want.password)
			require.NoError(t, err)
			assert.Equal(t, contents.Certificates, closed.Certificates)
			for _, key := range closed.Keys {
				assert.Nil(t, key.Key, "a key that is not needed was decrypted")
			}
			_, err = Decode(data, "another")
			require.ErrorIs(t, err, ErrPassword)
		})
	}
}

func TestDecode_weakAlgorithms_sayHowToConvert(t *testing.T) {
	for name, want := range map[string]string{
		"md5-des.p12":      "1.2.840.113549.1.5.3 (pbeWithMD5AndDES) is too weak and not supported",
		"sha1-rc4-128.p12": "1.2.840.113549.1.12.1.1 (pbeWithSHA1And128BitRC4) is too weak and not supported",
	} {
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(filepath.Join(stores, name))
			require.NoError(t, err)
			_, err = Decode(data, "changeit")
			require.ErrorContains(t, err, want)
			require.ErrorContains(t, err, "openssl pkcs12 -legacy -in FILE")
		})
	}
}

// hostilePBES2 is an EncryptedPrivateKeyInfo that asks for the key derivation.
func hostilePBES2(kdf func(*cryptobyte.Builder)) []byte {
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(oidPBES2)
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1(cbasn1.SEQUENCE, kdf)
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1ObjectIdentifier(oidAES256CBC)
					b.AddASN1OctetString(make([]byte, 16))
				})
			})
		})
		b.AddASN1OctetString(make([]byte, 64))
	})
	return b.BytesOrPanic()
}

func scryptKDF(n, r, p int64) func(*cryptobyte.Builder) {
	return func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oidScrypt)
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1OctetString(make([]byte, 16))
			for _, number := range []int64{n, r, p} {
				b.AddASN1Int64(number)
			}
		})
	}
}

func pbkdf2KDF(iterations int64) func(*cryptobyte.Builder) {
	return func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oidPBKDF2)
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1OctetString(make([]byte, 16))
			b.AddASN1Int64(iterations)
		})
	}
}

func TestDecryptKey_hostileParameters_costNothing(t *testing.T) {
	for name, test := range map[string]struct {
		der  []byte
		want string
	}{
		"2^31 iterations":              {hostilePBES2(pbkdf2KDF(1 << 31)), "asks for more than 5000000 iterations of key derivation in all"},
		"2^62 iterations":              {hostilePBES2(pbkdf2KDF(1 << 62)), "asks for more than 5000000 iterations of key derivation in all"},
		"scrypt of 64 MiB":             {hostilePBES2(scryptKDF(1<<16, 8, 1)), "scrypt asks for more than 32 MiB of memory (N is 65536, r is 8)"},
		"scrypt of 2^62":               {hostilePBES2(scryptKDF(1<<62, 1<<30, 1)), "scrypt asks for more than 32 MiB of memory"},
		"scrypt, 2^30 lanes":           {hostilePBES2(scryptKDF(1<<14, 8, 1<<30)), "scrypt asks for too much work (N is 16384, r is 8, p is 1073741824)"},
		"scrypt, N no power":           {hostilePBES2(scryptKDF(1000, 8, 1)), "deriving the key: scrypt: N must be > 1 and a power of 2"},
		"the most scrypt that is read": {hostilePBES2(scryptKDF(1<<15, 8, 1)), "wrong password for the key, or it is damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			before, start := allocated(), time.Now()
			_, err := NewKeyDecrypter("changeit").Decrypt(test.der)
			require.ErrorContains(t, err, test.want)
			assert.Less(t, time.Since(start), 5*time.Second)
			assert.Less(t, allocated()-before, uint64(64<<20))
		})
	}
}

// Many keys in one file cost no more than one: what one has spent the next has not, whatever derives it.
func TestKeyDecrypter_keysOfOneFileShareTheBound(t *testing.T) {
	for name, kdf := range map[string]func(*cryptobyte.Builder){
		"PBKDF2": pbkdf2KDF(4096), "scrypt": scryptKDF(1<<8, 8, 1), // each counts for 4,096
	} {
		t.Run(name, func(t *testing.T) {
			decrypter := NewKeyDecrypter("changeit")
			decrypter.decoder.iterations = 3 * 4096
			for range 3 {
				_, err := decrypter.Decrypt(hostilePBES2(kdf))
				require.ErrorIs(t, err, ErrPassword)
			}
			_, err := decrypter.Decrypt(hostilePBES2(kdf))
			require.EqualError(t, err, "asks for more than 5000000 iterations of key derivation in all")
		})
	}
}

func TestDecode_hostileMAC_costsNothing(t *testing.T) {
	pbmac1 := func(iterations, size int64) []byte {
		return reassemble(t, 3, func(b *cryptobyte.Builder) {
			addDataInfo(b, []byte{0x30, 0})
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
						b.AddASN1ObjectIdentifier(oidPBMAC1)
						b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
							b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
								b.AddASN1ObjectIdentifier(oidPBKDF2)
								b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
									b.AddASN1OctetString(make([]byte, 8))
									b.AddASN1Int64(iterations)
									b.AddASN1Int64(size)
								})
							})
							b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oidHMACWithSHA256) })
						})
					})
					b.AddASN1OctetString(make([]byte, 32))
				})
				b.AddASN1OctetString(nil)
			})
		})
	}
	for name, test := range map[string]struct {
		data []byte
		want string
	}{
		"2^31 iterations of PBMAC1": {pbmac1(1<<31, 32), "asks for more than 5000000 iterations of key derivation in all"},
		"a key of 1 GiB":            {pbmac1(1000, 1<<30), "PBMAC1 key has 1073741824 bytes, want 20 to 64"},
	} {
		t.Run(name, func(t *testing.T) {
			before, start := allocated(), time.Now()
			_, err := Decode(test.data, "changeit")
			require.EqualError(t, err, test.want)
			assert.Less(t, time.Since(start), 5*time.Second)
			assert.Less(t, allocated()-before, uint64(64<<20))
		})
	}
}

// FuzzDecode_withoutKeys: no file makes Decode panic, and what it reads without its keys is what it reads with them.
func FuzzDecode_withoutKeys(f *testing.F) {
	files, err := filepath.Glob("../../test/testdata/stores/*.p12")
	require.NoError(f, err)
	require.NotEmpty(f, files)
	for _, path := range files {
		data, err := os.ReadFile(path)
		require.NoError(f, err)
		f.Add(data, "changeit")
		f.Add(data, "")
	}
	f.Fuzz(func(t *testing.T, data []byte, password string) {
		contents, err := Decode(data, password)
		if err != nil {
			return
		}
		closed, err := DecodeClosed(data, password)
		if err != nil {
			t.Fatalf("Decode reads it, and DecodeClosed says %v", err)
		}
		if len(closed.Certificates) != len(contents.Certificates) {
			t.Fatalf("%d certificates with the keys, %d without", len(contents.Certificates), len(closed.Certificates))
		}
	})
}

// stores has files of other writers.
const stores = "../../test/testdata/stores"
