package notify

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// dialogue is a server of lines: it says the first, and then for each line that begins with what is wanted, in turn, what
// follows it.
func dialogue(lines ...string) func(net.Conn) bool {
	return func(conn net.Conn) bool {
		in := textproto.NewReader(bufio.NewReader(conn))
		_, _ = io.WriteString(conn, lines[0])
		for i := 1; i < len(lines); i += 2 {
			got, err := in.ReadLine()
			if err != nil || !strings.HasPrefix(got, lines[i]) {
				return false
			}
			_, _ = io.WriteString(conn, lines[i+1])
		}
		return true
	}
}

// asks is a server that answers a request of a fixed form.
func asks(request, answer string) func(net.Conn) bool {
	return func(conn net.Conn) bool {
		got := make([]byte, len(request))
		if _, err := io.ReadFull(conn, got); err != nil || string(got) != request {
			return false
		}
		_, _ = io.WriteString(conn, answer)
		return true
	}
}

const (
	ldapSuccess = "\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x00\x04\x00\x04\x00"
	// As Active Directory writes it.
	ldapSuccessLong = "\x30\x84\x00\x00\x00\x28\x02\x01\x01\x78\x84\x00\x00\x00\x1f\x0a\x01\x00\x04\x00\x04\x00\x8a\x161.3.6.1.4.1.1466.20037"
	ldapRefused     = "\x30\x13\x02\x01\x01\x78\x0e\x0a\x01\x02\x04\x00\x04\x07no TLS!"
)

var begun = map[string]struct {
	scheme string
	serve  func(net.Conn) bool
}{
	"PostgreSQL":           {"postgres", asks("\x00\x00\x00\x08\x04\xd2\x16\x2f", "S")},
	"PostgreSQL, in full":  {"postgresql", asks("\x00\x00\x00\x08\x04\xd2\x16\x2f", "S")},
	"SMTP":                 {"smtp", dialogue("220-mail.example\r\n220 ESMTP\r\n", "EHLO ", "250-mail.example\r\n250-SIZE 1\r\n250 STARTTLS\r\n", "STARTTLS", "220 go ahead\r\n")},
	"SMTP, in lower case":  {"SMTP", dialogue("220 x\n", "EHLO ", "250-x\n250-starttls\n250 HELP\n", "STARTTLS", "220\n")},
	"IMAP":                 {"imap", dialogue("* OK [CAPABILITY IMAP4rev1 STARTTLS] ready\r\n", "a STARTTLS", "* CAPABILITY x\r\na OK begin\r\n")},
	"LDAP":                 {"ldap", asks(startTLSRequest, ldapSuccess)},
	"LDAP with BER length": {"ldap", asks(startTLSRequest, ldapSuccessLong)},
}

func TestVerifier_protocolsThatBeginTLSLater(t *testing.T) {
	cert, event := issue(t, newCA(t))
	for name, row := range begun {
		t.Run(name, func(t *testing.T) {
			v, _ := create[*verifier](t, Settings{Verify: row.scheme + "://" + startTLS(t, cert, row.serve).address})
			require.NoError(t, v.Notify(t.Context(), event))

			// What is sent along with the answer, in the clear, is never taken for something that came under TLS.
			v, _ = create[*verifier](t, Settings{Verify: row.scheme + "://" + startTLS(t, cert, func(conn net.Conn) bool {
				row.serve(conn)
				_, _ = io.WriteString(conn, "* injected\r\n")
				return true
			}).address})
			assert.Equal(t, "tls: first record does not look like a TLS handshake", fmt.Sprint(v.Check(t.Context(), event.Names).Err))
		})
	}
}

func TestVerifier_protocolsThatDoNotBeginTLS_sayWhy(t *testing.T) {
	for name, row := range map[string]struct {
		scheme string
		serve  func(net.Conn) bool
		want   string
	}{
		"PostgreSQL without TLS":     {"postgres", asks(postgreSQLRequest, "N"), "asking for TLS: PostgreSQL does without TLS: set ssl = on"},
		"not PostgreSQL":             {"postgres", asks(postgreSQLRequest, "HTTP/1.1 400"), `not a PostgreSQL server: it answers "H" to an SSLRequest`},
		"SMTP without STARTTLS":      {"smtp", dialogue("220 x\r\n", "EHLO", "250-x\r\n250 SIZE\r\n"), "does not offer STARTTLS"},
		"SMTP that is full":          {"smtp", dialogue("554 5.3.2 go \x1b[31maway\r\n"), "want code 220 to the connection of an SMTP server, got \"554 5.3.2 go"},
		"SMTP that cannot":           {"smtp", dialogue("220 x\r\n", "EHLO", "250 STARTTLS\r\n", "STARTTLS", "454 not now\r\n"), "does not offer STARTTLS"},
		"SMTP that refuses":          {"smtp", dialogue("220 x\r\n", "EHLO", "250-x\r\n250 STARTTLS\r\n", "STARTTLS", "454 not now\r\n"), `want code 220 to STARTTLS of an SMTP server, got "454 not now"`},
		"SMTP without an end":        {"smtp", dialogue(strings.Repeat("220-x\r\n", 2*maxLines)), "an SMTP answer has more than 100 lines"},
		"a line without an end":      {"smtp", dialogue(strings.Repeat("2", 2*maxLine)), "a line has more than 8192 bytes"},
		"IMAP that says good-bye":    {"imap", dialogue("* BYE overloaded\r\n"), `want the greeting * OK of an IMAP server, got "* BYE overloaded"`},
		"IMAP without STARTTLS":      {"imap", dialogue("* OK x\r\n", "a STARTTLS", "a BAD unknown\r\n"), `the IMAP server does not begin TLS, but answers "a BAD unknown"`},
		"IMAP without an end":        {"imap", dialogue("* OK x\r\n", "a STARTTLS", strings.Repeat("* x\r\n", 2*maxLines)), "an IMAP answer has more than 100 lines"},
		"LDAP that refuses":          {"ldap", asks(startTLSRequest, ldapRefused), `the LDAP server does not begin TLS: result code 2, "no TLS!"`},
		"LDAP of a gigabyte":         {"ldap", asks(startTLSRequest, "\x30\x84\x40\x00\x00\x00"), "not an LDAP server: its answer has 1073741824 bytes"},
		"LDAP of four gigabytes":     {"ldap", asks(startTLSRequest, "\x30\x84\xff\xff\xff\xff"), "not an LDAP server: its answer has"},
		"LDAP of no length":          {"ldap", asks(startTLSRequest, "\x30\x80"), "the length of its answer is not readable"},
		"LDAP with a length too big": {"ldap", asks(startTLSRequest, "\x30\x04\x02\x84\xff\xff"), "not an LDAP server"},
		"LDAP with another answer":   {"ldap", asks(startTLSRequest, "\x30\x05\x02\x01\x01\x42\x00"), "not an LDAP server, or it answers with something else"},
		"a server that hangs up":     {"smtp", func(net.Conn) bool { return false }, "the server hung up: unexpected EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := startTLS(t, tls.Certificate{}, func(conn net.Conn) bool { row.serve(conn); return false })
			v, _ := create[*verifier](t, Settings{Verify: row.scheme + "://" + server.address})
			err := v.Check(t.Context(), nil).Err
			require.ErrorContains(t, err, row.want)
			assert.NotContains(t, err.Error(), "\x1b")
		})
	}
}

func TestVerifier_recognisesAnotherProtocolWhereTLSWasExpected(t *testing.T) {
	refuse := func(other func(net.Conn) bool) func(net.Conn) bool {
		return func(conn net.Conn) bool {
			first := make([]byte, 1)
			if _, err := io.ReadFull(conn, first); err == nil && first[0] != 0x16 { // a record of TLS
				other(&prefixed{conn, first})
			}
			return false
		}
	}
	greet := func(text string) func(net.Conn) bool {
		return func(conn net.Conn) bool {
			_, _ = io.WriteString(conn, text)
			_, _ = io.Copy(io.Discard, conn) // so that what was said is not lost in a reset
			return false
		}
	}
	for name, row := range map[string]struct {
		serve func(net.Conn) bool
		want  string
	}{
		"SMTP":       {greet("220 mail.example ESMTP Postfix\r\n"), "the server speaks SMTP before TLS: write smtp://ADDRESS"},
		"IMAP":       {greet("* OK IMAP4rev1\r\n"), "the server speaks IMAP before TLS: write imap://ADDRESS"},
		"PostgreSQL": {refuse(asks(postgreSQLRequest, "S")), "the server speaks PostgreSQL's protocol before TLS: write postgres://ADDRESS"},
		"LDAP":       {refuse(asks(startTLSRequest, ldapRefused)), "the server speaks LDAP before TLS: write ldap://ADDRESS"},
		"FTP":        {greet("220 (vsFTPd 3.0.3)\r\n"), "the server speaks FTP before TLS, or none at all: want a port where TLS begins at once, or one of imap://, ldap://, postgres://, smtp://"},
		"POP3":       {greet("+OK ready\r\n"), "the server speaks POP3 before TLS, or none at all"},
		"HTTP":       {greet("HTTP/1.1 400 Bad Request\r\n"), "the server speaks HTTP before TLS, or none at all"},
		"SSH":        {greet("SSH-2.0-OpenSSH_9.2\r\n"), "the server speaks SSH before TLS, or none at all"},
		"MySQL":      {greet("\x4a\x00\x00\x00\x0a8.0.36\x00"), "the server speaks MySQL before TLS, or none at all"},
		"unknown":    {greet("\x00\x01\x02\x03\x04\x05"), "first record does not look like a TLS handshake"},
		"silence":    {refuse(func(net.Conn) bool { return false }), ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := startTLS(t, tls.Certificate{}, row.serve).address
			v, _ := create[*verifier](t, Settings{Verify: address})
			err := v.Check(t.Context(), nil).Err
			require.ErrorContains(t, err, strings.ReplaceAll(row.want, "ADDRESS", address))
			assert.Equal(t, strings.HasPrefix(row.want, "the server speaks"), strings.Contains(err.Error(), "before TLS"))
		})
	}
}

// prefixed gives back what was read to see what comes.
type prefixed struct {
	net.Conn
	first []byte
}

func (p *prefixed) Read(b []byte) (int, error) {
	if len(p.first) > 0 {
		n := copy(b, p.first)
		p.first = p.first[n:]
		return n, nil
	}
	return p.Conn.Read(b)
}

// scripted is a connection on which a server says something whatever it is asked.
type scripted struct {
	net.Conn
	says *strings.Reader
}

func (s scripted) Read(b []byte) (int, error)  { return s.says.Read(b) }
func (s scripted) Write(b []byte) (int, error) { return len(b), nil }

func FuzzStart_whateverAServerSays(f *testing.F) {
	for _, seed := range []string{
		"S", "N", "E", "220 x\r\n250-x\r\n250 STARTTLS\r\n220 go\r\n", "220\n250\n", "* OK x\r\na OK\r\n", "* OK\n* x\na NO\n",
		ldapSuccess, ldapSuccessLong, ldapRefused, "\x30\x84\xff\xff\xff\xff", "\x30\x04\x02\x84\xff\xff",
	} {
		f.Add(seed + "rest")
	}
	f.Fuzz(func(t *testing.T, says string) {
		for scheme, p := range protocols {
			if p.start == nil {
				continue
			}
			conn := scripted{says: strings.NewReader(says)}
			if err := p.start(conn); err == nil {
				read := len(says) - conn.says.Len()
				// What was read is the answer in full, and nothing of what follows it.
				again := scripted{says: strings.NewReader(says[:read])}
				require.NoError(t, p.start(again), scheme)
				require.Error(t, p.start(scripted{says: strings.NewReader(says[:read-1])}), scheme)
			}
			_ = recognised([]byte(says), "h:1")
		}
	})
}
