package certservice

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/certfetcher/certfetcher/internal/cmp"
)

// learned is what is known from the answers of one CA that has no trustAnchors configured. EJBCA
// signs the answer to a key update however it protects others, so that an update needs a root to
// verify it with. The roots are those that the CA sent under the shared secret: anyone who can
// forge that can have certificates issued anyway.
type learned struct {
	mu    sync.Mutex
	roots []*x509.Certificate
	signs time.Time // until when the CA counts as one that signs its answers to requests under the secret
}

const (
	// maxLearnedRoots bounds what one CA can make us keep, and
	// maxLearned for how many, those of the past included.
	maxLearnedRoots = 16
	maxLearned      = 256
	// signsFor is how long requests are refused without asking a CA that signs: each would have a
	// certificate issued in vain. It is not longer because an attacker on the path to the CA can
	// make it look like one.
	signsFor = 5 * time.Minute
)

// learn replaces the roots by those of the latest answer:
// the CA may have a good reason to leave one out.
func (l *learned) learn(roots []*x509.Certificate) {
	if len(roots) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.roots = slices.Clone(roots[:min(len(roots), maxLearnedRoots)])
	l.signs = time.Time{}
}

func (l *learned) forgetRoots() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.roots = nil
}

// trusted returns the roots that are valid at the time.
func (l *learned) trusted(now time.Time) []*x509.Certificate {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(l.roots), func(root *x509.Certificate) bool {
		return now.Before(root.NotBefore) || now.After(root.NotAfter)
	})
}

func (l *learned) noteSigns(until time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.signs = until
}

func (l *learned) signsAt(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return now.Before(l.signs)
}

// learnedStore keeps what was learned across reloads, for entries that are the same in everything
// that it depends on.
type learnedStore struct {
	mu    sync.Mutex
	byKey map[digest]*learned
}

func newLearnedStore() *learnedStore { return &learnedStore{byKey: map[digest]*learned{}} }

// of returns what was learned for the entry. After a reload,
// a CA that was seen to sign is asked again.
func (s *learnedStore) of(server Server) *learned {
	key := learnedKey(server)
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.byKey[key]
	if !ok {
		if len(s.byKey) >= maxLearned {
			clear(s.byKey) // they are learned again
		}
		l = &learned{}
		s.byKey[key] = l
	}
	l.noteSigns(time.Time{})
	return l
}

// learnedKey identifies the CA and the secret under which the roots came.
func learnedKey(s Server) digest {
	hash := sha256.New()
	for _, part := range [][]byte{[]byte(s.URL), []byte(s.IssuerDN), s.IAK.Reveal(), s.RV.Reveal()} {
		hash.Write(binary.BigEndian.AppendUint32(nil, uint32(len(part))))
		hash.Write(part)
	}
	return digest(hash.Sum(nil))
}

// errSigns is for CAs whose answers nothing can verify.
var errSigns = errors.New("the CA signs its answers and cmpServers.json has no trustAnchors for it: " +
	"set trustAnchors to its root, or have it protect its answers with the shared secret")

// noteUnanchored explains a signed answer that nothing can verify, and remembers that the CA signs.
func (a *cmpAuthority) noteUnanchored(err error) error {
	if !errors.Is(err, cmp.ErrNoAnchors) {
		return err
	}
	a.learned.noteSigns(a.now().Add(signsFor))
	return &FailedError{Text: errSigns.Error(), Err: err}
}

// isOutdated reports whether an answer failed because of the roots that it was verified with: a CA
// with a new root signs with it.
func isOutdated(err error) bool {
	check, ok := errors.AsType[*cmp.CheckError](err)
	return ok && slices.Contains([]string{"signature", "signer", "signer's chain", "chain"}, check.Check)
}

// verifiedBy returns a client that verifies signed answers with the roots.
func (a *cmpAuthority) verifiedBy(roots []*x509.Certificate) (*cmp.Client, error) {
	cfg := a.cfg
	cfg.TrustAnchors = roots
	client, err := cmp.New(cfg)
	if err != nil {
		return nil, fmt.Errorf("making a client for roots learned from the CA: %w", err)
	}
	return client, nil
}
