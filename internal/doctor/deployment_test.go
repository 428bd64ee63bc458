package doctor_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/config"
	"github.com/certfetcher/certfetcher/internal/doctor"
	"github.com/certfetcher/certfetcher/internal/enroll"
	"github.com/certfetcher/certfetcher/internal/notify"
	"github.com/certfetcher/certfetcher/output"
	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/resolver"
	"github.com/certfetcher/certfetcher/test/service"
)

// deployment is one that works, until commands change it.
type deployment struct {
	doctor.Options
	t        *testing.T
	s        *service.Service
	dir, tmp string // the volume, and a directory for other files
	show     string // the checks, with commas, that a golden text has even where they are ok
	notify   notify.Settings
	token    string
	address  string // of the server that listens
	pid      int    // of the process that runs
}

// deploy makes a deployment of the commands in a golden text, which begin with "> ".
func deploy(t *testing.T, commands string) *deployment {
	t.Helper()
	var options service.Options
	for line := range strings.Lines(commands) {
		verb, rest, _ := strings.Cut(strings.TrimSpace(line[2:]), " ")
		switch verb {
		case "server":
			require.Contains(t, servers, rest)
			options = servers[rest]
		case "answer":
			options = answering(rest)
		}
	}
	d := &deployment{t: t, tmp: t.TempDir()}
	d.s, d.Options = start(t, options)
	d.dir = d.Config.Output.Dir
	for line := range strings.Lines(commands) {
		verb, rest, _ := strings.Cut(strings.TrimSpace(line[2:]), " ")
		d.follow(verb, strings.NewReplacer(
			"{base}", strings.TrimSuffix(d.s.URL, "/v1/certificate/"), "{host}", strings.Split(d.s.URL, "/")[2],
			"{dir}", d.dir, "{tls}", d.s.Dir, "{tmp}", d.tmp, "{address}", d.address, "{pid}", fmt.Sprint(d.pid),
			"{uid}", fmt.Sprint(os.Geteuid()), "{other uid}", fmt.Sprint(os.Geteuid()+1000),
			"{gid}", fmt.Sprint(os.Getegid()), "{other gid}", fmt.Sprint(os.Getegid()+1000)).Replace(rest))
	}
	d.Notify = newNotifiers(t, d.notify)
	return d
}

func newNotifiers(t *testing.T, settings notify.Settings) notify.Config {
	t.Helper()
	made, faults := notify.New(settings, notify.Options{Log: slog.New(slog.DiscardHandler)})
	require.Empty(t, faults)
	return made
}

// follow does what one command says.
func (d *deployment) follow(verb, rest string) {
	d.t.Helper()
	first, second, _ := strings.Cut(rest, " ")
	var err error
	switch verb {
	case "#", "server", "answer": // a comment, or done already
	case "show":
		d.show = rest
	case "set":
		fixture.SetPart(fixture.Part(&d.Options, first), second)
	case "notify":
		fixture.SetPart(fixture.Part(&d.notify, first), second)
	case "token": // with other claims, in place of the client's certificate
		d.Config.TLS.Partial, d.Config.TLS.KeystorePath = true, ""
		d.Config.Request.TokenPath = filepath.Join(d.tmp, "token")
		d.token = fixture.Token(rest)
		err = os.WriteFile(d.Config.Request.TokenPath, []byte(d.token+"\n"), 0o644)
	case "takes":
		d.takeTokens(rest)
	case "certificate": // beside the token
		d.Config.TLS.KeystorePath = filepath.Join(d.s.Dir, "client.p12")
	case "fault":
		stage, problem, _ := strings.Cut(second, " ")
		d.Faults = append(d.Faults, config.Fault{Stage: enroll.Stage(fixture.Must(strconv.Atoi(stage))),
			Variable: first, Problem: problem})
	case "clock": // is ahead by
		ahead := fixture.Must(time.ParseDuration(rest))
		d.Now = func() time.Time { return time.Now().Add(ahead) }
	case "publish":
		err = publish(d.s, d.Config.Output)
	case "reader":
		d.Reader = &doctor.Reader{UID: fixture.Must(strconv.Atoi(first)), GID: fixture.Must(strconv.Atoi(second))}
	case "file": // with mode, path and content
		path, content, _ := strings.Cut(second, " ")
		content = fixture.Must(strconv.Unquote(`"` + content + `"`))
		err = os.WriteFile(path, []byte(content), fileMode(first))
	case "chmod":
		err = os.Chmod(second, fileMode(first))
	case "remove":
		err = os.Remove(rest)
	case "rename":
		err = os.Rename(first, second)
	case "link":
		err = os.Symlink(second, first)
	case "client": // has another certificate of the CA that the CertService trusts
		require.Contains(d.t, fixture.Changes, rest)
		d.s.Transport.Change = fixture.Changes[rest]
		writeIdentity(d.t, d.s.Transport, d.s.Dir, "whole")
	case "chain":
		writeIdentity(d.t, d.s.Transport, d.s.Dir, rest)
	case "stranger": // whose file is the one that a variable leads to
		writeIdentity(d.t, newCA("Stranger"), d.tmp, "whole")
		fixture.SetPart(fixture.Part(&d.Config.TLS, first), filepath.Join(d.tmp, second))
	case "named": // as the service is, by a name server
		d.Config.Request.URL = strings.Replace(d.s.URL, "127.0.0.1", first, 1)
		d.Dialer = &net.Dialer{Resolver: resolver.New(d.t,
			map[string][]string{first: append(strings.Fields(second), "127.0.0.1")})}
	case "stop":
		d.s.Stop()
	case "listen": // and greet
		d.address = listen(d.t, fixture.Must(strconv.Unquote(`"`+rest+`"`)))
	case "process":
		d.pid = startProcess(d.t, rest)
	case "proxy": // answers with a status
		proxy := fixture.StartProxy("http", strings.Split(d.s.URL, "/")[2], fixture.Must(strconv.Atoi(rest)))
		d.t.Cleanup(func() {
			proxy.Close()
			for _, asked := range proxy.Asked() {
				assert.Equal(d.t, "CONNECT oom-cert-service:8443, Basic bWU6c3dvcmRmaXNo", asked)
			}
		})
		d.Config.Request.URL = "https://oom-cert-service:8443/v1/certificate/"
		d.Proxy = func(*http.Request) (*url.URL, error) {
			return &url.URL{Scheme: "http", Host: proxy.Addr().String(), User: url.UserPassword("me", "swordfish")}, nil
		}
	case "network":
		require.Contains(d.t, networks, rest)
		networks[rest](d)
	default:
		d.t.Fatalf("unknown command %q", verb)
	}
	require.NoError(d.t, err, "%s %s", verb, rest)
}

// fileMode reads octal digits, of which a fifth is that of setgid.
func fileMode(octal string) fs.FileMode {
	mode := fixture.Must(strconv.ParseUint(octal, 8, 32))
	if mode&0o2000 != 0 {
		return fs.FileMode(mode&0o777) | fs.ModeSetgid
	}
	return fs.FileMode(mode)
}

// servers are what a CertService may do otherwise.
var servers = map[string]service.Options{
	"sha1": showing("sha1"), "nameless": showing("nameless"), "for clients": showing("for clients"),
	"another key": served(func(_ *service.Service, c *tls.Config) {
		c.Certificates = []tls.Certificate{certificate(newCA("Transport"), "certservice")}
	}),
	"requires, TLS 1.2": served(func(_ *service.Service, c *tls.Config) {
		c.ClientAuth, c.MaxVersion = tls.RequireAndVerifyClientCert, tls.VersionTLS12
	}),
	"requires, TLS 1.3": served(func(_ *service.Service, c *tls.Config) {
		c.ClientAuth = tls.RequireAndVerifyClientCert
	}),
	"unasked": {Wrap: answering("400 all").Wrap,
		TLS: func(_ *service.Service, c *tls.Config) { c.ClientAuth = tls.NoClientCert }},
	"old TLS": served(func(_ *service.Service, c *tls.Config) {
		c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	}),
	"silent": handled(func(_ http.ResponseWriter, r *http.Request, _ http.Handler) {
		<-r.Context().Done()
		panic(http.ErrAbortHandler) // or the client may see an answer in the moment of hanging up
	}),
	"hangs up": handled(func(http.ResponseWriter, *http.Request, http.Handler) { panic(http.ErrAbortHandler) }),
	"not ready": handled(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if r.URL.Path == "/ready" {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		next.ServeHTTP(w, r)
	}),
}

// takeTokens puts what takes tokens in the place of the CertService, or refuses them all for a reason.
func (d *deployment) takeTokens(words string) {
	_, reason, refuses := strings.Cut(words, "no tokens: ")
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch token := r.Header.Get("Authorization"); {
		case words == "no tokens, as it cannot be verified":
			assert.Empty(d.t, token)
		case refuses || token != "Bearer "+d.token:
			w.Header().Set("WWW-Authenticate",
				fmt.Sprintf(`Bearer error="invalid_token", error_description=%q`, reason))
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, `{"errorMessage":"Client certificate or token is missing or not trusted"}`)
		case words == "tokens, and its policy allows nothing":
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, `{"errorMessage":"Not allowed by the policy: no rule is for this client"}`)
		case strings.HasPrefix(r.URL.Path, "/v1/certificate"):
			w.WriteHeader(http.StatusBadRequest)
		}
	}))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate(d.s.Transport, "certservice")},
		ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: x509.NewCertPool()}
	server.TLS.ClientCAs.AddCert(d.s.Transport.Root)
	if words == "tokens, and asks for no certificate" {
		server.TLS.ClientAuth = tls.NoClientCert
	}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	d.t.Cleanup(server.Close)
	d.Config.Request.URL = server.URL + "/v1/certificate/"
}

func served(change func(*service.Service, *tls.Config)) service.Options {
	return service.Options{TLS: change}
}

// showing has the CertService show a certificate of its CA, with a change.
func showing(change string) service.Options {
	return served(func(s *service.Service, c *tls.Config) {
		s.Transport.Change = fixture.Changes[change]
		c.Certificates = []tls.Certificate{certificate(s.Transport, "127.0.0.1")}
		s.Transport.Change = nil
	})
}

// handled has the CertService's requests handled by f, which may pass them on.
func handled(f func(w http.ResponseWriter, r *http.Request, next http.Handler)) service.Options {
	return service.Options{Wrap: func(_ *service.Service, next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f(w, r, next) })
	}}
}

// answering has the CertService answer alike: with a status, "all" or "requests" for certificates, and a text.
func answering(words string) service.Options {
	status, rest, _ := strings.Cut(words, " ")
	which, text, _ := strings.Cut(rest, " ")
	return handled(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if which != "all" && !strings.HasPrefix(r.URL.Path, "/v1/") {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Location", "https://elsewhere.example/")
		w.WriteHeader(fixture.Must(strconv.Atoi(status)))
		_, _ = io.WriteString(w, text)
	})
}

// networks are what may be between.
var networks = map[string]func(d *deployment){
	"dead": func(d *deployment) {
		d.Dialer = &net.Dialer{ControlContext: func(ctx context.Context, _, _ string, _ syscall.RawConn) error {
			<-ctx.Done()
			return ctx.Err()
		}}
	},
	"no name server": func(d *deployment) {
		d.Dialer = &net.Dialer{Resolver: &net.Resolver{PreferGo: true,
			Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			}}}
	},
	"bad proxy": func(d *deployment) {
		d.Proxy = func(*http.Request) (*url.URL, error) {
			return nil, errors.New(`invalid proxy "http://user:swordfish@%zz"`)
		}
	},
	"plain": func(d *deployment) {
		plain := httptest.NewServer(http.NotFoundHandler())
		d.t.Cleanup(plain.Close)
		d.Config.Request.URL = strings.Replace(plain.URL, "http", "https", 1) + "/v1/certificate/"
	},
}

// newCA is one that no one knows.
func newCA(name string) *fixture.CA { return fixture.Must(fixture.NewCA(name)) }

func certificate(authority *fixture.CA, name string) tls.Certificate {
	key, chain, err := authority.Identity(name)
	return tls.Certificate{Certificate: [][]byte{chain[0].Raw, chain[1].Raw}, PrivateKey: fixture.Must(key, err)}
}

// writeIdentity writes the mutual TLS files of a CA into dir, with that of the client's chain which is named.
func writeIdentity(t *testing.T, authority *fixture.CA, dir, which string) {
	t.Helper()
	key, chain, err := authority.Identity("certfetcher")
	require.NoError(t, err)
	chains := map[string][]*x509.Certificate{"whole": chain, "with root": append(chain[:2:2], authority.Root),
		"leaf": chain[:1], "another key": {chain[0], newCA("Transport").Issuing}}
	require.Contains(t, chains, which)
	require.NoError(t, fixture.WriteIdentity(dir, key, chains[which], authority.Root))
}

// publish puts a set on the volume, as certfetcher would.
func publish(s *service.Service, o output.Config) error {
	key, chain, err := s.CA.Identity("app.example.org")
	if err != nil {
		return err
	}
	volume := fixture.Must(output.Open(
		output.Config{Dir: o.Dir, Types: o.Types, Layout: o.Layout, FileMode: o.FileMode}))
	_, err = volume.Publish(output.Bundle{Key: key, Chain: chain, Trusted: []*x509.Certificate{s.CA.Root}})
	return err
}

// listen runs a server that greets, and says nothing more.
func listen(t *testing.T, greeting string) (address string) {
	listener := fixture.Must(net.Listen("tcp", "127.0.0.1:0"))
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.WriteString(conn, greeting)
				_, _ = io.Copy(io.Discard, conn)
			}()
		}
	}()
	return listener.Addr().String()
}

// startProcess runs one that waits for the end of its input, under a name that no other process should have.
func startProcess(t *testing.T, name string) (pid int) {
	child := &exec.Cmd{Path: fixture.Must(exec.LookPath("sh")), Args: []string{name, "-c", "read line"}}
	input := fixture.Must(child.StdinPipe())
	require.NoError(t, child.Start())
	t.Cleanup(func() {
		_ = input.Close()
		_ = child.Wait()
	})
	return child.Process.Pid
}
