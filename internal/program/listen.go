package program

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// FairListener takes connections from another listener. When more are
// open than it may have, it closes one of the address that has most:
// one without a request before one with, and of these the oldest.
type FairListener struct {
	net.Listener
	most int
	lost func(remote net.Addr)

	mu   sync.Mutex
	open map[*fairConn]struct{}
	of   map[netip.Addr]int
}

type fairConn struct {
	net.Conn
	listener *FairListener
	address  netip.Addr
	since    time.Time
	state    http.ConnState
}

// ListenFairly bounds the connections of listener to most, a number from 1, and shares them out:
// where there are too many, the address with most of them loses one, so that no address can keep
// the others out. lost gets each that is closed for another; nil for no one.
func ListenFairly(listener net.Listener, most int, lost func(remote net.Addr)) *FairListener {
	if lost == nil {
		lost = func(net.Addr) {}
	}
	return &FairListener{Listener: listener, most: most, lost: lost, open: map[*fairConn]struct{}{},
		of: map[netip.Addr]int{}}
}

// ClientAddress is what distinguishes clients: that of a host:port, without the port. It is the
// zero one where the network has other addresses.
func ClientAddress(remote string) netip.Addr {
	address, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Addr{}
	}
	return address.Addr().Unmap()
}

// Accept waits for the next connection.
func (l *FairListener) Accept() (net.Conn, error) {
	accepted, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &fairConn{Conn: accepted, listener: l, address: ClientAddress(accepted.RemoteAddr().String()),
		since: time.Now()}
	l.mu.Lock()
	l.open[c] = struct{}{}
	l.of[c.address]++
	var victim *fairConn
	if len(l.open) > l.most {
		victim = l.victim(c)
	}
	if victim != nil {
		l.remove(victim)
	}
	l.mu.Unlock()
	if victim != nil {
		l.lost(victim.RemoteAddr())
		_ = victim.Conn.Close() // its owner gets an error, and closes it for itself
	}
	return c, nil
}

// victim is another connection than newest.
func (l *FairListener) victim(newest *fairConn) (found *fairConn) {
	for c := range l.open {
		if c != newest && (found == nil || l.before(c, found)) {
			found = c
		}
	}
	return found
}

func (l *FairListener) before(a, b *fairConn) bool {
	if more, less := l.of[a.address], l.of[b.address]; more != less {
		return more > less
	}
	if answered := a.state == http.StateActive; answered != (b.state == http.StateActive) {
		return !answered
	}
	return a.since.Before(b.since)
}

func (l *FairListener) remove(c *fairConn) {
	if _, ok := l.open[c]; !ok {
		return
	}
	delete(l.open, c)
	if l.of[c.address]--; l.of[c.address] == 0 {
		delete(l.of, c.address)
	}
}

// ConnState is to be that of the http.Server that serves the connections.
func (l *FairListener) ConnState(served net.Conn, state http.ConnState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	served.(*fairConn).state = state
}

// Count is how many connections are open, those with a request apart.
func (l *FairListener) Count() (idle, answered int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.open {
		if c.state == http.StateActive {
			answered++
		} else {
			idle++
		}
	}
	return idle, answered
}

// Close closes the connection, which makes room for another.
func (c *fairConn) Close() error {
	c.listener.mu.Lock()
	c.listener.remove(c)
	c.listener.mu.Unlock()
	return c.Conn.Close()
}

// probeTimeout is shorter than the second that Kubernetes gives a probe by default.
const probeTimeout = 900 * time.Millisecond

// Probe asks a server of ours on this machine how it is, for health checks in images that have no
// shell and no curl. It asks for a path at an address as a server is given it: host:port, or :port
// for all addresses, which is asked on loopback. Any status that ok allows is success.
func Probe(ctx context.Context, address, path string, ok func(status int) bool) error {
	status, _, err := AskLocal(ctx, address, path)
	if err == nil && !ok(status) {
		err = fmt.Errorf("http://%s%s answered %d %s", onThisMachine(address), path, status, http.StatusText(status))
	}
	return err
}

// maxProbeBody bounds what Get reads of an answer, in bytes.
const maxProbeBody = 1 << 20

// AskLocal asks as HTTP does, and returns what was answered.
func AskLocal(ctx context.Context, address, path string) (status int, body []byte, err error) {
	if _, _, err := net.SplitHostPort(address); err != nil {
		return 0, nil, fmt.Errorf("%q is not an address of the form host:port: %w", address, err)
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	url := "http://" + onThisMachine(address) + path
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, nil, err
	}
	// No proxy: the server is on this machine.
	response, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request)
	if err != nil {
		return 0, nil, fmt.Errorf("asking %s: %w", url, err)
	}
	defer response.Body.Close()
	if body, err = io.ReadAll(io.LimitReader(response.Body, maxProbeBody)); err != nil {
		return 0, nil, fmt.Errorf("reading the answer of %s: %w", url, err)
	}
	return response.StatusCode, body, nil
}

// onThisMachine is where to ask a server that listens at the address.
func onThisMachine(address string) string {
	host, port, _ := net.SplitHostPort(address)
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}
