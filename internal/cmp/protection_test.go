package cmp

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/golden"
)

func reparse(t *testing.T, m *PKIMessage) *PKIMessage {
	t.Helper()
	der := fixture.Must(m.Marshal())
	parsed, err := ParsePKIMessage(der)
	require.NoError(t, err)
	return parsed
}

func confirmation() *PKIMessage {
	return &PKIMessage{Header: fullHeader(), Body: PKIBody{BodyPKIConf, PKIConfirmContent{}}}
}

// reparsed is a message under the secret "secret".
func reparsed(t *testing.T, mac MAC) *PKIMessage {
	m := confirmation()
	require.NoError(t, NewMACKeys([]byte("secret")).Protect(m, mac))
	return reparse(t, m)
}

func TestMACKeys_Protect_everyAlgorithm_verifies(t *testing.T) {
	macs := []MAC{fixture.Must(NewMAC(ProtectionPBMSHA1)), newPBMAC1()}
	for _, known := range hashAlgorithms[1:] { // SHA-1 is a protection of its own
		macs = append(macs, newPBM(ProtectionPBMSHA256, known.hash))
	}
	for _, mac := range macs {
		m := reparsed(t, mac)
		got, err := NewMACKeys([]byte("secret")).Verify(m)
		require.NoError(t, err)
		assert.Equal(t, mac, got)
		_, err = NewMACKeys([]byte("Secret")).Verify(m)
		assert.ErrorContains(t, err, "MAC does not match")
	}
	_, err := NewMAC(ProtectionSignature)
	assert.EqualError(t, err, `protection "signature" does not use a shared secret`)
}

// Two algorithms that differ in one parameter only must not share a key.
func TestMACKeys_otherParameters_deriveAnotherKey(t *testing.T) {
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
		_, err := keys.key(MAC{Protection: ProtectionPBMSHA1, KeyHash: crypto.SHA1, Iterations: 1,
			Salt: big.NewInt(int64(i)).Bytes()}, &budget)
		require.NoError(t, err)
	}
	assert.LessOrEqual(t, len(keys.keys), maxMACKeys)
}

func TestParseMAC_parametersOutOfBounds_areRefused(t *testing.T) {
	golden.Play(t, "mac.txt", func(t *testing.T, title, _ string) string { // such as "PBM, iterations: 99"
		kind, parameter, _ := strings.Cut(title, ", ")
		name, number, _ := strings.Cut(parameter, ": ")
		n := fixture.Must(strconv.Atoi(number))
		mac := newPBMAC1()
		if kind == "PBM" {
			mac = newPBM(ProtectionPBMSHA256, crypto.SHA256)
		}
		switch name {
		case "iterations":
			mac.Iterations = n
		case "bytes of salt":
			mac.Salt = make([]byte, n)
		case "bytes of key":
			mac.keyLength = n
		}
		_, err := parseMAC(fixture.Must(mac.identifier()))
		return fmt.Sprint(err)
	})
	huge := new(big.Int).Lsh(big.NewInt(1), 64)
	err := checkMACBounds(make([]byte, saltSize), huge, maxPBMIterations)
	assert.EqualError(t, err, "iterationCount is a number of 65 bits, want 100 to 100000")
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

func testKeys() map[string]crypto.Signer {
	keys := map[string]crypto.Signer{}
	for _, kind := range []string{"RSA-2048", "P-256", "P-384", "P-521", "Ed25519"} {
		keys[kind] = fixture.NewKey(kind)
	}
	return keys
}

func TestSignatures_everyKey(t *testing.T) {
	keys := testKeys()
	for name, key := range keys {
		t.Run(name, func(t *testing.T) {
			request := CertReqMsg{}
			request.CertReq.CertTemplate.PublicKey = spki(key)
			require.NoError(t, request.SignPOPO(key))
			m := &PKIMessage{Header: fullHeader(), Body: PKIBody{BodyIR, CertReqMessages{request}}}
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
			assert.Error(t, VerifySignature(reparse(t, m), key.Public()), "header changed")
			m.Protection = nil
			assert.EqualError(t, VerifySignature(m, key.Public()), "message is not protected")

			request = m.Body.Content.(CertReqMessages)[0]
			assert.NoError(t, request.VerifyPOPO())
			request.CertReq.CertReqID = 1
			request.RawCertReq, _ = encode(request.CertReq.code)
			assert.Error(t, request.VerifyPOPO(), "request changed after signing")
		})
	}
}

func TestCertReqMsg_VerifyPOPO_absentOrOfAnotherKind(t *testing.T) {
	for _, popo := range []*ProofOfPossession{nil, {RAVerified: true}, {Other: derNull}} {
		m := CertReqMsg{POPO: popo}
		assert.EqualError(t, m.VerifyPOPO(), "proof of possession is not a signature")
	}
	m := CertReqMsg{POPO: &ProofOfPossession{Signature: &POPOSigningKey{POPOSKInput: derNull}}}
	assert.ErrorContains(t, m.VerifyPOPO(), "proof of possession has a poposkInput, want a signature over")
	m = CertReqMsg{POPO: &ProofOfPossession{Signature: &POPOSigningKey{}}}
	assert.EqualError(t, m.VerifyPOPO(), "template has no public key")
}

func TestVerifySignature_PSS_verifies(t *testing.T) {
	key := fixture.Must(rsa.GenerateKey(rand.Reader, 2048))
	for _, known := range pssAlgorithms {
		for _, null := range []bool{true, false} {
			parameters := fixture.Must(pssParameters(known.hash, null))
			digest := sum(known.hash, []byte("data"))
			signature := fixture.Must(rsa.SignPSS(rand.Reader, key, known.hash, digest,
				&rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}))
			identifier := AlgorithmIdentifier{Algorithm: oidRSAPSS, Parameters: parameters}
			assert.NoError(t, verifySignature(key.Public(), identifier, []byte("data"), signature))
			assert.Error(t, verifySignature(key.Public(), identifier, []byte("other"), signature))
		}
	}
}

func spki(key crypto.Signer) []byte { return fixture.Must(x509.MarshalPKIXPublicKey(key.Public())) }

func FuzzParseMAC(f *testing.F) {
	for _, kind := range []Protection{ProtectionPBMSHA256, ProtectionPBMSHA1, ProtectionPBMAC1} {
		mac := fixture.Must(NewMAC(kind))
		identifier := fixture.Must(mac.identifier())
		f.Add(fixture.Must(encode(func(c codec) { identifier.code(c, "algorithm") })))
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

// Bouncy Castle, and EJBCA with it, names PBES2 for PBKDF2. keyLength is optional; without it the
// key is as long as the hash of the HMAC (RFC 9481, 6.1.2).
func TestParseMAC_PBMAC1_inOtherWritings(t *testing.T) {
	parse := func(derivation asn1.ObjectIdentifier, hash crypto.Hash) (MAC, error) {
		kdf := &pbkdf2Parameters{salt: make([]byte, saltSize), iterations: big.NewInt(100), prf: hmacIdentifier(hash)}
		p := pbmac1Parameters{scheme: hmacIdentifier(hash), derivation: AlgorithmIdentifier{
			Algorithm: derivation, Parameters: fixture.Must(encode(kdf.code))}}
		return parseMAC(AlgorithmIdentifier{Algorithm: oidPBMAC1, Parameters: fixture.Must(encode(p.code))})
	}
	for _, name := range []asn1.ObjectIdentifier{oidPBKDF2, oidPBES2} {
		for hash, size := range map[crypto.Hash]int{crypto.SHA1: 20, crypto.SHA256: 32, crypto.SHA512: 64} {
			mac, err := parse(name, hash)
			require.NoError(t, err)
			assert.Equal(t, MAC{Protection: ProtectionPBMAC1, KeyHash: hash, Hash: hash, Iterations: 100,
				Salt: make([]byte, saltSize), keyLength: size}, mac)
		}
	}
	_, err := parse(oidPBMAC1, crypto.SHA1)
	assert.EqualError(t, err, "PBMAC1-params: key derivation 1.2.840.113549.1.5.14 is not supported, want PBKDF2")
}

// pbmac1With returns a PBMAC1 with a fresh salt.
func pbmac1With(hash crypto.Hash, iterations, keyLength int) MAC {
	m := newPBMAC1()
	m.KeyHash, m.Hash, m.Iterations, m.keyLength = hash, hash, iterations, keyLength
	return m
}

// sharedKeys derives each key of the responders once.
var sharedKeys = NewMACKeys([]byte(testSecret))

// A peer that changes the parameters with every answer is refused when it has cost enough.
func TestHostile_PBMAC1_workIsBoundedPerTransaction(t *testing.T) {
	p := newPlay(t, "> answer to ir is error waiting\n> answer to pollReq is granted")
	p.on(protecting, func(a *answer) {
		require.NoError(t, sharedKeys.Protect(a.PKIMessage, pbmac1With(crypto.SHA256, 900, 32)))
	})
	c := fixture.Must(New(p.config))
	tx := c.begin(p.csr.RawSubject, nil, p.csr.PublicKey)
	require.Equal(t, 2_000_000, tx.macWork)
	tx.macWork = 2000 // so that the test takes no time
	message, err := c.certReqMsg(p.request(), nil)
	require.NoError(t, err)

	_, err = tx.enrol(t.Context(), PKIBody{BodyIR, CertReqMessages{message}}, p.csr)

	assert.ErrorContains(t, err,
		"(deriving key of the MAC takes 900 iterations, want at most 2000000 in one transaction, "+
			"of which 200 are left)")
	assert.Len(t, p.requests, 3)
}

// Within the bounds on each parameter, a peer can still ask for minutes of work.
func TestMACKeys_Verify_whatItTakes_isBounded(t *testing.T) {
	for _, mac := range []MAC{
		pbmac1With(crypto.SHA256, 1_000_000, 512),
		pbmac1With(crypto.SHA1, 1_000_000, 41), // three blocks
	} {
		_, err := NewMACKeys([]byte("secret")).Verify(claiming(t, mac))
		assert.ErrorContains(t, err, "want at most 2000000 in one transaction")
	}
}

// claiming returns a message that claims to be protected by a MAC.
func claiming(t *testing.T, mac MAC) *PKIMessage {
	identifier := fixture.Must(mac.identifier())
	m := confirmation()
	m.Header.ProtectionAlg = &identifier
	m.Protection = bytes.Repeat([]byte{1}, mac.Hash.Size())
	return reparse(t, m)
}

// Goroutines that need the same key at once wait for the first one.
func TestMACKeys_sameParametersAtOnce_areDerivedOnce(t *testing.T) {
	keys := NewMACKeys([]byte("secret"))
	m := claiming(t, pbmac1With(crypto.SHA256, 10_000, 32))
	budgets := make(chan int, 8)
	for range cap(budgets) {
		go func() {
			budget := 10_000
			_, _ = keys.verify(m, &budget)
			budgets <- budget
		}()
	}
	spent := 0
	for range cap(budgets) {
		spent += 10_000 - <-budgets
	}
	assert.Equal(t, 10_000, spent)
}

// What a peer makes costly waits until the caller lets it be derived, and an error of the caller's
// is not remembered.
func TestMACKeys_costlyKeys_areDerivedWhenTheCallerSays(t *testing.T) {
	keys := NewMACKeys([]byte("secret"))
	busy, calls := errors.New("busy"), 0
	keys.derive = func(derive func()) error {
		if calls++; calls == 1 {
			return busy
		}
		derive()
		return nil
	}
	costly := claiming(t, pbmac1With(crypto.SHA256, quickMACWork+1, 32))

	_, err := keys.Verify(costly)
	require.ErrorIs(t, err, busy)
	_, err = keys.Verify(costly)
	require.ErrorContains(t, err, "does not match")
	_, err = keys.Verify(costly)
	require.ErrorContains(t, err, "does not match")
	assert.Equal(t, 2, calls, "the key is remembered")

	_, err = keys.Verify(claiming(t, pbmac1With(crypto.SHA256, quickMACWork, 32)))
	require.ErrorContains(t, err, "does not match")
	assert.Equal(t, 2, calls, "a quick one is derived at once")
}

func BenchmarkMAC_key(b *testing.B) {
	for _, kind := range []Protection{ProtectionPBMSHA256, ProtectionPBMSHA1, ProtectionPBMAC1} {
		b.Run(string(kind), func(b *testing.B) {
			mac := fixture.Must(NewMAC(kind))
			for b.Loop() {
				_, err := mac.key([]byte(testSecret))
				require.NoError(b, err)
			}
		})
	}
}

// A signature by an oversized key is not even tried.
func TestVerify_oversizedKey_isRefused(t *testing.T) {
	large, key := &largeKey().PublicKey, newKey()
	m := confirmation()
	require.NoError(t, ProtectSignature(m, key))
	assert.EqualError(t, VerifySignature(m, large), "RSA key has 8676 bits, want at most 8192")
	var request CertReqMsg
	request.CertReq.CertTemplate.PublicKey = fixture.Must(x509.MarshalPKIXPublicKey(large))
	require.NoError(t, request.SignPOPO(key))
	assert.ErrorContains(t, request.VerifyPOPO(), "RSA key has 8676 bits, want at most 8192")
}

func TestCheckKey_boundsKindAndSize(t *testing.T) {
	modulus := func(bits uint) *rsa.PublicKey {
		return &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), bits-1), E: 65537}
	}
	for name, key := range testKeys() {
		assert.NoError(t, CheckKey(key.Public()), name)
	}
	assert.NoError(t, CheckKey(modulus(pki.MaxRSABits)))
	const want = " is not supported: want RSA, ECDSA P-256, P-384 or P-521, or Ed25519"
	assert.EqualError(t, CheckKey(modulus(pki.MaxRSABits+1)), "RSA key has 8193 bits, want at most 8192")
	assert.EqualError(t, CheckKey(fixture.NewKey("P-224").Public()), "key of type ECDSA P-224"+want)
	assert.EqualError(t, CheckKey(nil), "key of type <nil>"+want)
}
