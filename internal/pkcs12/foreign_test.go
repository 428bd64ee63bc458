package pkcs12

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

// stores has files of other writers.
const stores = "../../test/testdata/stores"

// addStores seeds a fuzz target with all of them.
func addStores(f *testing.F, add func(data []byte)) {
	files := must(filepath.Glob(filepath.Join(stores, "*.p12")))
	require.NotEmpty(f, files)
	for _, path := range files {
		add(must(os.ReadFile(path)))
	}
}

// opensslKey is the key of a file, in PKCS#8, as openssl reads it.
func opensslKey(t *testing.T, path, password string) []byte {
	t.Helper()
	openssl := fixture.RequirePrograms(t, "openssl")[0]
	text := must(exec.Command(openssl, "pkcs12", "-in", path, "-legacy", "-nocerts", "-noenc",
		"-passin", "pass:"+password).Output())
	convert := exec.Command(openssl, "pkcs8", "-topk8", "-nocrypt", "-outform", "DER")
	convert.Stdin = bytes.NewReader(text)
	return must(convert.Output())
}

func TestDecode_filesOfOtherWriters(t *testing.T) {
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
			data := must(os.ReadFile(path))
			contents := must(Decode(data, want.password))
			assert.Empty(t, contents.Unreadable)
			require.Len(t, contents.Keys, want.keys)
			require.Len(t, contents.Certificates, want.certificates)
			assert.Equal(t, want.trusted, contents.Certificates[0].Trusted)
			if want.keys > 0 {
				assert.Equal(t, must(ParseKey(opensslKey(t, path, want.password))), contents.Keys[0].Key)
			}
			closed := must(DecodeClosed(data, want.password))
			assert.Equal(t, contents.Certificates, closed.Certificates)
			for _, key := range closed.Keys {
				assert.Nil(t, key.Key, "a key that is not needed was decrypted")
			}
			_, err := Decode(data, "another")
			require.ErrorIs(t, err, ErrPassword)
		})
	}
	for name, want := range map[string]string{
		"md5-des.p12":      "1.2.840.113549.1.5.3 (pbeWithMD5AndDES) is too weak and not supported",
		"sha1-rc4-128.p12": "1.2.840.113549.1.12.1.1 (pbeWithSHA1And128BitRC4) is too weak and not supported",
	} {
		_, err := Decode(must(os.ReadFile(filepath.Join(stores, name))), "changeit")
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, "openssl pkcs12 -legacy -in FILE")
	}
}

// hostilePBES2 is an EncryptedPrivateKeyInfo that asks for the key derivation.
func hostilePBES2(kdf []byte) []byte {
	cipher := sequence(oid(oidAES256CBC...), octets(make([]byte, 16)))
	return sequence(sequence(oid(oidPBES2...), sequence(kdf, cipher)), octets(make([]byte, 64)))
}

func scryptKDF(n, r, p int64) []byte {
	return sequence(oid(oidScrypt...), sequence(octets(make([]byte, 16)), number(n), number(r), number(p)))
}

func pbkdf2KDF(numbers ...int64) []byte {
	params := octets(make([]byte, 16))
	for _, n := range numbers {
		params = append(params, number(n)...)
	}
	return sequence(oid(oidPBKDF2...), sequence(params))
}

// Parameters in a file of an attacker cost no more than the file of a user. Those that are refused would take minutes.
func TestDecode_hostileParameters_areCheap(t *testing.T) {
	const tooMany = "asks for more than 5000000 iterations of key derivation in all"
	key := func(kdf []byte) func() error {
		return func() error {
			_, err := NewKeyDecrypter("changeit").Decrypt(hostilePBES2(kdf))
			return err
		}
	}
	pbmac1 := func(iterations, size int64) func() error {
		scheme := sequence(oid(oidHMACWithSHA256...))
		algorithm := sequence(oid(oidPBMAC1...), sequence(pbkdf2KDF(iterations, size), scheme))
		mac := sequence(sequence(algorithm, octets(make([]byte, 32))), octets())
		return func() error { return bounded(maxIterations).decode(file(dataInfo(sequence()), mac)) }
	}
	ber := func(data []byte) func() error {
		return func() error { _, err := toDER(data); return err }
	}
	segments := append([]byte{0x24, 0x80}, bytes.Repeat([]byte{4, 1, 'a'}, 1_000_000)...)
	const short, deep = "is cut short or has a damaged length", "has elements nested more than 64 deep"
	for sentence, row := range map[string]struct {
		read func() error
		want string
	}{
		"2^31 iterations": {key(pbkdf2KDF(1 << 31)), tooMany},
		"2^62 iterations": {key(pbkdf2KDF(1 << 62)), tooMany},
		"scrypt of 64 MiB": {key(scryptKDF(1<<16, 8, 1)),
			"scrypt asks for more than 32 MiB of memory (N is 65536, r is 8)"},
		"scrypt of 2^62": {key(scryptKDF(1<<62, 1<<30, 1)), "scrypt asks for more than 32 MiB of memory"},
		"scrypt, 2^30 lanes": {key(scryptKDF(1<<14, 8, 1<<30)),
			"scrypt asks for too much work (N is 16384, r is 8, p is 1073741824)"},
		"scrypt, N not a power": {key(scryptKDF(1000, 8, 1)),
			"deriving the key: scrypt: N must be > 1 and a power of 2"},
		"the most scrypt that is read": {key(scryptKDF(1<<15, 8, 1)), "wrong password for the key, or it is damaged"},
		"2^31 iterations of PBMAC1":    {pbmac1(1<<31, 32), tooMany},
		"a key of 1 GiB":               {pbmac1(1000, 1<<30), "PBMAC1 key has 1073741824 bytes, want 20 to 64"},
		"10,000 levels":                {ber(bytes.Repeat([]byte{0x30, 0x80}, 10_000)), deep},
		"10,000 segmented levels":      {ber(bytes.Repeat([]byte{0x24, 0x80}, 10_000)), deep},
		"a length of 1 GiB":            {ber([]byte{0x30, 0x84, 0x40, 0, 0, 0, 2, 1, 5}), short},
		"a length of 2^1000":           {ber(append([]byte{0x30, 0xfe}, bytes.Repeat([]byte{0xff}, 126)...)), short},
		"a million segments":           {ber(append(bytes.Clone(segments), 0, 0)), "<nil>"},
		"segments with no end":         {ber(segments), short},
	} {
		t.Run(sentence, func(t *testing.T) {
			before := allocated()
			err := row.read()
			require.Contains(t, fmt.Sprint(err), row.want)
			assert.Less(t, allocated()-before, uint64(64<<20))
		})
	}
}

// Many keys in one file cost no more than one: what one has spent the next has not, whatever derives it.
func TestKeyDecrypter_keysOfOneFileShareTheBound(t *testing.T) {
	for _, kdf := range [][]byte{pbkdf2KDF(4096), scryptKDF(1<<8, 8, 1)} { // each counts for 4,096
		decrypter := NewKeyDecrypter("changeit")
		decrypter.decoder.iterations = 3 * 4096
		for range 3 {
			_, err := decrypter.Decrypt(hostilePBES2(kdf))
			require.ErrorIs(t, err, ErrPassword)
		}
		_, err := decrypter.Decrypt(hostilePBES2(kdf))
		require.EqualError(t, err, "asks for more than 5000000 iterations of key derivation in all")
	}
}

// FuzzDecode_withoutKeys: no file makes Decode panic, and what it reads without its keys is what it reads with them.
func FuzzDecode_withoutKeys(f *testing.F) {
	addStores(f, func(data []byte) {
		f.Add(data, "changeit")
		f.Add(data, "")
	})
	f.Fuzz(func(t *testing.T, data []byte, password string) {
		contents, err := Decode(data, password)
		if err != nil {
			return
		}
		closed, err := DecodeClosed(data, password)
		require.NoError(t, err, "Decode reads it")
		require.Len(t, closed.Certificates, len(contents.Certificates), "with the keys, and without")
	})
}
