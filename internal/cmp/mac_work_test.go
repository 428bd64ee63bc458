package cmp

import (
	"bytes"
	"crypto"
	"errors"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// pbmac1With returns a PBMAC1 with a fresh salt.
func pbmac1With(hash crypto.Hash, iterations, keyLength int) MAC {
	m := newPBMAC1()
	m.KeyHash, m.Hash, m.Iterations, m.keyLength = hash, hash, iterations, keyLength
	return m
}

// Others than Bouncy Castle use many more iterations than 8,192.
func TestClient_PBMAC1WithManyIterations_isAccepted(t *testing.T) {
	p := newPKI(t)
	for name, mac := range map[string]MAC{
		"262,144":                      pbmac1With(crypto.SHA256, 262_144, 32),
		"1,000,000":                    pbmac1With(crypto.SHA256, 1_000_000, 32),
		"2,000 for a key of 512 bytes": pbmac1With(crypto.SHA256, 2000, 512),
		"21,000 with SHA-512":          pbmac1With(crypto.SHA512, 21_000, 64),
		"1,000 with SHA-1":             pbmac1With(crypto.SHA1, 1000, 20),
	} {
		t.Run(name, func(t *testing.T) {
			r := &responder{t: t, testPKI: p, protect: func(_, m *PKIMessage) { require.NoError(t, sharedKeys.Protect(m, mac)) }}

			_, _, err := initialize(t, p, r, nil)

			require.NoError(t, err)
			assert.Equal(t, []BodyType{BodyIR, BodyCertConf}, r.kinds(), "the second answer has the same parameters, derived once")
		})
	}
}

// sharedKeys derives each key of the responders once.
var sharedKeys = NewMACKeys([]byte(testSecret))

// A peer that changes the parameters with every answer is told off when it has cost enough.
func TestHostile_PBMAC1_workIsBoundedPerTransaction(t *testing.T) {
	p := newPKI(t)
	answers := 0
	r := &responder{t: t, testPKI: p, body: func(request *PKIMessage, honest PKIBody) PKIBody {
		switch request.Body.Type {
		case BodyIR:
			return PKIBody{BodyError, &ErrorMsgContent{StatusInfo: PKIStatusInfo{Status: StatusWaiting}}}
		case BodyPollReq:
			return PKIBody{BodyIP, (&responder{t: t, testPKI: p}).granted(p.leaf(t, nil))}
		}
		return honest
	}, protect: func(_, m *PKIMessage) {
		answers++
		require.NoError(t, sharedKeys.Protect(m, pbmac1With(crypto.SHA256, 900, 32)))
	}}
	c, _ := testClient(t, r, nil)
	tx := c.begin(p.csr.RawSubject, nil, p.csr.PublicKey)
	require.Equal(t, 2_000_000, tx.macWork)
	tx.macWork = 2000 // so that the test takes no time
	message, err := c.certReqMsg(Request{CSR: p.csr, Key: p.key}, nil)
	require.NoError(t, err)

	_, err = tx.enrol(t.Context(), PKIBody{BodyIR, CertReqMessages{message}}, p.csr)

	assert.EqualError(t, err, "confirming certificate: checking MAC of the CMP answer: has one that does not verify (deriving key of the MAC takes "+
		"900 iterations, want at most 2000000 in one transaction, of which 200 are left), want one made with the shared secret")
	assert.Equal(t, 3, answers)
}

func TestMACKeys_Verify_whatItTakes_isBounded(t *testing.T) {
	refused := map[string]MAC{
		"2³¹ iterations":                  pbmac1With(crypto.SHA256, 1<<31, 32),
		"1,000,001 iterations":            pbmac1With(crypto.SHA256, 1_000_001, 32),
		"1,000,000 for 512 bytes":         pbmac1With(crypto.SHA256, 1_000_000, 512),
		"1,000,000 for 41 bytes, SHA-1":   pbmac1With(crypto.SHA1, 1_000_000, 41),
		"key of 513 bytes":                pbmac1With(crypto.SHA256, 1000, 513),
		"PBM with 2³¹ iterations":         {Protection: ProtectionPBMSHA256, KeyHash: crypto.SHA256, Hash: crypto.SHA256, Salt: make([]byte, 16), Iterations: 1 << 31},
		"PBM with 1,000,000 iterations":   {Protection: ProtectionPBMSHA256, KeyHash: crypto.SHA256, Hash: crypto.SHA256, Salt: make([]byte, 16), Iterations: 1_000_000},
		"PBMAC1, iterations beyond 2⁶³-1": pbmac1With(crypto.SHA256, 1<<62, 512),
	}
	for name, mac := range refused {
		m := claiming(t, mac)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		start := time.Now()

		_, err := NewMACKeys([]byte("secret")).Verify(m)

		took := time.Since(start)
		runtime.ReadMemStats(&after)
		assert.Error(t, err, name)
		assert.NotContains(t, err.Error(), "does not match", name)
		assert.Less(t, took, 2*time.Second, name)
		assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20), name)
	}
}

// claiming returns a message that claims to be protected by a MAC.
func claiming(t *testing.T, mac MAC) *PKIMessage {
	identifier, err := mac.identifier()
	require.NoError(t, err)
	m := confirmation(t)
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

// What a peer makes costly waits until the caller lets it be derived, and an error of the caller's is not remembered.
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
