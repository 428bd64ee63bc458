package notify

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// speaking listens and has each connection spoken to by serve, which tells whether TLS begins then.
func speaking(t *testing.T, cert tls.Certificate, serve func(net.Conn) bool) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
				if serve(conn) {
					server := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{cert}})
					_ = server.Handshake()
					_, _ = io.Copy(io.Discard, server)
				}
			}()
		}
	}()
	return listener.Addr().String()
}

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

func TestVerify_protocols_that_begin_TLS_later(t *testing.T) {
	authority := newCA(t)
	cert, event := issue(t, authority)
	for name, row := range begun {
		t.Run(name, func(t *testing.T) {
			v := newVerify(t, row.scheme+"://"+speaking(t, cert, row.serve), newLines())
			require.NoError(t, v.Notify(t.Context(), event))
			served, err := v.Served(t.Context(), event.Names)
			require.NoError(t, err)
			assert.Equal(t, cert.Certificate[0], served.Raw)
		})
	}
}

func TestVerify_protocols_that_do_not_begin_TLS_say_why(t *testing.T) {
	cert, event := issue(t, newCA(t))
	for name, row := range map[string]struct {
		scheme string
		serve  func(net.Conn) bool
		want   string
	}{
		"PostgreSQL without TLS":     {"postgres", asks(postgreSQLRequest, "N"), "asking for TLS: PostgreSQL does without TLS: set ssl = on"},
		"no PostgreSQL":              {"postgres", asks(postgreSQLRequest, "HTTP/1.1 400"), `this is no PostgreSQL: it answers "H" to an SSLRequest`},
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
		"LDAP of a gigabyte":         {"ldap", asks(startTLSRequest, "\x30\x84\x40\x00\x00\x00"), "this is no LDAP server: its answer has 1073741824 bytes"},
		"LDAP of four gigabytes":     {"ldap", asks(startTLSRequest, "\x30\x84\xff\xff\xff\xff"), "this is no LDAP server: its answer has"},
		"LDAP of no length":          {"ldap", asks(startTLSRequest, "\x30\x80"), "the length of its answer is not readable"},
		"LDAP with a length too big": {"ldap", asks(startTLSRequest, "\x30\x04\x02\x84\xff\xff"), "this is no LDAP server"},
		"LDAP with another answer":   {"ldap", asks(startTLSRequest, "\x30\x05\x02\x01\x01\x42\x00"), "this is no LDAP server, or it answers something else"},
		"a server that hangs up":     {"smtp", func(net.Conn) bool { return false }, "the server hung up: unexpected EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := speaking(t, cert, func(conn net.Conn) bool { row.serve(conn); return false })
			_, err := newVerify(t, row.scheme+"://"+address, newLines()).Served(t.Context(), event.Names)
			require.ErrorContains(t, err, row.want)
			assert.NotContains(t, err.Error(), "\x1b")
		})
	}
}

// What is sent along with the answer, in the clear, is never taken for something that came under TLS.
func TestVerify_reads_not_a_byte_of_what_follows_the_answer(t *testing.T) {
	cert, event := issue(t, newCA(t))
	for name, row := range begun {
		t.Run(name, func(t *testing.T) {
			address := speaking(t, cert, func(conn net.Conn) bool {
				row.serve(conn)
				_, _ = io.WriteString(conn, "* injected\r\n")
				return true
			})
			_, err := newVerify(t, row.scheme+"://"+address, newLines()).Served(t.Context(), event.Names)
			require.ErrorContains(t, err, "first record does not look like a TLS handshake")
		})
	}
}

func TestVerify_another_protocol_where_TLS_was_expected_is_recognised(t *testing.T) {
	cert, event := issue(t, newCA(t))
	hangUp := func(other func(net.Conn) bool) func(net.Conn) bool {
		return func(conn net.Conn) bool {
			first := make([]byte, 1)
			if _, err := io.ReadFull(conn, first); err != nil || first[0] == 0x16 { // a record of TLS
				return false
			}
			return other(&prefixed{conn, first})
		}
	}
	for name, row := range map[string]struct {
		serve func(net.Conn) bool
		want  string
	}{
		"SMTP":       {dialogue("220 mail.example ESMTP Postfix\r\n"), "the server speaks SMTP before TLS: write smtp://ADDRESS"},
		"IMAP":       {dialogue("* OK IMAP4rev1\r\n"), "the server speaks IMAP before TLS: write imap://ADDRESS"},
		"PostgreSQL": {hangUp(asks(postgreSQLRequest, "S")), "the server speaks PostgreSQL's protocol before TLS: write postgres://ADDRESS"},
		"LDAP":       {hangUp(asks(startTLSRequest, ldapRefused)), "the server speaks LDAP before TLS: write ldap://ADDRESS"},
		"FTP":        {dialogue("220 (vsFTPd 3.0.3)\r\n"), "the server speaks FTP before TLS, or none at all: want a port where TLS begins at once, or one of imap://, ldap://, postgres://, smtp://"},
		"POP3":       {dialogue("+OK ready\r\n"), "the server speaks POP3 before TLS, or none at all"},
		"HTTP":       {dialogue("HTTP/1.1 400 Bad Request\r\n"), "the server speaks HTTP before TLS, or none at all"},
		"SSH":        {dialogue("SSH-2.0-OpenSSH_9.2\r\n"), "the server speaks SSH before TLS, or none at all"},
		"MySQL":      {dialogue("\x4a\x00\x00\x00\x0a8.0.36\x00"), "the server speaks MySQL before TLS, or none at all"},
		"unknown":    {dialogue("\x00\x01\x02\x03\x04\x05"), "first record does not look like a TLS handshake"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := speaking(t, cert, func(conn net.Conn) bool {
				row.serve(conn)
				_, _ = io.Copy(io.Discard, conn) // so that what was said is not lost in a reset
				return false
			})
			if name == "PostgreSQL" || name == "LDAP" {
				address = speaking(t, cert, func(conn net.Conn) bool { row.serve(conn); return false })
			}
			_, err := newVerify(t, address, newLines()).Served(t.Context(), event.Names)
			require.ErrorContains(t, err, strings.ReplaceAll(row.want, "ADDRESS", address))
		})
	}
}

func TestVerify_server_that_only_hangs_up_stays_unrecognised(t *testing.T) {
	cert, event := issue(t, newCA(t))
	address := speaking(t, cert, func(net.Conn) bool { return false })
	_, err := newVerify(t, address, newLines()).Served(t.Context(), event.Names)
	require.Error(t, err)
	assert.NotContains(t, err.Error(), "before TLS")
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

func TestNewVerify_addresses(t *testing.T) {
	for text, want := range map[string]string{
		"h:1": "h:1", "[::1]:443": "[::1]:443", "postgres://h": "h:5432", "postgresql://h:1": "h:1", "smtp://h/": "h:25", "imap://[::1]": "[::1]:143",
		"LDAP://h": "h:389", "https://h": "h:443", "ldaps://h": "h:636", "tls://h:8443": "h:8443",
	} {
		v, err := NewVerify(VerifyConfig{Address: text})
		require.NoError(t, err, text)
		assert.Equal(t, want, v.Address(), text)
	}
	const schemes = "want host:port, or one of imap://, ldap://, postgres://, smtp:// before it"
	for text, want := range map[string]string{
		"pop3://h":            `has the protocol "pop3", which is not known: ` + schemes + "; without one TLS has to begin at once",
		"ftp://h":             `has the protocol "ftp", which is not known: ` + schemes + "; without one TLS has to begin at once",
		"postgres://u:pw@h/":  "has no usable address, " + schemes,
		"postgres://h:5432/d": `has address "postgres://h:5432/d", ` + schemes + ", and nothing behind it",
		"tls://h":             `has address "tls://h" without a port, ` + schemes,
		"smtp://":             `has address "smtp://", ` + schemes + ", and nothing behind it",
	} {
		_, err := NewVerify(VerifyConfig{Address: text})
		require.EqualError(t, err, want, text)
	}
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
