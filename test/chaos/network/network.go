// Package network puts broken networks between the built programs: certfetcher, certservice and the CA. It is a module
// of its own, so that Toxiproxy is not certfetcher's dependency.
package network

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/Shopify/toxiproxy/v2/stream"
	"github.com/rs/zerolog"

	"github.com/certfetcher/certfetcher/test/chaos"
	"github.com/certfetcher/certfetcher/test/fixture"
)

// Broken is a network in front of one server: a listener whose connections each suffer a fault of their own.
type Broken struct {
	Address string     // where to connect to
	Met     chaos.Seen // connections by the kind of their fault
	Close   func()     // ends the listener and every connection

	listener net.Listener
	open     context.Context
	upstream atomic.Pointer[string]
	draw     func() Fault
	server   *toxiproxy.ApiServer
}

// broken passes connections on to the upstream, a host:port, each with the fault that draw returns, until the test
// ends. It calls draw from one goroutine.
func broken(t testing.TB, upstream string, draw func() Fault) *Broken {
	t.Helper()
	listener := fixture.Must(net.Listen("tcp", "127.0.0.1:0"))
	b := &Broken{Address: listener.Addr().String(), listener: listener, draw: draw,
		server: toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())}
	b.open, b.Close = context.WithCancel(context.Background())
	b.closeInTheEnd(listener)
	t.Cleanup(b.Close)
	b.Lead(upstream)
	go b.accept()
	return b
}

// Lead has connections from now on go to another upstream.
func (b *Broken) Lead(upstream string) { b.upstream.Store(&upstream) }

func (b *Broken) closeInTheEnd(c io.Closer) { context.AfterFunc(b.open, func() { c.Close() }) }

func (b *Broken) accept() {
	for n := 0; ; n++ {
		conn, err := b.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		b.closeInTheEnd(conn)
		fault := b.draw()
		b.Met.Add(fault.Kind, 0, 0)
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
	b.closeInTheEnd(dialled)
	server := dialled.(*net.TCPConn)
	if fault.reset {
		_ = errors.Join(client.SetLinger(0), server.SetLinger(0))
	}
	proxy := toxiproxy.NewProxy(b.server, name, "", "")
	for _, t := range fault.toxics {
		fixture.Must(proxy.Toxics.AddToxicJson(bytes.NewReader(fixture.Must(json.Marshal(t)))))
	}
	var toServer, toClient io.WriteCloser = server, client
	if fault.half {
		toServer, toClient = halfCloser{server}, halfCloser{client}
	}
	proxy.Toxics.StartLink(b.server, name+"up", client, toServer, stream.Upstream)
	proxy.Toxics.StartLink(b.server, name+"down", reader{server, fault.brief}, toClient, stream.Downstream)
}

// reader ends a brief connection in a lull after something came.
type reader struct {
	*net.TCPConn
	brief bool
}

func (r reader) Read(p []byte) (n int, err error) {
	n, err = r.TCPConn.Read(p)
	if r.brief {
		_ = r.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	}
	return n, err
}

// halfCloser ends one direction of a connection, and leaves the other open for ever.
type halfCloser struct{ *net.TCPConn }

func (h halfCloser) Close() error { return h.CloseWrite() }
