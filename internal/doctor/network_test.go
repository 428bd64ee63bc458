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
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/config"
	"github.com/certfetcher/certfetcher/internal/doctor"
	"github.com/certfetcher/certfetcher/internal/enroll"
	"github.com/certfetcher/certfetcher/test/fixture"
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

func certificate(authority *fixture.CA, name string) tls.Certificate {
	key, chain, err := authority.Identity(name)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{chain[0].Raw, chain[1].Raw}, PrivateKey: key}
}

// newCA is one that no one knows.
func newCA(name string) *fixture.CA {
	authority, err := fixture.NewCA(name)
	if err != nil {
		panic(err)
	}
	return authority
}

// identity writes the mutual TLS files of another CA into dir; change may change the client's certificate.
func identity(t *testing.T, dir string, change func(leaf *x509.Certificate)) *fixture.CA {
	t.Helper()
	stranger := newCA("Stranger")
	stranger.Change = change
	key, chain, err := stranger.Identity("certfetcher")
	require.NoError(t, err)
	require.NoError(t, fixture.WriteIdentity(dir, key, chain, stranger.Root))
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
		assert.Regexp(t, ` \(doctor\)$`, r.UserAgent(),
			"by which the CertService takes it for no client that does not work")
		next.ServeHTTP(w, r)
	}))
	report, _ := run(t, o)
	assert.Equal(t, 0, report.ExitCode())
	assert.Equal(t, 3, s.Requests(), "the CA, a CA that does not exist, and whether it is ready")
}

func TestRun_way(t *testing.T) {
	elsewhere := func(_ *testing.T, _ *service.Service, o *doctor.Options) {
		o.Config.Request.URL = "https://oom-cert-service:8443/v1/certificate/"
	}
	mutual := func(version uint16) service.Options {
		return service.Options{TLS: func(_ *service.Service, c *tls.Config) {
			c.ClientAuth, c.MaxVersion = tls.RequireAndVerifyClientCert, version
		}}
	}
	unasked := answering(400, "", true)
	unasked.TLS = func(_ *service.Service, c *tls.Config) { c.ClientAuth = tls.NoClientCert }
	path := func(path string) func(*testing.T, *service.Service, *doctor.Options) {
		return func(_ *testing.T, s *service.Service, o *doctor.Options) {
			o.Config.Request.URL = strings.TrimSuffix(s.URL, "/v1/certificate/") + path
		}
	}
	const all = "proxy,dns,tcp,tls,server certificate,server trust,server name,client " +
		"accepted,certservice,ca name,clock"
	requireReports(t, "way.txt", map[string]row{
		"good": {show: all},
		"the truststore has another CA": {change: func(t *testing.T, _ *service.Service, o *doctor.Options) {
			dir := t.TempDir()
			identity(t, dir, nil)
			o.Config.TLS.TruststorePath = filepath.Join(dir, "truststore.p12")
		}},
		"the host has another name": {change: func(t *testing.T, s *service.Service,
			o *doctor.Options) {
			named(t, s, o, "wrong.example")
		}},
		"the server's certificate is signed with SHA-1": {
			options: showing(func(leaf *x509.Certificate) { leaf.SignatureAlgorithm = x509.ECDSAWithSHA1 }),
		},
		"the truststore has a CA of that name with " +
			"another key": {options: service.Options{TLS: func(_ *service.Service, c *tls.Config) {
			c.Certificates = []tls.Certificate{certificate(newCA("Transport"), "certservice")}
		}}},
		"the server's certificate has a common name only": {
			options: showing(func(leaf *x509.Certificate) { leaf.DNSNames, leaf.IPAddresses = nil, nil }),
		},
		"the server's certificate is for clients": {
			options: showing(
				func(leaf *x509.Certificate) { leaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }),
		},
		"the CertService does not trust the client's CA": {change: stranger},
		"the server refuses the client in the handshake of TLS 1.3": {options: mutual(tls.VersionTLS13),
			change: stranger},
		"the server refuses the client in the handshake of TLS 1.2": {options: mutual(tls.VersionTLS12),
			change: stranger},
		"the server asks for no certificate": {options: unasked, show: "clock"},
		"the server may ask for no certificate": {options: unasked,
			change: changed("", func(o *doctor.Options) { o.Config.Request.AllowNoClientAuth = true }).change},
		"the CA is unknown":     changed("", func(o *doctor.Options) { o.Config.Request.CAName = "XX" }),
		"the path is another's": {options: answering(404, "404 page not found", true)},
		// Our CertService words what it says of paths that it does not know as it words everything else.
		"the path is of another version":        {change: path("/v2/certificate/")},
		"the path is empty":                     {change: path("")},
		"the server redirects":                  {options: answering(302, "", false)},
		"the server answers what was not asked": {options: answering(200, "<html>", true)},
		// The ONAP server looks at the headers before it looks for the CA.
		"the server is ONAP's": {options: answering(400,
			`{"status":400,"error":"Bad Request","path":"/v1/certificate/RA"}`, false)},
		"the service is not ready": {options: answering(503,
			`{"errorMessage":"No valid CMPv2 \u001b[31mconfiguration is loaded"}`, true)},
		"the server does not answer": {
			options: handled(func(_ http.ResponseWriter, r *http.Request, _ http.Handler) {
				<-r.Context().Done()
				panic(http.ErrAbortHandler) // or the client may see an answer in the moment of hanging up
			}),
			change: changed("", func(o *doctor.Options) { o.NetworkTimeout = 2 * time.Second }).change,
		},
		"the server hangs up": {options: handled(func(http.ResponseWriter, *http.Request,
			http.Handler) {
			panic(http.ErrAbortHandler)
		})},
		"nothing listens": {change: func(_ *testing.T, s *service.Service, _ *doctor.Options) { s.Stop() }},
		"nothing answers to TCP": changed("", func(o *doctor.Options) {
			o.NetworkTimeout = time.Second
			o.Dialer = &net.Dialer{ControlContext: func(ctx context.Context, _, _ string, _ syscall.RawConn) error {
				<-ctx.Done()
				return ctx.Err()
			}}
		}),
		"TCP is answered, and nothing more": {change: func(t *testing.T, _ *service.Service, o *doctor.Options) {
			hole, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			t.Cleanup(func() { hole.Close() })
			o.NetworkTimeout = time.Second
			o.Config.Request.URL = "https://" + hole.Addr().String() + "/v1/certificate/"
		}},
		"the port is the one for plain HTTP": {change: func(t *testing.T, _ *service.Service, o *doctor.Options) {
			plain := httptest.NewServer(http.NotFoundHandler())
			t.Cleanup(plain.Close)
			o.Config.Request.URL = strings.Replace(plain.URL, "http", "https", 1) + "/v1/certificate/"
		}},
		"the server's TLS is too old": {options: service.Options{TLS: func(_ *service.Service, c *tls.Config) {
			c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
		}}},
		"the name is resolved": {show: "dns,tcp,server name",
			change: func(t *testing.T, s *service.Service, o *doctor.Options) {
				named(t, s, o, "oom-cert-service")
			}},
		"one of two addresses is dead": {change: func(t *testing.T, s *service.Service, o *doctor.Options) {
			named(t, s, o, "oom-cert-service", "127.0.0.9")
		}},
		"the name is not resolved": {change: elsewhere},
		"the name server does not answer": {change: func(t *testing.T, s *service.Service, o *doctor.Options) {
			elsewhere(t, s, o)
			o.NetworkTimeout = time.Second
			o.Dialer = &net.Dialer{Resolver: &net.Resolver{PreferGo: true,
				Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
					<-ctx.Done()
					return nil, ctx.Err()
				}}}
		}},
		"the proxy in the environment is not a URL": changed("", func(o *doctor.Options) {
			o.Proxy = func(*http.Request) (*url.URL, error) {
				return nil, errors.New(`invalid proxy "http://user:swordfish@%zz"`)
			}
		}),
		"the proxy connects us":          {show: "proxy,dns,tcp,ca name", change: proxied(http.StatusOK)},
		"the proxy refuses":              {show: "proxy", change: proxied(http.StatusForbidden)},
		"the clock is two minutes ahead": changed("", clock(2*time.Minute)),
		"the clock is ten minutes ahead": changed("", clock(10*time.Minute)),
		// The certificates of the test begin a minute ago, so that they are not valid yet by this clock. The
		// client's fails first, as 9; the server's is the reason to ask for its time without believing in its dates.
		"the clock is ten minutes behind": changed("server trust,server name", clock(-10*time.Minute)),
		// Certificates of eleven years ago: the server's was valid, only not by this clock.
		"an anchor has expired": changed("",
			func(o *doctor.Options) { o.Now = func() time.Time { return time.Now().AddDate(11, 0, 0) } }),
		"the CA's name has a fault":     faulty("CA_NAME", enroll.StageClientConfiguration),
		"the URL has a fault":           faulty("REQUEST_URL", enroll.StageClientConfiguration),
		"a password's file has a fault": faulty("KEYSTORE_PASSWORD_FILE", enroll.StageTLSConfiguration),
		"the directory has a fault":     faulty("OUTPUT_PATH", enroll.StageClientConfiguration),
		"two variables have faults": changed("", func(o *doctor.Options) {
			o.Faults = config.Faults{{Stage: enroll.StageCSRConfiguration, Variable: "COUNTRY", Problem: "is not set"},
				{Stage: enroll.StageTLSConfiguration, Variable: "KEYSTORE_PATH", Problem: "is not set"}}
		}),
	})
}

func faulty(variable string, stage enroll.Stage) row {
	return changed("", func(o *doctor.Options) {
		o.Faults = config.Faults{{Stage: stage, Variable: variable, Problem: "is wrong"}}
	})
}

func clock(ahead time.Duration) func(*doctor.Options) {
	return func(o *doctor.Options) { o.Now = func() time.Time { return time.Now().Add(ahead) } }
}

// proxied leads through a proxy that answers CONNECT with a status.
func proxied(status int) func(*testing.T, *service.Service, *doctor.Options) {
	return func(t *testing.T, s *service.Service, o *doctor.Options) {
		address := startProxy(t, strings.Split(s.URL, "/")[2], status)
		o.Config.Request.URL = "https://oom-cert-service:8443/v1/certificate/"
		o.Proxy = func(*http.Request) (*url.URL, error) {
			return &url.URL{Scheme: "http", Host: address, User: url.UserPassword("me", "swordfish")}, nil
		}
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
