package notify

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/ca"
	"github.com/certfetcher/certfetcher/test/port"
)

// tlsApplication serves whatever certificate it is given last, and tells how handshakes ended.
type tlsApplication struct {
	address    string
	serves     atomic.Pointer[tls.Certificate]
	handshakes chan handshake
}

type handshake struct {
	serverName string
	err        error
}

func startTLS(t *testing.T, cert tls.Certificate, change func(*tls.Config)) *tlsApplication {
	t.Helper()
	app := &tlsApplication{handshakes: make(chan handshake, 100)}
	app.serves.Store(&cert)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	app.address = listener.Addr().String()
	config := &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return app.serves.Load(), nil }}
	if change != nil {
		change(config)
	}
	go func() {
		for {
			raw, err := listener.Accept()
			if err != nil {
				return
			}
			conn := tls.Server(raw, config)
			err = conn.Handshake()
			app.handshakes <- handshake{conn.ConnectionState().ServerName, err}
			_ = conn.Close()
		}
	}()
	return app
}

func newCA(t *testing.T) *ca.CA {
	t.Helper()
	authority, err := ca.New("Notify")
	require.NoError(t, err)
	return authority
}

// issue returns a certificate to serve, and the event of its publication.
func issue(t *testing.T, authority *ca.CA) (tls.Certificate, Event) {
	t.Helper()
	key, chain, err := authority.Identity("app", "app.example")
	require.NoError(t, err)
	cert := tls.Certificate{PrivateKey: key}
	for _, c := range chain {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	return cert, NewEvent("renewed", "/certs", nil, chain[0], []*x509.Certificate{authority.Root})
}

func newVerify(t *testing.T, address string, log lines) *Verify {
	t.Helper()
	v, err := NewVerify(VerifyConfig{Address: address, Patience: patience, Log: log.logger()})
	require.NoError(t, err)
	return v
}

func TestVerify_accepts_the_new_certificate_with_a_clean_handshake(t *testing.T) {
	cert, event := issue(t, newCA(t))
	app, log := startTLS(t, cert, nil), newLines()
	require.NoError(t, newVerify(t, app.address, log).Notify(t.Context(), event))
	seen := <-app.handshakes
	assert.NoError(t, seen.err)
	assert.Empty(t, seen.serverName, "an address that the certificate vouches for needs no name")
	assert.Empty(t, log.all())
}

func TestVerify_accepts_the_new_certificate_whatever_is_wrong_with_it(t *testing.T) {
	for _, row := range []struct {
		name   string
		change func(*ca.CA, *tls.Certificate, *Event)
		warns  string
	}{
		{"a name that it does not have", func(_ *ca.CA, _ *tls.Certificate, e *Event) { e.Names = []string{"other.example"} }, ""},
		{"no published anchors", func(_ *ca.CA, _ *tls.Certificate, e *Event) { e.Trusted = nil }, ""},
		{"the issuing CA is not served", func(_ *ca.CA, c *tls.Certificate, _ *Event) { c.Certificate = c.Certificate[:1] },
			"x509: certificate signed by unknown authority"},
	} {
		t.Run(row.name, func(t *testing.T) {
			authority := newCA(t)
			cert, event := issue(t, authority)
			row.change(authority, &cert, &event)
			app, log := startTLS(t, cert, nil), newLines()
			require.NoError(t, newVerify(t, app.address, log).Notify(t.Context(), event))
			logged := log.all()
			if row.warns == "" {
				assert.Empty(t, logged)
				return
			}
			require.Len(t, logged, 1)
			assert.Equal(t, `level=WARN msg="the application serves the new certificate, but with a chain that peers holding the published truststore refuse" address=`+
				app.address+` error="`+row.warns+`"`, logged[0])
		})
	}
}

func TestVerify_reports_another_certificate_whatever_it_is(t *testing.T) {
	authority := newCA(t)
	expired := newCA(t)
	expired.Change = func(leaf *x509.Certificate) {
		leaf.NotBefore, leaf.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
	}
	for _, row := range []struct {
		name   string
		issuer *ca.CA
	}{
		{"of the same CA", authority},
		{"of another CA", newCA(t)},
		{"that has expired", expired},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			old, oldEvent := issue(t, row.issuer)
			_, event := issue(t, authority)
			app := startTLS(t, old, nil)
			v := newVerify(t, app.address, newLines())
			reportsInTime(t, v, event, app.address+" serves a certificate with serial number "+oldEvent.Serial+
				", valid until "+oldEvent.NotAfter.UTC().Format(time.RFC3339)+", want "+event.Serial)
		})
	}
}

// reportsInTime gives a verification more time as long as it is cut off before it has seen anything.
func reportsInTime(t *testing.T, v *Verify, event Event, want string) {
	t.Helper()
	var err error
	for v.config.Patience = 500 * time.Millisecond; v.config.Patience <= patience; v.config.Patience *= 2 {
		if err = v.Notify(t.Context(), event); err != nil && err.Error() == fmt.Sprintf("%s (looked for %v)", want, v.config.Patience) {
			return
		}
		require.ErrorIs(t, err, context.DeadlineExceeded)
	}
	require.EqualError(t, err, want)
}

func TestVerify_looks_again_until_the_application_has_reloaded(t *testing.T) {
	authority := newCA(t)
	old, _ := issue(t, authority)
	renewed, event := issue(t, authority)
	app := startTLS(t, old, nil)
	done := make(chan error, 1)
	go func() { done <- newVerify(t, app.address, newLines()).Notify(t.Context(), event) }()
	<-app.handshakes
	<-app.handshakes
	app.serves.Store(&renewed)
	require.NoError(t, <-done)
}

func TestVerify_needs_no_client_certificate(t *testing.T) {
	for name, version := range map[string]uint16{"TLS 1.2": tls.VersionTLS12, "TLS 1.3": tls.VersionTLS13} {
		t.Run(name, func(t *testing.T) {
			cert, event := issue(t, newCA(t))
			app := startTLS(t, cert, func(c *tls.Config) {
				c.ClientAuth = tls.RequireAndVerifyClientCert
				c.MinVersion, c.MaxVersion = version, version
			})
			require.NoError(t, newVerify(t, app.address, newLines()).Notify(t.Context(), event))
			assert.ErrorContains(t, (<-app.handshakes).err, "client didn't provide a certificate")
		})
	}
}

func TestVerify_asks_for_a_name_that_the_certificate_has(t *testing.T) {
	for _, row := range []struct {
		name, address, configured string
		names                     []string
		want                      string
	}{
		{"the configured one", "app.example:443", "x.example", []string{"app.example"}, "x.example"},
		{"the host's, when it has it", "App.example:443", "", []string{"a.example", "app.example"}, "App.example"},
		{"its first, when the host is another", "localhost:443", "", []string{"a.example", "b.example"}, "a.example"},
		{"no wildcard", "localhost:443", "", []string{"*.example", "b.example"}, "b.example"},
		{"the host's, for want of any", "localhost:443", "", []string{"*.example"}, "localhost"},
	} {
		t.Run(row.name, func(t *testing.T) {
			v, err := NewVerify(VerifyConfig{Address: row.address, ServerName: row.configured})
			require.NoError(t, err)
			assert.Equal(t, row.want, v.serverName(row.names))
		})
	}
	cert, event := issue(t, newCA(t))
	event.Names = []string{"app.example"}
	app := startTLS(t, cert, nil)
	require.NoError(t, newVerify(t, app.address, newLines()).Notify(t.Context(), event))
	assert.Equal(t, handshake{"app.example", nil}, <-app.handshakes)
}

func TestVerify_reports_why_no_certificate_was_seen(t *testing.T) {
	listen := func(serve func(net.Conn)) string {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		t.Cleanup(func() { _ = listener.Close() })
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				serve(conn)
			}
		}()
		return listener.Addr().String()
	}
	closed := port.Free(t)
	for _, row := range []struct{ name, address, want string }{
		{"nobody listens", closed, "dial tcp " + closed + ": connect: connection refused"},
		{"no TLS", listen(func(c net.Conn) {
			_, _ = c.Write([]byte("220 smtp.example ESMTP\r\n"))
		}), "the server speaks SMTP before TLS: write smtp://ADDRESS"},
		{"no answer", listen(func(c net.Conn) { t.Cleanup(func() { _ = c.Close() }) }), "context deadline exceeded"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			v := newVerify(t, row.address, newLines())
			reportsInTime(t, v, testEvent, "reading the certificate that "+row.address+" serves: "+strings.ReplaceAll(row.want, "ADDRESS", row.address))
		})
	}
}

func TestNewVerify_wants_host_and_port(t *testing.T) {
	for _, address := range []string{"", "localhost", ":443", "localhost:", "::1"} {
		_, err := NewVerify(VerifyConfig{Address: address})
		require.EqualError(t, err, "has address \""+address+"\", want host:port, or one of imap://, ldap://, postgres://, smtp:// before it")
	}
	_, err := NewVerify(VerifyConfig{Address: "[::1]:443"})
	require.NoError(t, err)
}
