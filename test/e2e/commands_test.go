package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/certfetcher/certfetcher/internal/inspect"
	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/service"
)

// certservice [BEHAVIOUR] starts a CertService, writes the client's identity to $WORK/mtls and sets
// REQUEST_URL. A second call takes the place of the first. Besides the behaviours of behaviours_test.go:
//
//	answers STATUS TYPE BODY
//	down             nothing listens at the address
//	untrusted        the server's certificate is of a CA that the truststore does not have
//	other-host       the server's certificate is for another host
//	sha1             the server's certificate is signed with SHA-1
//	namesake         the server's certificate is of a CA with the names of the one in the truststore, and another key
//	common-name      the server's certificate has the host as common name only
//	demands-another  the handshake demands a client certificate of another CA
//	never-asks       the handshake asks for no client certificate, as where a proxy ends TLS
//	demands          the handshake demands a client certificate of its own CA
func startCertService(ts *testscript.TestScript, neg bool, args []string) {
	name := strings.Join(args, " ")
	options := service.Options{Wrap: behaviours[name]}
	spoil := handshakes[name]
	switch {
	case len(args) == 4 && args[0] == "answers":
		options.Wrap = always(args[1], args[2], args[3])
	case name == "down":
		options.Address = ts.Getenv("UNUSED") // which no other test is given once it is closed
	case spoil != nil:
		options.TLS = spoil
	case name != "" && options.Wrap == nil:
		ts.Fatalf("certservice has no behaviour %q", name)
	}
	s := startService(ts, options)
	if name == "down" {
		s.Stop()
	}
}

func startService(ts *testscript.TestScript, options service.Options) *service.Service {
	if old := given(ts).service; old != nil {
		old.Stop()
	}
	s, err := service.Start(ts.MkAbs("mtls"), options)
	ts.Check(err)
	ts.Defer(s.Stop)
	given(ts).service = s
	ts.Setenv("REQUEST_URL", s.URL)
	return s
}

// handshakes are what becomes of the server's side of TLS.
var handshakes = map[string]func(*service.Service, *tls.Config){
	"never-asks": func(_ *service.Service, c *tls.Config) { c.ClientAuth = tls.NoClientCert },
	"demands":    func(_ *service.Service, c *tls.Config) { c.ClientAuth = tls.RequireAndVerifyClientCert },
	"demands-another": func(_ *service.Service, c *tls.Config) {
		c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		c.ClientCAs.AddCert(fixture.Must(fixture.NewCA("Foreign")).Root)
	},
	"untrusted": func(_ *service.Service, c *tls.Config) {
		present(c, fixture.Must(fixture.NewCA("Foreign")), "certservice", nil)
	},
	"namesake": func(_ *service.Service, c *tls.Config) {
		present(c, fixture.Must(fixture.NewCA("Transport")), "certservice", nil)
	},
	"other-host": func(s *service.Service, c *tls.Config) {
		present(c, s.Transport, "certservice", func(l *x509.Certificate) {
			l.DNSNames, l.IPAddresses = []string{"another.example.org"}, nil
		})
	},
	"sha1": func(s *service.Service, c *tls.Config) {
		present(c, s.Transport, "certservice", func(l *x509.Certificate) {
			l.SignatureAlgorithm = x509.ECDSAWithSHA1
		})
	},
	"common-name": func(s *service.Service, c *tls.Config) {
		present(c, s.Transport, "127.0.0.1", func(l *x509.Certificate) { l.DNSNames, l.IPAddresses = nil, nil })
	},
}

// present gives the server a certificate of a CA, which is changed before it is signed.
func present(c *tls.Config, of *fixture.CA, name string, change func(*x509.Certificate)) {
	issuer := *of
	issuer.Change = change
	key, chain, err := issuer.Identity(name)
	c.Certificates = []tls.Certificate{{Certificate: [][]byte{chain[0].Raw, chain[1].Raw},
		PrivateKey: fixture.Must(key, err)}}
}

// identity expired|future|server-only|good writes another client identity, of the CA of the certservice under way.
func writeIdentity(ts *testscript.TestScript, neg bool, args []string) {
	transport := *given(ts).service.Transport
	transport.Change = map[string]func(*x509.Certificate){
		"expired":     func(l *x509.Certificate) { l.NotBefore, l.NotAfter = from(-48*time.Hour), from(-24*time.Hour) },
		"future":      func(l *x509.Certificate) { l.NotBefore, l.NotAfter = from(24*time.Hour), from(48*time.Hour) },
		"server-only": func(l *x509.Certificate) { l.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} },
		"good":        nil,
	}[args[0]]
	key, chain, err := transport.Identity("certfetcher")
	ts.Check(err)
	ts.Check(fixture.WriteIdentity(ts.MkAbs("mtls"), key, chain, transport.Root))
}

// exits CODE program [args...] runs a program and compares its exit code; stdout and stderr can be
// looked at afterwards, as after exec.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("running %s: %v", args[1], err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("%s exited with %d, want %d", args[1], got, want)
	}
	for _, value := range received(ts) {
		if pem, err := base64.StdEncoding.DecodeString(value); err != nil || showsPart(shown(ts), value) ||
			showsPart(shown(ts), string(pem)) {
			ts.Fatalf("%s shows a part of a header that it sent, or sent one that is no Base64 (%v)", args[1], err)
		}
	}
}

// received are the values of the API's headers that the script's CertService got.
func received(ts *testscript.TestScript) []string {
	if s := given(ts).service; s != nil {
		return s.Received()
	}
	return nil
}

// shown is all that the last program told the world.
func shown(ts *testscript.TestScript) string {
	text := ts.ReadFile("stdout") + ts.ReadFile("stderr")
	if message, err := os.ReadFile(ts.MkAbs("termination-log")); err == nil {
		text += string(message)
	}
	return text
}

// showsPart tells whether a text has 24 characters in a row of a secret. Labels of PEM are none.
func showsPart(text, secret string) bool {
	for line := range strings.Lines(secret) {
		for i := 0; i+24 <= len(line) && !strings.HasPrefix(line, "-----"); i += 4 {
			if strings.Contains(text, line[i:i+24]) {
				return true
			}
		}
	}
	return false
}

// holds DIR FILE... fails unless the directory holds just these files of ours, every one of them can
// be read with the password beside it, and the keys fit the certificates. ! holds DIR wants none at all.
func holds(ts *testscript.TestScript, neg bool, args []string) {
	report, err := inspect.Dir(ts.MkAbs(args[0]))
	if neg {
		if err == nil {
			ts.Fatalf("%s holds %d files, want none", args[0], len(report.Files))
		}
		return
	}
	ts.Check(err)
	var names []string
	for _, f := range report.Files {
		if f.Problem != "" {
			ts.Fatalf("%s cannot be read: %s", f.Name, f.Problem)
		}
		names = append(names, f.Name)
	}
	if report.Certificate != nil && !*report.Certificate.KeyFits {
		ts.Fatalf("the key does not fit the certificate")
	}
	want := slices.Sorted(slices.Values(args[1:]))
	slices.Sort(names)
	if !slices.Equal(names, want) {
		ts.Fatalf("%s holds %s, want %s", args[0], strings.Join(names, " "), strings.Join(want, " "))
	}
}

// inspects DIR prints the report on a directory as JSON, to be looked at with stdout.
func inspects(ts *testscript.TestScript, neg bool, args []string) {
	report, err := inspect.Dir(ts.MkAbs(args[0]))
	ts.Check(err)
	text, err := json.MarshalIndent(report, "", "  ")
	ts.Check(err)
	_, err = fmt.Fprintf(ts.Stdout(), "%s\n", text)
	ts.Check(err)
}

// generation is the name of a directory that the symlink layout swaps.
var generation = regexp.MustCompile(`\.\.\d{4}_[0-9_.]+`)

// listing DIR prints every name below a directory with its mode, generation directories as "..GEN".
func listing(ts *testscript.TestScript, neg bool, args []string) {
	dir := ts.MkAbs(args[0])
	var lines []string
	ts.Check(filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		line := fmt.Sprintf("%s %s", info.Mode(), generation.ReplaceAllString(name, "..GEN"))
		if target, err := os.Readlink(path); err == nil {
			line += " -> " + generation.ReplaceAllString(target, "..GEN")
		}
		lines = append(lines, line)
		return nil
	}))
	fmt.Fprintln(ts.Stdout(), strings.Join(lines, "\n"))
}

// requests N fails unless just so many requests reached the CertService.
func requests(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	if got := given(ts).service.Requests(); (got == want) == neg {
		ts.Fatalf("%d requests reached the CertService, want %d", got, want)
	}
}

// awaits N waits until so many requests have reached the CertService.
func awaits(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	s := given(ts).service
	for deadline := time.Now().Add(20 * time.Second); s.Requests() < want; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			ts.Fatalf("%d requests reached the CertService in 20 s, want %d", s.Requests(), want)
		}
	}
}

// secretfree DIR fails when what the last program printed, or the termination message, shows one of
// the secrets of this run: the passwords, or a private key in any form that is on the volume.
func secretfree(ts *testscript.TestScript, neg bool, args []string) {
	shown := shown(ts)
	secrets := []string{fixture.Password, "PRIVATE KEY"}
	for _, name := range []string{"keystore.pass", "truststore.pass", "key.pem"} {
		if content, err := os.ReadFile(filepath.Join(ts.MkAbs(args[0]), name)); err == nil {
			secrets = append(secrets, string(content), base64.StdEncoding.EncodeToString(content))
			secrets = append(secrets, strings.Split(string(content), "\n")...)
		}
	}
	for _, secret := range secrets {
		if len(secret) > 4 && !strings.HasPrefix(secret, "-----") && strings.Contains(shown, secret) {
			ts.Fatalf("a secret of %d characters is shown", len(secret))
		}
	}
	if shown == "" {
		ts.Fatalf("nothing was printed: there is nothing to look at")
	}
}

// terminate sends SIGTERM, as the kubelet does, to what runs in the background.
func terminate(ts *testscript.TestScript, neg bool, args []string) {
	for _, command := range ts.BackgroundCmds() {
		ts.Check(command.Process.Signal(syscall.SIGTERM))
	}
}
