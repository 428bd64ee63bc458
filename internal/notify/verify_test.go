package notify

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

// tlsServer serves the certificate that it is given last, and says how handshakes ended.
type tlsServer struct {
	address    string
	serves     atomic.Pointer[tls.Certificate]
	handshakes chan handshake
}

type handshake struct {
	serverName string
	err        error
}

// startTLS runs a server. before, unless nil, speaks on each connection first, and says whether TLS begins then.
func startTLS(t *testing.T, cert tls.Certificate, before func(net.Conn) bool, change ...func(*tls.Config)) *tlsServer {
	t.Helper()
	s := &tlsServer{handshakes: make(chan handshake, 100)}
	s.serves.Store(&cert)
	listener := fixture.Must(net.Listen("tcp", "127.0.0.1:0"))
	t.Cleanup(func() { _ = listener.Close() })
	s.address = listener.Addr().String()
	config := &tls.Config{}
	config.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.serves.Load(), nil }
	for _, f := range change {
		f(config)
	}
	go func() {
		for {
			raw, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer raw.Close()
				_ = raw.SetDeadline(time.Now().Add(10 * time.Second))
				if before != nil && !before(raw) {
					return
				}
				conn := tls.Server(raw, config)
				err := conn.Handshake()
				s.handshakes <- handshake{conn.ConnectionState().ServerName, err}
				_, _ = io.Copy(io.Discard, conn)
			}()
		}
	}()
	return s
}

func newCA() *fixture.CA { return fixture.Must(fixture.NewCA("Notify")) }

// issue returns a certificate to serve, and the event of its publication.
func issue(authority *fixture.CA) (tls.Certificate, Event) {
	key, chain, err := authority.Identity("app", "app.example")
	cert := tls.Certificate{PrivateKey: fixture.Must(key, err), Certificate: [][]byte{chain[0].Raw, chain[1].Raw}}
	return cert, NewEvent("renewed", "/certs", nil, chain[0], []*x509.Certificate{authority.Root})
}

func TestVerifier_acceptsTheNewCertificate(t *testing.T) {
	type served struct {
		*tls.Certificate
		*Event
		server *tls.Config
	}
	for sentence, row := range map[string]struct {
		change func(served)
		name   string // asked for
		err    string // of the server's handshake
		warns  string
	}{
		"with a clean handshake": {func(served) {}, "", "", ""}, // an address of its needs no name
		"for a name that it has": {func(s served) { s.Names = []string{"app.example"} }, "app.example", "", ""},
		"for a name that it does not have": {func(s served) { s.Names = []string{"other.example"} },
			"other.example", "bad certificate", ""},
		"without published anchors": {func(s served) { s.Trusted = nil }, "", "bad certificate", ""},
		"without the CA that issued it": {func(s served) { s.Certificate.Certificate = s.Certificate.Certificate[:1] },
			"", "bad certificate", "x509: certificate signed by unknown authority"},
		"of a server that wants ours, by TLS 1.2": {func(s served) {
			s.server.ClientAuth, s.server.MaxVersion = tls.RequireAndVerifyClientCert, tls.VersionTLS12
		}, "", "client didn't provide a certificate", ""},
		"of a server that wants ours, by TLS 1.3": {func(s served) {
			s.server.ClientAuth = tls.RequireAndVerifyClientCert
		}, "", "client didn't provide a certificate", ""},
	} {
		t.Run(sentence, func(t *testing.T) {
			cert, event := issue(newCA())
			server := startTLS(t, cert, nil, func(s *tls.Config) {
				row.change(served{&cert, &event, s})
				s.Certificates, s.GetCertificate = []tls.Certificate{cert}, nil
			})
			v, log := create[*verifier](t, Settings{Verify: server.address})
			require.NoError(t, v.Notify(t.Context(), event))
			seen := <-server.handshakes
			assert.Equal(t, row.name, seen.serverName)
			if row.err == "" {
				assert.NoError(t, seen.err)
			} else {
				assert.ErrorContains(t, seen.err, row.err)
			}
			if row.warns != "" {
				assert.Equal(t,
					`level=WARN msg="the application serves the new certificate, but with a `+
						`chain that peers with the published truststore refuse" address=`+
						server.address+` error="`+row.warns+`"`, log.next(t))
			}
			assert.Empty(t, log)
		})
	}
}

func TestVerifier_reportsAnotherCertificate(t *testing.T) {
	authority, expired := newCA(), newCA()
	expired.Change = func(leaf *x509.Certificate) {
		leaf.NotBefore, leaf.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
	}
	for sentence, issuer := range map[string]*fixture.CA{"of the same CA": authority,
		"of another CA": newCA(), "that has expired": expired} {
		t.Run(sentence, func(t *testing.T) {
			t.Parallel()
			old, oldEvent := issue(issuer)
			_, event := issue(authority)
			address := startTLS(t, old, nil).address
			reportsInTime(t, address, event, address+" serves a certificate with serial number "+oldEvent.Serial+
				", valid until "+oldEvent.NotAfter.UTC().Format(time.RFC3339)+", want "+event.Serial)
		})
	}
}

// reportsInTime gives a verification more time as long as it is cut off before it has seen anything.
func reportsInTime(t *testing.T, address string, event Event, want string) {
	t.Helper()
	var err error
	for patient := 500 * time.Millisecond; patient <= patience; patient *= 2 {
		v, _ := create[*verifier](t, Settings{Verify: address, VerifyFor: patient})
		if err = v.Notify(t.Context(), event); err != nil &&
			err.Error() == fmt.Sprintf("%s (looked for %v)", want, patient) {
			return
		}
		require.ErrorIs(t, err, context.DeadlineExceeded)
	}
	require.EqualError(t, err, want)
}

func TestVerifier_looksAgainUntilTheApplicationHasReloaded(t *testing.T) {
	authority := newCA()
	old, _ := issue(authority)
	renewed, event := issue(authority)
	server := startTLS(t, old, nil)
	v, _ := create[*verifier](t, Settings{Verify: server.address})
	done := make(chan error, 1)
	go func() { done <- v.Notify(t.Context(), event) }()
	<-server.handshakes
	<-server.handshakes
	server.serves.Store(&renewed)
	require.NoError(t, <-done)
}

func TestVerifier_asksForANameThatTheCertificateHas(t *testing.T) {
	for sentence, row := range map[string]struct{ address, configured, names, want string }{
		"the configured one":             {"app.example:443", "x.example", "app.example", "x.example"},
		"the host's, when it has it":     {"App.example:443", "", "a.example app.example", "App.example"},
		"its first, for another host":    {"localhost:443", "", "a.example b.example", "a.example"},
		"not a wildcard":                 {"localhost:443", "", "*.example b.example", "b.example"},
		"the host's, when it has no one": {"localhost:443", "", "*.example", "localhost"},
	} {
		v, _ := create[*verifier](t, Settings{Verify: row.address, VerifyServerName: row.configured})
		assert.Equal(t, row.want, v.serverName(strings.Fields(row.names)), sentence)
	}
}

func TestVerifier_addresses(t *testing.T) {
	for text, want := range map[string]string{
		"h:1": "h:1", "[::1]:443": "[::1]:443", "postgres://h": "h:5432", "postgresql://h:1": "h:1",
		"smtp://h/": "h:25", "imap://[::1]": "[::1]:143",
		"LDAP://h": "h:389", "https://h": "h:443", "ldaps://h": "h:636", "tls://h:8443": "h:8443",
		"imaps://h": "h:993", "smtps://h": "h:465",
	} {
		v, _ := create[*verifier](t, Settings{Verify: text})
		assert.Equal(t, want, v.address, text)
	}
}

func TestVerifier_saysWhyItSawNoCertificate(t *testing.T) {
	closed := fixture.FreeAddress(t)
	silent := startTLS(t, tls.Certificate{}, func(conn net.Conn) bool {
		_, _ = io.Copy(io.Discard, conn)
		return false
	}).address
	for address, want := range map[string]string{closed: "dial tcp " + closed + ": connect: connection refused",
		silent: "context deadline exceeded"} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			reportsInTime(t, address, testEvent, "reading the certificate that "+address+" serves: "+want)
		})
	}
}

func TestVerifier_mailServersOfNginx(t *testing.T) {
	const module = "/usr/lib/nginx/modules/ngx_mail_module.so"
	nginx := fixture.RequirePrograms(t, "nginx")[0]
	if _, err := os.Stat(module); err != nil {
		fixture.SkipWithout(t, "nginx's mail module (libnginx-mod-mail)")
	}
	cert, event := issue(newCA())
	key := fixture.Must(x509.MarshalPKCS8PrivateKey(cert.PrivateKey))
	content := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})
	for _, der := range cert.Certificate {
		content = append(content, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "app.pem"), content, 0o600))
	smtp, imap, pop3 := fixture.FreeAddress(t), fixture.FreeAddress(t), fixture.FreeAddress(t)
	config := filepath.Join(dir, "nginx.conf")
	place := strings.NewReplacer("DIR", dir, "SMTP", smtp, "IMAP", imap, "POP3", pop3, "MODULE", module)
	template := string(fixture.Must(os.ReadFile("testdata/nginx-mail.conf")))
	require.NoError(t, os.WriteFile(config, []byte(place.Replace(template)), 0o600))
	server := exec.CommandContext(t.Context(), nginx, "-c", config, "-e", "stderr")
	server.Stderr = t.Output()
	require.NoError(t, server.Start())
	t.Cleanup(func() { _ = server.Wait() })
	for scheme, address := range map[string]string{"smtp": smtp, "imap": imap} {
		v, _ := create[*verifier](t, Settings{Verify: scheme + "://" + address})
		require.NoError(t, v.Notify(t.Context(), event), scheme)
		v, _ = create[*verifier](t, Settings{Verify: address})
		assert.ErrorContains(t, v.Check(t.Context(), nil).Err, "before TLS: write "+scheme+"://"+address)
	}
	v, _ := create[*verifier](t, Settings{Verify: pop3})
	assert.ErrorContains(t, v.Check(t.Context(), nil).Err, "the server speaks POP3 before TLS, or none at all")
}
