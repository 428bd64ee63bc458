package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/port"
	"github.com/certfetcher/certfetcher/test/resolver"
)

// connectionErrorOf makes one try and returns its error without the address, which differs from run to run.
func connectionErrorOf(t *testing.T, c *Client) (string, *ConnectionError) {
	t.Helper()
	_, err := c.Enroll(t.Context(), goldenSecrets(t))
	var conn *ConnectionError
	require.ErrorAs(t, err, &conn)
	_, text, ok := strings.Cut(err.Error(), hostPort(c.enrollURL)+": ")
	require.True(t, ok, err.Error())
	return text, conn
}

func clientOf(t *testing.T, addr string, timeout time.Duration) *Client {
	t.Helper()
	c, err := New(Config{URL: "https://" + addr + "/v1/certificate/", CAName: "RA", TLS: &tls.Config{}, Timeout: timeout})
	require.NoError(t, err)
	return c
}

// listen accepts one connection and gives it to serve.
func listen(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		serve(conn)
		conn.Close()
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String()
}

func TestConnectionError_name_unknown(t *testing.T) {
	c := clientOf(t, "certservice.invalid:8443", 10*time.Second)
	c.dialer.Resolver = resolver.New(t, nil)
	text, err := connectionErrorOf(t, c)
	assert.Contains(t, text, `the name "certservice.invalid" cannot be resolved: check REQUEST_URL and the cluster's DNS; a Service in another namespace is NAME.NAMESPACE (`)
	assert.False(t, err.Permanent)
}

func TestConnectionError_refused(t *testing.T) {
	text, conn := connectionErrorOf(t, clientOf(t, port.Free(t), 10*time.Second))
	assert.Contains(t, text, "connection refused: nothing listens there (yet): check that CertService is up, and the port in REQUEST_URL (")
	assert.ErrorIs(t, conn, syscall.ECONNREFUSED)
	assert.False(t, conn.Permanent)
}

func TestConnectionError_time_out_tells_how_far_it_came(t *testing.T) {
	const timeout = 500 * time.Millisecond // room for a handshake on a busy machine
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	wait := func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
			panic(http.ErrAbortHandler) // or the client may see an answer in the moment of hanging up
		}
	}
	for _, row := range []struct {
		is     string
		client func(t *testing.T) *Client
		want   string
	}{
		{"no TCP connection", func(t *testing.T) *Client {
			c := clientOf(t, "192.0.2.1:8443", timeout)
			c.dialer.ControlContext = func(ctx context.Context, _, _ string, _ syscall.RawConn) error {
				<-ctx.Done()
				return ctx.Err()
			}
			return c
		}, "time-out: no TCP connection within 500ms: check address, port, network policies and firewalls ("},
		{"no TLS", func(t *testing.T) *Client {
			return clientOf(t, listen(t, func(net.Conn) { <-t.Context().Done() }), timeout)
		}, "time-out: TCP connects, but the TLS handshake was not done within 500ms: check that the port speaks TLS ("},
		{"no answer", func(t *testing.T) *Client {
			m := newMutual(t, wait, nil)
			m.cfg.Timeout = timeout
			return m.client(t)
		}, "time-out: connected, but no answer came within 500ms: CertService or its CA is slow; raise REQUEST_TIMEOUT ("},
		{"half an answer", func(t *testing.T) *Client {
			m := newMutual(t, func(w http.ResponseWriter, r *http.Request) {
				fmt.Fprint(w, `{"certificateChain":[`)
				w.(http.Flusher).Flush()
				wait(w, r)
			}, nil)
			m.cfg.Timeout = timeout
			return m.client(t)
		}, "time-out: the answer began, but was not whole within 500ms: raise REQUEST_TIMEOUT ("},
	} {
		t.Run(row.is, func(t *testing.T) {
			t.Parallel()
			text, err := connectionErrorOf(t, row.client(t))
			assert.Contains(t, text, row.want)
			assert.False(t, err.Permanent)
		})
		t.Run(row.is+" on a connection set up ahead", func(t *testing.T) {
			t.Parallel()
			c := row.client(t)
			c.Connect(t.Context())
			text, err := connectionErrorOf(t, c)
			assert.Contains(t, text, row.want)
			assert.False(t, err.Permanent)
		})
	}
}

func TestConnectionError_broken_off(t *testing.T) {
	t.Run("before TLS", func(t *testing.T) {
		text, err := connectionErrorOf(t, clientOf(t, listen(t, func(net.Conn) {}), 10*time.Second))
		assert.Contains(t, text, "the TLS handshake broke off: check that the port speaks TLS 1.2 or later (")
		assert.False(t, err.Permanent)
	})
	t.Run("by a server without TLS", func(t *testing.T) {
		plain := httptest.NewServer(http.NotFoundHandler())
		defer plain.Close()
		text, err := connectionErrorOf(t, clientOf(t, plain.Listener.Addr().String(), 10*time.Second))
		assert.Contains(t, text, "the server does not speak TLS on this port, but plain HTTP: check the port in REQUEST_URL: CertService has 8443 for its API (")
		assert.False(t, err.Permanent)
	})
	t.Run("before the answer", func(t *testing.T) {
		text, err := connectionErrorOf(t, newMutual(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, nil).client(t))
		assert.Contains(t, text, "the server closed the connection without an answer: see its log; a limit on header size may be one reason (")
		assert.False(t, err.Permanent)
	})
	t.Run("in the answer", func(t *testing.T) {
		text, err := connectionErrorOf(t, newMutual(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "1000")
			fmt.Fprint(w, `{"certificateChain":[`)
		}, nil).client(t))
		assert.Contains(t, text, "the connection broke off in the middle of the answer: see the log of the server and of what is between us and it (unexpected EOF)")
		assert.False(t, err.Permanent)
	})
}

func TestEnroll_answer_that_is_no_HTTP(t *testing.T) {
	ca := newTestCA(t, "Test Root")
	addr := listen(t, func(raw net.Conn) {
		conn := tls.Server(raw, &tls.Config{Certificates: []tls.Certificate{ca.server(t)}})
		conn.Read(make([]byte, 1))
		fmt.Fprint(conn, "SSH-2.0-x\r\n")
		conn.Close()
	})
	c, err := New(Config{URL: "https://" + addr, CAName: "RA", TLS: &tls.Config{RootCAs: pool(ca.cert)}})
	require.NoError(t, err)
	_, err = c.Enroll(t.Context(), goldenSecrets(t))
	assert.EqualError(t, err, `invalid CertService response: it is not well-formed HTTP (net/http: HTTP/1.x transport connection broken: malformed HTTP response "SSH-2.0-x")`)
}

func TestConnectionError_server_not_trusted(t *testing.T) {
	m := newMutual(t, nil, nil)
	other := newTestCA(t, "Other Root")
	_, old := sign(t, nil, &x509.Certificate{Subject: pkix.Name{CommonName: "Old Root"}, IsCA: true, BasicConstraintsValid: true, NotBefore: time.Unix(0, 0), NotAfter: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)})
	m.cfg.TLS.RootCAs = pool(other.cert, old)
	m.cfg.Roots = []*x509.Certificate{other.cert, old}
	text, err := connectionErrorOf(t, m.client(t))
	assert.Regexp(t, `^the server's certificate is not trusted: subject "CN=server", issuer "CN=Test Root", names DNS:certservice.test, IP Address:127.0.0.1, `+
		`valid from [-0-9T:]+Z to [-0-9T:]+Z; the truststore holds "CN=Other Root", "CN=Old Root" \(expired 2020-01-01T00:00:00Z\): add the CA that issued it to TRUSTSTORE_PATH \(`, text)
	assert.True(t, err.Permanent)
}

// The truststore has a CA of the right name, made again with another key.
func TestConnectionError_server_issuedByANamesake(t *testing.T) {
	m := newMutual(t, nil, nil)
	again := newTestCA(t, "Test Root")
	m.cfg.TLS.RootCAs, m.cfg.Roots = pool(again.cert), []*x509.Certificate{again.cert}
	text, _ := connectionErrorOf(t, m.client(t))
	assert.Contains(t, text, `the server's certificate is not trusted: a CA certificate "CN=Test Root" is among the trusted certificates, but with `+
		`another key than the one that signed "CN=server": get the CA's current certificate; it is subject "CN=server"`)
	assert.NotContains(t, text, "add the CA")
}

// crypto/tls parses what the server sends before anything can be said of it.
func TestConnectionError_server_certificateThatCannotBeParsed(t *testing.T) {
	m := newMutual(t, nil, func(c *tls.Config) {
		block, _ := pem.Decode(golden(t, "certificates/negative-serial.pem"))
		shown := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{block.Bytes}, PrivateKey: c.Certificates[0].PrivateKey}}}
		c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return shown, nil }
	})
	text, err := connectionErrorOf(t, m.client(t))
	assert.Contains(t, text, `a certificate that the server sends cannot be parsed: negative serial number: have it issued as RFC 5280 wants it`)
	assert.True(t, err.Permanent)
}

func TestConnectionError_server_certificate_of_another_kind(t *testing.T) {
	for _, row := range []struct {
		is     string
		change func(*x509.Certificate)
		want   string
	}{
		{"for other names", func(c *x509.Certificate) {
			c.DNSNames, c.IPAddresses = []string{"certservice.test"}, []net.IP{net.IPv4(10, 0, 0, 1)}
		},
			`the server's certificate is not for this host name: has names DNS:certservice.test, IP Address:10.0.0.1, want "127.0.0.1": use one of its names in REQUEST_URL, or have it issued with this one (`},
		{"with a common name only", func(c *x509.Certificate) { c.IPAddresses = nil },
			`the server's certificate has the host name "127.0.0.1" as common name (CN) only, which is not looked at (RFC 9525): ` +
				`have it issued with the subject alternative name IP:127.0.0.1 (`},
		{"with another common name only", func(c *x509.Certificate) { c.IPAddresses, c.Subject.CommonName = nil, "other" },
			`the server's certificate is not for this host name: has names none, want "127.0.0.1": use one`},
		{"signed with SHA-1", func(c *x509.Certificate) { c.SignatureAlgorithm = x509.ECDSAWithSHA1 },
			`the server's certificate is not trusted: "CN=127.0.0.1" is signed with ECDSA with SHA-1 (1.2.840.10045.4.1), which is not accepted: have it issued with SHA-256 or stronger; it is subject`},
		{"with a critical extension that nobody knows", func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}}}
		},
			`the server's certificate is not trusted: the certificate "CN=127.0.0.1" has a critical extension that is not supported: OID 1.2.3.4; it is subject`},
		{"that expired", func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
		},
			`: subject "CN=127.0.0.1", issuer "CN=Test Root", names IP Address:127.0.0.1, valid from`},
		{"that is not yet valid", func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(time.Hour), time.Now().Add(2*time.Hour)
		},
			`a certificate of the server is not valid now, `},
		{"for clients only", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} },
			`the server's certificate is not good for a server: subject "CN=127.0.0.1"`},
	} {
		t.Run(row.is, func(t *testing.T) {
			template := &x509.Certificate{Subject: pkix.Name{CommonName: "127.0.0.1"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
			row.change(template)
			m := newMutual(t, nil, nil)
			m.TLS.Certificates = []tls.Certificate{m.ca.identity(t, template)}
			text, err := connectionErrorOf(t, m.client(t))
			assert.Contains(t, text, row.want)
			assert.True(t, err.Permanent)
		})
	}
}

func TestConnectionError_client_certificate_refused(t *testing.T) {
	stranger := newTestCA(t, "Stranger")
	for version, missing := range map[uint16]string{
		tls.VersionTLS12: "the server refuses the TLS handshake: no client certificate that it accepts, or no cipher or curve in common: see its log (",
		tls.VersionTLS13: "the server refuses our client certificate: it got none that it can use: check KEYSTORE_PATH and the CAs that the server asks for (",
	} {
		for _, row := range []struct {
			is   string
			cert func(t *testing.T, ca testCA) []tls.Certificate
			want string
		}{
			{"of an unknown CA", func(t *testing.T, ca testCA) []tls.Certificate { return []tls.Certificate{stranger.client(t)} },
				"the server refuses our client certificate: "},
			{"missing", func(*testing.T, testCA) []tls.Certificate { return nil },
				missing},
			{"expired", func(t *testing.T, ca testCA) []tls.Certificate {
				return []tls.Certificate{ca.identity(t, &x509.Certificate{Subject: pkix.Name{CommonName: "client"}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour)})}
			}, "the server refuses our client certificate: it has expired: renew the one in KEYSTORE_PATH (remote error: tls: expired certificate)"},
		} {
			for _, ahead := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, %s, set up ahead: %v", tls.VersionName(version), row.is, ahead), func(t *testing.T) {
					m := newMutual(t, nil, func(c *tls.Config) { c.MinVersion, c.MaxVersion = version, version })
					certs := row.cert(t, m.ca)
					m.cfg.TLS.Certificates = nil
					m.cfg.TLS.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
						if certs == nil {
							return &tls.Certificate{}, nil
						}
						return &certs[0], nil
					}
					c := m.client(t)
					if ahead {
						c.Connect(t.Context())
						<-c.ahead.dial.done
					}
					text, err := connectionErrorOf(t, c)
					assert.Contains(t, text, row.want)
					assert.Contains(t, text, "remote error: tls: ")
					assert.True(t, err.Permanent)
				})
			}
		}
	}
}

func TestAlertOf_unwrapsWhatThePeerSent(t *testing.T) {
	for code := range alerts {
		found, ok := alertOf(fmt.Errorf("wrapped: %w", &net.OpError{Op: "remote error", Err: code}))
		assert.True(t, ok)
		assert.Equal(t, code, found)
	}
	assert.False(t, clientOf(t, "h:1", 0).explainAlert(80).permanent, "internal_error may pass")
}

func TestClient_rootsText(t *testing.T) {
	c := clientOf(t, "h:1", 0)
	assert.Equal(t, "the truststore holds no CA of it", c.rootsText())
	root := newTestCA(t, "Root").cert
	for range 10 {
		c.roots = append(c.roots, root)
	}
	assert.Equal(t, "the truststore holds "+strings.Repeat(`"CN=Root", `, 8)+"and 2 more", c.rootsText())
}

func TestCertNames_are_bounded(t *testing.T) {
	cert := &x509.Certificate{DNSNames: strings.Fields(strings.Repeat("a ", 25))}
	assert.Equal(t, strings.Repeat("DNS:a, ", 20)+"and 5 more", certNames(cert))
}
