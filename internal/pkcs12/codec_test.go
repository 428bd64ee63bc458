package pkcs12

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"math/big"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/cryptobyte"

	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/golden"
)

const password = "pass word"

// sample has a key and its certificate, a CA with no attributes, and a trusted certificate.
func sample() Contents {
	c := sampled()
	c.Certificates = slices.Clone(c.Certificates)
	return c
}

var sampled = sync.OnceValue(func() Contents {
	authority := must(fixture.NewCA("Sample"))
	key, chain, err := authority.Identity("leaf")
	must(key, err)
	return Contents{
		Keys: []Key{{Key: key, FriendlyName: "my key", LocalKeyID: []byte{1, 2}}},
		Certificates: []Certificate{
			{Certificate: chain[0], FriendlyName: "my key", LocalKeyID: []byte{1, 2}},
			{Certificate: chain[1]},
			{Certificate: authority.Root, FriendlyName: "Würzel 😀", Trusted: true},
		},
	}
})

func must[T any](value T, err error) T { return fixture.Must(value, err) }

func encoded(profile Profile) []byte { return must(Encode(sample(), password, profile)) }

// The functions from here on make files that no encoder writes, of DER elements and of the parts of one that it does.

func element(tag byte, contents ...[]byte) []byte {
	content := bytes.Join(contents, nil)
	return append(appendHeader(nil, tag, len(content)), content...)
}

func sequence(contents ...[]byte) []byte { return element(0x30, contents...) }
func octets(contents ...[]byte) []byte   { return element(4, contents...) }
func explicit(contents ...[]byte) []byte { return element(0xa0, contents...) }

func number(n int64) []byte { return must(asn1.Marshal(big.NewInt(n))) }

func oid(numbers ...int) []byte { return must(asn1.Marshal(asn1.ObjectIdentifier(numbers))) }

func build(add func(*cryptobyte.Builder)) []byte {
	var b cryptobyte.Builder
	add(&b)
	return must(b.Bytes())
}

// file is a PFX of what follows its version.
func file(parts ...[]byte) []byte { return sequence(number(3), bytes.Join(parts, nil)) }

func dataInfo(content []byte) []byte { return sequence(oid(oidData...), explicit(octets(content))) }

// clearFile is a file without MAC, whose only part is in the clear and has the bags.
func clearFile(bags []byte) []byte { return file(dataInfo(sequence(dataInfo(sequence(bags))))) }

func bagOf(id asn1.ObjectIdentifier, value []byte, attributes ...[]byte) []byte {
	return sequence(oid(id...), explicit(value), element(0x31, attributes...))
}

func certificateBags(c Contents) []byte {
	return build(func(b *cryptobyte.Builder) {
		for _, cert := range c.Certificates {
			addCertificateBag(b, cert)
		}
	})
}

type testWriter struct{ encoder }

func writer(password string, profile Profile) testWriter {
	return testWriter{encoder{passphrase{text: password}, profile}}
}

func (w testWriter) keys(c Contents) []byte {
	return build(func(b *cryptobyte.Builder) { w.addKeys(b, c.Keys) })
}

func (w testWriter) certificates(c Contents) []byte {
	return build(func(b *cryptobyte.Builder) { w.addCertificates(b, c.Certificates) })
}

// file is one of the parts, with the writer's MAC.
func (w testWriter) file(parts ...[]byte) []byte { return must(w.encodePFX(sequence(parts...), true)) }

func TestDecode_encodedContents_areTheSame(t *testing.T) {
	for _, profile := range []Profile{ProfileModern, ProfileLegacy} {
		data, want := encoded(profile), sample()
		got := must(Decode(data, password))
		assert.Equal(t, &want, got)
		found := must(ProfileOf(data))
		assert.Equal(t, profile, found)

		_, err := Decode(data, "other")
		assert.ErrorIs(t, err, ErrPassword)
		assert.EqualError(t, err, "wrong password, or the file was altered: its MAC does not fit")
	}
	_, err := Encode(sample(), password, "strong")
	assert.EqualError(t, err, `PKCS#12 profile is "strong", want "modern" or "legacy"`)
}

func TestEncode_twice_sharesNoSalt(t *testing.T) {
	p, q := must(parsePFX(encoded(ProfileModern))), must(parsePFX(encoded(ProfileModern)))
	assert.NotEqual(t, p.mac.salt, q.mac.salt)
	assert.NotEqual(t, p.parts[1].encryption.salt, q.parts[1].encryption.salt)
	assert.NotEqual(t, p.parts[1].encryption.iv, q.parts[1].encryption.iv)
	assert.NotEqual(t, p.mac.salt, p.parts[1].encryption.salt)
}

func TestDecode_damage_isAnErrorAtEveryByte(t *testing.T) {
	data := encoded(ProfileModern)
	for n := range len(data) {
		_, err := Decode(data[:n], password)
		require.Error(t, err, "%d bytes", n)
		require.NotErrorIs(t, err, ErrPassword, "%d bytes", n)
		if n%11 == 0 { // the MAC covers every byte or has it itself; a prime step keeps the derivations few
			altered := slices.Clone(data)
			altered[n] ^= 0x20
			require.Error(t, bounded(4*writtenIterations).decode(altered), "byte %d", n)
		}
	}
}

// bounded decodes with another bound on iterations.
func bounded(iterations int) *decoder {
	return &decoder{forms: passphrases(password), keys: true, iterations: iterations}
}

func TestDecoder_iterations_areBoundedInAll(t *testing.T) {
	data := encoded(ProfileModern)
	require.NoError(t, bounded(3*writtenIterations).decode(data), "MAC, key, certificates")
	assert.EqualError(t, bounded(3*writtenIterations-1).decode(data),
		"decrypting contents: asks for more than 5000000 iterations of key derivation in all")
}

func TestDecode_nestedBags_areReadToABoundedDepth(t *testing.T) {
	bags := certificateBags(sample())
	for range maxBagDepth - 1 {
		bags = bagOf(oidSafeContentsBag, sequence(bags))
	}
	got := must(Decode(clearFile(bags), ""))
	assert.Equal(t, sample().Certificates, got.Certificates)

	_, err := Decode(clearFile(bagOf(oidSafeContentsBag, sequence(bags))), "")
	assert.EqualError(t, err, "bags are nested more than 4 deep")
}

func TestDecode_plainKeyBag_isRead(t *testing.T) {
	key := sample().Keys[0].Key
	got := must(Decode(clearFile(bagOf(oidKeyBag, must(x509.MarshalPKCS8PrivateKey(key)))), ""))
	assert.Equal(t, []Key{{Key: key}}, got.Keys)
}

func TestDecode_foreignStructures_saysWhatIsWrong(t *testing.T) {
	modern, other, legacy := writer(password, ProfileModern), writer("other", ProfileModern),
		writer("other", ProfileLegacy)
	contents := sample()
	empty := dataInfo(sequence())
	// shrouded is a file with an encrypted key of one byte.
	shrouded := func(change func(*pbe)) []byte {
		p := modern.newPBE()
		change(&p)
		return clearFile(bagOf(oidShroudedKeyBag, sequence(build(p.marshal), octets([]byte{1}))))
	}
	// attributed is a file with a bag that has the attribute.
	attributed := func(id asn1.ObjectIdentifier, value []byte) []byte {
		return clearFile(bagOf(oidCertBag, nil, sequence(oid(id...), element(0x31, value))))
	}
	certificate := func(der []byte) []byte { return sequence(oid(oidX509Certificate...), explicit(octets(der))) }
	want := golden.Read(t, "structures.txt")
	for sentence, data := range map[string][]byte{
		"nothing at all":                      nil,
		"an indefinite length without an end": []byte{0x30, 0x80, 2, 1, 3},
		"bytes after the end":                 append(file(empty), 0, 0),
		"another version":                     sequence(number(4), empty),
		"a signed safe":                       file(sequence(oid(1, 2, 840, 113549, 1, 7, 2))),
		"an enveloped part": file(
			dataInfo(sequence(sequence(oid(1, 2, 840, 113549, 1, 7, 3))))),
		"a zero iteration count":                shrouded(func(p *pbe) { p.iterations = 0 }),
		"a key shorter than its cipher's":       shrouded(func(p *pbe) { p.keySize = 16 }),
		"a short initialization vector":         shrouded(func(p *pbe) { p.iv = p.iv[:8] }),
		"an unknown cipher":                     shrouded(func(p *pbe) { p.cipher = []int{1, 2, 3} }),
		"a ciphertext that is not whole blocks": shrouded(func(*pbe) {}),
		"more iterations than allowed": shrouded(
			func(p *pbe) { p.iterations = maxIterations + 1 }),
		"a name of half a character": attributed(oidFriendlyName,
			element(byte(tagBMPString), []byte{0, 'a', 0})),
		"a name of another string type": attributed(oidFriendlyName, element(12, []byte("a"))),
		"a damaged certificate":         clearFile(bagOf(oidCertBag, certificate([]byte{1}))),
		"a certificate of another kind": clearFile(bagOf(oidCertBag, sequence(oid(1, 2, 3)))),
		"an unknown MAC": file(empty,
			sequence(sequence(sequence(oid(1, 2, 3)), octets()), octets())),
		"a key with another password":                       file(dataInfo(sequence(other.keys(contents)))),
		"certificates with another password, without MAC":   file(dataInfo(sequence(legacy.certificates(contents)))),
		"certificates with another password than the MAC's": modern.file(other.certificates(contents)),
	} {
		t.Run(sentence, func(t *testing.T) {
			contents, err := Decode(data, password)
			if err == nil { // of one entry, which leaves the others alone
				require.Len(t, contents.Unreadable, 1)
				err = contents.Unreadable[0].Err
			}
			assert.EqualError(t, err, want[sentence])
		})
	}
}

func TestProfileOf_mixedFiles_belongToNone(t *testing.T) {
	modern, legacy, c := writer(password, ProfileModern), writer(password, ProfileLegacy), sample()
	const has = "has the MAC of profile "
	for want, data := range map[string][]byte{
		has + `"modern" and a key encrypted in another way`:    modern.file(legacy.keys(c), modern.certificates(c)),
		has + `"modern" and contents encrypted in another way`: modern.file(modern.keys(c), legacy.certificates(c)),
		has + `"legacy" and a key encrypted in another way`:    legacy.file(modern.keys(c)),
		"has no MAC, which every profile has":                  file(dataInfo(sequence(modern.keys(c)))),
		"has contents in the clear, which no profile has":      modern.file(dataInfo(sequence(certificateBags(c)))),
		"the file has ASN.1 tag 0x02, want 0x30":               number(3),
	} {
		profile, err := ProfileOf(data)
		assert.EqualError(t, err, want)
		assert.Empty(t, profile, want)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(encoded(ProfileModern))
	f.Add(encoded(ProfileLegacy))
	f.Add([]byte{0x30, 0x80, 2, 1, 3, 0, 0})
	// Without MAC, the fuzzer gets further in.
	f.Add(clearFile(bagOf(oidSafeContentsBag, sequence(certificateBags(sample())))))
	f.Fuzz(func(t *testing.T, data []byte) {
		d := bounded(4 * writtenIterations)
		if d.decode(data) != nil {
			return
		}
		// What was read can be written, and reads the same.
		again := must(Encode(d.contents, password, ProfileModern))
		got := must(Decode(again, password))
		require.Equal(t, len(d.contents.Keys), len(got.Keys))
		require.Equal(t, len(d.contents.Certificates), len(got.Certificates))
	})
}

// FuzzParsePFX goes deeper than FuzzDecode, which rarely gets past the MAC.
func FuzzParsePFX(f *testing.F) {
	f.Add(encoded(ProfileModern))
	f.Add(encoded(ProfileLegacy))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := parsePFX(data)
		if err != nil {
			return
		}
		for _, part := range p.parts {
			bags, _ := parseBags(part.content, 1)
			for _, b := range bags {
				_, _ = parseCertBag(b.value)
				_, _, _ = parseEncryptedKey(b.value)
			}
		}
		_, _ = ProfileOf(data)
	})
}

// The keys of this file have another password than the rest.
func TestAppend_leavesKeysOfAnotherPasswordAlone(t *testing.T) {
	contents := sample()
	own, keys := writer(password, ProfileModern), writer("another", ProfileModern)
	before := own.file(keys.keys(contents), own.certificates(contents))
	added := Certificate{Certificate: contents.Certificates[1].Certificate, FriendlyName: "added", Trusted: true}

	after := must(Append(before, password, []Certificate{added}, nil))
	p := must(parsePFX(before))
	assert.Contains(t, string(after), string(p.parts[0].raw), "the part with the keys has changed")
	closed := must(DecodeClosed(after, password))
	assert.Equal(t, append(contents.Certificates, added), closed.Certificates)
	open := must(Decode(after, password))
	require.Len(t, open.Unreadable, 1)
	require.ErrorIs(t, open.Unreadable[0].Err, ErrPassword)
	for _, data := range [][]byte{before, own.file(dataInfo(sequence(certificateBags(contents))))} {
		_, err := Append(data, "another", nil, nil)
		require.ErrorIs(t, err, ErrPassword)
	}
}

func TestAppend_marksTheCertificatesInTheList(t *testing.T) {
	contents := sample()
	clear := clearFile(certificateBags(contents))
	for profile, data := range map[Profile][]byte{ProfileLegacy: encoded(ProfileLegacy), "": clear} {
		mark := []Certificate{{Certificate: contents.Certificates[1].Certificate, FriendlyName: "marked"}}

		after := must(Append(data, password, nil, mark))
		if profile != "" {
			found := must(ProfileOf(after))
			assert.Equal(t, profile, found)
		}
		got := must(Decode(after, password))
		want := sample().Certificates
		want[1].Trusted, want[1].FriendlyName = true, "marked"
		assert.Equal(t, want, got.Certificates)
	}
}

// An unencrypted file stays one, also when it has no certificate yet.
func TestAppend_clearFileStaysClear(t *testing.T) {
	added := []Certificate{{Certificate: sample().Certificates[1].Certificate, FriendlyName: "a", Trusted: true}}
	for _, empty := range [][]byte{file(dataInfo(sequence())), clearFile(nil)} {
		after := must(Append(empty, "", added, nil))
		for _, password := range []string{"", "anything"} {
			got := must(Decode(after, password))
			assert.Equal(t, added, got.Certificates)
		}
	}
}
