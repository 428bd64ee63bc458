package notify

import (
	"bytes"
	"cmp"
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

// beginning keeps the first bytes that come, by which a
// server is recognised that does not speak TLS.
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
			"want a port where TLS begins at once, or one of %s", e.name, listSchemes())
	}
	return fmt.Sprintf("the server speaks %s before TLS: write %s://%s", e.name, e.scheme, e.address)
}

// greetings are how servers begin that speak first, or how they answer what they do not understand.
var greetings = []struct{ prefix, name, scheme string }{
	{"* OK", "IMAP", "imap"}, {"* PREAUTH", "IMAP", ""}, {"* BYE", "IMAP", "imap"}, {"+OK", "POP3", ""},
	{"HTTP/", "HTTP", ""}, {"SSH-", "SSH", ""}, {"<?xml", "XMPP", ""}, {"<stream", "XMPP", ""},
	{"-ERR", "the protocol of Redis or POP3", ""}, {"RFB ", "VNC", ""}, {"AMQP", "AMQP", ""},
}

// recognise finds the protocol that a server speaks by what it said first; nil for none.
func recognise(seen []byte, address string) error {
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

// explainNoTLS finds out why there was no TLS with a server: by what it said, or, where it only
// hung up, by asking it once more in the two protocols in which the client speaks first. It
// returns failure when it finds nothing.
func (v *verifier) explainNoTLS(ctx context.Context, seen []byte, failure error) error {
	if v.protocol.start != nil {
		return failure // it has begun TLS
	}
	if found := recognise(seen, v.address); found != nil {
		return found
	}
	hungUp := errors.Is(failure, io.EOF) || errors.Is(failure, io.ErrUnexpectedEOF) ||
		errors.Is(failure, syscall.ECONNRESET) || errors.Is(failure, syscall.EPIPE)
	_, noTLS := errors.AsType[tls.RecordHeaderError](failure)
	if len(seen) == 0 && !hungUp || len(seen) > 0 && !noTLS {
		return failure
	}
	if !v.asked { // once for all looks: applications may log what they do not understand
		v.asked = true
		if v.speaks(ctx, "postgres") {
			v.found = &protocolError{"PostgreSQL's protocol", "postgres", v.address}
		} else if v.speaks(ctx, "ldap") {
			v.found = &protocolError{"LDAP", "ldap", v.address}
		}
	}
	return cmp.Or(v.found, failure)
}

// speaks asks the server for TLS in a protocol, on a
// connection of its own, and says whether it answers in that.
func (v *verifier) speaks(ctx context.Context, scheme string) bool {
	ctx, cancel := context.WithTimeout(ctx, recognition)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", v.address)
	if err != nil {
		return false
	}
	defer conn.Close()
	err = protocols[scheme].begin(ctx, conn)
	_, refused := errors.AsType[refusalError](err)
	return err == nil || refused
}
