package certservice

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Strangers logs events of clients without a verified certificate, which could fill any log: of
// each kind a few lines a minute, and then one line with the numbers of those that were left out.
type Strangers struct {
	log    *slog.Logger
	minute time.Duration // shorter in tests

	mu        sync.Mutex
	timer     *time.Timer // nil: nothing was logged in the last minute
	seen      map[strangerEvent]int
	addresses map[string]struct{} // of those left out
}

// strangerEvent is a kind of event, as the summary's attributes name it.
type strangerEvent string

const (
	strangerRequest    strangerEvent = "requests"
	strangerHandshake  strangerEvent = "handshakes"
	strangerConnection strangerEvent = "connections"
	strangerOther      strangerEvent = "others"
)

const (
	linesPerMinute      = 5    // of each kind
	maxCountedAddresses = 4096 // in one minute
)

// NewStrangers returns a Strangers that logs to log.
func NewStrangers(log *slog.Logger) *Strangers {
	return &Strangers{log: log, minute: time.Minute, seen: map[strangerEvent]int{}, addresses: map[string]struct{}{}}
}

// admit says whether to log a line of the kind now; if not, it is counted. remote is the client's
// host:port, or empty.
func (s *Strangers) admit(kind strangerEvent, remote string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer == nil {
		s.timer = time.AfterFunc(s.minute, s.Summarise)
	}
	if s.seen[kind]++; s.seen[kind] <= linesPerMinute {
		return true
	}
	if host, _, err := net.SplitHostPort(remote); err == nil && len(s.addresses) < maxCountedAddresses {
		s.addresses[host] = struct{}{}
	}
	return false
}

// info logs a line of the kind, or counts it.
func (s *Strangers) info(kind strangerEvent, remote, message string, attrs ...slog.Attr) {
	if s.log.Enabled(context.Background(), slog.LevelInfo) && s.admit(kind, remote) {
		s.log.LogAttrs(context.Background(), slog.LevelInfo, message, append(attrs, slog.String("remote", remote))...)
	}
}

// Summarise logs the numbers of events left out since the last summary, if there were any.
func (s *Strangers) Summarise() {
	s.mu.Lock()
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	seen, addresses := s.seen, len(s.addresses)
	s.seen, s.addresses = map[strangerEvent]int{}, map[string]struct{}{}
	s.mu.Unlock()
	var attrs []slog.Attr
	sum := 0 // of what was left out
	for _, kind := range []strangerEvent{strangerRequest, strangerHandshake, strangerConnection, strangerOther} {
		left := max(0, seen[kind]-linesPerMinute)
		sum += left
		attrs = append(attrs, slog.Int(string(kind), left))
	}
	if sum == 0 {
		return
	}
	level := slog.LevelInfo
	if seen[strangerRequest] > linesPerMinute {
		level = slog.LevelWarn
	}
	s.log.LogAttrs(context.Background(), level,
		"further events of clients without a trusted certificate, not logged one by one",
		append(attrs, slog.Int("addresses", addresses))...)
}

// Write logs lines of an HTTP server's own log.
func (s *Strangers) Write(line []byte) (int, error) {
	s.info(strangerOther, "", truncate(string(line)))
	return len(line), nil
}

// A client without a verified certificate gets one request. Where tokens count, the headers may have
// one, and the client goes on as one that is known. Otherwise it gets the API's answer 401, and its
// headers are counted and not kept, as nothing depends on them: only the first line is read.
const (
	handshakeBytes   = 64 << 10        // that such a client may send in its handshake
	maxRequestLine   = 4 << 10         // longer ones are answered 414
	strangerPatience = 5 * time.Second // for its request, and again for receiving the answer
	lingering        = time.Second     // for reading what it still sends, so that the answer reaches it
	mostLingering    = 256 << 10
	roomForTLS       = 16 << 10 // beside MaxHeaderBytes: records have headers
)

// refusalKey is the key of a request's context for the Authentication that refused the client before
// the request came to the handler.
type refusalKey struct{}

// meetStranger reads one request. It closes the connection after its answer, unless the request has
// a token that is valid.
func (s *apiServer) meetStranger(c *connection, conn *tls.Conn, client Authentication, ready *handover) {
	defer s.recoverPanic(c)
	patience := min(strangerPatience, s.cfg.ReadHeaderTimeout)
	_ = conn.SetDeadline(time.Now().Add(patience))
	heldByTLS := handshakeBytes - c.allow
	c.allow = MaxHeaderBytes + roomForTLS
	keep := &headKeeper{whole: client.undecided, used: func() { s.unverified.keep(c, heldByTLS) }}
	line, err := readHead(conn, keep)
	if client.undecided && err == nil {
		state := conn.ConnectionState()
		if r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(keep.read))); err == nil {
			client = s.cfg.Authenticate(&state, r.Header)
		}
		if !client.refused() && !client.undecided {
			s.handOver(c, conn, client, keep.read, ready)
			return
		}
		keep.read = nil
	}
	s.answerStranger(c, conn, client, line, err)
}

// answerStranger answers a request of a client that is not authenticated, of which the first line was read, or
// the error of reading it, and closes the connection.
func (s *apiServer) answerStranger(c *connection, conn *tls.Conn, client Authentication, line string, err error) {
	defer conn.Close()
	patience := min(strangerPatience, s.cfg.ReadHeaderTimeout)
	state := conn.ConnectionState()
	var answer *strangerAnswer
	switch {
	case errors.Is(err, errTooMuch):
		answer = plainAnswer(http.StatusRequestHeaderFieldsTooLarge)
	case errors.Is(err, errLineTooLong):
		answer = plainAnswer(http.StatusRequestURITooLong)
	case err != nil:
		return // it disconnected, or did not send a request in time
	}
	var r *http.Request
	if answer == nil {
		r, err = http.ReadRequest(bufio.NewReader(strings.NewReader(line + "\r\nHost: \r\n\r\n")))
		switch {
		case err != nil || client.undecided: // whose headers could not be parsed
			answer = plainAnswer(http.StatusBadRequest)
		case r.ProtoMajor != 1:
			answer = plainAnswer(http.StatusHTTPVersionNotSupported)
		}
	}
	if answer != nil {
		s.cfg.Metrics.Counter(requestsTotal, "", "none", outcomeMalformed).Inc()
		s.cfg.Strangers.info(strangerOther, c.RemoteAddr().String(), "not a request", slog.Int("status", answer.status))
	} else {
		r.RemoteAddr, r.TLS, r.Host = c.RemoteAddr().String(), &state, ""
		answer = &strangerAnswer{header: http.Header{}}
		s.handler.ServeHTTP(answer, r.WithContext(context.WithValue(context.Background(), refusalKey{}, client)))
	}
	_ = conn.SetDeadline(time.Now().Add(patience))
	if answer.send(conn, r) == nil {
		s.linger(c, conn)
	}
}

// linger ends our side and reads until the client ends its own: if the connection were closed with
// unread data, TCP would make the client drop the answer.
func (s *apiServer) linger(c *connection, conn *tls.Conn) {
	_ = conn.CloseWrite()
	if tcp, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		_ = tcp.CloseWrite()
	}
	_ = c.SetReadDeadline(time.Now().Add(lingering))
	rest := struct{ io.Reader }{io.LimitReader(c.Conn, mostLingering)}
	_, _ = io.CopyBuffer(struct{ io.Writer }{io.Discard}, rest, make([]byte, 1<<10))
}

var errLineTooLong = errors.New("the first line of the request is too long")

// headKeeper decides what becomes of the bytes of a request's head.
type headKeeper struct {
	whole bool
	used  func() // called whenever received bytes are no longer needed
	read  []byte // everything, the beginning of a body included, where the whole is kept
}

func (k *headKeeper) take(chunk []byte) {
	if k.whole {
		k.read = append(k.read, chunk...)
		return
	}
	k.used()
}

// readHead reads up to the empty line after the headers, and returns the first line.
func readHead(r io.Reader, keep *headKeeper) (string, error) {
	var line []byte
	chunk := make([]byte, 2<<10)
	total, ended, length := 0, false, 0 // length of the current line, without its end
	for {
		n, err := r.Read(chunk)
		keep.take(chunk[:n])
		for _, b := range chunk[:n] {
			total++
			switch {
			case len(line) > maxRequestLine:
				return "", errLineTooLong
			case b == '\n' && length == 0 && ended:
				return string(bytes.TrimSuffix(line, []byte("\r"))), nil
			case b == '\n':
				ended = ended || len(line) > 0 // empty lines before the request are skipped
				length = 0
			case b == '\r' && (ended || len(line) == 0):
			default:
				length++
				if !ended {
					line = append(line, b)
				}
			}
		}
		switch {
		case total > MaxHeaderBytes:
			return "", errTooMuch
		case err != nil:
			return "", err
		}
	}
}

// strangerAnswer is a response that is sent as a whole.
type strangerAnswer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func plainAnswer(status int) *strangerAnswer {
	a := &strangerAnswer{header: http.Header{"Content-Type": {"text/plain; charset=utf-8"}}, status: status}
	a.body.WriteString(http.StatusText(status))
	return a
}

func (a *strangerAnswer) Header() http.Header { return a.header }

func (a *strangerAnswer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

func (a *strangerAnswer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(p)
}

// send writes the response to r, which may be nil.
func (a *strangerAnswer) send(w io.Writer, r *http.Request) error {
	a.header.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	var text bytes.Buffer
	length, err := strconv.ParseInt(a.header.Get("Content-Length"), 10, 64) // which the body does not have after HEAD
	if err != nil {
		length = int64(a.body.Len())
	}
	response := http.Response{
		StatusCode: a.status, ProtoMajor: 1, ProtoMinor: 1, Request: r, Close: true,
		Header: a.header, Body: io.NopCloser(&a.body), ContentLength: length,
	}
	if err := response.Write(&text); err != nil {
		return err
	}
	_, err = w.Write(text.Bytes())
	return err
}
