package pkcs12

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

const password = "pass word"

// sample has a key and its certificate, a CA with no attributes, and a trusted certificate.
func sample(t testing.TB) Contents {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	var certs []*x509.Certificate
	for i, name := range []string{"leaf", "CA", "root"} {
		template := &x509.Certificate{SerialNumber: big.NewInt(int64(i + 1)), Subject: pkix.Name{CommonName: name},
			NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<32, 0)}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		require.NoError(t, err)
		cert, err := x509.ParseCertificate(der)
		require.NoError(t, err)
		certs = append(certs, cert)
	}
	return Contents{
		Keys: []Key{{Key: key, FriendlyName: "my key", LocalKeyID: []byte{1, 2}}},
		Certificates: []Certificate{
			{Certificate: certs[0], FriendlyName: "my key", LocalKeyID: []byte{1, 2}},
			{Certificate: certs[1]},
			{Certificate: certs[2], FriendlyName: "Würzel 😀", Trusted: true},
		},
	}
}

func encoded(t testing.TB, profile Profile) []byte {
	t.Helper()
	data, err := Encode(sample(t), password, profile)
	require.NoError(t, err)
	return data
}

func TestDecode_encodedContents_areTheSame(t *testing.T) {
	for _, profile := range []Profile{ProfileModern, ProfileLegacy} {
		want := sample(t)
		data, err := Encode(want, password, profile)
		require.NoError(t, err)
		got, err := Decode(data, password)
		require.NoError(t, err)
		assert.Equal(t, &want, got)

		found, err := ProfileOf(data)
		require.NoError(t, err)
		assert.Equal(t, profile, found)
	}
}

func TestEncode_twice_sharesNoSalt(t *testing.T) {
	contents := sample(t)
	a, err := Encode(contents, password, ProfileModern)
	require.NoError(t, err)
	b, err := Encode(contents, password, ProfileModern)
	require.NoError(t, err)
	p, err := parsePFX(a)
	require.NoError(t, err)
	q, err := parsePFX(b)
	require.NoError(t, err)
	assert.NotEqual(t, p.mac.salt, q.mac.salt)
	assert.NotEqual(t, p.parts[1].encryption.salt, q.parts[1].encryption.salt)
	assert.NotEqual(t, p.parts[1].encryption.iv, q.parts[1].encryption.iv)
	assert.NotEqual(t, p.mac.salt, p.parts[1].encryption.salt)
}

func TestEncode_unknownProfile_isRefused(t *testing.T) {
	_, err := Encode(sample(t), password, "strong")
	assert.EqualError(t, err, `PKCS#12 profile is "strong", want "modern" or "legacy"`)
}

func TestDecode_wrongPassword_isToldFromDamage(t *testing.T) {
	for _, profile := range []Profile{ProfileModern, ProfileLegacy} {
		data := encoded(t, profile)
		_, err := Decode(data, "other")
		assert.ErrorIs(t, err, ErrPassword)
		assert.EqualError(t, err, "wrong password, or the file was altered: its MAC does not fit")
	}
}

func TestDecode_cutShort_isAnErrorAtEveryLength(t *testing.T) {
	data := encoded(t, ProfileModern)
	for n := range len(data) {
		_, err := Decode(data[:n], password)
		require.Error(t, err, "%d bytes", n)
		require.NotErrorIs(t, err, ErrPassword, "%d bytes", n)
	}
}

func TestDecode_anyByteAltered_isAnError(t *testing.T) {
	data := encoded(t, ProfileModern)
	// Every byte is covered by the MAC or belongs to it; a prime step keeps the derivations few.
	for n := 0; n < len(data); n += 11 {
		altered := slices.Clone(data)
		altered[n] ^= 0x20
		d := decoder{forms: passphrases(password), keys: true, iterations: 4 * writtenIterations}
		require.Error(t, d.decode(altered), "byte %d", n)
	}
}

func TestDecoder_iterations_areBoundedInAll(t *testing.T) {
	data := encoded(t, ProfileModern)
	d := decoder{forms: passphrases(password), keys: true, iterations: 3 * writtenIterations} // MAC, key, certificates
	require.NoError(t, d.decode(data))

	d = decoder{forms: passphrases(password), keys: true, iterations: 3*writtenIterations - 1}
	assert.EqualError(t, d.decode(data), "decrypting contents: asks for more than 5000000 iterations of key derivation in all")
}

// The rest are files that no encoder of ours writes, each made of the parts of one that it does.

// reassemble encodes sample with another function for what follows the version.
func reassemble(t testing.TB, version int64, body func(*cryptobyte.Builder)) []byte {
	t.Helper()
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(version)
		body(b)
	})
	data, err := b.Bytes()
	require.NoError(t, err)
	return data
}

// plainSafe is an authenticated safe with one ContentInfo in the clear around the given bags.
func plainSafe(t testing.TB, bags func(*cryptobyte.Builder)) []byte {
	t.Helper()
	var content, safe cryptobyte.Builder
	content.AddASN1(cbasn1.SEQUENCE, bags)
	safe.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { addDataInfo(b, content.BytesOrPanic()) })
	return safe.BytesOrPanic()
}

func addCertBag(b *cryptobyte.Builder, cert *x509.Certificate) {
	addBag(b, oidCertBag, "", nil, false, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(oidX509Certificate)
			b.AddASN1(tagExplicit0, func(b *cryptobyte.Builder) { b.AddASN1OctetString(cert.Raw) })
		})
	})
}

// nest adds the certificate within depth levels of SafeContents.
func nest(b *cryptobyte.Builder, cert *x509.Certificate, depth int) {
	if depth == 0 {
		addCertBag(b, cert)
		return
	}
	addBag(b, oidSafeContentsBag, "", nil, false, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { nest(b, cert, depth-1) })
	})
}

func TestDecode_nestedBags_areReadToABoundedDepth(t *testing.T) {
	cert := sample(t).Certificates[0].Certificate
	file := func(depth int) []byte {
		safe := plainSafe(t, func(b *cryptobyte.Builder) { nest(b, cert, depth) })
		return reassemble(t, 3, func(b *cryptobyte.Builder) { addDataInfo(b, safe) })
	}
	got, err := Decode(file(maxBagDepth-1), "")
	require.NoError(t, err)
	require.Len(t, got.Certificates, 1)
	assert.Equal(t, cert, got.Certificates[0].Certificate)

	_, err = Decode(file(maxBagDepth), "")
	assert.EqualError(t, err, "bags are nested more than 4 deep")
}

func TestDecode_plainKeyBag_isRead(t *testing.T) {
	key := sample(t).Keys[0].Key
	der, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	safe := plainSafe(t, func(b *cryptobyte.Builder) {
		addBag(b, oidKeyBag, "plain", nil, false, func(b *cryptobyte.Builder) { b.AddBytes(der) })
	})
	got, err := Decode(reassemble(t, 3, func(b *cryptobyte.Builder) { addDataInfo(b, safe) }), "")
	require.NoError(t, err)
	assert.Equal(t, []Key{{Key: key, FriendlyName: "plain"}}, got.Keys)
}

func TestDecode_foreignStructures_saysWhatIsWrong(t *testing.T) {
	e := encoder{passphrase{text: password}, ProfileModern}
	contents := sample(t)
	empty := []byte{0x30, 0x00}
	anySafe := func(b *cryptobyte.Builder) { addDataInfo(b, empty) }
	// shrouded is a file with an encrypted key of one byte.
	shrouded := func(change func(*pbe)) []byte {
		return reassemble(t, 3, func(b *cryptobyte.Builder) {
			addDataInfo(b, plainSafe(t, func(b *cryptobyte.Builder) {
				addBag(b, oidShroudedKeyBag, "x", nil, false, func(b *cryptobyte.Builder) {
					b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
						p := e.newPBE()
						change(&p)
						p.marshal(b)
						b.AddASN1OctetString([]byte{1})
					})
				})
			}))
		})
	}
	// attributed is a file with a bag that has the attribute.
	attributed := func(id []int, tag cbasn1.Tag, value []byte) []byte {
		return reassemble(t, 3, func(b *cryptobyte.Builder) {
			addDataInfo(b, plainSafe(t, func(b *cryptobyte.Builder) {
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1ObjectIdentifier(oidCertBag)
					b.AddASN1(tagExplicit0, func(*cryptobyte.Builder) {})
					b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) {
						b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
							b.AddASN1ObjectIdentifier(id)
							b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) {
								b.AddASN1(tag, func(b *cryptobyte.Builder) { b.AddBytes(value) })
							})
						})
					})
				})
			}))
		})
	}
	for _, row := range []struct {
		sentence string
		data     []byte
		want     string
	}{
		{"nothing at all", nil, "the file is cut short or has a damaged length"},
		{"an indefinite length without an end", []byte{0x30, 0x80, 2, 1, 3}, "the file is cut short or has a damaged length"},
		{"bytes after the end", append(reassemble(t, 3, anySafe), 0, 0), "the file has 2 bytes after its end"},
		{"another version", reassemble(t, 4, anySafe), "version is 4, want 3"},
		{"a signed safe", reassemble(t, 3, func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier([]int{1, 2, 840, 113549, 1, 7, 2})
			})
		}), "authenticated safe has type 1.2.840.113549.1.7.2, want data protected by a password"},
		{"an enveloped part", reassemble(t, 3, func(b *cryptobyte.Builder) {
			var safe cryptobyte.Builder
			safe.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1ObjectIdentifier([]int{1, 2, 840, 113549, 1, 7, 3})
				})
			})
			addDataInfo(b, safe.BytesOrPanic())
		}), "content has type 1.2.840.113549.1.7.3, want data or data encrypted with a password"},
		{"an RC4 key", shrouded(func(p *pbe) { p.scheme = []int{1, 2, 840, 113549, 1, 12, 1, 1} }),
			`reading key "x": encryption algorithm 1.2.840.113549.1.12.1.1 (pbeWithSHA1And128BitRC4) is too weak and not supported, ` +
				`want PBES2, or pbeWithSHA1 and 3DES or RC2: convert a PKCS#12 file with openssl pkcs12 -legacy -in FILE -out NEW.pem, ` +
				`a key with openssl pkcs8 -topk8 -provider legacy -provider default -in FILE -out NEW.pem`},
		{"a zero iteration count", shrouded(func(p *pbe) { p.iterations = 0 }),
			`reading key "x": PBKDF2 iteration count is not a positive integer`},
		{"a key with another password, without MAC", reassemble(t, 3, func(b *cryptobyte.Builder) {
			addDataInfo(b, plainSafe(t, func(b *cryptobyte.Builder) {
				addBag(b, oidShroudedKeyBag, "mine", nil, false, func(b *cryptobyte.Builder) {
					encoder{passphrase{text: "other"}, ProfileModern}.addEncryptedKey(b, contents.Keys[0])
				})
			}))
		}), `reading key "mine": wrong password for this key: it has another one than the file, or is damaged`},
		{"a key shorter than its cipher's", shrouded(func(p *pbe) { p.keySize = 16 }),
			`reading key "x": PBES2 derives a key of 16 bytes, its cipher wants 32`},
		{"a short initialization vector", shrouded(func(p *pbe) { p.iv = p.iv[:8] }),
			`reading key "x": PBES2 initialization vector has 8 bytes, want 16`},
		{"a cipher nobody knows", shrouded(func(p *pbe) { p.cipher = []int{1, 2, 3} }),
			`reading key "x": PBES2 cipher 1.2.3 is not supported, want AES-CBC or 3DES-CBC`},
		{"a ciphertext of no whole blocks", shrouded(func(*pbe) {}),
			`reading key "x": ciphertext has 1 bytes, want a multiple of 16`},
		{"more iterations than allowed", shrouded(func(p *pbe) { p.iterations = maxIterations + 1 }),
			`reading key "x": asks for more than 5000000 iterations of key derivation in all`},
		{"a name of half a character", attributed(oidFriendlyName, tagBMPString, []byte{0, 'a', 0}),
			`reading certificate "": friendlyName has 3 bytes, want an even number`},
		{"a name of another string type", attributed(oidFriendlyName, cbasn1.UTF8String, []byte("a")),
			`reading certificate "": friendlyName has ASN.1 tag 0x0c, want 0x1e`},
		{"a certificate that is none", reassemble(t, 3, func(b *cryptobyte.Builder) {
			addDataInfo(b, plainSafe(t, func(b *cryptobyte.Builder) { addCertBag(b, &x509.Certificate{Raw: []byte{1}}) }))
		}), `reading certificate "": x509: malformed certificate`},
		{"a MAC nobody knows", reassemble(t, 3, func(b *cryptobyte.Builder) {
			anySafe(b)
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier([]int{1, 2, 3}) })
					b.AddASN1OctetString(nil)
				})
				b.AddASN1OctetString(nil)
			})
		}), "MAC algorithm 1.2.3 is not supported, want SHA-1, SHA-2 or PBMAC1"},
		{"certificates with another password, without MAC", reassemble(t, 3, func(b *cryptobyte.Builder) {
			var safe cryptobyte.Builder
			safe.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				encoder{passphrase{text: "other"}, ProfileLegacy}.addCertificates(b, contents.Certificates)
			})
			addDataInfo(b, safe.BytesOrPanic())
		}), "wrong password, or the file is damaged: it has no MAC that could tell"},
		{"certificates with another password than the MAC's", reassemble(t, 3, func(b *cryptobyte.Builder) {
			var safe cryptobyte.Builder
			safe.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				encoder{passphrase{text: "other"}, ProfileModern}.addCertificates(b, contents.Certificates)
			})
			addDataInfo(b, safe.BytesOrPanic())
			e.addMAC(b, safe.BytesOrPanic())
		}), "wrong password for the certificates: they have another one than the file"},
	} {
		t.Run(row.sentence, func(t *testing.T) {
			contents, err := Decode(row.data, password)
			if err == nil { // of one entry, which leaves the others alone
				require.Len(t, contents.Unreadable, 1)
				err = contents.Unreadable[0]
			}
			assert.EqualError(t, err, row.want)
		})
	}
}

func TestProfileOf_mixedFiles_belongToNone(t *testing.T) {
	contents := sample(t)
	modern, legacy := encoder{passphrase{text: password}, ProfileModern}, encoder{passphrase{text: password}, ProfileLegacy}
	file := func(keys, certs encoder, mac func(*cryptobyte.Builder, []byte)) []byte {
		var safe cryptobyte.Builder
		safe.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			keys.addKeys(b, contents.Keys)
			certs.addCertificates(b, contents.Certificates)
		})
		return reassemble(t, 3, func(b *cryptobyte.Builder) {
			addDataInfo(b, safe.BytesOrPanic())
			mac(b, safe.BytesOrPanic())
		})
	}
	cert := contents.Certificates[0].Certificate
	clear := plainSafe(t, func(b *cryptobyte.Builder) { addCertBag(b, cert) })
	for _, row := range []struct {
		sentence string
		data     []byte
		want     string
	}{
		{"a legacy key", file(legacy, modern, modern.addMAC),
			`has the MAC of profile "modern" and a key encrypted in another way`},
		{"legacy certificates", file(modern, legacy, modern.addMAC),
			`has the MAC of profile "modern" and contents encrypted in another way`},
		{"a legacy MAC", file(modern, modern, legacy.addMAC),
			`has the MAC of profile "legacy" and a key encrypted in another way`},
		{"no MAC", file(modern, modern, func(*cryptobyte.Builder, []byte) {}),
			"has no MAC, which every profile has"},
		{"certificates in the clear", reassemble(t, 3, func(b *cryptobyte.Builder) {
			addDataInfo(b, clear)
			modern.addMAC(b, clear)
		}), "has contents in the clear, which no profile has"},
		{"no PKCS#12 file", []byte{2, 1, 3}, "the file has ASN.1 tag 0x02, want 0x30"},
	} {
		t.Run(row.sentence, func(t *testing.T) {
			profile, err := ProfileOf(row.data)
			assert.EqualError(t, err, row.want)
			assert.Empty(t, profile)
		})
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(encoded(f, ProfileModern))
	f.Add(encoded(f, ProfileLegacy))
	f.Add([]byte{0x30, 0x80, 2, 1, 3, 0, 0})
	// Without MAC, the fuzzer gets further in.
	cert := sample(f).Certificates[0].Certificate
	safe := plainSafe(f, func(b *cryptobyte.Builder) { nest(b, cert, 1) })
	f.Add(reassemble(f, 3, func(b *cryptobyte.Builder) { addDataInfo(b, safe) }))
	f.Fuzz(func(t *testing.T, data []byte) {
		d := decoder{forms: passphrases(password), keys: true, iterations: 4 * writtenIterations}
		if d.decode(data) != nil {
			return
		}
		// What was read can be written, and reads the same.
		again, err := Encode(d.contents, password, ProfileModern)
		require.NoError(t, err)
		got, err := Decode(again, password)
		require.NoError(t, err)
		require.Equal(t, len(d.contents.Keys), len(got.Keys))
		require.Equal(t, len(d.contents.Certificates), len(got.Certificates))
	})
}

// FuzzParsePFX goes deeper than FuzzDecode, which rarely gets past the MAC.
func FuzzParsePFX(f *testing.F) {
	f.Add(encoded(f, ProfileModern))
	f.Add(encoded(f, ProfileLegacy))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := parsePFX(data)
		if err != nil {
			return
		}
		for _, part := range p.parts {
			bags, err := parseBags(part.content, 1)
			if err != nil {
				continue
			}
			for _, b := range bags {
				_, _ = parseCertBag(b.value)
				_, _, _ = parseEncryptedKey(b.value)
			}
		}
		_, _ = ProfileOf(data)
	})
}
