package metrics

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/certfetcher/certfetcher/internal/program"
)

// Handler serves
//
//	GET  /livez    200 while the process serves
//	GET  /readyz   200 when a valid certificate is published; else 503 and why
//	GET  /metrics  the series
//	POST /renew    202: renew is called, and a renewal begins; 403 for peers that are not on loopback
func (m *Metrics) Handler(renew func()) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		respond(w, http.StatusOK, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := m.Ready(); err != nil {
			respond(w, http.StatusServiceUnavailable, err.Error())
			return
		}
		respond(w, http.StatusOK, "ok")
	})
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", program.SeriesContentType)
		m.Write(w)
	})
	mux.HandleFunc("POST /renew", func(w http.ResponseWriter, r *http.Request) {
		peer, err := netip.ParseAddrPort(r.RemoteAddr)
		if err != nil || !peer.Addr().IsLoopback() {
			respond(w, http.StatusForbidden, "a renewal can be requested from loopback only")
			return
		}
		renew()
		respond(w, http.StatusAccepted, "a renewal begins")
	})
	return mux
}

func respond(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text+"\n") // a peer that has gone needs no answer
}

// maxConnections is more than a kubelet and a Prometheus or two need. All the cluster may reach the port.
const maxConnections = 32

// Serve serves the handler until ctx ends. It then closes what is in flight: a probe of a process that ends
// has no answer worth waiting for.
func Serve(ctx context.Context, listener net.Listener, handler http.Handler, log *slog.Logger) error {
	bounded := program.ListenFairly(listener, maxConnections, nil)
	server := &http.Server{
		Handler: handler, ConnState: bounded.ConnState, MaxHeaderBytes: 16 << 10,
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second,
		IdleTimeout: time.Minute, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(bounded); ctx.Err() == nil {
		return fmt.Errorf("serving %s: %w", listener.Addr(), err)
	}
	return nil
}
