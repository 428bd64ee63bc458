package notify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/url"
	"slices"
	"strings"

	"github.com/certfetcher/certfetcher/internal/pki"
)

// starter makes a server begin TLS on a connection that begins with another protocol. It reads not a byte more
// than what comes before TLS.
type starter func(conn net.Conn) error

// protocol is what a scheme stands for.
type protocol struct {
	port  string // that holds where none is given; empty: one has to be given
	start starter
}

// protocols by scheme. Where start is nil, TLS is spoken from the first byte.
var protocols = map[string]protocol{
	"tls": {}, "https": {port: "443"}, "ldaps": {port: "636"}, "imaps": {port: "993"}, "smtps": {port: "465"},
	"postgres": {"5432", startPostgreSQL}, "postgresql": {"5432", startPostgreSQL},
	"smtp": {"25", startSMTP}, "imap": {"143", startIMAP}, "ldap": {"389", startLDAP},
}

// startable are the schemes of protocols that TLS begins after.
func startable() string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(protocols)) {
		if protocols[name].start != nil && name != "postgresql" {
			names = append(names, name+"://")
		}
	}
	return strings.Join(names, ", ")
}

// parseAddress reads host:port, or scheme://host[:port].
func parseAddress(text string) (address string, p protocol, err error) {
	want := "want host:port, or one of " + startable() + " before it"
	scheme, _, found := strings.Cut(text, "://")
	if !found {
		host, port, err := net.SplitHostPort(text)
		if err != nil || host == "" || port == "" {
			return "", protocol{}, fmt.Errorf("has address %q, %s", text, want)
		}
		return text, protocol{}, nil
	}
	p, known := protocols[strings.ToLower(scheme)]
	if !known {
		return "", protocol{}, fmt.Errorf("has the protocol %q, which is not known: %s; "+
			"without one TLS has to begin at once", scheme, want)
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || u.User != nil: // which may hold a password
		return "", protocol{}, errors.New("has no usable address, " + want)
	case u.Hostname() == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return "", protocol{}, fmt.Errorf("has address %q, %s, and nothing behind it", text, want)
	}
	port := u.Port()
	if port == "" {
		port = p.port
	}
	if port == "" {
		return "", protocol{}, fmt.Errorf("has address %q without a port, %s", text, want)
	}
	return net.JoinHostPort(u.Hostname(), port), p, nil
}

// IsPostgreSQL tells whether an address, as Settings.Verify has it, is that of a PostgreSQL server.
func IsPostgreSQL(address string) bool {
	scheme, _, found := strings.Cut(address, "://")
	return found && strings.HasPrefix(strings.ToLower(scheme), "postgres")
}

// begin has the server begin TLS, within the time of ctx.
func (p protocol) begin(ctx context.Context, conn net.Conn) error {
	if p.start == nil {
		return nil
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if err := p.start(conn); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return fmt.Errorf("asking for TLS: %w", err)
	}
	return nil
}

// Bounds on what a server says before TLS.
const (
	maxLine  = 8 << 10 // bytes of one line, or of one LDAP message
	maxLines = 100     // of one answer
)

// quote makes a server's text fit to be shown.
func quote(text string) string { return fmt.Sprintf("%q", pki.OneLine(text, 200)) }

// postgreSQLRequest is an SSLRequest: its length, and the code 80877103.
const postgreSQLRequest = "\x00\x00\x00\x08\x04\xd2\x16\x2f"

// refusalError is the answer of a server that speaks the protocol, and does not begin TLS.
type refusalError string

func (e refusalError) Error() string { return string(e) }

// startPostgreSQL sends an SSLRequest (PostgreSQL's protocol 3.0, section "SSL Session Encryption"), which is answered
// by a single byte.
func startPostgreSQL(conn net.Conn) error {
	if _, err := io.WriteString(conn, postgreSQLRequest); err != nil {
		return err
	}
	var answer [1]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return err
	}
	switch answer[0] {
	case 'S':
		return nil
	case 'N':
		return refusalError("PostgreSQL has no TLS: set ssl = on, ssl_cert_file and ssl_key_file, and see its log")
	}
	return fmt.Errorf("not a PostgreSQL server: it answers %s to an SSLRequest", quote(string(answer[:])))
}

// startSMTP follows RFC 3207.
func startSMTP(conn net.Conn) error {
	isContinued := func(line string) bool { return len(line) > 3 && line[3] == '-' }
	if _, err := converse(conn, "", "220", isContinued); err != nil {
		return err
	}
	offers, err := converse(conn, "EHLO localhost", "250", isContinued)
	if err != nil {
		return err
	}
	for _, line := range offers[1:] { // the first has the server's name
		if len(line) > 4 && strings.EqualFold(strings.TrimSpace(line[4:]), "STARTTLS") {
			_, err := converse(conn, "STARTTLS", "220", isContinued)
			return err
		}
	}
	return errors.New("the SMTP server does not offer STARTTLS: see its TLS settings, and its log")
}

// startIMAP follows RFC 3501, section 6.2.1.
func startIMAP(conn net.Conn) error {
	if _, err := converse(conn, "", "* OK", func(string) bool { return false }); err != nil {
		return err
	}
	_, err := converse(conn, "a STARTTLS", "a OK", func(line string) bool { return strings.HasPrefix(line, "* ") })
	return err
}

// converse sends a command, if there is one, and reads the answer: lines that are continued, and one that is not and has
// to begin as wanted.
func converse(conn net.Conn, command, want string, isContinued func(line string) bool) (lines []string, err error) {
	said := "greets"
	if command != "" {
		said = "answers " + command
		if _, err := io.WriteString(conn, command+"\r\n"); err != nil {
			return nil, err
		}
	}
	for len(lines) < maxLines {
		line, err := readLine(conn)
		if err != nil {
			return nil, err
		}
		lines = append(lines, line)
		switch {
		case isContinued(line):
		case !hasPrefixFold(line, want):
			return nil, fmt.Errorf("the server %s with %s, want %s", said, quote(line), want)
		default:
			return lines, nil
		}
	}
	return nil, fmt.Errorf("the server %s with more than %d lines", said, maxLines)
}

func hasPrefixFold(text, prefix string) bool {
	return len(text) >= len(prefix) && strings.EqualFold(text[:len(prefix)], prefix)
}

// readLine reads up to a newline, byte by byte: what follows belongs to TLS.
func readLine(conn io.Reader) (string, error) {
	var line []byte
	for one := make([]byte, 1); len(line) < maxLine; {
		if _, err := io.ReadFull(conn, one); err != nil {
			if errors.Is(err, io.EOF) {
				err = fmt.Errorf("the server hung up: %w", io.ErrUnexpectedEOF)
			}
			return "", err
		}
		if one[0] == '\n' {
			return strings.TrimSuffix(string(line), "\r"), nil
		}
		line = append(line, one[0])
	}
	return "", fmt.Errorf("a line has more than %d bytes", maxLine)
}
