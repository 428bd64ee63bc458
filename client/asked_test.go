package client

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

// listening is a TLS server that the client trusts and that keeps what comes after the handshake.
type listening struct {
	net.Listener
	received chan string
}

func newListening(t *testing.T, m *mutual, change func(*tls.Config)) *listening {
	t.Helper()
	cfg := &tls.Config{Certificates: []tls.Certificate{identity(t, m.ca, "server", nil)}}
	change(cfg)
	l := fixture.Must(tls.Listen("tcp", "127.0.0.1:0", cfg))
	t.Cleanup(func() { l.Close() })
	s := &listening{Listener: l, received: make(chan string, 8)}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				conn.SetDeadline(time.Now().Add(10 * time.Second))
				if conn.(*tls.Conn).Handshake() != nil {
					s.received <- "no handshake"
					return
				}
				all, _ := io.ReadAll(conn)
				s.received <- string(all)
			}()
		}
	}()
	return s
}

// A proxy that ends TLS with a certificate that the truststore vouches for does not ask for ours.
func TestClient_server_that_never_asks_for_our_certificate_gets_nothing(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for name, through := range map[string]string{"directly": "", "set up ahead": "ahead",
			"through a proxy": "proxy"} {
			t.Run(tls.VersionName(version)+", "+name, func(t *testing.T) {
				m := newMutual(t, nil, nil)
				s := newListening(t, m, func(c *tls.Config) { c.MaxVersion = version })
				m.cfg.URL = "https://" + s.Addr().String() + "/v1/certificate/"
				if through == "proxy" {
					m.through(s.Addr().String())
				}
				m.cfg.Retry = &Retry{InitialInterval: time.Millisecond,
					MaxInterval: time.Millisecond, MaxElapsed: time.Minute}
				c := m.client(t)
				if through == "ahead" {
					c.Connect(t.Context())
					<-c.ahead.dial.done
					assert.Equal(t, "", <-s.received)
				}
				for _, ask := range []func() error{
					func() error { _, err := c.Enroll(t.Context(), goldenSecrets()); return err },
					func() error { _, err := c.Update(t.Context(), goldenSecrets()); return err },
				} {
					err := ask()
					var broken *ConnectionError
					require.ErrorAs(t, err, &broken)
					assert.True(t, broken.Permanent)
					assert.ErrorContains(t, err,
						"the server never asked for our client certificate, so nothing was sent "+
							"to it: something on the way ends TLS")
					assert.ErrorContains(t, err,
						`or set ALLOW_NO_CLIENT_AUTH=true if this is meant (the server with the certificate of `+
							`subject "CN=server", issuer "CN=Test Issuing CA,O=Throwaway"`)
					assert.Equal(t, "", <-s.received, "not a byte of the request")
				}
			})
		}
	}
}

func TestClient_server_that_never_asks_behind_other_kinds_of_proxies(t *testing.T) {
	for _, scheme := range []string{"https", "socks5"} {
		t.Run(scheme, func(t *testing.T) {
			m := newMutual(t, nil, nil)
			s := newListening(t, m, func(*tls.Config) {})
			m.cfg.URL = "https://certservice.test:8443/v1/certificate/"
			l := fixture.Must(net.Listen("tcp", "127.0.0.1:0"))
			t.Cleanup(func() { l.Close() })
			go func() {
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					if scheme == "https" {
						// It asks for a certificate itself, which says nothing about the server behind it.
						outer := tls.Server(conn, &tls.Config{Certificates: m.TLS.Certificates,
							ClientAuth: tls.RequestClientCert})
						go (&testProxy{target: s.Addr().String(), status: 200}).serve(outer)
					} else {
						go socks5(conn, s.Addr().String())
					}
				}
			}()
			c := m.client(t)
			c.proxy = http.ProxyURL(&url.URL{Scheme: scheme, Host: l.Addr().String()})
			assert.ErrorContains(t, enroll(t, c),
				"the server never asked for our client certificate, so nothing was sent to it")
			assert.Equal(t, "", <-s.received, "not a byte of the request")
		})
	}
}

// socks5 takes any request (RFC 1928) and connects to the target.
func socks5(conn net.Conn, target string) {
	defer conn.Close()
	head := make([]byte, 2)
	io.ReadFull(conn, head)
	io.CopyN(io.Discard, conn, int64(head[1]))
	conn.Write([]byte{5, 0})
	request := make([]byte, 5)
	io.ReadFull(conn, request)
	io.CopyN(io.Discard, conn, int64(request[4])+2) // a name, and the port
	to, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer to.Close()
	conn.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
	go func() {
		io.Copy(to, conn)
		to.Close()
	}()
	io.Copy(conn, to)
}

func TestClient_allowed_without_client_authentication(t *testing.T) {
	open := func(c *tls.Config) { c.ClientAuth = tls.NoClientCert }
	for _, through := range []string{"directly", "through a proxy"} {
		m := newMutual(t, answering(200, "answer-200.json"), open)
		m.cfg.AllowNoClientAuth = true
		if through != "directly" {
			m.through(m.Listener.Addr().String())
		}
		require.NoError(t, enroll(t, m.client(t)), through)
	}

	// It lifts nothing else.
	m := newMutual(t, nil, open)
	m.cfg.AllowNoClientAuth = true
	m.cfg.TLS.RootCAs = x509.NewCertPool()
	assert.ErrorContains(t, enroll(t, m.client(t)), "the server's certificate is not trusted")
	m = newMutual(t, nil, open)
	m.cfg.AllowNoClientAuth = true
	m.TLS.Certificates = []tls.Certificate{identity(t, m.ca, "server", func(c *x509.Certificate) { c.DNSNames = nil })}
	m.cfg.URL = strings.Replace(m.cfg.URL, "127.0.0.1", "localhost", 1)
	assert.ErrorContains(t, enroll(t, m.client(t)), "is not for this host name")
}

// Without a client certificate of ours there is nothing that a server could ask for.
func TestClient_without_identity_sends_to_a_trusted_server(t *testing.T) {
	m := newMutual(t, answering(200, "answer-200.json"), func(c *tls.Config) { c.ClientAuth = tls.NoClientCert })
	m.cfg.TLS.Certificates = nil
	require.NoError(t, enroll(t, m.client(t)))
}

// In a resumed session a server does not ask again, so each connection is made in full, whatever the caller gave us.
func TestClient_sessions_are_never_resumed(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		var resumed []bool
		answer := answering(200, "answer-200.json")
		m := newMutual(t, func(w http.ResponseWriter, r *http.Request) {
			resumed = append(resumed, r.TLS.DidResume)
			answer(w, r)
		}, func(c *tls.Config) { c.MaxVersion = version })
		m.cfg.TLS.ClientSessionCache = tls.NewLRUClientSessionCache(8)
		c := m.client(t)
		for range 3 {
			require.NoError(t, enroll(t, c))
		}
		assert.Equal(t, []bool{false, false, false}, resumed)
	}
}

func TestClient_proxy_in_use_is_logged_without_its_password(t *testing.T) {
	m := newGood(t)
	var log strings.Builder
	m.cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
	require.NoError(t, enroll(t, m.client(t)))
	assert.Empty(t, log.String(), "none applies to loopback")
	m.through(m.Listener.Addr().String())
	require.NoError(t, enroll(t, m.client(t)))
	assert.Contains(t, log.String(),
		`msg="the request goes through the proxy of HTTPS_PROXY, as NO_PROXY does not name the `+
			`host" proxy=http://127.0.0.1:`)
	assert.Contains(t, log.String(), "host=certservice.test:8443")
}
