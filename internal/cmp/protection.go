package cmp

import (
	"bytes"
	"crypto"
	"crypto/hmac"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"
)

// Protection is a kind of message protection (RFC 9810, 5.1.3), by the names used in configuration.
type Protection string

// The kinds of protection.
const (
	// ProtectionPBMSHA256 is the password-based MAC with SHA-256 throughout.
	ProtectionPBMSHA256 Protection = "pbm-sha256"
	// ProtectionPBMSHA1 is the password-based MAC with SHA-1, as the ONAP server sends it.
	ProtectionPBMSHA1 Protection = "pbm-sha1"
	// ProtectionPBMAC1 is PBMAC1 with PBKDF2 and HMAC-SHA256.
	ProtectionPBMAC1 Protection = "pbmac1"
	// ProtectionSignature is a signature by a certificate's key.
	ProtectionSignature Protection = "signature"
	// ProtectionNone leaves requests unprotected: TLS tells the server who asks, a registration authority (RFC 9483,
	// 5.2.3.1). Answers are signed all the same, and a kur is.
	ProtectionNone Protection = "none"
)

// maxMACKeys bounds how many derived keys are remembered.
const maxMACKeys = 1024

// MACKeys protects and verifies messages with one shared secret. It remembers the keys derived
// from it, so that messages with the same parameters cost one derivation: RFC 9810, 5.1.3.1
// recommends that the parameters stay the same throughout a transaction. It may be used from
// several goroutines.
type MACKeys struct {
	secret []byte
	derive func(derive func()) error // as Config.Derive
	mu     sync.Mutex
	keys   map[macName]*macKey
	// parsed is the latest protectionAlg that was read: a peer has the same for many messages.
	parsed atomic.Pointer[parsedMAC]
}

type parsedMAC struct {
	identifier AlgorithmIdentifier
	mac        MAC
}

// parse is parseMAC.
func (k *MACKeys) parse(identifier AlgorithmIdentifier) (MAC, error) {
	if latest := k.parsed.Load(); latest != nil && identifier.Algorithm.Equal(latest.identifier.Algorithm) &&
		identifier.Parameters != nil && bytes.Equal(identifier.Parameters, latest.identifier.Parameters) {
		return latest.mac, nil
	}
	// Of bytes of its own: those of a message would be kept with all of it.
	own := AlgorithmIdentifier{identifier.Algorithm, bytes.Clone(identifier.Parameters)}
	mac, err := parseMAC(own)
	if err == nil {
		k.parsed.Store(&parsedMAC{own, mac})
	}
	return mac, err
}

// macName is all that a key follows from, beside the secret.
type macName struct {
	protection            Protection
	hash                  crypto.Hash
	iterations, keyLength int
	salt                  string
}

// macKey is a key that is derived by the first goroutine that asks for it; all others wait.
type macKey struct {
	once sync.Once
	key  []byte
	err  error
}

// NewMACKeys returns the keys of a shared secret, none derived yet.
func NewMACKeys(secret []byte) *MACKeys {
	return &MACKeys{secret: secret, keys: map[macName]*macKey{}}
}

// key returns the key of a MAC. What it takes to derive one that is not known yet goes off budget,
// and where that is not enough nothing is computed.
func (k *MACKeys) key(m MAC, budget *int) ([]byte, error) {
	name := macName{m.Protection, m.KeyHash, m.Iterations, m.keyLength, string(m.Salt)}
	k.mu.Lock()
	entry, known := k.keys[name]
	if !known {
		if m.work() > *budget {
			k.mu.Unlock()
			return nil, fmt.Errorf("deriving key of the MAC takes %d iterations, want at most %d in one transaction, "+
				"of which %d are left", m.work(), maxMACWork, *budget)
		}
		*budget -= m.work()
		if len(k.keys) >= maxMACKeys {
			clear(k.keys) // parameters come from peers, so that any peer could fill it
		}
		entry = &macKey{}
		k.keys[name] = entry
	}
	k.mu.Unlock()
	entry.once.Do(func() { k.fill(entry, m) })
	if entry.err != nil {
		return nil, fmt.Errorf("deriving key of the MAC: %w", entry.err)
	}
	return entry.key, nil
}

// quickMACWork is what is derived at once: 3 ms or so.
const quickMACWork = 10_000

func (k *MACKeys) fill(entry *macKey, m MAC) {
	if k.derive == nil || m.work() <= quickMACWork {
		entry.key, entry.err = m.key(k.secret)
		return
	}
	if err := k.derive(func() { entry.key, entry.err = m.key(k.secret) }); err != nil {
		entry.err = err
		k.mu.Lock()
		defer k.mu.Unlock()
		maps.DeleteFunc(k.keys, func(_ macName, e *macKey) bool { return e == entry }) // another try may succeed
	}
}

// macLifetime is how long a client protects its requests with the same parameters. Deriving the
// key takes as long as everything else in a transaction, and a salt is there so that an attacker
// cannot guess at many secrets at once; one salt a minute is enough for that.
const macLifetime = time.Minute

// currentMAC is what a client protects its requests with at the moment.
type currentMAC struct {
	mu    sync.Mutex
	value MAC
	until time.Time
}

func (c *currentMAC) mac(protection Protection, now time.Time) (MAC, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Before(c.until) && !now.Add(macLifetime).Before(c.until) { // the second: a clock that was set back
		return c.value, nil
	}
	mac, err := NewMAC(protection)
	if err != nil {
		return MAC{}, err
	}
	identifier, err := mac.identifier()
	if err != nil {
		return MAC{}, fmt.Errorf("encoding protectionAlg: %w", err)
	}
	mac.encoded = &identifier
	c.value, c.until = mac, now.Add(macLifetime)
	return mac, nil
}

// Protect sets protectionAlg and protection of the message.
// What Header and Body hold must not change afterwards.
func (k *MACKeys) Protect(m *PKIMessage, algorithm MAC) error {
	_, err := k.protect(m, algorithm)
	return err
}

// protect is Protect, and returns the protected part.
func (k *MACKeys) protect(m *PKIMessage, algorithm MAC) ([]byte, error) {
	identifier, err := algorithm.identifier()
	if err != nil {
		return nil, fmt.Errorf("encoding protectionAlg: %w", err)
	}
	budget := algorithm.work() // chosen here
	key, err := k.key(algorithm, &budget)
	if err != nil {
		return nil, err
	}
	m.Header.ProtectionAlg = &identifier
	m.RawHeader, m.RawBody = nil, nil
	part, err := m.protectedPart()
	if err != nil {
		return nil, fmt.Errorf("encoding protected part: %w", err)
	}
	m.Protection = algorithm.sum(key, part)
	return part, nil
}

// Verify checks the protection of a message and returns the algorithm it was made with. Whether
// that is strong enough is for the caller to judge.
func (k *MACKeys) Verify(m *PKIMessage) (MAC, error) {
	budget := maxMACWork
	return k.verify(m, &budget)
}

// verify is Verify within a budget of iterations for keys that are not known yet.
func (k *MACKeys) verify(m *PKIMessage, budget *int) (MAC, error) {
	if m.Header.ProtectionAlg == nil || m.Protection == nil {
		return MAC{}, errors.New("message is not protected")
	}
	algorithm, err := k.parse(*m.Header.ProtectionAlg)
	if err != nil {
		return MAC{}, err
	}
	// Before the key is derived, since a wrong length needs no work to be refused.
	if want := algorithm.Hash.Size(); len(m.Protection) != want {
		return MAC{}, fmt.Errorf("MAC has %d bytes, want %d", len(m.Protection), want)
	}
	key, err := k.key(algorithm, budget)
	if err != nil {
		return MAC{}, err
	}
	part, err := m.protectedPart()
	if err != nil {
		return MAC{}, fmt.Errorf("encoding protected part: %w", err)
	}
	if !hmac.Equal(algorithm.sum(key, part), m.Protection) {
		return MAC{}, errors.New("MAC does not match: the shared secrets differ or the message was changed")
	}
	return algorithm, nil
}

// MACProtected says whether the message claims to be protected with a shared secret.
func (m *PKIMessage) MACProtected() bool {
	alg := m.Header.ProtectionAlg
	return alg != nil && (alg.Algorithm.Equal(oidPasswordBasedMAC) || alg.Algorithm.Equal(oidPBMAC1))
}

// CheckProtectionAlg says whether the message's protectionAlg, with its parameters, can be
// verified here at all. A server answers badAlg to one that cannot, and badMessageCheck when the
// protection is wrong (RFC 9483, 3.5).
func (m *PKIMessage) CheckProtectionAlg() error {
	switch alg := m.Header.ProtectionAlg; {
	case alg == nil:
		return errors.New("message is not protected")
	case m.MACProtected():
		_, err := parseMAC(*alg)
		return err
	default:
		_, err := x509Algorithm(*alg)
		return err
	}
}
