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
	return func(c *connection, reason lossReason) {
		cfg.Metrics.lost(clients, reason).Inc()
		cfg.Strangers.info(strangerConnection, c.RemoteAddr().String(), "closed a connection in favour of others",
			slog.String("clients", clients), slog.String("reason", string(reason)))
	}
}

// Serve serves HTTP/1.1 over TLS until ctx ends; then it takes no more connections, finishes what is in flight, and
// returns nil. What is not finished in ShutdownTimeout is cut off, which is an error. It closes the listener.
//
// HTTP/2 is left out: its streams and windows let one connection hold as much memory as it likes.
func Serve(ctx context.Context, listener net.Listener, handler http.Handler, cfg ServerConfig) error {
	cfg.complete()
	s := newAPIServer(handler, cfg)
	ready := newHandover(listener.Addr())
	return serveAccepted(ctx, listener, httpServer(handler, cfg, s.verified, slog.NewLogLogger(cfg.Log.Handler(), slog.LevelInfo)), ready, cfg, func() error {
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
	plain := newPool(plainConnections, plainConnections*4*plainHeaderBytes, cfg.lost("plain"))
	cfg.Metrics.observeConnections("plain", plain)
	server := httpServer(handler, cfg, plain, log.New(cfg.Strangers, "", 0))
	server.MaxHeaderBytes = plainHeaderBytes
	ready := newHandover(listener.Addr())
	return serveAccepted(ctx, listener, server, ready, cfg, func() error {
		return acceptAll(listener, cfg.Strangers, func(conn net.Conn) {
			c := newConnection(conn)
			if !plain.enter(c, c.client, connBusy) || !ready.give(&servedPlain{c}) {
				c.Close()
			}
		})
	})
}

// httpServer serves the connections of the pool, and tells it what they do.
func httpServer(handler http.Handler, cfg ServerConfig, pool *pool, errorLog *log.Logger) *http.Server {
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
		ConnState: func(conn net.Conn, state http.ConnState) {
			c := conn.(interface{ base() *connection }).base()
			switch state {
			case http.StateActive:
				pool.turn(c, connActive)
			case http.StateIdle:
				pool.turn(c, connIdle)
			}
		},
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

// serveAccepted runs the accept loop, which gives connections to the server, until ctx ends.
func serveAccepted(ctx context.Context, listener net.Listener, server *http.Server, ready *handover, cfg ServerConfig, accept func() error) error {
	accepted := make(chan error, 1)
	go func() { accepted <- accept() }()
	served := make(chan error, 1)
	go func() { served <- server.Serve(ready) }()
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
	<-served
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
