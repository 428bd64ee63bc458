package certservice

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// A client without a verified certificate gets the API's answer 401 to one request. Its headers are counted and
// forgotten, not kept, as nothing depends on them: only the first line is looked at.
const (
	handshakeBytes   = 64 << 10        // what such a client may send in its handshake
	maxRequestLine   = 4 << 10         // longer ones are answered 414
	strangerPatience = 5 * time.Second // for its request, and once more for taking the answer
	lingering        = time.Second     // for reading what it still sends, so that the answer reaches it
	mostLingering    = 256 << 10
	roomForTLS       = 16 << 10 // beside MaxHeaderBytes: records have headers
)

// refusalKey is the key under which a request's context has the reason, a string, why its client was found in the
// handshake not to have a trusted certificate.
type refusalKey struct{}

// answerStranger reads one request and answers it, then closes the connection.
func (s *apiServer) answerStranger(c *connection, conn *tls.Conn, reason string) {
	defer s.recovered(c)
	defer conn.Close()
	patience := min(strangerPatience, s.cfg.ReadHeaderTimeout)
	_ = conn.SetDeadline(time.Now().Add(patience))
	state := conn.ConnectionState()
	heldByTLS := handshakeBytes - c.allow
	c.allow = MaxHeaderBytes + roomForTLS
	line, err := readHead(conn, func() { s.unverified.keep(c, heldByTLS) })
	var answer *strangerAnswer
	switch {
	case errors.Is(err, errTooMuch):
		answer = plainAnswer(http.StatusRequestHeaderFieldsTooLarge)
	case errors.Is(err, errLineTooLong):
		answer = plainAnswer(http.StatusRequestURITooLong)
	case err != nil:
		return // it went, or did not send a request in time
	}
	var r *http.Request
	if answer == nil {
		r, err = http.ReadRequest(bufio.NewReader(strings.NewReader(line + "\r\nHost: \r\n\r\n")))
		switch {
		case err != nil:
			answer = plainAnswer(http.StatusBadRequest)
		case r.ProtoMajor != 1:
			answer = plainAnswer(http.StatusHTTPVersionNotSupported)
		}
	}
	if answer != nil {
		s.cfg.Metrics.countMalformed()
		s.cfg.Strangers.info(strangerOther, c.RemoteAddr().String(), "not a request", slog.Int("status", answer.status))
	} else {
		r.RemoteAddr, r.TLS, r.Host = c.RemoteAddr().String(), &state, ""
		answer = &strangerAnswer{header: http.Header{}}
		s.handler.ServeHTTP(answer, r.WithContext(context.WithValue(context.Background(), refusalKey{}, reason)))
	}
	_ = conn.SetDeadline(time.Now().Add(patience))
	if answer.send(conn, r) == nil {
		s.linger(c, conn)
	}
}

// linger ends our side and reads until the client ends its own: closed with something unread, TCP would tell the client
// to drop the answer.
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

// readHead reads up to the empty line after the headers, and returns the first line. used is called whenever what was
// received is used up.
func readHead(r io.Reader, used func()) (string, error) {
	var line []byte
	chunk := make([]byte, 2<<10)
	total, ended, length := 0, false, 0 // length of the line under way, without its end
	for {
		n, err := r.Read(chunk)
		used()
		for _, b := range chunk[:n] {
			total++
			switch {
			case len(line) > maxRequestLine:
				return "", errLineTooLong
			case b == '\n' && length == 0 && ended:
				return string(bytes.TrimSuffix(line, []byte("\r"))), nil
			case b == '\n':
				ended = ended || len(line) > 0 // empty lines before the request are passed over
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
	length, err := strconv.ParseInt(a.header.Get("Content-Length"), 10, 64) // not that of the body, after HEAD
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
