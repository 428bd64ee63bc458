package cmp

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/asn1"
	"encoding/hex"
	"math/big"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func reparse(t *testing.T, m *PKIMessage) *PKIMessage {
	t.Helper()
	der, err := m.Marshal()
	require.NoError(t, err)
	parsed, err := ParsePKIMessage(der)
	require.NoError(t, err)
	return parsed
}

func confirmation(t *testing.T) *PKIMessage {
	return &PKIMessage{Header: fullHeader(t), Body: PKIBody{BodyPKIConf, PKIConfirmContent{}}}
}

func TestMACKeys_Protect_everyKind_verifies(t *testing.T) {
	for _, kind := range []Protection{ProtectionPBMSHA256, ProtectionPBMSHA1, ProtectionPBMAC1} {
		t.Run(string(kind), func(t *testing.T) {
			mac, err := NewMAC(kind)
			require.NoError(t, err)
			m := confirmation(t)
			require.NoError(t, NewMACKeys([]byte("secret")).Protect(m, mac))

			got, err := NewMACKeys([]byte("secret")).Verify(reparse(t, m))

			require.NoError(t, err)
			assert.Equal(t, mac, got)
		})
	}
}

func TestNewMAC_signature_isRefused(t *testing.T) {
	_, err := NewMAC(ProtectionSignature)

	assert.EqualError(t, err, `protection "signature" does not use a shared secret`)
}

func TestMACKeys_Protect_everyHash_verifies(t *testing.T) {
	for _, known := range hashAlgorithms {
		m := confirmation(t)
		mac := newPBM(ProtectionPBMSHA256, known.hash)
		require.NoError(t, NewMACKeys([]byte("secret")).Protect(m, mac))
		got, err := NewMACKeys([]byte("secret")).Verify(reparse(t, m))
		require.NoError(t, err, known.hash)
		assert.Equal(t, known.hash, got.KeyHash)
		assert.Equal(t, known.hash, got.Hash)
	}
}

func TestMACKeys_Verify_changedMessage_isRefused(t *testing.T) {
	changes := map[string]struct {
		change func(m *PKIMessage)
		want   string
	}{
		"header changed":    {func(m *PKIMessage) { m.Header.SenderNonce = NewNonce() }, "MAC does not match: the shared secrets differ or the message was changed"},
		"body changed":      {func(m *PKIMessage) { m.Body = PKIBody{BodyPollReq, PollReqContent{0}} }, "MAC does not match: the shared secrets differ or the message was changed"},
		"MAC cut short":     {func(m *PKIMessage) { m.Protection = m.Protection[:1] }, "MAC has 1 bytes, want 32"},
		"MAC empty":         {func(m *PKIMessage) { m.Protection = []byte{} }, "MAC has 0 bytes, want 32"},
		"MAC absent":        {func(m *PKIMessage) { m.Protection = nil }, "message is not protected"},
		"algorithm absent":  {func(m *PKIMessage) { m.Header.ProtectionAlg = nil }, "message is not protected"},
		"parameters absent": {func(m *PKIMessage) { m.Header.ProtectionAlg.Parameters = nil }, "PBMParameter is absent"},
		"not a MAC": {func(m *PKIMessage) { m.Header.ProtectionAlg.Algorithm = signatureAlgorithms[0].oid },
			"protection algorithm 1.2.840.113549.1.1.11 is not a MAC that is supported"},
	}
	for name, row := range changes {
		t.Run(name, func(t *testing.T) {
			m := confirmation(t)
			mac, err := NewMAC(ProtectionPBMSHA256)
			require.NoError(t, err)
			require.NoError(t, NewMACKeys([]byte("secret")).Protect(m, mac))
			m = reparse(t, m)
			row.change(m)

			_, err = NewMACKeys([]byte("secret")).Verify(reparse(t, m))

			assert.EqualError(t, err, row.want)
		})
	}
}

func TestMACKeys_sameParameters_deriveOnce(t *testing.T) {
	keys := NewMACKeys([]byte("secret"))
	mac, err := NewMAC(ProtectionPBMAC1)
	require.NoError(t, err)
	for range 3 {
		m := confirmation(t)
		require.NoError(t, keys.Protect(m, mac))
		_, err = keys.Verify(reparse(t, m))
		require.NoError(t, err)
	}
	assert.Len(t, keys.keys, 1)
}

// Two algorithms that differ in one parameter only must not share a key.
func TestMACKeys_otherParameters_deriveAnew(t *testing.T) {
	keys := NewMACKeys([]byte("secret"))
	base := newPBMAC1()
	pbm := base
	pbm.Protection = ProtectionPBMSHA256
	hash, salt, iterations, length := base, base, base, base
	hash.KeyHash, salt.Salt, iterations.Iterations, length.keyLength = crypto.SHA1, make([]byte, saltSize), 100, 20
	seen := map[string]bool{}
	for _, mac := range []MAC{base, pbm, hash, salt, iterations, length} {
		budget := mac.work()
		got, err := keys.key(mac, &budget)
		require.NoError(t, err)
		want, err := mac.key([]byte("secret"))
		require.NoError(t, err)
		assert.Equal(t, want, got)
		seen[string(got)] = true
	}
	assert.Len(t, seen, 6)
}

func TestMACKeys_parametersOfPeers_areBounded(t *testing.T) {
	keys := NewMACKeys([]byte("secret"))
	for i := range maxMACKeys + 10 {
		budget := 1
		_, err := keys.key(MAC{Protection: ProtectionPBMSHA1, KeyHash: crypto.SHA1, Iterations: 1, Salt: big.NewInt(int64(i)).Bytes()}, &budget)
		require.NoError(t, err)
	}
	assert.LessOrEqual(t, len(keys.keys), maxMACKeys)
}

func TestMACKeys_Verify_otherSecret_isRefused(t *testing.T) {
	m := confirmation(t)
	mac, err := NewMAC(ProtectionPBMSHA256)
	require.NoError(t, err)
	require.NoError(t, NewMACKeys([]byte("secret")).Protect(m, mac))

	_, err = NewMACKeys([]byte("Secret")).Verify(reparse(t, m))

	assert.EqualError(t, err, "MAC does not match: the shared secrets differ or the message was changed")
}

func TestMACKeys_Verify_parametersOutOfBounds_areRefused(t *testing.T) {
	salt := make([]byte, saltSize)
	unknown := asn1.ObjectIdentifier{1, 2, 3}
	iterations := func(n int) func(m *MAC) { return func(m *MAC) { m.Iterations = n } }
	salted := func(n int) func(m *MAC) { return func(m *MAC) { m.Salt = make([]byte, n) } }
	for name, row := range map[string]struct {
		change            func(m *MAC)
		wantPBM, wantPBM1 string // without the structure's name
	}{
		"0 iterations":         {iterations(0), "iterationCount is 0, want 100 to 100000", "iterationCount is 0, want 100 to 1000000"},
		"-1 iterations":        {iterations(-1), "iterationCount is -1, want 100 to 100000", "iterationCount is -1, want 100 to 1000000"},
		"99 iterations":        {iterations(99), "iterationCount is 99, want 100 to 100000", "iterationCount is 99, want 100 to 1000000"},
		"100,001 iterations":   {iterations(100_001), "iterationCount is 100001, want 100 to 100000", ""},
		"1,000,001 iterations": {iterations(1_000_001), "iterationCount is 1000001, want 100 to 100000", "iterationCount is 1000001, want 100 to 1000000"},
		"2³¹ iterations":       {iterations(1 << 31), "iterationCount is 2147483648, want 100 to 100000", "iterationCount is 2147483648, want 100 to 1000000"},
		"salt of 7 bytes":      {salted(7), "salt has 7 bytes, want 8 to 256", "salt has 7 bytes, want 8 to 256"},
		"salt of 257 bytes":    {salted(257), "salt has 257 bytes, want 8 to 256", "salt has 257 bytes, want 8 to 256"},
	} {
		t.Run(name, func(t *testing.T) {
			for prefix, kind := range map[string]struct {
				mac  MAC
				want string
			}{"PBMParameter: ": {newPBM(ProtectionPBMSHA256, crypto.SHA256), row.wantPBM}, "PBMAC1-params: PBKDF2-params: ": {newPBMAC1(), row.wantPBM1}} {
				row.change(&kind.mac)
				identifier, err := kind.mac.identifier()
				require.NoError(t, err)
				_, err = parseMAC(identifier)
				if kind.want == "" {
					assert.NoError(t, err)
					continue
				}
				assert.EqualError(t, err, prefix+kind.want)
			}
		})
	}
	t.Run("2⁶⁴ iterations", func(t *testing.T) {
		err := checkMACBounds(salt, new(big.Int).Lsh(big.NewInt(1), 64), maxPBMIterations)
		assert.EqualError(t, err, "iterationCount is a number of 65 bits, want 100 to 100000")
	})
	t.Run("key of PBMAC1 too short or too long", func(t *testing.T) {
		mac := newPBMAC1()
		mac.keyLength = 1
		identifier, err := mac.identifier()
		require.NoError(t, err)
		_, err = parseMAC(identifier)
		assert.EqualError(t, err, "PBMAC1-params: PBKDF2-params: keyLength is 1, want 20 to 512")
		for length, want := range map[int]bool{512: true, 513: false} {
			mac.keyLength = length
			identifier, err = mac.identifier()
			require.NoError(t, err)
			_, err = parseMAC(identifier)
			assert.Equal(t, want, err == nil, length)
		}
	})
	t.Run("unknown owf and mac", func(t *testing.T) {
		_, err := hashOf(AlgorithmIdentifier{Algorithm: unknown})
		assert.EqualError(t, err, "hash algorithm 1.2.3 is not supported")
		_, err = hmacOf(AlgorithmIdentifier{Algorithm: unknown})
		assert.EqualError(t, err, "MAC algorithm 1.2.3 is not supported")
	})
}

// The key derivation of PBM checked against a value computed step by step, and PBKDF2's default PRF
// (HMAC-SHA1) against RFC 6070's vector for 4096 iterations.
func TestMAC_keys_matchVectors(t *testing.T) {
	mac := MAC{KeyHash: crypto.SHA1, Salt: []byte("salt"), Iterations: 2}
	once := crypto.SHA1.New()
	once.Write([]byte("passwordsalt"))
	twice := crypto.SHA1.New()
	twice.Write(once.Sum(nil))
	assert.Equal(t, twice.Sum(nil), mac.pbmKey([]byte("password")))

	mac = MAC{KeyHash: crypto.SHA1, Salt: []byte("salt"), Iterations: 4096, keyLength: 20}
	key, err := mac.pbmac1Key([]byte("password"))
	require.NoError(t, err)
	assert.Equal(t, "4b007901b765489abead49d926f721d065a429c1", hex.EncodeToString(key))
}

func testKeys(t testing.TB) map[string]crypto.Signer {
	keys := map[string]crypto.Signer{}
	var err error
	keys["RSA-2048"], err = rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	for name, curve := range map[string]elliptic.Curve{"ECDSA-P256": elliptic.P256(), "ECDSA-P384": elliptic.P384(), "ECDSA-P521": elliptic.P521()} {
		keys[name], err = ecdsa.GenerateKey(curve, rand.Reader)
		require.NoError(t, err)
	}
	_, keys["Ed25519"], err = ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	return keys
}

func TestProtectSignature_everyKey_verifies(t *testing.T) {
	keys := testKeys(t)
	for name, key := range keys {
		t.Run(name, func(t *testing.T) {
			m := confirmation(t)
			require.NoError(t, ProtectSignature(m, key))
			m = reparse(t, m)

			assert.NoError(t, VerifySignature(m, key.Public()))
			assert.False(t, m.MACProtected())
			for otherName, other := range keys {
				if otherName != name {
					assert.Error(t, VerifySignature(m, other.Public()), otherName)
				}
			}
			m.Header.PVNO = PVNO3
			assert.Error(t, VerifySignature(reparse(t, m), key.Public()), "header changed after signing")
			m.Protection = nil
			assert.EqualError(t, VerifySignature(m, key.Public()), "message is not protected")
		})
	}
}

func TestVerifySignature_PSS_verifies(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	for _, known := range pssAlgorithms {
		for _, null := range []bool{true, false} {
			parameters, err := pssParameters(known.hash, null)
			require.NoError(t, err)
			digest := sum(known.hash, []byte("data"))
			signature, err := rsa.SignPSS(rand.Reader, key, known.hash, digest, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
			require.NoError(t, err)
			identifier := AlgorithmIdentifier{Algorithm: oidRSAPSS, Parameters: parameters}
			assert.NoError(t, verifySignature(key.Public(), identifier, []byte("data"), signature))
			assert.Error(t, verifySignature(key.Public(), identifier, []byte("other"), signature))
		}
	}
}

func TestVerifySignature_SHA1_isRefused(t *testing.T) {
	sha1WithRSA := AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 5}, Parameters: derNull}

	err := verifySignature(testKeys(t)["RSA-2048"].Public(), sha1WithRSA, nil, nil)

	assert.EqualError(t, err, "signature algorithm 1.2.840.113549.1.1.5 is not supported")
}

func TestCertReqMsg_VerifyPOPO(t *testing.T) {
	for name, key := range testKeys(t) {
		t.Run(name, func(t *testing.T) {
			request := CertReqMsg{}
			require.NoError(t, request.CertReq.CertTemplate.SetKey(key.Public()))
			require.NoError(t, request.SignPOPO(key))
			m := reparse(t, &PKIMessage{Header: fullHeader(t), Body: PKIBody{BodyIR, CertReqMessages{request}}})
			parsed := m.Body.Content.(CertReqMessages)[0]

			assert.NoError(t, parsed.VerifyPOPO())

			parsed.CertReq.CertReqID = 1
			parsed.RawCertReq, _ = encode(parsed.CertReq.code)
			assert.Error(t, parsed.VerifyPOPO(), "request changed after signing")
		})
	}
	t.Run("absent or of another kind", func(t *testing.T) {
		for _, popo := range []*ProofOfPossession{nil, {RAVerified: true}, {Other: derNull}} {
			m := CertReqMsg{POPO: popo}
			assert.EqualError(t, m.VerifyPOPO(), "proof of possession is not a signature")
		}
		m := CertReqMsg{POPO: &ProofOfPossession{Signature: &POPOSigningKey{POPOSKInput: derNull}}}
		assert.EqualError(t, m.VerifyPOPO(), "proof of possession has a poposkInput, want a signature over the request")
		m = CertReqMsg{POPO: &ProofOfPossession{Signature: &POPOSigningKey{}}}
		assert.EqualError(t, m.VerifyPOPO(), "template has no public key")
	})
}

func FuzzParseMAC(f *testing.F) {
	for _, kind := range []Protection{ProtectionPBMSHA256, ProtectionPBMSHA1, ProtectionPBMAC1} {
		mac, err := NewMAC(kind)
		require.NoError(f, err)
		identifier, err := mac.identifier()
		require.NoError(f, err)
		der, err := encode(func(c codec) { identifier.code(c, "algorithm") })
		require.NoError(f, err)
		f.Add(der)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		var identifier AlgorithmIdentifier
		code := func(c codec) { identifier.code(c, "algorithm") }
		if decode(der, "fuzz", code) != nil {
			return
		}
		again, err := encode(code)
		require.NoError(t, err)
		require.Equal(t, der, again)
		mac, err := parseMAC(identifier)
		if err != nil {
			return
		}
		require.GreaterOrEqual(t, mac.Iterations, minIterations)
		require.LessOrEqual(t, mac.Iterations, maxPBMAC1Iterations)
		require.NotZero(t, mac.Hash)
		require.NotZero(t, mac.KeyHash)
	})
}

func TestCurrentMAC_changesEveryMinute_andWhenTheClockIsSetBack(t *testing.T) {
	var current currentMAC
	start := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	at := func(d time.Duration) MAC {
		mac, err := current.mac(ProtectionPBMSHA256, start.Add(d))
		require.NoError(t, err)
		return mac
	}
	first := at(0)
	assert.Equal(t, first, at(59*time.Second))
	second := at(time.Minute)
	assert.NotEqual(t, first.Salt, second.Salt)
	assert.NotEqual(t, second.Salt, at(-time.Hour).Salt)
}
