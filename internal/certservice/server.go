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

// ServerConfig says how to serve. All fields are required.
type ServerConfig struct {
	TLS *tls.Config // as mtls.Identity.ServerConfig makes it: for HTTP/1.1 alone
	// Authenticate says who a client is: Handler.Authenticate.
	Authenticate      func(*tls.ConnectionState, http.Header) Authentication
	Capacity          Capacity
	ReadHeaderTimeout time.Duration // for the handshake, and for the headers of one request
	RequestTimeout    time.Duration // for one request as a whole, an unread body included
	IdleTimeout       time.Duration // between requests on one connection
	ShutdownTimeout   time.Duration // for requests in progress when ctx ends
	Metrics           *Metrics
	Strangers         *Strangers
	Log               *slog.Logger
}

// lost counts and logs a connection that was closed for another.
func (cfg *ServerConfig) lost(clients string, remote net.Addr, reason lossReason) {
	cfg.Metrics.Counter(connectionsLost, clients, reason).Inc()
	cfg.Strangers.info(strangerConnection, remote.String(), "closed a connection in favour of others",
		slog.String("clients", clients), slog.String("reason", string(reason)))
}

// ServeBoth serves the API by Serve, and on the plain port its probes
// and metrics, where plain is not nil. The plain port stays open until
// the API has finished, for the probes of a pod that is shutting down.
func ServeBoth(ctx context.Context, api, plain net.Listener, handler *Handler, cfg ServerConfig) error {
	if plain == nil {
		return Serve(ctx, api, handler, cfg)
	}
	ctx, stopAPI := context.WithCancel(ctx)
	plainCtx, stopPlain := context.WithCancel(context.WithoutCancel(ctx))
	plainDone := make(chan error, 1)
	go func() {
		defer stopAPI()
		plainDone <- servePlain(plainCtx, plain, handler.Ops(), cfg)
	}()
	apiErr := Serve(ctx, api, handler, cfg)
	stopPlain()
	return errors.Join(apiErr, <-plainDone)
}

// Serve serves HTTP/1.1 over TLS until ctx ends; then it accepts no more connections, finishes the
// requests in progress, and returns nil. Requests not finished in ShutdownTimeout are cut off,
// which is an error. It closes the listener.
//
// HTTP/2 is left out: its streams and windows let one connection hold as much memory as it likes.
func Serve(ctx context.Context, listener net.Listener, handler http.Handler, cfg ServerConfig) error {
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

// Bounds of the plain port: a kubelet and a Prometheus or two use it, and their requests are short.
const (
	plainConnections = 32
	plainHeaderBytes = 8 << 10
)

// servePlain serves HTTP/1.1 without TLS as Serve does, to clients that are not authenticated.
func servePlain(ctx context.Context, listener net.Listener, handler http.Handler, cfg ServerConfig) error {
	cfg.ReadHeaderTimeout = min(cfg.ReadHeaderTimeout, strangerPatience)
	bounded := program.ListenFairly(listener, plainConnections, func(remote net.Addr) {
		cfg.lost("plain", remote, lostToNumber)
	})
	cfg.Metrics.observePlain(bounded.Count)
	server := httpServer(handler, cfg, bounded.ConnState, log.New(cfg.Strangers, "", 0))
	server.MaxHeaderBytes = plainHeaderBytes
	return serveUntil(ctx, bounded, server, cfg, func() error { return server.Serve(bounded) })
}

// httpServer calls connState when a connection changes its state.
func httpServer(handler http.Handler, cfg ServerConfig, connState func(net.Conn, http.ConnState),
	errorLog *log.Logger) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Server{
		Handler:           onlyHTTP1(handler),
		Protocols:         protocols,
		MaxHeaderBytes:    hardHeaderBytes,
		ReadHeaderTimeout: cfg.ReadHeaderTimeout,
		// At the end of ReadTimeout the server assumes that the client has disconnected, and
		// cancels the request. So both limits have to be longer than the handler's own.
		ReadTimeout:  cfg.ReadHeaderTimeout + cfg.RequestTimeout + time.Second,
		WriteTimeout: cfg.ReadHeaderTimeout + cfg.RequestTimeout + time.Second,
		IdleTimeout:  cfg.IdleTimeout,
		ErrorLog:     errorLog,
		ConnState:    connState,
	}
}

// connState keeps the state of a connection up to date.
func (p *pool) connState(conn net.Conn, state http.ConnState) {
	switch state {
	case http.StateActive:
		p.turn(conn.(*served).below, connActive)
	case http.StateIdle:
		p.turn(conn.(*served).below, connIdle)
	}
}

// onlyHTTP1 refuses the preface of HTTP/2, which net/http passes to the handler as a request.
func onlyHTTP1(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 1 {
			http.Error(w, "HTTP/1.1 is spoken here", http.StatusHTTPVersionNotSupported)
			return
		}
		handler.ServeHTTP(w, r)
	})
}

// serveUntil runs accept, which accepts connections until the listener is closed, until ctx ends;
// then the server finishes.
func serveUntil(ctx context.Context, listener net.Listener, server *http.Server, cfg ServerConfig,
	accept func() error) error {
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
		err = fmt.Errorf("finishing the requests in progress: %w", errors.Join(err, server.Close()))
	}
	return errors.Join(failed, err)
}

// handover is a listener that gives a server connections that were accepted elsewhere.
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

// give returns false when the server no longer accepts connections.
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
