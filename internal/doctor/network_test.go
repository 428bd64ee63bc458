package doctor_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/config"
	"github.com/certfetcher/certfetcher/internal/doctor"
	"github.com/certfetcher/certfetcher/internal/enroll"
	"github.com/certfetcher/certfetcher/test/ca"
	"github.com/certfetcher/certfetcher/test/service"
)

func TestRun_goodDeployment_isOKAndAsksForNoCertificate(t *testing.T) {
	s, o := start(t, service.Options{Wrap: func(_ *service.Service, next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			assert.Equal(t, http.MethodGet, r.Method)
			for _, secret := range []string{"CSR", "PK", "OLD_CERT", "OLD_PK"} {
				assert.Empty(t, r.Header[secret])
			}
			assert.Regexp(t, ` \(doctor\)$`, r.UserAgent(), "by which the CertService takes it for no client that does not work")
			next.ServeHTTP(w, r)
		})
	}})
	report, checks := run(t, o)
	requireOutcomes(t, checks, others(checks, "reader"))
	requireOutcomes(t, checks, map[string]doctor.Status{"reader": doctor.Skipped})
	assert.Equal(t, 0, report.ExitCode())
	assert.Equal(t, 3, s.Requests(), "the CA, a CA that does not exist, and whether it is ready")
	assert.Equal(t, `"RA" is known`, checks["ca name"].Found)
	assert.Equal(t, `chains to "CN=Transport Root CA,O=Throwaway" in TRUSTSTORE_PATH`, checks["server trust"].Found)
	assert.Contains(t, checks["server certificate"].Found, `subject "CN=certservice", issuer "CN=Transport Issuing CA,O=Throwaway", names DNS:localhost, DNS:oom-cert-service, IP Address:127.0.0.1`)
	assert.Contains(t, checks["tls"].Found, "TLS 1.3 with 127.0.0.1:")
}

// brokenWay is a bad way to the CertService, and the check that finds it.
type brokenWay struct {
	options service.Options
	change  func(t *testing.T, s *service.Service, o *doctor.Options)
	check   string // that fails
	found   string // exact, or with … for what differs from run to run
	code    int
	skipped []string
}

func TestRun_brokenWay_isFoundWhereItBreaks(t *testing.T) {
	fromTLS := []string{"server certificate", "server trust", "server name", "client accepted", "certservice", "ca name", "clock"}
	afterTrust := []string{"client accepted", "certservice", "ca name", "clock"}
	fromTCP := append([]string{"tls"}, fromTLS...)
	for sentence, row := range map[string]brokenWay{
		"the truststore has another CA": {
			change: func(t *testing.T, s *service.Service, o *doctor.Options) {
				dir := t.TempDir()
				stranger := identity(t, dir, nil)
				require.NotEqual(t, s.Transport.Root, stranger.Root)
				o.Config.TLS.TruststorePath = filepath.Join(dir, "truststore.p12")
			},
			check: "server trust", code: 6, skipped: afterTrust,
			found: `does not chain to TRUSTSTORE_PATH: the server sends 2 certificates, the last issued by "CN=Transport Root CA,O=Throwaway"; the truststore has "CN=Stranger Root CA,O=Throwaway" (certificate signed by unknown authority)`,
		},
		"the host has another name": {
			change: func(t *testing.T, s *service.Service, o *doctor.Options) { named(t, s, o, "wrong.example") },
			check:  "server name", code: 6, skipped: afterTrust,
			found: `the certificate is not for "wrong.example", but for DNS:localhost, DNS:oom-cert-service, IP Address:127.0.0.1, IP Address:::1`,
		},
		"the server's certificate is signed with SHA-1": {
			options: service.Options{TLS: shows("127.0.0.1", func(leaf *x509.Certificate) { leaf.SignatureAlgorithm = x509.ECDSAWithSHA1 })},
			check:   "server trust", code: 6, skipped: afterTrust,
			found: `does not chain to TRUSTSTORE_PATH: the server sends 2 certificates, the last issued by "CN=Transport Root CA,O=Throwaway"; the truststore has "CN=Transport Root CA,O=Throwaway" ` +
				`("CN=127.0.0.1" is signed with ECDSA with SHA-1 (1.2.840.10045.4.1), which is not accepted: have it issued with SHA-256 or stronger)`,
		},
		"the truststore has a CA of that name with another key": {
			options: service.Options{TLS: func(s *service.Service, c *tls.Config) {
				again, err := ca.New("Transport")
				if err != nil {
					panic(err)
				}
				key, chain, err := again.Identity("certservice")
				if err != nil {
					panic(err)
				}
				c.Certificates = []tls.Certificate{{Certificate: [][]byte{chain[0].Raw, chain[1].Raw}, PrivateKey: key}}
			}},
			check: "server trust", code: 6, skipped: afterTrust,
			found: `does not chain to TRUSTSTORE_PATH: the server sends 2 certificates, the last issued by "CN=Transport Root CA,O=Throwaway"; the truststore has "CN=Transport Root CA,O=Throwaway" ` +
				`(a CA certificate "CN=Transport Root CA,O=Throwaway" is among the trusted certificates, but with another key than the one that signed "CN=Transport Issuing CA,O=Throwaway": get the CA's current certificate)`,
		},
		"the server's certificate has a common name only": {
			options: service.Options{TLS: shows("127.0.0.1", func(leaf *x509.Certificate) { leaf.DNSNames, leaf.IPAddresses = nil, nil })},
			check:   "server name", code: 6, skipped: afterTrust,
			found: `the certificate has "127.0.0.1" as common name (CN) only, which is not looked at (RFC 9525)`,
		},
		"the server's certificate is no server's": {
			options: service.Options{TLS: func(s *service.Service, c *tls.Config) {
				s.Transport.Change = func(leaf *x509.Certificate) { leaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }
				key, chain, err := s.Transport.Identity("certservice")
				s.Transport.Change = nil
				if err != nil {
					panic(err)
				}
				c.Certificates = []tls.Certificate{{Certificate: [][]byte{chain[0].Raw, chain[1].Raw}, PrivateKey: key}}
			}},
			check: "server trust", code: 6, skipped: afterTrust,
			found: `does not chain to TRUSTSTORE_PATH: the server sends 2 certificates, the last issued by "CN=Transport Root CA,O=Throwaway"; the truststore has "CN=Transport Root CA,O=Throwaway" (certificate specifies an incompatible key usage)`,
		},
		"the CertService does not trust the client's CA": {
			change: func(t *testing.T, _ *service.Service, o *doctor.Options) {
				dir := t.TempDir()
				identity(t, dir, nil)
				o.Config.TLS.KeystorePath = filepath.Join(dir, "client.jks")
			},
			check: "client accepted", code: 6, skipped: []string{"certservice", "ca name"},
			found: `the CertService refuses "CN=certfetcher", issued by "CN=Stranger Issuing CA,O=Throwaway": 401 Unauthorized ("Client certificate is missing or not trusted")`,
		},
		"the server refuses the client in the handshake of TLS 1.3": {
			options: service.Options{TLS: func(_ *service.Service, c *tls.Config) { c.ClientAuth = tls.RequireAndVerifyClientCert }},
			change: func(t *testing.T, _ *service.Service, o *doctor.Options) {
				dir := t.TempDir()
				identity(t, dir, nil)
				o.Config.TLS.KeystorePath = filepath.Join(dir, "client.jks")
			},
			check: "client accepted", code: 6, skipped: []string{"certservice", "ca name", "clock"},
			found: `the server refuses our certificate: unknown certificate authority; it asks for one of other CAs`,
		},
		"the server refuses the client in the handshake of TLS 1.2": {
			options: service.Options{TLS: func(_ *service.Service, c *tls.Config) {
				c.ClientAuth, c.MaxVersion = tls.RequireAndVerifyClientCert, tls.VersionTLS12
			}},
			change: func(t *testing.T, _ *service.Service, o *doctor.Options) {
				dir := t.TempDir()
				identity(t, dir, nil)
				o.Config.TLS.KeystorePath = filepath.Join(dir, "client.jks")
			},
			check: "client accepted", code: 6, skipped: []string{"certservice", "ca name", "clock"},
			found: `the server refuses our certificate: unknown certificate authority; it asks for one of other CAs`,
		},
		"the CA is unknown": {
			change: func(_ *testing.T, _ *service.Service, o *doctor.Options) { o.Config.Request.CAName = "XX" },
			check:  "ca name", code: 5,
			found: `"XX" is not known: 404 Not Found ("Certification authority not found for given CAName")`,
		},
		"the path is another's": {
			options: service.Options{Wrap: func(*service.Service, http.Handler) http.Handler { return http.NotFoundHandler() }},
			check:   "ca name", code: 5, skipped: []string{"certservice"},
			found: `the path of REQUEST_URL leads nowhere: GET /v1/certificate/RA is answered by 404 Not Found`,
		},
		"the server redirects": {
			options: service.Options{Wrap: func(_ *service.Service, next http.Handler) http.Handler {
				mux := http.NewServeMux()
				mux.Handle("/", next)
				mux.Handle("/v1/", http.RedirectHandler("https://elsewhere.example/", http.StatusFound))
				return mux
			}},
			check: "ca name", code: 5, found: `the server redirects: 302 Found to "https://elsewhere.example/"`,
		},
		"the server answers without having been asked properly": {
			options: service.Options{Wrap: func(*service.Service, http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") })
			}},
			check: "ca name", code: 5, found: "a request without a CSR is answered by 200 OK, want 400 Bad Request",
		},
		"the server does not answer": {
			options: service.Options{Wrap: func(*service.Service, http.Handler) http.Handler {
				return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
			}},
			change: func(_ *testing.T, _ *service.Service, o *doctor.Options) { o.NetworkTimeout = 300 * time.Millisecond },
			check:  "client accepted", code: 6, found: "connected, but there is no answer within 300ms", skipped: []string{"certservice", "ca name", "clock"},
		},
		"the server hangs up": {
			options: service.Options{Wrap: func(*service.Service, http.Handler) http.Handler {
				return http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
			}},
			check: "client accepted", code: 6, found: "the server ended the connection when it had seen our certificate: unexpected EOF", skipped: []string{"certservice", "ca name", "clock"},
		},
		"the resolver's error has control characters": {
			change: func(_ *testing.T, _ *service.Service, o *doctor.Options) {
				o.Config.Request.URL = "https://oom-cert-service:8443/v1/certificate/"
				o.LookupHost = func(context.Context, string) ([]netip.Addr, error) { return nil, errors.New("no\x1b[31m\nhost") }
			},
			check: "dns", code: 6, found: `the name "oom-cert-service" is not resolved: no [31m host`, skipped: append([]string{"tcp"}, fromTCP...),
		},
		"nothing listens": {
			change: func(t *testing.T, s *service.Service, _ *doctor.Options) { s.Stop() },
			check:  "tcp", code: 6, found: "127.0.0.1:… does not connect: connection refused", skipped: fromTCP,
		},
		"nothing answers to TCP": {
			change: func(_ *testing.T, _ *service.Service, o *doctor.Options) {
				o.NetworkTimeout = 20 * time.Millisecond
				o.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
					<-ctx.Done()
					return nil, ctx.Err()
				}
			},
			check: "tcp", code: 6, found: "127.0.0.1:… does not connect: no answer within 20ms", skipped: fromTCP,
		},
		"TCP is answered, and nothing more": {
			change: func(t *testing.T, _ *service.Service, o *doctor.Options) {
				hole, err := net.Listen("tcp", "127.0.0.1:0")
				require.NoError(t, err)
				t.Cleanup(func() { hole.Close() })
				o.NetworkTimeout = 20 * time.Millisecond
				o.Config.Request.URL = "https://" + hole.Addr().String() + "/v1/certificate/"
			},
			check: "tls", code: 6, found: "the TLS handshake was not completed: no answer within 20ms", skipped: fromTLS,
		},
		"the port is the one for plain HTTP": {
			change: func(t *testing.T, _ *service.Service, o *doctor.Options) {
				plain := httptest.NewServer(http.NotFoundHandler())
				t.Cleanup(plain.Close)
				o.Config.Request.URL = strings.Replace(plain.URL, "http", "https", 1) + "/v1/certificate/"
			},
			check: "tls", code: 6, found: "the server does not speak TLS on this port, but plain HTTP", skipped: fromTLS,
		},
		"the server's TLS is too old": {
			options: service.Options{TLS: func(_ *service.Service, c *tls.Config) {
				c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
			}},
			check: "tls", code: 6, found: "the server refuses the handshake: protocol version not supported", skipped: fromTLS,
		},
		"the name is not resolved": {
			change: func(_ *testing.T, _ *service.Service, o *doctor.Options) {
				o.Config.Request.URL = "https://oom-cert-service:8443/v1/certificate/"
				o.LookupHost = func(context.Context, string) ([]netip.Addr, error) {
					return nil, &net.DNSError{Err: "no such host", Name: "oom-cert-service", IsNotFound: true}
				}
			},
			check: "dns", code: 6, found: `the name "oom-cert-service" is not resolved: no such host`, skipped: append([]string{"tcp"}, fromTCP...),
		},
		"the name server does not answer": {
			change: func(_ *testing.T, _ *service.Service, o *doctor.Options) {
				o.NetworkTimeout = 20 * time.Millisecond
				o.Config.Request.URL = "https://oom-cert-service:8443/v1/certificate/"
				o.LookupHost = func(ctx context.Context, _ string) ([]netip.Addr, error) {
					<-ctx.Done()
					return nil, ctx.Err()
				}
			},
			check: "dns", code: 6, found: `the name "oom-cert-service" is not resolved: no answer within 20ms`, skipped: append([]string{"tcp"}, fromTCP...),
		},
		"the proxy in the environment is no URL": {
			change: func(_ *testing.T, _ *service.Service, o *doctor.Options) {
				o.Proxy = func(*http.Request) (*url.URL, error) {
					return nil, errors.New(`invalid proxy "http://user:swordfish@%zz"`)
				}
			},
			check: "proxy", code: 6, found: "the proxy in the environment is not a URL", skipped: append([]string{"dns", "tcp"}, fromTCP...),
		},
	} {
		t.Run(sentence, func(t *testing.T) {
			s, o := start(t, row.options)
			if row.change != nil {
				row.change(t, s, &o)
			}
			report, checks := run(t, o)
			requireOutcomes(t, checks, others(checks, append(row.skipped, row.check, "reader")...))
			for _, name := range row.skipped {
				requireOutcomes(t, checks, map[string]doctor.Status{name: doctor.Skipped})
			}
			c := checks[row.check]
			assert.Equal(t, doctor.Failed, c.Status)
			requireText(t, row.found, c.Found)
			assert.Equal(t, row.code, report.ExitCode())
		})
	}
}

// requireText compares exactly, but for what … stands for.
func requireText(t *testing.T, want, got string) {
	t.Helper()
	pattern := "^" + strings.ReplaceAll(regexp.QuoteMeta(want), "…", ".+") + "$"
	if strings.Contains(want, "…") && regexp.MustCompile(pattern).MatchString(got) {
		return
	}
	assert.Equal(t, want, got)
}

// identity writes the mutual TLS files of another CA into dir; change may change the client's certificate.
func identity(t *testing.T, dir string, change func(leaf *x509.Certificate)) *ca.CA {
	t.Helper()
	stranger, err := ca.New("Stranger")
	require.NoError(t, err)
	stranger.Change = change
	key, chain, err := stranger.Identity("certfetcher")
	require.NoError(t, err)
	require.NoError(t, service.WriteIdentity(dir, key, chain, stranger.Root))
	return stranger
}

// named makes the options lead to the service under a host name.
func named(t *testing.T, s *service.Service, o *doctor.Options, host string) {
	t.Helper()
	u, err := url.Parse(s.URL)
	require.NoError(t, err)
	o.Config.Request.URL = "https://" + host + ":" + u.Port() + u.Path
	o.LookupHost = func(_ context.Context, name string) ([]netip.Addr, error) {
		assert.Equal(t, host, name)
		return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
	}
	o.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, strings.Replace(address, host, "127.0.0.1", 1))
	}
}

func TestRun_name_isResolved(t *testing.T) {
	s, o := start(t, service.Options{})
	named(t, s, &o, "oom-cert-service")
	_, checks := run(t, o)
	requireOutcomes(t, checks, others(checks, "reader"))
	requireText(t, "oom-cert-service is 127.0.0.1 (…ms)", strings.Replace(checks["dns"].Found, "0s", "0ms", 1))
	assert.Equal(t, `the certificate is for "oom-cert-service"`, checks["server name"].Found)
}

func TestRun_oneOfSeveralAddressesIsDead(t *testing.T) {
	s, o := start(t, service.Options{})
	named(t, s, &o, "oom-cert-service")
	o.LookupHost = func(context.Context, string) ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.9")}, nil
	}
	report, checks := run(t, o)
	requireOutcomes(t, checks, map[string]doctor.Status{"tcp": doctor.Warning, "ca name": doctor.OK})
	u, err := url.Parse(s.URL)
	require.NoError(t, err)
	assert.Equal(t, "connected to "+u.Host+", but 127.0.0.9:"+u.Port()+" does not connect: connection refused", checks["tcp"].Found)
	assert.Equal(t, 0, report.ExitCode())
}

// The ONAP server looks at the headers before it looks for the CA.
func TestRun_onapServer_doesNotTellWhetherTheCAIsKnown(t *testing.T) {
	_, o := start(t, service.Options{Wrap: func(_ *service.Service, next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/v1/") {
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(http.StatusBadRequest)
				_, _ = io.WriteString(w, `{"timestamp":"2026-01-02T03:04:05.678+00:00","status":400,"error":"Bad Request","path":"`+r.URL.Path+`"}`)
				return
			}
			next.ServeHTTP(w, r)
		})
	}})
	report, checks := run(t, o)
	assert.Equal(t, doctor.Check{Name: "ca name", Status: doctor.Skipped, Found: `whether "RA" is known is not told by this server without a CSR`}, checks["ca name"])
	assert.Equal(t, 0, report.ExitCode())
}

func TestRun_serviceNotReady(t *testing.T) {
	_, o := start(t, service.Options{Wrap: func(*service.Service, http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(w, `{"errorMessage":"No valid CMPv2 \u001b[31mconfiguration is loaded"}`)
		})
	}})
	report, checks := run(t, o)
	assert.Equal(t, `not ready: GET /ready is answered by 503 Service Unavailable ("No valid CMPv2 \x1b[31mconfiguration is loaded")`, checks["certservice"].Found)
	assert.Equal(t, doctor.Failed, checks["ca name"].Status)
	assert.Equal(t, 5, report.ExitCode())
}

func TestRun_serverAsksForNoCertificate(t *testing.T) {
	_, o := start(t, service.Options{
		TLS: func(_ *service.Service, c *tls.Config) { c.ClientAuth = tls.NoClientCert },
		Wrap: func(*service.Service, http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadRequest) })
		},
	})
	report, checks := run(t, o)
	assert.Equal(t, doctor.Failed, checks["client accepted"].Status)
	assert.Equal(t, "the server never asked for a client certificate; it answers 400 Bad Request", checks["client accepted"].Found)
	assert.Equal(t, 6, report.ExitCode())

	o.Config.Request.AllowNoClientAuth = true
	report, checks = run(t, o)
	assert.Equal(t, doctor.Warning, checks["client accepted"].Status)
	assert.Equal(t, "the server never asked for a client certificate, which ALLOW_NO_CLIENT_AUTH allows; it answers 400 Bad Request", checks["client accepted"].Found)
	assert.Zero(t, report.ExitCode())
}

func TestRun_clock(t *testing.T) {
	for sentence, row := range map[string]struct {
		ahead time.Duration
		clock doctor.Status
		found string
		code  int
	}{
		"two minutes ahead": {2 * time.Minute, doctor.Warning, "2m0s ahead of the CertService's", 0},
		"ten minutes ahead": {10 * time.Minute, doctor.Failed, "10m0s ahead of the CertService's", 11},
		// The certificates of the test begin a minute ago, so that they are not valid yet by this clock. The
		// client's fails first, as 9; the server's is the reason to ask for its time without believing in its dates.
		"ten minutes behind": {-10 * time.Minute, doctor.Failed, "10m0s behind the CertService's", 9},
	} {
		t.Run(sentence, func(t *testing.T) {
			_, o := start(t, service.Options{})
			o.Now = func() time.Time { return time.Now().Add(row.ahead) }
			report, checks := run(t, o)
			assert.Equal(t, row.clock, checks["clock"].Status)
			assert.InDelta(t, float64(minutes(t, row.found)), float64(minutes(t, checks["clock"].Found)), float64(2*time.Second))
			assert.Equal(t, strings.SplitN(row.found, " ", 2)[1], strings.SplitN(checks["clock"].Found, " ", 2)[1])
			assert.Equal(t, row.code, report.ExitCode())
			if row.ahead < 0 {
				requireOutcomes(t, checks, map[string]doctor.Status{"server certificate": doctor.Failed, "server trust": doctor.OK, "server name": doctor.OK, "ca name": doctor.Skipped})
			}
		})
	}
}

// minutes reads the duration that a text begins with.
func minutes(t *testing.T, text string) time.Duration {
	t.Helper()
	word, _, _ := strings.Cut(text, " ")
	d, err := time.ParseDuration(word)
	require.NoError(t, err, text)
	return d
}

func TestRun_proxy(t *testing.T) {
	for sentence, row := range map[string]struct {
		status int
		check  string
		want   doctor.Check
	}{
		"one that connects us": {http.StatusOK, "ca name", doctor.Check{Name: "ca name", Status: doctor.OK, Found: `"RA" is known`}},
		"one that does not": {http.StatusForbidden, "tls", doctor.Check{Name: "tls", Status: doctor.Failed, ExitCode: 6,
			Found: `the proxy answers "403 Forbidden" to the request for a connection to oom-cert-service:8443`, Advice: "let the proxy allow it, or name the host in NO_PROXY"}},
	} {
		t.Run(sentence, func(t *testing.T) {
			s, o := start(t, service.Options{})
			address := startProxy(t, strings.Split(s.URL, "/")[2], row.status)
			o.Config.Request.URL = "https://oom-cert-service:8443/v1/certificate/"
			o.Proxy = func(*http.Request) (*url.URL, error) {
				return &url.URL{Scheme: "http", Host: address, User: url.UserPassword("me", "swordfish")}, nil
			}
			report, checks := run(t, o)
			assert.Equal(t, row.want, checks[row.check])
			assert.Equal(t, "HTTPS_PROXY leads through http://"+address+", which resolves the name oom-cert-service; NO_PROXY would exempt it", checks["proxy"].Found)
			assert.NotContains(t, text(t, report), "swordfish")
		})
	}
}

// startProxy answers CONNECT with a status, and connects to an address when that is 200.
func startProxy(t *testing.T, address string, status int) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				request, err := http.ReadRequest(bufio.NewReader(conn))
				if err != nil || request.Method != http.MethodConnect { // the check of TCP says nothing
					return
				}
				assert.Equal(t, "Basic bWU6c3dvcmRmaXNo", request.Header.Get("Proxy-Authorization"))
				fmt.Fprintf(conn, "HTTP/1.1 %d %s\r\n\r\n", status, http.StatusText(status))
				if status != http.StatusOK {
					return
				}
				server, err := net.Dial("tcp", address)
				if !assert.NoError(t, err) {
					return
				}
				defer server.Close()
				go func() { _, _ = io.Copy(server, conn) }()
				_, _ = io.Copy(conn, server)
			}()
		}
	}()
	return listener.Addr().String()
}

func TestRun_faultyVariables_skipWhatDependsOnThem(t *testing.T) {
	for sentence, row := range map[string]struct {
		faults  config.Faults
		code    int
		skipped []string
	}{
		"the CA's name": {config.Faults{{Stage: enroll.StageClientConfiguration, Variable: "CA_NAME", Problem: "is not set"}}, 1, []string{"ca name"}},
		"the URL":       {config.Faults{{Stage: enroll.StageClientConfiguration, Variable: "REQUEST_URL", Problem: "is no URL"}}, 1, []string{"proxy", "dns", "tcp", "tls", "ca name", "clock"}},
		"the subject":   {config.Faults{{Stage: enroll.StageCSRConfiguration, Variable: "COUNTRY", Problem: "has \"XX\""}}, 2, nil},
		"a password's file": {config.Faults{{Stage: enroll.StageTLSConfiguration, Variable: "KEYSTORE_PASSWORD_FILE", Problem: "is empty"}}, 9,
			[]string{"keystore", "client chain", "truststore", "tls", "ca name", "clock"}},
		"the directory": {config.Faults{{Stage: enroll.StageClientConfiguration, Variable: "OUTPUT_PATH", Problem: "is not set"}}, 1, []string{"volume", "writing", "layout", "published"}},
	} {
		t.Run(sentence, func(t *testing.T) {
			_, o := start(t, service.Options{})
			o.Faults = row.faults
			report, checks := run(t, o)
			assert.Equal(t, row.faults[0].Error(), checks["variables"].Found)
			assert.Equal(t, row.code, report.ExitCode())
			for _, name := range row.skipped {
				requireOutcomes(t, checks, map[string]doctor.Status{name: doctor.Skipped})
			}
		})
	}
}

func TestRun_severalFaultyVariables_areAllListed(t *testing.T) {
	_, o := start(t, service.Options{})
	o.Faults = config.Faults{{Stage: enroll.StageCSRConfiguration, Variable: "COUNTRY", Problem: "is not set"}, {Stage: enroll.StageTLSConfiguration, Variable: "KEYSTORE_PATH", Problem: "is not set"}}
	report, _ := run(t, o)
	assert.Equal(t, []string{"COUNTRY is not set", "KEYSTORE_PATH is not set"}, []string{report.Checks[0].Found, report.Checks[1].Found})
	assert.Equal(t, 2, report.ExitCode())
}

// shows has the CertService show a certificate of its CA for a common name, with changes.
func shows(commonName string, change func(*x509.Certificate)) func(*service.Service, *tls.Config) {
	return func(s *service.Service, c *tls.Config) {
		s.Transport.Change = change
		key, chain, err := s.Transport.Identity(commonName)
		s.Transport.Change = nil
		if err != nil {
			panic(err)
		}
		c.Certificates = []tls.Certificate{{Certificate: [][]byte{chain[0].Raw, chain[1].Raw}, PrivateKey: key}}
	}
}
