package devca

import (
	"encoding/binary"
	"math/big"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestTransactions_tooMany_endTheOldest(t *testing.T) {
	var revoked []int64
	revoke := func(serial *big.Int, _ time.Time) { revoked = append(revoked, serial.Int64()) }
	transactions := newTransactions(revoke)
	now := time.Now()
	id := func(n int) []byte { return binary.BigEndian.AppendUint32(nil, uint32(n)) }
	for n := range maxTransactions + 3 {
		assert.True(t, transactions.begin(id(n), now))
		if n%2 == 0 {
			transactions.put(id(n), transaction{state: stateUnconfirmed, serial: big.NewInt(int64(n))})
		} else {
			transactions.end(id(n))
		}
	}
	assert.Len(t, transactions.byID, maxTransactions)
	assert.Equal(t, []int64{0, 2}, revoked)
	_, known := transactions.lookup(id(2), now)
	assert.False(t, known)
	assert.False(t, transactions.begin(id(3), now), "what is still remembered is still in use")
	assert.True(t, transactions.begin(id(2), now))

	transactions.put([]byte("forgotten"), transaction{})
	_, known = transactions.lookup([]byte("forgotten"), now)
	assert.False(t, known, "a transaction that went while it was worked on does not come back")

	transactions.expire(now.Add(maxTransactionAge + 1))
	assert.Empty(t, transactions.byID)
	assert.True(t, transactions.begin(id(3), now))
}

func TestRevocations_tooMany_areRefusedUntilSomeExpire(t *testing.T) {
	r, now := newRevocations(), time.Now()
	for n := range maxRevocations {
		r.expires[string(big.NewInt(int64(n)).Bytes())] = now.Add(time.Hour)
	}
	assert.False(t, r.add(big.NewInt(maxRevocations), now.Add(time.Hour), now))
	assert.True(t, r.has(big.NewInt(5)))
	r.expires[string(big.NewInt(5).Bytes())] = now.Add(-time.Hour)
	assert.True(t, r.add(big.NewInt(maxRevocations), now.Add(time.Hour), now))
	assert.False(t, r.has(big.NewInt(5)), "an expired certificate needs no revocation")
}
