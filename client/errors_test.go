package client

import (
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/golden"
	"github.com/certfetcher/certfetcher/test/resolver"
)

// varying is what differs from run to run in an error.
var varying = []struct {
	pattern *regexp.Regexp
	text    string
}{
	{regexp.MustCompile(`127\.0\.0\.1:\d{5}`), "127.0.0.1:PORT"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT[\d:]+Z`), "TIME"},
	{regexp.MustCompile(` on [\d.]+:53`), ""},
	{regexp.MustCompile(`(read|write) tcp [^ ]+: `), ""},
	{regexp.MustCompile(`EOF|connection reset by peer|broken pipe`), "EOF"}, // which of them it is, is a matter of luck
}

// summary is the text of an error with its kind.
func summary(err error) string {
	var kind string
	var status *StatusError
	var not *AnswerError
	var broken *ConnectionError
	switch {
	case errors.As(err, &status):
		kind = fmt.Sprintf("status %d, may pass: %t: ", status.StatusCode, mayPass(err))
	case errors.As(err, &not):
		kind = "answer: "
	case errors.As(err, &broken):
		kind = fmt.Sprintf("connection, permanent: %t: ", broken.Permanent)
	}
	text := kind + err.Error()
	for _, v := range varying {
		text = v.pattern.ReplaceAllString(text, v.text)
	}
	return text
}

// answered is a client of a CertService with a handler.
func answered(handler http.HandlerFunc) func(*testing.T) *Client {
	return func(t *testing.T) *Client { return newMutual(t, handler, nil).client(t) }
}

// shown is a client of a CertService whose certificate has changes, with the common name 127.0.0.1.
func shown(change func(*x509.Certificate)) func(*testing.T) *Client {
	return func(t *testing.T) *Client {
		m := newMutual(t, nil, nil)
		m.TLS.Certificates = []tls.Certificate{identity(t, m.ca, "127.0.0.1", func(c *x509.Certificate) {
			c.DNSNames, c.IPAddresses = nil, c.IPAddresses[:1]
			change(c)
		})}
		return m.client(t)
	}
}

// number returns the status that a text begins with.
func number(t *testing.T, text string) int {
	status := fixture.Must(strconv.Atoi(text[:3]))
	return status
}

func TestEnroll_errors(t *testing.T) {
	const timeout = 500 * time.Millisecond // room for a handshake on a busy machine
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	wait := func(r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
			panic(http.ErrAbortHandler) // or the client may see an answer in the moment of hanging up
		}
	}
	impatient := func(handler http.HandlerFunc) func(*testing.T) *Client {
		return func(t *testing.T) *Client {
			m := newMutual(t, handler, nil)
			m.cfg.Timeout = timeout
			return m.client(t)
		}
	}
	trusting := func(trusted ...*x509.Certificate) func(*testing.T) *Client {
		return func(t *testing.T) *Client {
			m := newMutual(t, nil, nil)
			m.cfg.TLS.RootCAs, m.cfg.Roots = pool(trusted...), trusted
			return m.client(t)
		}
	}
	proxied := func(serve func(net.Conn)) func(*testing.T) *Client {
		return func(t *testing.T) *Client {
			c := clientOf("certservice.test:8443", 10*time.Second)
			c.proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: listen(t, serve)})
			return c
		}
	}
	refusing := func(status int) func(*testing.T) *Client {
		return proxied((&testProxy{status: status}).serve)
	}
	old := *newCA("Old").Root
	old.NotAfter = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	key := goldenRequest(t, "enroll.request.json").Headers["PK"]
	rows := map[string]func(t *testing.T) *Client{
		"a redirect with our key in it": answered(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://elsewhere.test/?pk="+key[:100], http.StatusMovedPermanently)
		}),
		"a header line that is our key": answered(func(w http.ResponseWriter, r *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if assert.NoError(t, err) {
				defer conn.Close()
				fmt.Fprintf(conn, "HTTP/1.1 400 Bad Request\r\nDate: today\r\n%s\r\n\r\n", key)
			}
		}),
		"a Content-Encoding that is our key": answered(func(w http.ResponseWriter,
			r *http.Request) {
			w.Header().Set("Content-Encoding", key)
		}),
		"compressed data, which was not asked for": answered(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			z.Write(make([]byte, 10<<20))
			z.Close()
		}),
		"an answer that is not HTTP": func(t *testing.T) *Client {
			authority := newCA("Test")
			addr := listen(t, func(raw net.Conn) {
				conn := tls.Server(raw,
					&tls.Config{Certificates: []tls.Certificate{identity(t, authority, "server", nil)}})
				conn.Read(make([]byte, 1))
				fmt.Fprint(conn, "SSH-2.0-x\r\n")
				conn.Close()
			})
			return fixture.Must(New(Config{URL: "https://" + addr, CAName: "RA",
				TLS: &tls.Config{RootCAs: pool(authority.Root)}}))
		},

		"an unknown name": func(t *testing.T) *Client {
			c := clientOf("certservice.invalid:8443", 10*time.Second)
			c.dialer.Resolver = resolver.New(t, nil)
			return c
		},
		"nothing listens": func(t *testing.T) *Client { return clientOf(fixture.FreeAddress(t), 10*time.Second) },
		"no TCP connection in time": func(t *testing.T) *Client {
			c := clientOf("192.0.2.1:8443", timeout)
			c.dialer.ControlContext = func(ctx context.Context, _, _ string, _ syscall.RawConn) error {
				<-ctx.Done()
				return ctx.Err()
			}
			return c
		},
		"no TLS in time": func(t *testing.T) *Client {
			return clientOf(listen(t, func(net.Conn) { <-t.Context().Done() }), timeout)
		},
		"no answer in time": impatient(func(_ http.ResponseWriter, r *http.Request) { wait(r) }),
		"half an answer in time": impatient(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, `{"certificateChain":[`)
			w.(http.Flusher).Flush()
			wait(r)
		}),
		"broken off before TLS": func(t *testing.T) *Client {
			return clientOf(listen(t, readHello), 10*time.Second)
		},
		"a server without TLS": func(t *testing.T) *Client {
			return clientOf(listen(t, func(c net.Conn) {
				readHello(c)
				fmt.Fprint(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
			}), 10*time.Second)
		},
		"broken off before the answer": answered(func(http.ResponseWriter,
			*http.Request) {
			panic(http.ErrAbortHandler)
		}),
		"broken off in the answer": answered(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "1000")
			fmt.Fprint(w, `{"certificateChain":[`)
		}),

		"a proxy that answers 403": refusing(403),
		"a proxy that answers 407": refusing(407),
		"a proxy that answers 502": refusing(502),
		"a proxy that answers 503": refusing(503),
		"a proxy that is down": func(t *testing.T) *Client {
			c := clientOf("certservice.test:8443", 10*time.Second)
			c.proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: fixture.FreeAddress(t)})
			return c
		},

		"a server of another CA": trusting(newCA("Other").Root, &old),
		// The truststore has a CA of the right name, made again with another key.
		"a server of a namesake of its CA": trusting(newCA("Test").Root),
		// crypto/tls parses what the server sends before anything can be said of it.
		"a server's certificate that cannot be parsed": func(t *testing.T) *Client {
			return newMutual(t, nil, func(c *tls.Config) {
				block, _ := pem.Decode(shared("certificates/negative-serial.pem"))
				bad := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{block.Bytes},
					PrivateKey: c.Certificates[0].PrivateKey}}}
				c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return bad, nil }
			}).client(t)
		},
		"a server with other names": shown(func(c *x509.Certificate) {
			c.DNSNames, c.IPAddresses = []string{"certservice.test"}, []net.IP{net.IPv4(10, 0, 0, 1)}
		}),
		"a server with many names": shown(func(c *x509.Certificate) {
			c.DNSNames, c.IPAddresses = strings.Fields(strings.Repeat("a.test ", 25)), nil
		}),
		"a server with a common name only": shown(func(c *x509.Certificate) { c.IPAddresses = nil }),
		"a server with another common name only": shown(func(c *x509.Certificate) {
			c.IPAddresses, c.Subject.CommonName = nil, "other"
		}),
		"a server's certificate signed with SHA-1": shown(
			func(c *x509.Certificate) { c.SignatureAlgorithm = x509.ECDSAWithSHA1 }),
		"a server's certificate with an unknown critical extension": shown(func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3, 4},
				Critical: true, Value: []byte{5, 0}}}
		}),
		"a server's certificate that expired": shown(func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
		}),
		"a server's certificate that is not yet valid": shown(func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(time.Hour), time.Now().Add(2*time.Hour)
		}),
		"a server's certificate for clients": shown(
			func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }),
	}
	for _, name := range []string{"400-csr", "400-key", "400-old-key", "400-certificate", "401",
		"404", "500-cmp-client", "500-cmp-server"} {
		rows["CertService's "+name] = answered(answering(number(t, name), "answer-"+name+".json"))
	}
	maps.Copy(rows, refusals(t))
	fill := strings.NewReplacer("{key}", key, "{piece}", string(shared("pem/key.pem"))[224:264],
		"{endless}", strings.Repeat("x ", 4000), "{too much}", strings.Repeat(" ", maxBody+1))
	for name, text := range golden.Read(t, "answers.txt") { // the status, the content type or -, and the body
		head, body, _ := strings.Cut(text, "\n")
		rows[name] = answered(writing(number(t, head), strings.Trim(head[4:], "-"), fill.Replace(body)))
	}
	want := golden.Load(t, "errors.txt")
	t.Run("rows", func(t *testing.T) {
		for name, row := range rows {
			for _, ahead := range []bool{false, true} {
				title := name
				if ahead && !strings.Contains(name, "in time") && !strings.Contains(name, "refuses us") {
					continue // what these say depends on how far the connection came
				}
				if ahead {
					title += ", set up ahead"
				}
				t.Run(title, func(t *testing.T) {
					t.Parallel()
					c := row(t)
					if ahead {
						c.Connect(t.Context())
						if strings.Contains(name, "refuses us") {
							<-c.ahead.dial.done
						}
					}
					_, err := c.Enroll(t.Context(), goldenSecrets())
					require.Error(t, err)
					want.Equal(t, title, summary(err))
					assert.NotContains(t, err.Error(), key[:32])
					for _, internal := range []string{"Go struct", "json:", "[]*string", "unmarshal"} {
						assert.NotContains(t, err.Error(), internal)
					}
				})
			}
		}
	})
}

// refusals are clients that the server refuses for their certificate. A fault that we know of is named.
func refusals(t *testing.T) map[string]func(*testing.T) *Client {
	stranger := newCA("Stranger")
	const fault = `the certificate "CN=client" in KEYSTORE_PATH expired at a time that we know`
	rows := map[string]func(*testing.T) *Client{}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for is, certificate := range map[string]func(t *testing.T, m *mutual) tls.Certificate{
			"of an unknown CA": func(t *testing.T, _ *mutual) tls.Certificate {
				return identity(t, stranger, "client", nil)
			},
			"missing": func(*testing.T, *mutual) tls.Certificate { return tls.Certificate{} },
			"expired": func(t *testing.T, m *mutual) tls.Certificate {
				return identity(t, m.ca, "client", func(c *x509.Certificate) {
					c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
				})
			},
		} {
			for _, known := range []bool{false, true} {
				name := fmt.Sprintf("the server refuses us with %s: %s", tls.VersionName(version), is)
				if known {
					name += ", which we know"
				}
				rows[name] = func(t *testing.T) *Client {
					m := newMutual(t, nil, func(c *tls.Config) { c.MinVersion, c.MaxVersion = version, version })
					mine := certificate(t, m)
					m.cfg.TLS.Certificates = nil
					m.cfg.TLS.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
						return &mine, nil
					}
					if known {
						m.cfg.IdentityProblem = func() string { return fault }
					}
					return m.client(t)
				}
			}
		}
	}
	for _, status := range []int{401, 403, 404} { // the last has nothing to do with it
		rows[fmt.Sprintf("an answer %d, and a fault that we know", status)] = func(t *testing.T) *Client {
			m := newMutual(t, answering(status, "answer-401.json"), nil)
			m.cfg.IdentityProblem = func() string { return fault }
			return m.client(t)
		}
	}
	return rows
}

func TestAlerts_unwrapWhatThePeerSent(t *testing.T) {
	for code := range alerts {
		found, ok := alertOf(fmt.Errorf("wrapped: %w", &net.OpError{Op: "remote error", Err: code}))
		assert.True(t, ok)
		assert.Equal(t, code, found)
	}
	assert.False(t, clientOf("h:1", 0).explainAlert(80).permanent, "internal_error may pass")
}

func TestClient_rootsText(t *testing.T) {
	c := clientOf("h:1", 0)
	assert.Equal(t, "the truststore holds no CA of it", c.rootsText())
	root := newCA("Test").Root
	for range 10 {
		c.roots = append(c.roots, root)
	}
	assert.Equal(t, "the truststore holds "+strings.Repeat(fmt.Sprintf("%q, ", pki.DN(root.RawSubject)), 8)+
		"and 2 more", c.rootsText())
}
