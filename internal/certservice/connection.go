package certservice

import (
	"bytes"
	"crypto/tls"
	"errors"
	"net"
	"sync/atomic"
	"time"

	"github.com/certfetcher/certfetcher/internal/program"
)

// connState is what a connection is doing, from what is lost first to what is lost last when there are too many.
type connState int

const (
	connActive connState = iota // a request is being answered
	connBusy                    // a handshake or a request is on its way
	connIdle                    // nothing has come since the last answer
)

// connection is a client's connection below TLS. It belongs to one pool at a time, which bounds how many there are and
// what they hold.
type connection struct {
	net.Conn
	pool   *pool
	allow  int64 // bytes that may still be read; a negative number: no bound
	peeked []byte
	// In a handshake, what follows a Read waits for its turn, for no longer than to the deadline; nil: it does not.
	compute  *gate
	deadline time.Time
	// awaiting is since when a Read has waited for the client, in Unix nanoseconds; 0: it does not wait.
	awaiting atomic.Int64
	closed   chan struct{}

	// The rest belongs to the pool's lock.
	client  clientKey
	state   connState
	since   time.Time // of the state
	held    int64     // bytes received that may still be in memory
	left    bool      // the owner has closed it
	evicted bool
}

// receiveBuffer is what the kernel keeps of what nobody has read yet; it counts towards the limit of the cgroup. The
// kernel takes twice as much for its own needs.
const receiveBuffer = 32 << 10

func newConnection(conn net.Conn) *connection {
	c := &connection{Conn: conn, allow: -1, closed: make(chan struct{})}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetReadBuffer(receiveBuffer)
	}
	c.client.address = program.ClientAddress(conn.RemoteAddr().String())
	return c
}

var (
	errTooMuch = errors.New("more than 64 KiB in one handshake or request without a verified client certificate")
	errHeld    = errors.New("too many bytes of requests wait in memory")
)

// peek waits for the first byte, which the next Read returns once more.
func (c *connection) peek() error {
	first := make([]byte, 1)
	n, err := c.Read(first)
	c.peeked = first[:n]
	return err
}

func (c *connection) Read(p []byte) (int, error) {
	if len(c.peeked) > 0 {
		n := copy(p, c.peeked)
		c.peeked = c.peeked[n:]
		return n, nil
	}
	if c.compute != nil {
		c.compute.leave(c)
	}
	c.awaiting.Store(time.Now().UnixNano())
	n, err := c.Conn.Read(p)
	c.awaiting.Store(0)
	if n == 0 {
		return 0, err
	}
	if c.allow >= 0 {
		if c.allow -= int64(n); c.allow < 0 {
			return 0, errTooMuch
		}
	}
	if !c.pool.hold(c, int64(n)) {
		return 0, errHeld
	}
	if c.compute != nil && !c.compute.enter(c, c.deadline) {
		return 0, errNoPlace
	}
	return n, err
}

// Close is the owner's; the pool evicts a connection by closing what is below.
func (c *connection) Close() error {
	c.pool.leave(c)
	return c.Conn.Close()
}

// shut ends it from outside: whoever reads or writes gets an error, and then closes it.
func (c *connection) shut() {
	close(c.closed)
	_ = c.Conn.Close()
}

// served is a connection as the HTTP server sees it; Request.TLS comes from its ConnectionState.
type served struct {
	*tls.Conn
	below *connection
}

// lineBytes is what a header takes in memory beside its text.
const lineBytes = 128

func (s *served) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p)
	return s.below.holdLines(p[:n], err)
}

// holdLines counts lines, so that many short headers weigh as much as they take. It returns what Read should.
func (c *connection) holdLines(text []byte, err error) (int, error) {
	if lines := bytes.Count(text, []byte("\n")); lines > 0 && !c.pool.hold(c, int64(lines)*lineBytes) {
		return 0, errHeld
	}
	return len(text), err
}
