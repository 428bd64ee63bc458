// Package fairlisten bounds the connections of a port that everybody may reach, and shares them out: where there are
// too many, the address with most of them loses one, so that no address can keep the others out.
package fairlisten

import (
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// Listener takes connections from another listener. When more are open than it may have, it closes one of the address
// that has most: one without a request before one with, and of these the oldest.
type Listener struct {
	net.Listener
	most int
	lost func(remote net.Addr)

	mu   sync.Mutex
	open map[*conn]struct{}
	of   map[netip.Addr]int
}

type conn struct {
	net.Conn
	listener *Listener
	address  netip.Addr
	since    time.Time
	state    http.ConnState
}

// New bounds the connections of listener to most, a number from 1. lost is told of each that is closed for another; nil
// for nobody.
func New(listener net.Listener, most int, lost func(remote net.Addr)) *Listener {
	if lost == nil {
		lost = func(net.Addr) {}
	}
	return &Listener{Listener: listener, most: most, lost: lost, open: map[*conn]struct{}{}, of: map[netip.Addr]int{}}
}

// Address is what clients are told apart by: that of a host:port, without the port. It is the zero one where the network
// has other addresses.
func Address(remote string) netip.Addr {
	address, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Addr{}
	}
	return address.Addr().Unmap()
}

// Accept waits for the next connection.
func (l *Listener) Accept() (net.Conn, error) {
	accepted, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: accepted, listener: l, address: Address(accepted.RemoteAddr().String()), since: time.Now()}
	l.mu.Lock()
	l.open[c] = struct{}{}
	l.of[c.address]++
	var victim *conn
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
func (l *Listener) victim(newest *conn) (found *conn) {
	for c := range l.open {
		if c != newest && (found == nil || l.before(c, found)) {
			found = c
		}
	}
	return found
}

func (l *Listener) before(a, b *conn) bool {
	if more, less := l.of[a.address], l.of[b.address]; more != less {
		return more > less
	}
	if answered := a.state == http.StateActive; answered != (b.state == http.StateActive) {
		return !answered
	}
	return a.since.Before(b.since)
}

func (l *Listener) remove(c *conn) {
	if _, ok := l.open[c]; !ok {
		return
	}
	delete(l.open, c)
	if l.of[c.address]--; l.of[c.address] == 0 {
		delete(l.of, c.address)
	}
}

// ConnState is to be that of the http.Server that serves the connections.
func (l *Listener) ConnState(served net.Conn, state http.ConnState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	served.(*conn).state = state
}

// Count is how many connections are open, those with a request apart.
func (l *Listener) Count() (idle, answered int) {
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
func (c *conn) Close() error {
	c.listener.mu.Lock()
	c.listener.remove(c)
	c.listener.mu.Unlock()
	return c.Conn.Close()
}
