package notify

import (
	"bytes"
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

// starter makes a server begin TLS on a connection that begins with another protocol. It reads not
// a byte more than what comes before TLS.
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

// listSchemes lists the schemes of protocols that TLS begins after.
func listSchemes() string {
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
	want := "want host:port, or one of " + listSchemes() + " before it"
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

// IsPostgreSQL says whether an address, as Settings.Verify has it, is that of a PostgreSQL server.
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

// startPostgreSQL sends an SSLRequest (PostgreSQL's protocol 3.0, section "SSL Session
// Encryption"), which is answered by a single byte.
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

// converse sends a command, if there is one, and reads the answer: lines that are continued, and
// one that is not and has to begin as wanted.
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

// startTLSRequest is an LDAPMessage with the ExtendedRequest
// of StartTLS (RFC 4511, sections 4.12 and 4.14).
const startTLSRequest = "\x30\x1d\x02\x01\x01\x77\x18\x80\x16" + "1.3.6.1.4.1.1466.20037"

// Tags of LDAP (RFC 4511).
const (
	tagInteger    = 0x02
	tagOctets     = 0x04
	tagEnumerated = 0x0a
	tagSequence   = 0x30
	tagExtended   = 0x78 // ExtendedResponse
)

// startLDAP asks for StartTLS.
func startLDAP(conn net.Conn) error {
	if _, err := io.WriteString(conn, startTLSRequest); err != nil {
		return err
	}
	code, text, err := readExtendedResponse(conn)
	switch {
	case err != nil:
		return err
	case code != 0:
		return refusalError(fmt.Sprintf("the LDAP server does not begin TLS: result code %d, %s", code, quote(text)))
	}
	return nil
}

// errNotLDAP is the error of an answer that is not an ExtendedResponse.
var errNotLDAP = errors.New("not an LDAP server, or it answers with something else than an ExtendedResponse")

// readExtendedResponse reads the answer to our only message.
func readExtendedResponse(conn io.Reader) (code byte, text string, err error) {
	message, err := readElement(conn, tagSequence)
	if err != nil {
		return 0, "", err
	}
	id, err := readElement(message, tagInteger)
	if err != nil || id.Len() == 0 {
		return 0, "", errNotLDAP
	}
	response, err := readElement(message, tagExtended)
	if err != nil {
		return 0, "", errNotLDAP
	}
	result, err := readElement(response, tagEnumerated)
	if err != nil || result.Len() != 1 {
		return 0, "", errNotLDAP
	}
	code, _ = result.ReadByte()
	if _, err := readElement(response, tagOctets); err == nil { // matchedDN
		if diagnostic, err := readElement(response, tagOctets); err == nil {
			text = diagnostic.String()
		}
	}
	return code, text, nil
}

// readElement reads the content of one element, which has to have the tag, and not a byte more.
// Lengths are BER, as Active Directory writes them in five bytes.
func readElement(from io.Reader, tag byte) (*bytes.Buffer, error) {
	head := make([]byte, 2)
	if _, err := io.ReadFull(from, head); err != nil {
		return nil, err
	}
	length := uint32(head[1])
	if length >= 0x80 {
		more := make([]byte, length&0x7f)
		if len(more) == 0 || len(more) > 4 {
			return nil, errors.New("not an LDAP server: the length of its answer is not readable")
		}
		if _, err := io.ReadFull(from, more); err != nil {
			return nil, err
		}
		length = 0
		for _, b := range more {
			length = length<<8 | uint32(b)
		}
	}
	if length > maxLine {
		return nil, fmt.Errorf("not an LDAP server: its answer has %d bytes, want at most %d", length, maxLine)
	}
	content := make([]byte, length)
	if _, err := io.ReadFull(from, content); err != nil {
		return nil, err
	}
	if head[0] != tag {
		return nil, errNotLDAP
	}
	return bytes.NewBuffer(content), nil
}
