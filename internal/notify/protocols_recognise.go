package notify

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"
)

// recognition bounds the second look at a server that answers nothing to TLS.
const recognition = 2 * time.Second

// beginning keeps the first bytes that come, by which a server is recognised that does not speak TLS.
type beginning struct {
	net.Conn
	seen []byte
}

func (b *beginning) Read(p []byte) (int, error) {
	n, err := b.Conn.Read(p)
	const most = 256
	b.seen = append(b.seen, p[:min(n, most-len(b.seen))]...)
	return n, err
}

// protocolError is a server that speaks another protocol where TLS was begun.
type protocolError struct{ name, scheme, address string }

func (e *protocolError) Error() string {
	if e.scheme == "" {
		return fmt.Sprintf("the server speaks %s before TLS, or none at all: "+
			"want a port where TLS begins at once, or one of %s", e.name, startable())
	}
	return fmt.Sprintf("the server speaks %s before TLS: write %s://%s", e.name, e.scheme, e.address)
}

// greetings are how servers begin that speak first, or how they answer what is no request to them.
var greetings = []struct{ prefix, name, scheme string }{
	{"* OK", "IMAP", "imap"}, {"* PREAUTH", "IMAP", ""}, {"* BYE", "IMAP", "imap"}, {"+OK", "POP3", ""},
	{"HTTP/", "HTTP", ""}, {"SSH-", "SSH", ""}, {"<?xml", "XMPP", ""}, {"<stream", "XMPP", ""},
	{"-ERR", "the protocol of Redis or POP3", ""}, {"RFB ", "VNC", ""}, {"AMQP", "AMQP", ""},
}

// recognised tells which protocol a server speaks by what it said first, nil when that says nothing.
func recognised(seen []byte, address string) error {
	for _, g := range greetings {
		if bytes.HasPrefix(seen, []byte(g.prefix)) {
			return &protocolError{g.name, g.scheme, address}
		}
	}
	line := strings.ToUpper(string(seen))
	switch {
	case len(seen) > 4 && (strings.HasPrefix(line, "220 ") || strings.HasPrefix(line, "220-")):
		if strings.Contains(line, "FTP") {
			return &protocolError{"FTP", "", address}
		}
		return &protocolError{"SMTP", "smtp", address}
	// A packet of MySQL: three bytes of length, number 0, version 10 of the protocol.
	case len(seen) > 5 && seen[2] == 0 && seen[3] == 0 && seen[4] == 10:
		return &protocolError{"MySQL", "", address}
	}
	return nil
}

// explainNoTLS finds out why there was no TLS with a server: by what it said, or, where it only hung up, by asking it
// once more in the two protocols in which the client speaks first. It returns failure when it finds nothing.
func (v *verifier) explainNoTLS(ctx context.Context, seen []byte, failure error) error {
	if v.protocol.start != nil {
		return failure // it has begun TLS
	}
	if found := recognised(seen, v.address); found != nil {
		return found
	}
	hungUp := errors.Is(failure, io.EOF) || errors.Is(failure, io.ErrUnexpectedEOF) ||
		errors.Is(failure, syscall.ECONNRESET) || errors.Is(failure, syscall.EPIPE)
	var noTLS tls.RecordHeaderError
	if hungUp && v.found != nil {
		return v.found
	}
	if v.asked || len(seen) > 0 && !errors.As(failure, &noTLS) || len(seen) == 0 && !hungUp {
		return failure
	}
	v.asked = true // once for all looks: applications may log what they do not understand
	switch {
	case v.answers(ctx, isPostgreSQL, postgreSQLRequest):
		v.found = &protocolError{"PostgreSQL's protocol", "postgres", v.address}
	case v.answers(ctx, isLDAP, startTLSRequest):
		v.found = &protocolError{"LDAP", "ldap", v.address}
	default:
		return failure
	}
	return v.found
}

func isPostgreSQL(conn net.Conn) bool {
	var answer [1]byte
	_, err := io.ReadFull(conn, answer[:])
	return err == nil && (answer[0] == 'S' || answer[0] == 'N')
}

func isLDAP(conn net.Conn) bool {
	_, _, err := readExtendedResponse(conn)
	return err == nil
}

// answers sends a request on a connection of its own and tells whether the answer is one of its protocol.
func (v *verifier) answers(ctx context.Context, fits func(net.Conn) bool, request string) bool {
	ctx, cancel := context.WithTimeout(ctx, recognition)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", v.address)
	if err != nil {
		return false
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	_, err = io.WriteString(conn, request)
	return err == nil && fits(conn)
}
