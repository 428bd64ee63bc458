package certservice

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/certfetcher/certfetcher/internal/cmp"
)

// CPU runs as many computations at a time as there are processors, and gives
// them to clients in turn: the one that has used least comes first. So a
// client with many connections and large keys slows down only itself. It
// counts the time that a computation took, not what a kind of key should take.
type CPU struct {
	mu      sync.Mutex
	free    int                      // processors
	heavy   int                      // of them, those that heavy computations may still have
	clock   time.Duration            // used by the client that was last let in: where newcomers begin
	account map[clientKey]*cpuClient // of those that compute or wait
}

// cpuClient may also be a CA, by its name, as its answers are costly to verify.
type cpuClient struct {
	used    time.Duration
	running int
	waiting []*cpuTicket
}

type cpuTicket struct {
	heavy   bool
	granted chan struct{} // closed when it is the ticket's turn
}

// NewCPU leaves half of the processors to what is not heavy. Where there is one, it is shared.
func NewCPU() *CPU {
	processors := runtime.GOMAXPROCS(0)
	return &CPU{free: max(2, processors), heavy: max(1, processors/2), account: map[clientKey]*cpuClient{}}
}

// enter waits for the client's turn, and returns a function that ends it, or the error of ctx. A
// heavy computation takes longer than others should wait.
func (c *CPU) enter(ctx context.Context, client clientKey, heavy bool) (leave func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	a, ok := c.account[client]
	if !ok {
		a = &cpuClient{used: c.clock}
		c.account[client] = a
	}
	if c.free > 0 && (!heavy || c.heavy > 0) { // then no one waits that may be let in
		c.admit(a, heavy)
		c.mu.Unlock()
		return c.leaver(client, heavy), nil
	}
	ticket := &cpuTicket{heavy: heavy, granted: make(chan struct{})}
	a.waiting = append(a.waiting, ticket)
	c.mu.Unlock()
	select {
	case <-ticket.granted:
	case <-ctx.Done():
		if c.withdraw(client, ticket) {
			return nil, ctx.Err()
		}
	}
	return c.leaver(client, heavy), nil
}

// leaver returns what ends a turn that begins now.
func (c *CPU) leaver(client clientKey, heavy bool) func() {
	start := time.Now()
	return func() { c.leave(client, heavy, time.Since(start)) }
}

// grant lets in the next ones, as long as there is room.
func (c *CPU) grant() {
	for c.free > 0 {
		var next *cpuClient
		at := 0
		for _, a := range c.account {
			if i := c.first(a); i >= 0 && (next == nil || a.used < next.used) {
				next, at = a, i
			}
		}
		if next == nil {
			return
		}
		ticket := next.waiting[at]
		next.waiting = slices.Delete(next.waiting, at, at+1)
		c.admit(next, ticket.heavy)
		close(ticket.granted)
	}
}

func (c *CPU) admit(a *cpuClient, heavy bool) {
	a.running++
	c.free--
	if heavy {
		c.heavy--
	}
	c.clock = max(c.clock, a.used)
}

// first is the index of the client's first ticket that may be let in now, or -1.
func (c *CPU) first(a *cpuClient) int {
	return slices.IndexFunc(a.waiting, func(t *cpuTicket) bool { return !t.heavy || c.heavy > 0 })
}

// withdraw takes a ticket back; it is false when its turn has come.
func (c *CPU) withdraw(client clientKey, ticket *cpuTicket) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.account[client]
	i := slices.Index(a.waiting, ticket)
	if i < 0 {
		return false
	}
	a.waiting = slices.Delete(a.waiting, i, i+1)
	c.forgetIdle(client, a)
	return true
}

func (c *CPU) leave(client clientKey, heavy bool, used time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.account[client]
	a.running--
	a.used += used
	c.free++
	if heavy {
		c.heavy++
	}
	c.forgetIdle(client, a)
	c.grant()
}

// forgetIdle makes a client that comes back a newcomer,
// which is not better off than those that stayed.
func (c *CPU) forgetIdle(client clientKey, a *cpuClient) {
	if a.running == 0 && len(a.waiting) == 0 {
		delete(c.account, client)
	}
}

// deriver makes the derivation of costly keys for a CA's
// answers wait for the CA's turn. A nil CPU does not wait.
func (c *CPU) deriver(ca string) func(derive func()) error {
	if c == nil {
		return nil
	}
	return func(derive func()) error {
		ctx, cancel := context.WithTimeout(context.Background(), cmp.DefaultMessageTimeout)
		defer cancel()
		leave, err := c.enter(ctx, clientKey{certificate: sha256.Sum256([]byte("CA " + ca))}, true)
		if err != nil {
			return fmt.Errorf("waiting for a processor: %w", err)
		}
		defer leave()
		derive()
		return nil
	}
}

// turns is the CPU for one request.
type turns struct {
	ctx    context.Context
	cpu    *CPU
	client clientKey
}

// lightRSABits is the largest RSA key that is not heavy: a
// signature takes 1 ms, and 6 ms with twice the size.
const lightRSABits = 2048

// signer makes a key wait for the client's turn before each signature.
func (t turns) signer(key crypto.Signer) crypto.Signer {
	if key == nil {
		return nil
	}
	public, ok := key.Public().(*rsa.PublicKey)
	return turnSigner{key, t, ok && public.N.BitLen() > lightRSABits}
}

type turnSigner struct {
	crypto.Signer
	turns turns
	heavy bool
}

// Sign signs as crypto.Signer says.
func (s turnSigner) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	leave, err := s.turns.cpu.enter(s.turns.ctx, s.turns.client, s.heavy)
	if err != nil {
		return nil, err
	}
	defer leave()
	return s.Signer.Sign(random, digest, opts)
}
