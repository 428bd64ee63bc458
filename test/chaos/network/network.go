// Package network puts broken networks between the built programs: certfetcher, certservice and the CA. It is a module
// of its own, so that Toxiproxy is not certfetcher's dependency.
package network

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/Shopify/toxiproxy/v2/stream"
	"github.com/rs/zerolog"
)

// Broken is a network in front of one server: a listener whose connections each suffer a fault of their own.
type Broken struct {
	// Address is where to connect to.
	Address string

	listener net.Listener
	upstream atomic.Pointer[string]
	draw     func() Fault
	server   *toxiproxy.ApiServer

	mu     sync.Mutex
	conns  []net.Conn
	closed bool
	met    map[string]int // connections by the kind of their fault
}

// Listen passes connections on to the upstream, a host:port, each with the fault that draw returns. It calls draw from
// one goroutine.
func Listen(upstream string, draw func() Fault) (*Broken, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	b := &Broken{
		Address: listener.Addr().String(), listener: listener, draw: draw, met: map[string]int{},
		server: toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())}
	b.Lead(upstream)
	go b.accept()
	return b, nil
}

// Lead has connections from now on go to another upstream.
func (b *Broken) Lead(upstream string) { b.upstream.Store(&upstream) }

// Met returns how many connections there were, by the kind of their fault.
func (b *Broken) Met() map[string]int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.met)
}

// Close ends the listener and every connection.
func (b *Broken) Close() {
	b.listener.Close()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for _, conn := range b.conns {
		conn.Close()
	}
}

// keep has Close end the connection.
func (b *Broken) keep(conn net.Conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		conn.Close()
	}
	b.conns = append(b.conns, conn)
}

func (b *Broken) accept() {
	for n := 0; ; n++ {
		conn, err := b.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		b.keep(conn)
		fault := b.draw()
		b.mu.Lock()
		b.met[fault.Kind]++
		b.mu.Unlock()
		if !fault.hole {
			go b.pass(conn.(*net.TCPConn), fault, strconv.Itoa(n))
		}
	}
}

// pass connects both sides by links of Toxiproxy. Its own proxy has the same toxics for all connections.
func (b *Broken) pass(client *net.TCPConn, fault Fault, name string) {
	dialled, err := net.Dial("tcp", *b.upstream.Load())
	if err != nil {
		_ = client.SetLinger(0)
		client.Close()
		return
	}
	b.keep(dialled)
	server := dialled.(*net.TCPConn)
	if fault.reset {
		_ = errors.Join(client.SetLinger(0), server.SetLinger(0))
	}
	proxy := toxiproxy.NewProxy(b.server, name, "", "")
	for _, t := range fault.toxics {
		text, err := json.Marshal(t)
		if err == nil {
			_, err = proxy.Toxics.AddToxicJson(bytes.NewReader(text))
		}
		if err != nil {
			panic(err) // a fault that Toxiproxy does not know
		}
	}
	var toServer, toClient io.WriteCloser = server, client
	if fault.half {
		toServer, toClient = halfCloser{server}, halfCloser{client}
	}
	proxy.Toxics.StartLink(b.server, name+"up", client, toServer, stream.Upstream)
	proxy.Toxics.StartLink(b.server, name+"down", server, toClient, stream.Downstream)
}

// halfCloser ends one direction of a connection, and leaves the other open for ever.
type halfCloser struct{ *net.TCPConn }

func (h halfCloser) Close() error { return h.CloseWrite() }
