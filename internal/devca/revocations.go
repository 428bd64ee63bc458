package devca

import (
	"math/big"
	"sync"
	"time"
)

// maxRevocations bounds the memory for revoked certificates.
const maxRevocations = 100_000

// revocations are the certificates that are revoked and have not yet expired. Certificates that are not
// revoked need no record: the issuing key, which is new at every start, has signed no others.
type revocations struct {
	mu      sync.Mutex
	expires map[string]time.Time // by serial number
}

func newRevocations() *revocations { return &revocations{expires: make(map[string]time.Time)} }

// add returns false when the certificate is revoked already, or there is no room.
func (r *revocations) add(serial *big.Int, notAfter, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, revoked := r.expires[string(serial.Bytes())]; revoked {
		return false
	}
	if len(r.expires) >= maxRevocations {
		for key, expires := range r.expires {
			if expires.Before(now) {
				delete(r.expires, key)
			}
		}
	}
	if len(r.expires) >= maxRevocations {
		return false
	}
	r.expires[string(serial.Bytes())] = notAfter
	return true
}

func (r *revocations) has(serial *big.Int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, revoked := r.expires[string(serial.Bytes())]
	return revoked
}
