package certservice

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// ServerConfig says how Serve serves. Every duration is required.
type ServerConfig struct {
	TLS               *tls.Config   // nil: plain HTTP
	ReadHeaderTimeout time.Duration // for the handshake, and for the headers of one request
	RequestTimeout    time.Duration // for one request as a whole, a body that nobody reads included
	IdleTimeout       time.Duration // between requests on one connection
	ShutdownTimeout   time.Duration // for what is in flight when ctx ends
	Log               *slog.Logger
}

// Serve serves HTTP/1.1, and over TLS HTTP/2 too, until ctx ends; then it takes no more connections,
// finishes what is in flight, and returns nil. What is not finished in ShutdownTimeout is cut off, which
// is an error. It closes the listener.
func Serve(ctx context.Context, listener net.Listener, handler http.Handler, cfg ServerConfig) error {
	server := &http.Server{
		Handler:           handler,
		TLSConfig:         cfg.TLS,
		MaxHeaderBytes:    hardHeaderBytes,
		ReadHeaderTimeout: cfg.ReadHeaderTimeout,
		// The server takes the end of ReadTimeout for a client that has gone and cancels the request, so
		// that both limits have to lie beyond the handler's own.
		ReadTimeout:  cfg.ReadHeaderTimeout + cfg.RequestTimeout + time.Second,
		WriteTimeout: cfg.ReadHeaderTimeout + cfg.RequestTimeout + time.Second,
		IdleTimeout:  cfg.IdleTimeout,
		// Failed handshakes and the like: whoever connects can cause them, so they are no warnings.
		ErrorLog: slog.NewLogLogger(cfg.Log.Handler(), slog.LevelInfo),
	}
	served := make(chan error, 1)
	go func() {
		if cfg.TLS != nil {
			served <- server.ServeTLS(listener, "", "")
			return
		}
		served <- server.Serve(listener)
	}()
	select {
	case err := <-served:
		return fmt.Errorf("serving %s: %w", listener.Addr(), err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), cfg.ShutdownTimeout)
	defer cancel()
	err := server.Shutdown(stop)
	if err != nil {
		err = fmt.Errorf("finishing the requests in flight: %w", errors.Join(err, server.Close()))
	}
	<-served
	return err
}
