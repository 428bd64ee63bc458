package main

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/checks"
	"github.com/certfetcher/certfetcher/internal/keystore"
	"github.com/certfetcher/certfetcher/internal/policy"
	"github.com/certfetcher/certfetcher/internal/program"
	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/golden"
)

// TestMain lets the test binary be the program, for the tests that need a process of its own.
func TestMain(m *testing.M) {
	if os.Getenv("CERTSERVICE_TEST_MAIN") == "true" {
		main()
		return
	}
	os.Exit(m.Run())
}

// script is the environment of the program, with stores as the ONAP charts write them, and commands on it.
type script struct {
	t    *testing.T
	dir  string
	ca   *fixture.CA
	env  map[string]string
	kept *http.Client
	*process
}

func newScript(t *testing.T) *script {
	s := &script{t: t, dir: t.TempDir()}
	s.env = map[string]string{"KEYSTORE_PATH": s.dir + "/keystore.jks", "TRUSTSTORE_PATH": s.dir + "/truststore.jks",
		"CMP_SERVERS_PATH": s.dir + "/cmpServers.json"}
	s.ca = fixture.Must(fixture.NewCA("TLS"))
	s.writeStores("secret")
	s.run("servers", "$ENTRY")
	return s
}

// write replaces a file as one does who does not want half of it to be read.
func (s *script) write(name string, data []byte) {
	next := filepath.Join(s.t.TempDir(), "next")
	require.NoError(s.t, os.WriteFile(next, data, 0o600))
	require.NoError(s.t, os.Rename(next, filepath.Join(s.dir, name)))
}

func (s *script) writeStores(password string) {
	key, chain, err := s.ca.Identity("certservice")
	require.NoError(s.t, err)
	for name, entry := range map[string]keystore.Entry{
		"keystore.jks":   {Alias: "oom-cert-service", Key: key, Chain: chain},
		"truststore.jks": {Alias: "root", Chain: []*x509.Certificate{s.ca.Root}, Trusted: true},
	} {
		s.write(name, fixture.Must(keystore.EncodeJKS([]keystore.Entry{entry}, password, time.Now())))
	}
}

var varies = regexp.MustCompile(
	`"time":"[^"]*",|20[0-9-]+T[0-9:]+Z|/[^" ]*/Test[^"\\ ]*|127\.0\.0\.1:\d+|"[\w-]{43}"|\b[1-9]\d{9}\b|` +
		`serial [0-9A-F]+|TLS (Root|Issuing) CA`)

// Below each command of testdata/certservice.txt is what comes of it. The method run says what the commands do.
func TestCertservice_asTheScriptsSay(t *testing.T) {
	golden.Play(t, "certservice.txt", func(t *testing.T, _, commands string) (text string) {
		s := newScript(t)
		for line := range strings.Lines(commands) {
			command, rest, _ := strings.Cut(strings.TrimSpace(line[2:]), " ")
			text += line + varies.ReplaceAllString(s.run(command, rest), "…")
		}
		assert.NotContains(t, text, "very-secret")
		return text
	})
}

const entry = `{"caName": "RA", "url": "http://127.0.0.1:1/cmp", "issuerDN": "CN=ManagementCA",
	"authentication": {"iak": "very-secret-iak", "rv": "rv"}}`

func (s *script) run(command, rest string) string {
	rest = strings.ReplaceAll(rest, "DIR", s.dir)
	switch command {
	case "servers": // the list of cmpServers.json; $ENTRY is a good entry
		list := strings.ReplaceAll(rest, "$ENTRY", entry)
		list = strings.ReplaceAll(list, `}} with "`, `}, "`)
		s.write("cmpServers.json", []byte(`{"cmpv2Servers": [`+list+`]}`))
	case "set": // variables
		for variable := range strings.FieldsSeq(rest) {
			name, value, _ := strings.Cut(variable, "=")
			s.env[name] = value
		}
	case "write": // a file; \n and \r are ends of lines
		name, text, _ := strings.Cut(rest, " ")
		s.write(name, []byte(strings.NewReplacer(`\n`, "\n", `\r`, "\r").Replace(text)))
	case "certificates": // in a file: the root of the TLS CA, a damaged copy of it, and others of test/testdata
		name, which, _ := strings.Cut(rest, " ")
		s.write(name, s.certificates(strings.Fields(which)))
	case "jwks": // of an issuer whose token for payments/api is in DIR/token
		issuer := fixture.NewIssuer("https://cluster.example.org")
		issuer.WriteJWKS(filepath.Join(s.dir, "jwks.json"))
		issuer.WriteToken(filepath.Join(s.dir, "token"), "payments", "api", "certservice")
	case "client": // whose certificate is in DIR/client.pem
		_, chain, err := s.ca.Identity("client")
		require.NoError(s.t, err)
		s.write("client.pem", fixture.CertificatesPEM(chain...))
	case "request": // for host names, in DIR/request.pem
		s.write("request.pem", request(strings.Fields(rest)))
	case "crls": // in a file: those of the TLS CA; the root's lists the issuing CA where that is wanted
		name, which, _ := strings.Cut(rest, " ")
		s.write(name, s.crls(which == "revoked"))
	case "another": // CA for TLS, with a password for the stores
		s.ca = fixture.Must(fixture.NewCA("TLS"))
		s.writeStores(rest)
	case "expired": // identity
		s.ca.Validity = time.Nanosecond
		s.writeStores("secret")
	case "remove":
		require.NoError(s.t, os.Remove(filepath.Join(s.dir, rest)))
	case "taken": // the port of a variable is
		taken := fixture.Must(net.Listen("tcp", ":0"))
		s.t.Cleanup(func() { taken.Close() })
		_, number, _ := net.SplitHostPort(taken.Addr().String())
		s.env[rest] = strings.Replace(s.env[rest], "TAKEN", number, 1)
		return strings.ReplaceAll(s.certservice(), number, "TAKEN")
	case "certservice":
		return s.certservice(strings.Fields(rest)...)
	case "doctor": // says of these checks, beside the service where that runs
		if s.process != nil {
			s.env["METRICS_ADDR"] = strings.TrimPrefix(s.url, "http://")
			_, s.env["HTTPS_PORT"], _ = net.SplitHostPort(strings.TrimPrefix(s.https, "https://"))
		}
		return s.doctor(strings.Split(rest, ", "))
	case "start":
		s.process = start(s.t, s.env)
	case "log": // has the message, with what comes with it
		message, trigger, _ := strings.Cut(rest, " by ")
		line := s.await(message, trigger)
		return fmt.Sprintln(line["level"], line["error"])
	case "get":
		who, address, _ := strings.Cut(rest, " ")
		return s.get(who, address)
	case "handshake":
		return fmt.Sprintln(s.handshake())
	case "hangup":
		require.NoError(s.t, s.cmd.Process.Signal(syscall.SIGHUP))
	case "terminate":
		return fmt.Sprintln("ended:", s.terminate())
	default:
		s.t.Fatalf("the command %q is not known", command)
	}
	return ""
}

func request(hosts []string) []byte {
	der := fixture.Must(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: hosts},
		fixture.NewKey("P-256")))
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

func (s *script) certificates(names []string) (all []byte) {
	for _, name := range names {
		switch name {
		case "root":
			all = append(all, fixture.CertificatesPEM(s.ca.Root)...)
		case "damaged":
			bad := &x509.Certificate{Raw: fixture.NegativeSerial(s.ca.Root)}
			all = append(all, fixture.CertificatesPEM(bad)...)
		default:
			all = append(all, fixture.Must(os.ReadFile("../../test/testdata/certificates/"+name+".pem"))...)
		}
	}
	return all
}

func (s *script) crls(revoked bool) (all []byte) {
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Hour),
		NextUpdate: time.Now().AddDate(0, 1, 0)}
	add := func(issuer *x509.Certificate, key crypto.Signer) {
		der := fixture.Must(x509.CreateRevocationList(rand.Reader, list, issuer, key))
		all = append(all, pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})...)
	}
	add(s.ca.Issuing, s.ca.IssuingKey)
	if revoked {
		list.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: s.ca.Issuing.SerialNumber,
			RevocationTime: list.ThisUpdate}}
	}
	add(s.ca.Root, s.ca.RootKey)
	return all
}

// certservice runs the program here, with nothing but the environment set of what it reads.
func (s *script) certservice(args ...string) string {
	for _, v := range variables {
		s.t.Setenv(v.Name, "")
		s.t.Setenv(v.Name+"_FILE", "")
	}
	for name, value := range s.env {
		s.t.Setenv(name, value)
	}
	// Goroutines may go on for a moment after run has returned, where a process ends.
	var stdout, stderr fixture.Buffer
	code := run(context.Background(), func() bool { return true }, args, &stdout, &stderr)
	lines := strings.SplitAfter(stderr.String(), "\n")
	slices.Sort(lines)
	text := fmt.Sprintln("exit code", code)
	if stdout.String() != "" {
		text += "standard output: " + stdout.String()
	}
	return text + strings.Join(lines, "")
}

// doctor returns what the doctor says of some checks, and its exit code.
func (s *script) doctor(names []string) string {
	output := s.certservice("doctor", "-o", "json")
	code, document, _ := strings.Cut(output, "standard output: ")
	var report struct{ Checks []checks.Check }
	require.NoError(s.t, json.Unmarshal([]byte(document), &report), output)
	for _, c := range report.Checks {
		if slices.Contains(names, c.Name) {
			code += fmt.Sprintf("%s: %s %s: %s\n", c.Status, c.CA, c.Name, c.Found)
		}
	}
	if s.process != nil {
		code = strings.ReplaceAll(code, s.env["HTTPS_PORT"], "PORT")
	}
	return code
}

func TestRun_policySchema_isTheSchema(t *testing.T) {
	printed := newScript(t).certservice("policy", "schema")
	assert.Equal(t, "exit code 0\nstandard output: "+string(policy.Schema()), printed)
}

func TestRun_help_hasEveryVariable(t *testing.T) {
	help := newScript(t).certservice("--help")
	for _, v := range variables {
		assert.NotEmpty(t, v.Rule, v.Name)
		assert.Contains(t, help, "\n  "+v.Name+" (")
		assert.Contains(t, strings.Join(strings.Fields(help), " "), v.Help)
		assert.Contains(t, help, v.Default)
	}
	assert.Contains(t, newScript(t).certservice("--version"), "output: certservice "+program.Version()+"\n")
}
