package certservice

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/certfetcher/certfetcher/internal/program"
)

// ServerConfig says how Serve and ServePlain serve. Every duration is required.
type ServerConfig struct {
	TLS *tls.Config // of Serve
	// Verify returns why the client has no trusted certificate, or "" if it has one. nil: every client has.
	Verify            func(*tls.ConnectionState) string
	Capacity          Capacity      // zero: what the memory allows
	ReadHeaderTimeout time.Duration // for the handshake, and for the headers of one request
	RequestTimeout    time.Duration // for one request as a whole, a body that nobody reads included
	IdleTimeout       time.Duration // between requests on one connection
	ShutdownTimeout   time.Duration // for what is in flight when ctx ends
	Metrics           *Metrics      // nil: not counted
	Strangers         *Strangers    // nil: a new one
	Log               *slog.Logger
}

func (cfg *ServerConfig) complete() {
	if cfg.Capacity == (Capacity{}) {
		cfg.Capacity = NewCapacity(0)
	}
	if cfg.Metrics == nil {
		cfg.Metrics = NewMetrics("")
	}
	if cfg.Strangers == nil {
		cfg.Strangers = NewStrangers(cfg.Log)
	}
}

// lost returns what a pool tells of each connection that it closes for another.
func (cfg *ServerConfig) lost(clients string) func(*connection, lossReason) {
	return func(c *connection, reason lossReason) { cfg.lose(clients, c.RemoteAddr(), reason) }
}

func (cfg *ServerConfig) lose(clients string, remote net.Addr, reason lossReason) {
	cfg.Metrics.lost(clients, reason).Inc()
	cfg.Strangers.info(strangerConnection, remote.String(), "closed a connection in favour of others",
		slog.String("clients", clients), slog.String("reason", string(reason)))
}

// Serve serves HTTP/1.1 over TLS until ctx ends; then it takes no more connections, finishes what is in flight, and
// returns nil. What is not finished in ShutdownTimeout is cut off, which is an error. It closes the listener.
//
// HTTP/2 is left out: its streams and windows let one connection hold as much memory as it likes.
func Serve(ctx context.Context, listener net.Listener, handler http.Handler, cfg ServerConfig) error {
	cfg.complete()
	s := newAPIServer(handler, cfg)
	ready := newHandover(listener.Addr())
	server := httpServer(handler, cfg, s.verified.connState, slog.NewLogLogger(cfg.Log.Handler(), slog.LevelInfo))
	go func() { _ = server.Serve(ready) }() // until it is shut down
	return serveUntil(ctx, listener, server, cfg, func() error {
		err := s.accept(listener, ready)
		s.finish()
		return err
	})
}

// What the plain port takes: a kubelet and a Prometheus or two, whose requests are short.
const (
	plainConnections = 32
	plainHeaderBytes = 8 << 10
)

// ServePlain serves HTTP/1.1 without TLS as Serve does, to clients that nothing is known of.
func ServePlain(ctx context.Context, listener net.Listener, handler http.Handler, cfg ServerConfig) error {
	cfg.complete()
	cfg.ReadHeaderTimeout = min(cfg.ReadHeaderTimeout, strangerPatience)
	bounded := program.ListenFairly(listener, plainConnections, func(remote net.Addr) { cfg.lose("plain", remote, lostToNumber) })
	cfg.Metrics.observePlain(bounded.Count)
	server := httpServer(handler, cfg, bounded.ConnState, log.New(cfg.Strangers, "", 0))
	server.MaxHeaderBytes = plainHeaderBytes
	return serveUntil(ctx, bounded, server, cfg, func() error { return server.Serve(bounded) })
}

// httpServer tells connState what its connections do.
func httpServer(handler http.Handler, cfg ServerConfig, connState func(net.Conn, http.ConnState), errorLog *log.Logger) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Server{
		Handler:           onlyHTTP1(handler),
		Protocols:         protocols,
		MaxHeaderBytes:    hardHeaderBytes,
		ReadHeaderTimeout: cfg.ReadHeaderTimeout,
		// The server takes the end of ReadTimeout for a client that has gone and cancels the request, so
		// that both limits have to lie beyond the handler's own.
		ReadTimeout:  cfg.ReadHeaderTimeout + cfg.RequestTimeout + time.Second,
		WriteTimeout: cfg.ReadHeaderTimeout + cfg.RequestTimeout + time.Second,
		IdleTimeout:  cfg.IdleTimeout,
		ErrorLog:     errorLog,
		ConnState:    connState,
	}
}

// connState has the pool know what a connection does.
func (p *pool) connState(conn net.Conn, state http.ConnState) {
	switch state {
	case http.StateActive:
		p.turn(conn.(*served).below, connActive)
	case http.StateIdle:
		p.turn(conn.(*served).below, connIdle)
	}
}

// onlyHTTP1 refuses the preface of HTTP/2, which net/http gives to the handler as a request.
func onlyHTTP1(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 1 {
			http.Error(w, "HTTP/1.1 is spoken here", http.StatusHTTPVersionNotSupported)
			return
		}
		handler.ServeHTTP(w, r)
	})
}

// serveUntil runs accept, which takes connections from the listener until that is closed, until ctx ends; then the server
// finishes.
func serveUntil(ctx context.Context, listener net.Listener, server *http.Server, cfg ServerConfig, accept func() error) error {
	accepted := make(chan error, 1)
	go func() { accepted <- accept() }()
	var failed error
	select {
	case err := <-accepted:
		failed = fmt.Errorf("serving %s: %w", listener.Addr(), err)
	case <-ctx.Done():
		listener.Close()
		<-accepted
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), cfg.ShutdownTimeout)
	defer cancel()
	err := server.Shutdown(stop)
	if err != nil {
		err = fmt.Errorf("finishing the requests in flight: %w", errors.Join(err, server.Close()))
	}
	return errors.Join(failed, err)
}

// handover is the listener through which a server gets connections that were accepted elsewhere.
type handover struct {
	address net.Addr
	conns   chan net.Conn
	closed  context.Context
	close   context.CancelFunc
}

func newHandover(address net.Addr) *handover {
	h := &handover{address: address, conns: make(chan net.Conn)}
	h.closed, h.close = context.WithCancel(context.Background())
	return h
}

// give returns false when nobody takes connections any more.
func (h *handover) give(conn net.Conn) bool {
	select {
	case h.conns <- conn:
		return true
	case <-h.closed.Done():
		return false
	}
}

func (h *handover) Accept() (net.Conn, error) {
	select {
	case conn := <-h.conns:
		return conn, nil
	case <-h.closed.Done():
		return nil, net.ErrClosed
	}
}

func (h *handover) Addr() net.Addr { return h.address }

func (h *handover) Close() error {
	h.close()
	return nil
}
