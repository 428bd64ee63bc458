package devca

import (
	"crypto/sha256"
	"math/big"
	"slices"
	"sync"
	"time"

	"github.com/certfetcher/certfetcher/internal/cmp"
)

// Bounds on the transactions that are remembered. One that goes because there are too many, or
// because it is too old, ends; if its certificate was not confirmed, that is revoked.
const (
	maxTransactions   = 20_000
	maxTransactionAge = 10 * time.Minute
)

// state is what a transaction waits for.
type state int

const (
	stateWorking     state = iota // a message of it is being answered
	stateWaiting                  // pollReq
	stateUnconfirmed              // certConf
	stateConfirmed                // nothing, and its certificate is confirmed
	stateEnded                    // nothing; remembered so that its transactionID is not used again
)

// transaction is one exchange from a request to its confirmation.
type transaction struct {
	state   state
	started time.Time
	by      requester    // must send the later messages too
	nonce   []byte       // senderNonce of the last answer
	used    []nonceHash  // senderNonces of the requester so far
	answer  cmp.BodyType // ip, cp or kup

	// For stateWaiting.
	wanted   *wanted
	putOff   []nonceHash // senderNonces of earlier answers: the last one may not have arrived
	polls    int         // pollReps still to be sent
	implicit bool        // implicit confirmation was asked for

	// For stateUnconfirmed.
	certReqID   int64
	certificate []byte // DER
	serial      *big.Int
	notAfter    time.Time
}

// putOffWith says whether a nonce is that of an earlier answer of a transaction that is polled for.
func (t *transaction) putOffWith(nonce []byte) bool {
	return t.state == stateWaiting && slices.Contains(t.putOff, nonceHash(sha256.Sum256(nonce)))
}

// nonceHash stands for a nonce, which is as long as its sender likes.
type nonceHash [sha256.Size]byte

// transactions are those of the last minutes, by transactionID. A message takes a transaction out
// of its state, is worked on without a lock, and puts it back or ends it.
type transactions struct {
	mu          sync.Mutex
	byID        map[string]*transaction
	nonces      map[nonceHash]struct{} // senderNonces of all requesters
	order       []string               // a ring of the IDs, oldest at first
	first, used int
	unconfirmed func(serial *big.Int, notAfter time.Time) // called for what goes without confirmation
}

func newTransactions(unconfirmed func(serial *big.Int, notAfter time.Time)) *transactions {
	return &transactions{
		byID: make(map[string]*transaction), nonces: make(map[nonceHash]struct{}),
		order: make([]string, maxTransactions), unconfirmed: unconfirmed,
	}
}

// begin starts a transaction in stateWorking. It returns false when the ID is in use.
func (t *transactions) begin(id []byte, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expireLocked(now)
	if _, inUse := t.byID[string(id)]; inUse {
		return false
	}
	if t.used == maxTransactions {
		t.forgetOldest()
	}
	t.byID[string(id)] = &transaction{started: now}
	t.order[(t.first+t.used)%maxTransactions] = string(id)
	t.used++
	return true
}

// lookup returns a copy of a transaction.
func (t *transactions) lookup(id []byte, now time.Time) (transaction, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expireLocked(now)
	if found := t.byID[string(id)]; found != nil {
		return *found, true
	}
	return transaction{}, false
}

// take moves a transaction from the state to stateWorking and returns a copy of what it was. It
// returns false when the transaction is not, or no more, in that state.
func (t *transactions) take(id []byte, from state) (transaction, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	found := t.byID[string(id)]
	if found == nil || found.state != from {
		return transaction{}, false
	}
	taken := *found
	found.state = stateWorking
	return taken, true
}

// use notes the senderNonce of a message of the transaction. It returns false when a message that
// is remembered had it before (RFC 9483, 3.1: fresh in every message).
func (t *transactions) use(id, nonce []byte) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	hash := nonceHash(sha256.Sum256(nonce))
	found := t.byID[string(id)]
	if _, used := t.nonces[hash]; used || found == nil {
		return false
	}
	t.nonces[hash] = struct{}{}
	found.used = append(found.used, hash)
	return true
}

// put sets what a transaction waits for next.
func (t *transactions) put(id []byte, next transaction) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if found := t.byID[string(id)]; found != nil {
		next.started, next.used = found.started, found.used
		*found = next
	}
}

// end ends a transaction and forgets all of it but the ID.
func (t *transactions) end(id []byte) { t.put(id, transaction{state: stateEnded}) }

// expire ends the transactions that are too old.
func (t *transactions) expire(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.expireLocked(now)
}

func (t *transactions) expireLocked(now time.Time) {
	for t.used > 0 && now.Sub(t.byID[t.order[t.first]].started) > maxTransactionAge {
		t.forgetOldest()
	}
}

func (t *transactions) forgetOldest() {
	id := t.order[t.first]
	if oldest := t.byID[id]; oldest.state == stateUnconfirmed {
		t.unconfirmed(oldest.serial, oldest.notAfter)
	}
	for _, nonce := range t.byID[id].used {
		delete(t.nonces, nonce)
	}
	delete(t.byID, id)
	t.order[t.first] = ""
	t.first = (t.first + 1) % maxTransactions
	t.used--
}
