package certservice

import (
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/certfetcher/certfetcher/internal/pki"
)

// apiServer takes connections, makes the handshakes, and keeps clients with a verified certificate
// and those without apart: the first get to the HTTP server, the others one answer.
type apiServer struct {
	cfg                  ServerConfig
	handler              http.Handler
	unverified, verified *pool
	gate                 *gate          // for handshakes in progress, which take memory
	compute              *gate          // for those that do not wait for their client, which take processor time
	strangers            sync.WaitGroup // connections without a verified client, those in their handshake included
}

func newAPIServer(handler http.Handler, cfg ServerConfig) *apiServer {
	s := &apiServer{cfg: cfg, handler: handler}
	s.unverified = newPool(cfg.Capacity.unverified, cfg.Capacity.waiting, func(c *connection, reason lossReason) {
		cfg.lost("unverified", c.RemoteAddr(), reason)
	})
	s.verified = newPool(cfg.Capacity.verified, cfg.Capacity.verifiedBytes, func(c *connection, reason lossReason) {
		cfg.lost("verified", c.RemoteAddr(), reason)
	})
	processors := runtime.GOMAXPROCS(0)
	s.compute = newGate(2*processors, func(*connection) {}) // none waits for its client
	s.gate = newGate(max(64, 16*processors), func(c *connection) { s.unverified.drop(c, lostToQueue) })
	cfg.Metrics.observeConnections("unverified", s.unverified)
	cfg.Metrics.observeConnections("verified", s.verified)
	return s
}

// accept takes connections until the listener is closed, and gives those of verified clients away.
func (s *apiServer) accept(listener net.Listener, ready *handover) error {
	return acceptAll(listener, s.cfg.Strangers, func(conn net.Conn) {
		c := newConnection(conn)
		c.allow = handshakeBytes
		s.unverified.enter(c, c.client, connBusy)
		s.strangers.Go(func() { s.begin(c, ready) })
	})
}

// acceptAll takes connections until the listener is closed. Other errors pass: no free descriptor,
// a client that has disconnected.
func acceptAll(listener net.Listener, strangers *Strangers, take func(net.Conn)) error {
	const longest = time.Second
	pause := 5 * time.Millisecond
	for {
		conn, err := listener.Accept()
		switch {
		case err == nil:
			pause = 5 * time.Millisecond
			take(conn)
		case errors.Is(err, net.ErrClosed):
			return err
		default:
			strangers.info(strangerOther, "", "cannot accept a connection", slog.String("error", err.Error()))
			time.Sleep(pause)
			pause = min(2*pause, longest)
		}
	}
}

// finish waits for the handshakes and answers in progress,
// which take milliseconds unless the client stalls.
func (s *apiServer) finish() {
	done := make(chan struct{})
	go func() {
		s.strangers.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(time.Second):
		s.unverified.shut()
		<-done
	}
}

// begin makes the handshake. What follows runs on another goroutine: the stack of this one has
// grown to several times the size that a connection needs.
func (s *apiServer) begin(c *connection, ready *handover) {
	defer s.recoverPanic(c)
	deadline := time.Now().Add(s.cfg.ReadHeaderTimeout)
	_ = c.SetDeadline(deadline)
	conn, client, err := s.handshake(c, deadline)
	if err != nil {
		s.handshakeFailed(c, err)
		c.Close()
		return
	}
	if client.refused() || client.undecided {
		s.strangers.Go(func() { s.meetStranger(c, conn, client, ready) })
		return
	}
	s.handOver(c, conn, client, nil, ready)
}

// handOver gives the HTTP server the connection of a client that is authenticated, with what was
// already read of it.
func (s *apiServer) handOver(c *connection, conn *tls.Conn, client Authentication, read []byte, ready *handover) {
	if !s.unverified.leave(c) {
		c.Close()
		return
	}
	c.allow = -1
	_ = c.SetDeadline(time.Time{})
	state := conn.ConnectionState()
	key := client.key(clientOf(&state, c.RemoteAddr().String()))
	if !s.verified.enter(c, key, connIdle) || !ready.give(&served{conn, c, read}) {
		c.Close()
	}
}

// recoverPanic ends the connection after a panic, which a
// hostile certificate may cause: the others go on.
func (s *apiServer) recoverPanic(c *connection) {
	v := recover()
	if v == nil {
		return
	}
	c.Close()
	s.cfg.Metrics.Counter(requestsTotal, "", "none", outcomePanic).Inc()
	if remote := c.RemoteAddr().String(); s.cfg.Strangers.admit(strangerOther, remote) {
		s.cfg.Log.Error("panic while serving a connection", "panic", panicText(v), "stack",
			string(debug.Stack()), "remote", remote)
	}
}

var errNoPlace = errors.New("there was no place for the handshake")

// handshake says who the client is as far as TLS tells.
func (s *apiServer) handshake(c *connection, deadline time.Time) (conn *tls.Conn, client Authentication, err error) {
	if err := c.peek(); err != nil {
		return nil, client, err
	}
	if !s.gate.enter(c, deadline) {
		return nil, client, errNoPlace
	}
	defer s.gate.leave(c)
	if c.compute = s.compute; !c.compute.enter(c, deadline) {
		return nil, client, errNoPlace
	}
	c.deadline = deadline
	defer func() {
		c.compute = nil
		s.compute.leave(c)
	}()
	conn = tls.Server(c, s.cfg.TLS)
	if err := conn.Handshake(); err != nil {
		return nil, client, err
	}
	state := conn.ConnectionState()
	return conn, s.cfg.Authenticate(&state, nil), nil
}

const answerWithoutTLS = "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"

// handshakeFailed counts and logs a failed handshake, and answers a client that speaks HTTP
// without TLS as net/http does.
func (s *apiServer) handshakeFailed(c *connection, err error) {
	class := "tls"
	var record tls.RecordHeaderError
	var operation *net.OpError
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.As(err, &record):
		class = "not_tls"
		if record.Conn != nil && looksLikeHTTP(record.RecordHeader) {
			err = errors.New("the client speaks HTTP without TLS")
			_, _ = io.WriteString(record.Conn, answerWithoutTLS)
		}
	case errors.Is(err, os.ErrDeadlineExceeded):
		class = "timeout"
	case errors.Is(err, errNoPlace), errors.Is(err, net.ErrClosed), errors.Is(err, errHeld):
		class = "evicted"
	case errors.Is(err, errTooMuch):
		class = "too_large"
	case errors.As(err, &certificate), strings.Contains(err.Error(), "didn't provide a certificate"):
		class = "certificate"
	case errors.As(err, &operation) && operation.Op == "remote error":
		class = "alert"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		class = "gone"
	}
	s.cfg.Metrics.Counter(handshakeFailures, class).Inc()
	if class != "evicted" { // which was logged
		s.cfg.Strangers.info(strangerHandshake, c.RemoteAddr().String(), "TLS handshake failed",
			slog.String("error", pki.OneLine(err.Error(), maxLoggedText)))
	}
}

func looksLikeHTTP(header [5]byte) bool {
	switch string(header[:]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO":
		return true
	}
	return false
}
