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
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/config"
	"github.com/certfetcher/certfetcher/internal/doctor"
	"github.com/certfetcher/certfetcher/test/ca"
	"github.com/certfetcher/certfetcher/test/resolver"
	"github.com/certfetcher/certfetcher/test/service"
)

// handled has the CertService's requests handled by f, which may pass them on.
func handled(f func(w http.ResponseWriter, r *http.Request, next http.Handler)) service.Options {
	return service.Options{Wrap: func(_ *service.Service, next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f(w, r, next) })
	}}
}

// answering has the CertService answer all requests for certificates, or all requests, alike.
func answering(status int, body string, all bool) service.Options {
	return handled(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if !all && !strings.HasPrefix(r.URL.Path, "/v1/") {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Location", "https://elsewhere.example/")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	})
}

// showing has the CertService show a certificate of its CA, with changes.
func showing(change func(leaf *x509.Certificate)) service.Options {
	return service.Options{TLS: func(s *service.Service, c *tls.Config) {
		s.Transport.Change = change
		c.Certificates = []tls.Certificate{certificate(s.Transport, "127.0.0.1")}
		s.Transport.Change = nil
	}}
}

func certificate(authority *ca.CA, name string) tls.Certificate {
	key, chain, err := authority.Identity(name)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{chain[0].Raw, chain[1].Raw}, PrivateKey: key}
}

// newCA is one that no one knows.
func newCA(name string) *ca.CA {
	authority, err := ca.New(name)
	if err != nil {
		panic(err)
	}
	return authority
}

// identity writes the mutual TLS files of another CA into dir; change may change the client's certificate.
func identity(t *testing.T, dir string, change func(leaf *x509.Certificate)) *ca.CA {
	t.Helper()
	stranger := newCA("Stranger")
	stranger.Change = change
	key, chain, err := stranger.Identity("certfetcher")
	require.NoError(t, err)
	require.NoError(t, service.WriteIdentity(dir, key, chain, stranger.Root))
	return stranger
}

func stranger(t *testing.T, _ *service.Service, o *doctor.Options) {
	dir := t.TempDir()
	identity(t, dir, nil)
	o.Config.TLS.KeystorePath = filepath.Join(dir, "client.jks")
}

// named makes the options lead to the service under a host name.
func named(t *testing.T, s *service.Service, o *doctor.Options, host string, addresses ...string) {
	t.Helper()
	o.Config.Request.URL = strings.Replace(s.URL, "127.0.0.1", host, 1)
	o.Dialer = &net.Dialer{Resolver: resolver.New(t, map[string][]string{host: append(addresses, "127.0.0.1")})}
}

func TestRun_goodDeployment_isOKAndAsksForNoCertificate(t *testing.T) {
	s, o := start(t, handled(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		assert.Equal(t, http.MethodGet, r.Method)
		for _, secret := range []string{"CSR", "PK", "OLD_CERT", "OLD_PK"} {
			assert.Empty(t, r.Header[secret])
		}
		assert.Regexp(t, ` \(doctor\)$`, r.UserAgent(), "by which the CertService takes it for no client that does not work")
		next.ServeHTTP(w, r)
	}))
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
	fromTCP := []string{"tls", "server certificate", "server trust", "server name", "client accepted", "certservice", "ca name", "clock"}
	fromTLS, afterTrust, refused := fromTCP[1:], fromTCP[4:], fromTCP[5:]
	fromDNS := append([]string{"tcp"}, fromTCP...)
	elsewhere := func(_ *testing.T, _ *service.Service, o *doctor.Options) {
		o.Config.Request.URL = "https://oom-cert-service:8443/v1/certificate/"
	}
	const unknownClient = "the server refuses our client certificate: it does not know the CA that issued it (remote error: tls: unknown certificate authority); it asks for one of other CAs"
	for sentence, row := range map[string]brokenWay{
		"the truststore has another CA": {
			change: func(t *testing.T, _ *service.Service, o *doctor.Options) {
				dir := t.TempDir()
				identity(t, dir, nil)
				o.Config.TLS.TruststorePath = filepath.Join(dir, "truststore.p12")
			},
			check: "server trust", code: 6, skipped: afterTrust,
			found: `the server's certificate is not trusted: subject "CN=certservice", issuer "CN=Transport Issuing CA,O=Throwaway", …, sent with a chain of 2 whose last is issued by "CN=Transport Root CA,O=Throwaway"; the truststore holds "CN=Stranger Root CA,O=Throwaway"`,
		},
		"the host has another name": {
			change: func(t *testing.T, s *service.Service, o *doctor.Options) { named(t, s, o, "wrong.example") },
			check:  "server name", code: 6, skipped: afterTrust,
			found: `the server's certificate is not for this host name: has names DNS:localhost, DNS:oom-cert-service, IP Address:127.0.0.1, IP Address:::1, want "wrong.example"`,
		},
		"the server's certificate is signed with SHA-1": {
			options: showing(func(leaf *x509.Certificate) { leaf.SignatureAlgorithm = x509.ECDSAWithSHA1 }),
			check:   "server trust", code: 6, skipped: afterTrust,
			found: `the server's certificate is not trusted: "CN=127.0.0.1" is signed with ECDSA with SHA-1 (1.2.840.10045.4.1), …`,
		},
		"the truststore has a CA of that name with another key": {
			options: service.Options{TLS: func(_ *service.Service, c *tls.Config) {
				c.Certificates = []tls.Certificate{certificate(newCA("Transport"), "certservice")}
			}},
			check: "server trust", code: 6, skipped: afterTrust,
			found: `the server's certificate is not trusted: a CA certificate "CN=Transport Root CA,O=Throwaway" is among the trusted certificates, but with another key than the one that signed …`,
		},
		"the server's certificate has a common name only": {
			options: showing(func(leaf *x509.Certificate) { leaf.DNSNames, leaf.IPAddresses = nil, nil }),
			check:   "server name", code: 6, skipped: afterTrust,
			found: `the server's certificate has the host name "127.0.0.1" as common name (CN) only, which is not looked at (RFC 9525)`,
		},
		"the server's certificate is for clients": {
			options: showing(func(leaf *x509.Certificate) { leaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }),
			check:   "server trust", code: 6, skipped: afterTrust,
			found: `the server's certificate is not good for a server: subject "CN=127.0.0.1", …`,
		},
		"the CertService does not trust the client's CA": {
			change: stranger, check: "client accepted", code: 6, skipped: refused[:2],
			found: `the CertService refuses "CN=certfetcher", issued by "CN=Stranger Issuing CA,O=Throwaway": 401 Unauthorized: Client certificate is missing or not trusted`,
		},
		"the server refuses the client in the handshake of TLS 1.3": {
			options: service.Options{TLS: func(_ *service.Service, c *tls.Config) { c.ClientAuth = tls.RequireAndVerifyClientCert }},
			change:  stranger, check: "client accepted", code: 6, skipped: refused, found: unknownClient,
		},
		"the server refuses the client in the handshake of TLS 1.2": {
			options: service.Options{TLS: func(_ *service.Service, c *tls.Config) {
				c.ClientAuth, c.MaxVersion = tls.RequireAndVerifyClientCert, tls.VersionTLS12
			}},
			change: stranger, check: "client accepted", code: 6, skipped: refused, found: unknownClient,
		},
		"the CA is unknown": {
			change: func(_ *testing.T, _ *service.Service, o *doctor.Options) { o.Config.Request.CAName = "XX" },
			check:  "ca name", code: 5,
			found: `"XX" is not known: 404 Not Found: Certification authority not found for given CAName`,
		},
		"the path is another's": {
			options: answering(404, "404 page not found", true),
			check:   "ca name", code: 5, skipped: refused[:1],
			found: `the path of REQUEST_URL leads nowhere: GET /v1/certificate/RA is answered by 404 Not Found: no errorMessage but …`,
		},
		"the server redirects": {
			options: answering(302, "", false), check: "ca name", code: 5,
			found: `the server redirects: 302 Found (302 redirects to "https://elsewhere.example/", …`,
		},
		"the server answers without having been asked properly": {
			options: answering(200, "<html>", true), check: "ca name", code: 5,
			found: "a request without a CSR is answered by 200 OK (want JSON with certificates, …), want 400 Bad Request",
		},
		"the server does not answer": {
			options: handled(func(_ http.ResponseWriter, r *http.Request, _ http.Handler) { <-r.Context().Done() }),
			change:  func(_ *testing.T, _ *service.Service, o *doctor.Options) { o.NetworkTimeout = 300 * time.Millisecond },
			check:   "client accepted", code: 6, skipped: refused,
			found: "time-out: connected, but no answer came within 300ms (context deadline exceeded)",
		},
		"the server hangs up": {
			options: handled(func(http.ResponseWriter, *http.Request, http.Handler) { panic(http.ErrAbortHandler) }),
			check:   "client accepted", code: 6, skipped: refused, found: "the server closed the connection without an answer (EOF)",
		},
		"nothing listens": {
			change: func(t *testing.T, s *service.Service, _ *doctor.Options) { s.Stop() },
			check:  "tcp", code: 6, found: "127.0.0.1:… does not connect: connection refused", skipped: fromTCP,
		},
		"nothing answers to TCP": {
			change: func(_ *testing.T, _ *service.Service, o *doctor.Options) {
				o.NetworkTimeout = 20 * time.Millisecond
				o.Dialer = &net.Dialer{ControlContext: func(ctx context.Context, _, _ string, _ syscall.RawConn) error {
					<-ctx.Done()
					return ctx.Err()
				}}
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
			check: "tls", code: 6, skipped: fromTLS,
			found: "time-out: TCP connects, but the TLS handshake was not done within 20ms (context deadline exceeded)",
		},
		"the port is the one for plain HTTP": {
			change: func(t *testing.T, _ *service.Service, o *doctor.Options) {
				plain := httptest.NewServer(http.NotFoundHandler())
				t.Cleanup(plain.Close)
				o.Config.Request.URL = strings.Replace(plain.URL, "http", "https", 1) + "/v1/certificate/"
			},
			check: "tls", code: 6, skipped: fromTLS,
			found: "the server does not speak TLS on this port, but plain HTTP (tls: first record does not look like a TLS handshake)",
		},
		"the server's TLS is too old": {
			options: service.Options{TLS: func(_ *service.Service, c *tls.Config) {
				c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
			}},
			check: "tls", code: 6, skipped: fromTLS,
			found: "the server speaks no TLS that we accept, which is 1.2 or later with current ciphers (remote error: tls: protocol version not supported)",
		},
		"the name is not resolved": {
			change: elsewhere, check: "dns", code: 6, skipped: fromDNS,
			found: `the name "oom-cert-service" cannot be resolved (lookup oom-cert-service on …: no such host)`,
		},
		"the name server does not answer": {
			change: func(t *testing.T, s *service.Service, o *doctor.Options) {
				elsewhere(t, s, o)
				o.NetworkTimeout = 20 * time.Millisecond
				o.Dialer = &net.Dialer{Resolver: &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
					<-ctx.Done()
					return nil, ctx.Err()
				}}}
			},
			check: "dns", code: 6, found: `the name "oom-cert-service" was not resolved within 20ms (…)`, skipped: fromDNS,
		},
		"the proxy in the environment is not a URL": {
			change: func(_ *testing.T, _ *service.Service, o *doctor.Options) {
				o.Proxy = func(*http.Request) (*url.URL, error) {
					return nil, errors.New(`invalid proxy "http://user:swordfish@%zz"`)
				}
			},
			check: "proxy", code: 6, found: "the proxy in the environment is not a URL", skipped: append([]string{"dns"}, fromDNS...),
		},
	} {
		t.Run(sentence, func(t *testing.T) {
			s, o := start(t, row.options)
			if row.change != nil {
				row.change(t, s, &o)
			}
			report, checks := run(t, o)
			requireOutcomes(t, checks, others(checks, append(slices.Clone(row.skipped), row.check, "reader")...))
			for _, name := range row.skipped {
				requireOutcomes(t, checks, map[string]doctor.Status{name: doctor.Skipped})
			}
			assert.Equal(t, doctor.Failed, checks[row.check].Status)
			requireText(t, row.found, checks[row.check].Found)
			assert.Equal(t, row.code, report.ExitCode())
			assert.NotContains(t, text(t, report), "swordfish")
		})
	}
}

// requireText compares exactly, but for what … stands for.
func requireText(t *testing.T, want, got string) {
	t.Helper()
	pattern := "^" + strings.ReplaceAll(regexp.QuoteMeta(want), "…", ".+") + "$"
	if !regexp.MustCompile(pattern).MatchString(got) {
		assert.Equal(t, want, got)
	}
}

func TestRun_nameWithTwoAddresses_ofWhichOneIsDead(t *testing.T) {
	s, o := start(t, service.Options{})
	named(t, s, &o, "oom-cert-service", "127.0.0.9")
	report, checks := run(t, o)
	requireOutcomes(t, checks, others(checks, "reader", "tcp"))
	u, err := url.Parse(s.URL)
	require.NoError(t, err)
	requireText(t, "oom-cert-service is 127.0.0.… (…s)", checks["dns"].Found)
	assert.Equal(t, doctor.Warning, checks["tcp"].Status)
	assert.Equal(t, "connected to "+u.Host+", but 127.0.0.9:"+u.Port()+" does not connect: connection refused", checks["tcp"].Found)
	assert.Equal(t, `the certificate is for "oom-cert-service"`, checks["server name"].Found)
	assert.Equal(t, 0, report.ExitCode())
}

// The ONAP server looks at the headers before it looks for the CA.
func TestRun_onapServer_doesNotSayWhetherTheCAIsKnown(t *testing.T) {
	_, o := start(t, answering(400, `{"status":400,"error":"Bad Request","path":"/v1/certificate/RA"}`, false))
	report, checks := run(t, o)
	assert.Equal(t, doctor.Check{Name: "ca name", Status: doctor.Skipped, Found: `without a CSR this server does not say whether "RA" is known`}, checks["ca name"])
	assert.Equal(t, 0, report.ExitCode())
}

// Our CertService words what it says of paths that it does not know as it words everything else.
func TestRun_pathOutsideTheAPI_isNotTakenForAnUnknownCA(t *testing.T) {
	s, o := start(t, service.Options{})
	for path, asked := range map[string]string{"/v2/certificate/": "/v2/certificate/RA", "/": "/RA", "": "/RA"} {
		o.Config.Request.URL = strings.TrimSuffix(s.URL, "/v1/certificate/") + path
		report, checks := run(t, o)
		assert.Equal(t, doctor.Check{
			Name: "ca name", Status: doctor.Failed, ExitCode: 5,
			Found:  "the path of REQUEST_URL leads nowhere: GET " + asked + ` is answered by 404 Not Found: There is nothing at this path`,
			Advice: "correct the path in REQUEST_URL; that of a CertService ends in /v1/certificate/",
		}, checks["ca name"])
		assert.Equal(t, 5, report.ExitCode())
	}
}

func TestRun_serviceNotReady(t *testing.T) {
	_, o := start(t, answering(503, `{"errorMessage":"No valid CMPv2 \u001b[31mconfiguration is loaded"}`, true))
	report, checks := run(t, o)
	assert.Equal(t, `not ready: GET /ready is answered by 503 Service Unavailable: No valid CMPv2 [31mconfiguration is loaded`, checks["certservice"].Found)
	assert.Equal(t, doctor.Failed, checks["ca name"].Status)
	assert.Equal(t, 5, report.ExitCode())
}

func TestRun_serverAsksForNoCertificate(t *testing.T) {
	options := answering(400, "", true)
	options.TLS = func(_ *service.Service, c *tls.Config) { c.ClientAuth = tls.NoClientCert }
	_, o := start(t, options)
	report, checks := run(t, o)
	requireOutcomes(t, checks, map[string]doctor.Status{"client accepted": doctor.Failed, "certservice": doctor.Skipped, "clock": doctor.OK})
	requireText(t, "the server never asked for our client certificate, so nothing was sent to it (…)", checks["client accepted"].Found)
	assert.Equal(t, 6, report.ExitCode())

	o.Config.TLS.AllowNoClientAuth = true
	report, checks = run(t, o)
	requireOutcomes(t, checks, map[string]doctor.Status{"client accepted": doctor.Warning})
	requireText(t, "the server never asked for a client certificate, which ALLOW_NO_CLIENT_AUTH allows; it answers 400 Bad Request…", checks["client accepted"].Found)
	assert.Zero(t, report.ExitCode())
}

func TestRun_clock(t *testing.T) {
	for sentence, row := range map[string]struct {
		ahead time.Duration
		clock doctor.Status
		side  string
		code  int
	}{
		"two minutes ahead": {2 * time.Minute, doctor.Warning, "ahead of", 0},
		"ten minutes ahead": {10 * time.Minute, doctor.Failed, "ahead of", 11},
		// The certificates of the test begin a minute ago, so that they are not valid yet by this clock. The
		// client's fails first, as 9; the server's is the reason to ask for its time without believing in its dates.
		"ten minutes behind": {-10 * time.Minute, doctor.Failed, "behind", 9},
	} {
		t.Run(sentence, func(t *testing.T) {
			_, o := start(t, service.Options{})
			o.Now = func() time.Time { return time.Now().Add(row.ahead) }
			report, checks := run(t, o)
			assert.Equal(t, row.clock, checks["clock"].Status)
			apart, rest, _ := strings.Cut(checks["clock"].Found, " ")
			found, err := time.ParseDuration(apart)
			require.NoError(t, err)
			assert.InDelta(t, row.ahead.Abs(), found, float64(2*time.Second))
			assert.Equal(t, row.side+" the CertService's", rest)
			assert.Equal(t, row.code, report.ExitCode())
			if row.ahead < 0 {
				requireOutcomes(t, checks, map[string]doctor.Status{"server certificate": doctor.Failed, "server trust": doctor.OK, "server name": doctor.OK, "ca name": doctor.Skipped})
			}
		})
	}
}

func TestRun_proxy(t *testing.T) {
	for status, want := range map[int]doctor.Check{
		http.StatusOK: {Name: "ca name", Status: doctor.OK, Found: `"RA" is known`},
		http.StatusForbidden: {Name: "tls", Status: doctor.Failed, ExitCode: 6,
			Found: `the proxy PROXY does not connect us to oom-cert-service:8443 (the proxy answered 403 Forbidden)`, Advice: "check HTTPS_PROXY and NO_PROXY, and what the proxy allows"},
	} {
		s, o := start(t, service.Options{})
		address := startProxy(t, strings.Split(s.URL, "/")[2], status)
		o.Config.Request.URL = "https://oom-cert-service:8443/v1/certificate/"
		o.Proxy = func(*http.Request) (*url.URL, error) {
			return &url.URL{Scheme: "http", Host: address, User: url.UserPassword("me", "swordfish")}, nil
		}
		report, checks := run(t, o)
		want.Found = strings.Replace(want.Found, "PROXY", address, 1)
		assert.Equal(t, want, checks[want.Name])
		assert.Equal(t, "HTTPS_PROXY leads through http://"+address+", which resolves the name oom-cert-service; NO_PROXY would exempt it", checks["proxy"].Found)
		assert.NotContains(t, text(t, report), "swordfish")
	}
}

// startProxy answers CONNECT with a status, and connects to an address when that is 200.
func startProxy(t *testing.T, address string, status int) string {
	t.Helper()
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		assert.Equal(t, http.MethodConnect, r.Method)
		assert.Equal(t, "Basic bWU6c3dvcmRmaXNo", r.Header.Get("Proxy-Authorization"))
		conn, _, err := http.NewResponseController(w).Hijack()
		if !assert.NoError(t, err) {
			return
		}
		defer conn.Close()
		fmt.Fprintf(conn, "HTTP/1.1 %d %s\r\n\r\n", status, http.StatusText(status))
		if status != http.StatusOK {
			return
		}
		server, err := net.Dial("tcp", address)
		if !assert.NoError(t, err) {
			return
		}
		defer server.Close()
		go func() { _, _ = io.Copy(server, bufio.NewReader(conn)) }()
		_, _ = io.Copy(conn, server)
	}))
	t.Cleanup(proxy.Close)
	return strings.TrimPrefix(proxy.URL, "http://")
}

func TestRun_faultyVariables_skipWhatDependsOnThem(t *testing.T) {
	for sentence, row := range map[string]struct {
		faults  config.Faults
		code    int
		skipped []string
	}{
		"the CA's name": {config.Faults{{Part: config.PartClient, Variable: "CA_NAME", Problem: "is not set"}}, 1, []string{"ca name"}},
		"the URL":       {config.Faults{{Part: config.PartClient, Variable: "REQUEST_URL", Problem: "is not a URL"}}, 1, []string{"proxy", "dns", "tcp", "tls", "ca name", "clock"}},
		"a password's file": {config.Faults{{Part: config.PartTLS, Variable: "KEYSTORE_PASSWORD_FILE", Problem: "is empty"}}, 9,
			[]string{"keystore", "client chain", "truststore", "tls", "ca name", "clock"}},
		"the directory": {config.Faults{{Part: config.PartClient, Variable: "OUTPUT_PATH", Problem: "is not set"}}, 1, []string{"volume", "writing", "layout", "published"}},
		"several": {config.Faults{{Part: config.PartCSR, Variable: "COUNTRY", Problem: "is not set"}, {Part: config.PartTLS, Variable: "KEYSTORE_PATH", Problem: "is not set"}}, 2,
			[]string{"keystore"}},
	} {
		t.Run(sentence, func(t *testing.T) {
			_, o := start(t, service.Options{})
			o.Faults = row.faults
			report, checks := run(t, o)
			for i, fault := range row.faults {
				assert.Equal(t, fault.Error(), report.Checks[i].Found)
			}
			assert.Equal(t, row.code, report.ExitCode())
			for _, name := range row.skipped {
				requireOutcomes(t, checks, map[string]doctor.Status{name: doctor.Skipped})
			}
		})
	}
}
