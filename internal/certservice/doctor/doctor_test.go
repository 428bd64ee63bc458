package doctor_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/certservice"
	"github.com/certfetcher/certfetcher/internal/certservice/doctor"
	"github.com/certfetcher/certfetcher/internal/checks"
	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/internal/devca"
	"github.com/certfetcher/certfetcher/internal/mtls"
	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/internal/program"
	"github.com/certfetcher/certfetcher/internal/token"
	"github.com/certfetcher/certfetcher/test/ejbca"
	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/golden"
	"github.com/certfetcher/certfetcher/test/resolver"
)

const (
	iak = "very-secret-iak"
	rv  = "very-secret-rv"
)

// deployment is one that works, until commands change it.
type deployment struct {
	doctor.Options
	t       *testing.T
	dir     string
	tls     *fixture.CA // of the service and of CMP servers
	show    string      // the checks, with commas, that a golden text has even where they are ok
	entries []map[string]any
	ahead   time.Duration // the clock of the CA
	stop    func()
}

func newDeployment(t *testing.T) *deployment {
	d := &deployment{t: t, dir: t.TempDir(), tls: fixture.Must(fixture.NewCA("TLS"))}
	require.NoError(t, d.tls.WriteIdentity(d.dir, "certservice", "oom-cert-service"))
	d.write("policy.yaml", []byte(fixture.PolicyText("> …\n")))
	d.Options = doctor.Options{
		Files: mtls.Files{KeystorePath: d.dir + "/client.jks", KeystorePassword: fixture.Password, Server: true,
			TruststorePath: d.dir + "/truststore.jks", TruststorePassword: fixture.Password},
		Credentials: certservice.CertificateCredential, ResponseTrust: certservice.TrustAnchored,
		ServersPath: d.dir + "/cmpServers.json", PolicyPath: d.dir + "/policy.yaml",
		NetworkTimeout: 30 * time.Second, Dialer: &net.Dialer{Resolver: resolver.New(t, nil)},
	}
	return d
}

func (d *deployment) write(name string, data []byte) string {
	path := filepath.Join(d.dir, name)
	require.NoError(d.t, os.WriteFile(path, data, 0o600))
	return path
}

// TestRun_deployments reads golden files: each text has the commands that make a deployment, and what is found in it.
func TestRun_deployments(t *testing.T) {
	golden.Play(t, "deployments/*.txt", func(t *testing.T, _, commands string) string {
		d := newDeployment(t)
		for line := range strings.Lines(commands) {
			verb, rest, _ := strings.Cut(strings.TrimSpace(line[2:]), " ")
			d.follow(verb, strings.ReplaceAll(rest, "{dir}", d.dir))
		}
		d.writeServers()
		report := doctor.Run(t.Context(), d.Options)
		var text strings.Builder
		require.NoError(t, report.WriteJSON(&text))
		for _, secret := range []string{fixture.Password, iak, rv, "very-secret"} {
			assert.NotContains(t, text.String(), secret)
		}
		for _, c := range report.Checks {
			assert.NotEmpty(t, c.Found, c.Name)
			assert.NotEmpty(t, c.Expected, c.Name)
			assert.Equal(t, c.Status == checks.Failed || c.Status == checks.Warning, c.Advice != "", c.Name)
			assert.Equal(t, c.Status == checks.Failed, c.ExitCode == 1, c.Name)
		}
		return commands + d.summary(report)
	})
}

func (d *deployment) writeServers() {
	if d.entries == nil {
		return
	}
	file := fixture.Must(json.Marshal(map[string]any{"cmpv2Servers": d.entries}))
	d.write("cmpServers.json", file)
}

// entry adds a CA, which has the secret.
func (d *deployment) entry(url string, issuer *x509.Certificate) {
	name := "RA"
	if n := len(d.entries); n > 0 {
		name += strconv.Itoa(n + 1)
	}
	d.entries = append(d.entries, map[string]any{"caName": name, "url": url, "issuerDN": pki.DN(issuer.RawSubject),
		"authentication": map[string]any{"iak": iak, "rv": rv}})
}

// last is the entry that commands change.
func (d *deployment) last() map[string]any { return d.entries[len(d.entries)-1] }

// serve serves a CA, and fails the test where it is asked for more than information.
func (d *deployment) serve(ca http.Handler, config *tls.Config) (base string) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.Method == http.MethodPost {
			message, err := cmp.ParsePKIMessage(body)
			if assert.NoError(d.t, err) {
				assert.Equal(d.t, "genm", message.Body.Type.String(), "the doctor asks for a certificate")
			}
		} else {
			assert.Empty(d.t, body)
			assert.Contains(d.t, r.UserAgent(), "(doctor)")
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		ca.ServeHTTP(w, r)
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	d.stop = server.Close
	d.t.Cleanup(server.Close)
	if config == nil {
		server.Start()
	} else {
		server.TLS = config
		server.StartTLS()
	}
	return server.URL
}

// follow does what one command says.
func (d *deployment) follow(verb, rest string) {
	d.t.Helper()
	first, second, _ := strings.Cut(rest, " ")
	switch verb {
	case "show":
		d.show = rest
	case "set":
		fixture.SetPart(fixture.Part(&d.Options, first), second)
	case "fault":
		d.Faults = append(d.Faults, program.Fault{Variable: first, Problem: second})
	case "warning":
		d.Warnings = append(d.Warnings, program.Fault{Variable: first, Problem: second})
	case "devca": // with these faults, if any, protected by a signature or a MAC
		d.devCA(first, second, nil)
	case "devca-https": // with a certificate of this kind; a client may have to show one
		d.devCA("mac", "", d.serverTLS(rest))
	case "ejbca":
		ca := fixture.Must(ejbca.New(ejbca.Config{Secret: iak, PBE: rest == "pbe"}))
		d.entry(d.serve(ca, nil)+"/ejbca/publicweb/cmp/cmpRA", ca.Issuing())
		d.last()["trustAnchors"] = d.write("ejbca.pem", fixture.CertificatesPEM(ca.Root()))
	case "openssl":
		d.openssl(strings.Fields(rest)...)
	case "page": // answers everything, with a status
		status, text := fixture.Must(strconv.Atoi(first)), second
		d.entry(d.serve(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, "<html><body>"+text+"</body></html>")
		}), nil), d.tls.Issuing)
	case "silent":
		d.entry(d.serve(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
		}), nil), d.tls.Issuing)
	case "stopped":
		d.stop()
	case "clock": // of the next CA is ahead by
		d.ahead = fixture.Must(time.ParseDuration(rest))
	case "named": // as the server is, by a name server that may know it
		d.last()["url"] = strings.Replace(d.last()["url"].(string), "127.0.0.1", first, 1)
		d.Dialer = &net.Dialer{Resolver: resolver.New(d.t, map[string][]string{second: {"127.0.0.1"}})}
	case "encrypted": // as the entry has it
		d.last()["url"] = strings.Replace(d.last()["url"].(string), "http:", "https:", 1)
		d.last()["tlsTrust"] = d.dir + "/truststore.pem"
	case "entry": // has in a field
		var value any
		require.NoError(d.t, json.Unmarshal([]byte(second), &value))
		d.last()[first] = value
	case "signs": // with a certificate of this kind
		d.last()["authentication"] = d.pair("signer", rest)
	case "shows":
		d.last()["tlsIdentity"] = d.pair("identity", rest)
	case "anchors": // of the last CA: of the file's name, or of another CA
		other := fixture.Must(fixture.NewCA("Other"))
		if rest == "expired" {
			fixture.Changes[rest](other.Root)
			der := fixture.Must(x509.CreateCertificate(nil, other.Root, other.Root, other.RootKey.Public(),
				other.RootKey))
			other.Root = fixture.Must(x509.ParseCertificate(der))
		}
		d.last()["trustAnchors"] = d.write("other.pem", fixture.CertificatesPEM(other.Root))
	case "identity": // is another, of this kind
		d.tls.Change = fixture.Changes[rest]
		require.NotNil(d.t, d.tls.Change, rest)
		require.NoError(d.t, d.tls.WriteIdentity(d.dir, "certservice", "oom-cert-service"))
		d.tls.Change = nil
	case "file":
		d.write(first, []byte(fixture.Must(strconv.Unquote(`"`+second+`"`))))
	case "large": // by one byte too large
		d.write(first, bytes.Repeat([]byte("#"), certservice.MaxConfigBytes+1))
	case "issuer": // of tokens, whose keys are in a file, or which serves them
		issuer := fixture.NewIssuer("https://issuer.test", "ES256")
		d.Credentials = certservice.TokenCredential
		d.Tokens = token.Settings{Audience: "certservice"}
		if rest == "serves" {
			issuer.Serve(d.t, d.tls)
			d.Tokens.IssuerCA = d.dir + "/truststore.pem"
			d.write("own", []byte("own-token"))
			d.Tokens.OwnTokenPath = d.dir + "/own"
		} else {
			issuer.WriteJWKS(d.dir + "/jwks.json")
			d.Tokens.JWKSPath = d.dir + "/jwks.json"
		}
		d.Tokens.Issuer = issuer.URL
	case "crl": // that was valid so long ago, and is for so long from then
		begin := time.Now().Add(-fixture.Must(time.ParseDuration(first)))
		d.crl(begin, begin.Add(fixture.Must(time.ParseDuration(second))))
	case "listen": // at the port or the address of a variable, as "the service" or another
		d.listen(first, second)
	case "env":
		d.t.Setenv(first, second)
	default:
		d.t.Fatalf("unknown command %q", verb)
	}
}

func (d *deployment) devCA(protection, faults string, config *tls.Config) {
	parsed, err := devca.ParseFaults(faults)
	require.NoError(d.t, err)
	ca := fixture.Must(devca.New(devca.Config{Reference: rv, Secret: []byte(iak), Faults: parsed,
		ResponseProtection: devca.ResponseProtection(protection),
		Now:                func() time.Time { return time.Now().Add(d.ahead) }}))
	d.t.Cleanup(func() { assert.Zero(d.t, ca.Stats().Issued) })
	d.entry(d.serve(ca, config), ca.Issuing())
	d.last()["trustAnchors"] = d.write(fmt.Sprintf("root%d.pem", len(d.entries)), ca.RootPEM())
	if config != nil {
		d.last()["tlsTrust"] = d.write("tls.pem", fixture.CertificatesPEM(d.tls.Root))
	}
}

// serverTLS is that of a server with a certificate of this kind, which may ask for one of its clients.
func (d *deployment) serverTLS(words string) *tls.Config {
	kind, mutual := strings.CutSuffix(words, " mutual")
	d.tls.Change = fixture.Changes[kind]
	require.NotNil(d.t, d.tls.Change, words)
	key, chain, err := d.tls.Identity("cmp")
	require.NoError(d.t, err)
	d.tls.Change = nil
	config := &tls.Config{Certificates: []tls.Certificate{{PrivateKey: key}}}
	for _, c := range chain {
		config.Certificates[0].Certificate = append(config.Certificates[0].Certificate, c.Raw)
	}
	if mutual {
		config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		config.ClientCAs.AddCert(d.tls.Root)
	}
	return config
}

// pair writes a certificate of a kind and its key, and returns the fields that name them.
func (d *deployment) pair(name, kind string) map[string]any {
	d.tls.Change = fixture.Changes[kind]
	require.NotNil(d.t, d.tls.Change, kind)
	dir := filepath.Join(d.dir, name)
	require.NoError(d.t, d.tls.WriteIdentity(dir, name))
	d.tls.Change = nil
	return map[string]any{"certificate": dir + "/client-certificate.pem", "key": dir + "/client-key.pem"}
}

// openssl runs openssl cmp as the server, with more options.
func (d *deployment) openssl(options ...string) {
	program := fixture.RequirePrograms(d.t, "openssl")[0]
	issuing := d.write("issuing.pem", fixture.CertificatesPEM(d.tls.Issuing))
	_, port, err := net.SplitHostPort(fixture.FreeAddress(d.t))
	require.NoError(d.t, err)
	server := exec.Command(program, append([]string{"cmp", "-config", "", "-batch", "-port", port, "-rsp_cert", issuing,
		"-srv_ref", rv, "-srv_secret", "pass:" + iak}, options...)...)
	require.NoError(d.t, server.Start())
	d.t.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	})
	require.Eventually(d.t, func() bool {
		conn, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			conn.Close()
		}
		return err == nil
	}, 30*time.Second, 10*time.Millisecond)
	d.entry("http://127.0.0.1:"+port+"/pkix/", d.tls.Issuing)
}

func (d *deployment) crl(begin, end time.Time) {
	der := fixture.Must(x509.CreateRevocationList(nil, &x509.RevocationList{
		Number: big.NewInt(1), ThisUpdate: begin, NextUpdate: end}, d.tls.Issuing, d.tls.IssuingKey))
	d.CRLs.Paths = d.write("issuing.crl", der)
}

func (d *deployment) listen(variable, who string) {
	config := d.serverTLS("as usual")
	if who == "the service" {
		identity := fixture.Must(mtls.Load(d.Files))
		config.Certificates = []tls.Certificate{identity.Certificate}
	}
	var listener net.Listener
	if variable == "HTTPS_PORT" {
		listener = fixture.Must(tls.Listen("tcp", "127.0.0.1:0", config))
		d.HTTPSPort = listener.Addr().(*net.TCPAddr).Port
	} else {
		listener = fixture.Must(net.Listen("tcp", "127.0.0.1:0"))
		d.MetricsAddress = listener.Addr().String()
	}
	server := &http.Server{ErrorLog: log.New(io.Discard, "", 0),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if who == "the service" {
				_, _ = io.WriteString(w, "\ncertservice_build_info{} 1\n")
			}
		})}
	go func() { _ = server.Serve(listener) }()
	d.t.Cleanup(func() { server.Close() })
}

// varying is what differs from run to run and from machine to machine in a report.
var varying = []struct {
	pattern *regexp.Regexp
	text    string
}{
	{regexp.MustCompile(`(127\.0\.0\.1|localhost|ca\.test):\d+\b`), "$1:PORT"},
	{regexp.MustCompile(`:\d{4,5} (is|cannot)`), ":PORT $1"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT[\d:]+Z`), "TIME"},
	{regexp.MustCompile(`\([0-9.]+(s|ms|µs)\)`), "(TOOK)"},
	{regexp.MustCompile(`, for [\dhm]+0s|, for \d+ days`), ", for LONG"},
	{regexp.MustCompile(`kid "[^"]*"|"[\w-]{43}"`), "KID"},
	{regexp.MustCompile(`\d+ may be open, which suffices for \d+`), "N may be open, which suffices for N"},
	{regexp.MustCompile(` on [\d.]+:53`), ""},
	{regexp.MustCompile(`\b[0-9a-f]{32}\b`), "NONCE"},
	{regexp.MustCompile(`[\dhm]+s (from the time here)`), "LONG $1"},
	{regexp.MustCompile(`\d+[\dhm]*m\d+s (ahead of|behind)`), "LONG $1"},
	{regexp.MustCompile(`(in step with|: \ds (ahead of|behind)) the`), "NEARLY in step with the"},
}

// summary is the checks that are not ok and those to show, without the ones that depend on the machine.
func (d *deployment) summary(report checks.Report) string {
	lines := []string{fmt.Sprintf("exit code %d", report.ExitCode())}
	because := ""
	for _, c := range report.Checks {
		name := c.Name
		if c.CA != "" {
			name = c.CA + " " + name
		}
		shown := slices.Contains(strings.Split(d.show, ","), c.Name)
		machine := slices.Contains([]string{"memory", "open files"}, c.Name)
		switch {
		case !shown && (c.Status == checks.OK || machine):
		case c.Status == checks.Skipped && c.Found == because:
			lines[len(lines)-1] += ", " + name
		case c.Status == checks.Skipped:
			because = c.Found
			lines = append(lines, "skipped ("+c.Found+"): "+name)
		default:
			because = ""
			lines = append(lines, string(c.Status)+": "+name+": "+c.Found)
			if c.Advice != "" {
				lines = append(lines, "  -> "+c.Advice)
			}
		}
	}
	all := strings.ReplaceAll(strings.Join(lines, "\n"), d.dir, "{dir}")
	for _, v := range varying {
		all = v.pattern.ReplaceAllString(all, v.text)
	}
	return all
}
