package certservice

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptrace"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/files"
	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/test/fixture"
	"github.com/certfetcher/certfetcher/test/golden"
)

// crlScript is a service with CRLs, and clients that keep their connections.
type crlScript struct {
	*service
	dir         string
	ca          map[string]*fixture.CA
	clients     map[string]*http.Client
	leaves      map[string]*x509.Certificate
	revocations *Revocations
	clock       time.Duration
	number      int64 // of the last CRL
	shown       int   // lines of the log
}

const distributionPoint = "http://crl.example/1.crl"

func newCRLScript(t testing.TB, paths string, warnOnly bool) *crlScript {
	s := &crlScript{dir: t.TempDir(), clients: map[string]*http.Client{}, leaves: map[string]*x509.Certificate{},
		ca: map[string]*fixture.CA{"issuing": newCA(t, "Client")}}
	issuing := s.ca["issuing"]
	issuing.Validity = 365 * 24 * time.Hour
	// Another authority of the same name, and one that may not sign CRLs.
	s.ca["namesake"] = newCA(t, "Client")
	s.ca["root"] = &fixture.CA{Issuing: issuing.Root, IssuingKey: issuing.RootKey}
	silent := &fixture.CA{Root: issuing.Root, IssuingKey: newKey(t), Validity: issuing.Validity}
	silent.Issuing = must(x509.ParseCertificate(must(x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "Silent CA"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().AddDate(10, 0, 0), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign,
	}, issuing.Root, silent.IssuingKey.Public(), issuing.RootKey))))
	s.ca["silent"] = silent

	var fill []string
	for path := range strings.SplitSeq(paths, ":") {
		fill = append(fill, filepath.Join(s.dir, path))
	}
	s.service = newService(t, goldenAuthority(t), func(cfg *HandlerConfig) {
		s.revocations = NewRevocations(RevocationsConfig{Paths: strings.Join(fill, ":"), WarnOnly: warnOnly,
			Metrics: cfg.Metrics, Log: cfg.Log})
		roots := poolOf(issuing.Root)
		cfg.Revocations, cfg.ClientRoots = s.revocations, func() *x509.CertPool { return roots }
	})
	s.handler.now = func() time.Time { return time.Now().Add(s.clock) }
	s.revocations.now = s.handler.now
	for _, name := range []string{"alice", "bob"} {
		s.addClient(name, issuing)
	}
	issuing.Change = func(leaf *x509.Certificate) { leaf.CRLDistributionPoints = []string{distributionPoint} }
	s.addClient("dora", issuing)
	issuing.Change = nil
	s.addClient("sam", silent)
	s.leaves["issuing"] = issuing.Issuing
	return s
}

func (s *crlScript) addClient(name string, ca *fixture.CA) {
	certificate := identity(s.t, ca)
	s.leaves[name], s.clients[name] = certificate.Leaf, s.clientWith(certificate)
}

var (
	crlSentence = regexp.MustCompile(`^an? ((?:[\w-]+ )*?)CRL of the (\w+) CA(?: for (\S+))?(?: that lists (.+))?$`)
	crlVaries   = regexp.MustCompile(`/\S*/Test\w[^ "\\]*?/(?:00\d/)?|20[0-9-]+T[0-9:]+Z|serial [0-9A-F]{20,}`)
)

// crl makes a CRL as a sentence says; its DER and PEM.
func (s *crlScript) crl(sentence string) []byte {
	words := crlSentence.FindStringSubmatch(sentence)
	require.NotNil(s.t, words, "%q is no sentence about a CRL", sentence)
	s.number++
	list := &x509.RevocationList{Number: big.NewInt(s.number),
		ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(72 * time.Hour)}
	form := func(der []byte) []byte { return pemOf(labelCRL, der) }
	extension := func(id asn1.ObjectIdentifier, value ...byte) {
		list.ExtraExtensions = append(list.ExtraExtensions, pkix.Extension{Id: id, Critical: true, Value: value})
	}
	distribution := asn1.ObjectIdentifier{2, 5, 29, 28}
	for word := range strings.FieldsSeq(words[1]) {
		switch word {
		case "DER":
			form = func(der []byte) []byte { return der }
		case "expired":
			list.NextUpdate = time.Now().Add(-time.Minute)
		case "future":
			list.ThisUpdate = time.Now().Add(time.Hour)
		case "skewed":
			list.ThisUpdate = time.Now().Add(time.Minute)
		case "older":
			list.ThisUpdate, list.Number = time.Now().Add(-2*time.Hour), big.NewInt(s.number+1000)
		case "delta":
			extension(asn1.ObjectIdentifier{2, 5, 29, 27}, 2, 1, 1)
		case "strange":
			extension(asn1.ObjectIdentifier{1, 2, 3, 4}, 5, 0)
		case "users":
			extension(distribution, 0x30, 3, 0x81, 1, 0xff)
		case "authorities":
			extension(distribution, 0x30, 3, 0x82, 1, 0xff)
		case "some-reasons":
			extension(distribution, 0x30, 4, 0x83, 2, 6, 0x40)
		case "indirect":
			extension(distribution, 0x30, 3, 0x84, 1, 0xff)
		case "attribute":
			extension(distribution, 0x30, 3, 0x85, 1, 0xff)
		default:
			s.t.Fatalf("no CRL is %q", word)
		}
	}
	if uri := words[3]; uri != "" {
		name := must(asn1.MarshalWithParams([]byte(uri), "tag:6"))
		wrap := func(tag byte, der []byte) []byte { return append([]byte{tag, byte(len(der))}, der...) }
		extension(distribution, wrap(0x30, wrap(0xa0, wrap(0xa0, name)))...)
	}
	for entry := range strings.SplitSeq(words[4], ", ") {
		who, reason, _ := strings.Cut(entry, " for ")
		if who == "" {
			continue
		}
		code := map[string]int{"": 0, "keyCompromise": 1, "certificateHold": 6}[reason]
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{
			SerialNumber: s.leaves[who].SerialNumber, RevocationTime: time.Now().Add(-time.Hour), ReasonCode: code})
	}
	ca := s.ca[words[2]]
	issuer := *ca.Issuing
	issuer.KeyUsage |= x509.KeyUsageCRLSign // what the silent one signs all the same
	return form(must(x509.CreateRevocationList(rand.Reader, list, &issuer, ca.IssuingKey)))
}

// Each section is a script: lines "> " are commands, and the others what comes of them.
func TestRevocations_asTheScriptsSay(t *testing.T) {
	golden.Play(t, "revocation.txt", func(t *testing.T, title, commands string) (text string) {
		t.Parallel()
		paths, warnOnly := "crl.pem", strings.HasPrefix(title, "with a warning only, ")
		if _, rest, found := strings.Cut(commands, "> CLIENT_CRL_PATH is "); found {
			paths, _, _ = strings.Cut(rest, "\n")
		}
		s := newCRLScript(t, paths, warnOnly)
		for line := range strings.Lines(commands) {
			text += line + s.run(strings.TrimSpace(line[2:])) + s.logged()
		}
		return crlVaries.ReplaceAllString(text, "…")
	})
}

func (s *crlScript) run(command string) string {
	subject, rest, _ := strings.Cut(command, " ")
	verb, object, _ := strings.Cut(rest, " ")
	path := filepath.Join(s.dir, subject)
	switch verb {
	case "is": // CLIENT_CRL_PATH
	case "holds":
		var content []byte
		for sentence := range strings.SplitSeq(object, " and ") {
			switch {
			case sentence == "text":
				content = append(content, "hello\n"...)
			case sentence == "a certificate":
				content = append(content, pemOf("CERTIFICATE", s.leaves["alice"].Raw)...)
			case strings.HasPrefix(sentence, "half of "):
				crl := s.crl(strings.TrimPrefix(sentence, "half of "))
				content = append(content, crl[:len(crl)/2]...)
			default:
				content = append(content, s.crl(sentence)...)
			}
		}
		require.NoError(s.t, os.MkdirAll(filepath.Dir(path), 0o700))
		writeFile(s.t, path, content)
	case "vanishes":
		require.NoError(s.t, os.RemoveAll(path))
	case "files": // all files are read
		_ = s.revocations.Reload("test")
	case "pass":
		s.clock += must(time.ParseDuration(subject))
		s.revocations.set().warnOfEnds(s.revocations.now())
	case "asks":
		return s.ask(subject)
	case "metrics":
		return s.series()
	default:
		s.t.Fatalf("the command %q is not known", command)
	}
	return ""
}

// ask is a request on the connection that the client has kept, if there is one.
func (s *crlScript) ask(name string) string {
	kept := "a new"
	r := must(http.NewRequest(http.MethodGet, s.url+"/ready", nil))
	trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		if info.Reused {
			kept = "the same"
		}
	}}
	answer := must(s.clients[name].Do(r.WithContext(httptrace.WithClientTrace(r.Context(), trace))))
	s.asked++
	defer answer.Body.Close()
	text := withoutID(s.t, answer, must(io.ReadAll(answer.Body)))
	line := s.audit()
	if answer.StatusCode == http.StatusUnauthorized {
		assert.JSONEq(s.t, jsonText(s.t, errorBody{ErrorMessage: messageUnauthorized}), text)
		return fmt.Sprintf("401 on %s connection, audit: %s\n", kept, line["error"])
	}
	return fmt.Sprintf("%d on %s connection\n", answer.StatusCode, kept)
}

func (s *crlScript) logged() (text string) {
	lines := s.log.lines(s.t)
	for _, line := range lines[s.shown:] {
		if line["msg"] == "request" {
			continue
		}
		text += fmt.Sprint(line["level"], " ", line["msg"])
		for _, key := range []string{"issuer", "path", "files", "crls", "revoked", "error"} {
			if line[key] != nil {
				text += fmt.Sprintf(" %s=%v", key, line[key])
			}
		}
		text += "\n"
	}
	s.shown = len(lines)
	return text
}

// series are those of the CRLs, with their ends in hours from now.
func (s *crlScript) series() (text string) {
	for line := range strings.Lines(written(s.metrics)) {
		if !strings.HasPrefix(line, "certservice_client_crl_") {
			continue
		}
		at := strings.LastIndex(line, " ") + 1
		if value := 0.0; strings.Contains(line, "next_update") {
			_, err := fmt.Sscan(line[at:], &value)
			require.NoError(s.t, err)
			line = fmt.Sprintf("%sin %.0f h\n", line[:at], time.Until(time.Unix(int64(value), 0)).Hours())
		}
		text += line
	}
	return text
}

const revokedAt = "audit: client certificate is not trusted: revoked at "

// The files of a Kubernetes volume are links, which are swapped while clients keep their connections.
func TestRevocations_watch_noticesASwappedVolumeAndEndsKeptConnections(t *testing.T) {
	s := newCRLScript(t, "volume", false)
	volume := filepath.Join(s.dir, "volume")
	publish := func(version, sentence string) {
		require.NoError(t, os.MkdirAll(filepath.Join(volume, version), 0o700))
		writeFile(t, filepath.Join(volume, version, "crl.pem"),
			append(s.crl(sentence), s.crl("a CRL of the root CA")...))
		require.NoError(t, os.Symlink(version, filepath.Join(volume, "..next")))
		require.NoError(t, os.Rename(filepath.Join(volume, "..next"), filepath.Join(volume, "..data")))
	}
	require.NoError(t, os.Mkdir(volume, 0o700))
	_ = s.revocations.Reload("start")
	go s.revocations.Watch(t.Context(), files.NewWatcher(t.Context(), slog.Default()))
	assert.Contains(t, s.ask("alice"), "there is no CRL of ")
	publish("..1", "a CRL of the issuing CA")
	require.NoError(t, os.Symlink("..data/crl.pem", filepath.Join(volume, "crl.pem")))
	loaded := func(crls, revoked float64) {
		t.Helper()
		eventually(t, func() bool {
			lines := s.lines("CRLs loaded")
			return len(lines) > 0 && lines[len(lines)-1]["crls"] == crls && lines[len(lines)-1]["revoked"] == revoked
		})
	}
	loaded(2, 0)
	require.Equal(t, "200 on a new connection\n", s.ask("alice"))

	publish("..2", "a CRL of the issuing CA that lists alice")
	loaded(2, 1)
	assert.Contains(t, s.ask("alice"), "401 on the same connection, "+revokedAt)
	assert.Equal(t, "200 on a new connection\n", s.ask("bob"))

	publish("..3", "an expired CRL of the issuing CA")
	eventually(t, func() bool { return len(s.lines("a CRL has expired")) == 1 })
	assert.Contains(t, s.ask("bob"), "401 on the same connection")
	writeFile(t, filepath.Join(volume, "another.crl"), s.crl("a DER CRL of the issuing CA"))
	loaded(3, 0)
	assert.Equal(t, "200 on a new connection\n", s.ask("alice"))
	writeFile(t, filepath.Join(volume, "..3", "crl.pem"), append(s.crl("a CRL of the issuing CA that lists alice, bob"),
		s.crl("a CRL of the root CA")...)) // where the links lead, which is no replacement of a link
	loaded(3, 2)
	assert.Contains(t, s.ask("alice"), "401 on the same connection, "+revokedAt)
}

// A handshake that verifies by itself knows no CRLs.
func TestServe_handshakeAuth_refusesARevokedCertificate(t *testing.T) {
	s := newCRLScript(t, "crl.pem", false)
	s.run("crl.pem holds a CRL of the issuing CA that lists alice and a CRL of the root CA")
	_ = s.revocations.Reload("start")
	roots := s.handler.cfg.ClientRoots()
	address, _ := serve(t, s.handler, ServerConfig{Authenticate: s.handler.Authenticate, TLS: &tls.Config{
		Certificates: []tls.Certificate{*s.handler.cfg.Identity()}, ClientCAs: roots,
		ClientAuth: tls.RequireAndVerifyClientCert,
	}})
	s.url = "https://" + address
	assert.Contains(t, s.ask("alice"), "401 on a new connection, "+revokedAt)
	require.Equal(t, "200 on a new connection\n", s.ask("bob"))
	s.run("crl.pem holds a CRL of the issuing CA that lists bob and a CRL of the root CA")
	_ = s.revocations.Reload("test")
	assert.Contains(t, s.ask("bob"), "401 on the same connection")
}

// A path that is not revoked is enough, and an authority in the truststore needs no CRL.
func TestCRLSet_choosesAPathThatIsNotRevoked(t *testing.T) {
	s := newCRLScript(t, "crl.pem", false)
	s.run("crl.pem holds a CRL of the issuing CA and a CRL of the root CA that lists issuing")
	_ = s.revocations.Reload("start")
	leaf, issuing, root := s.leaves["alice"], s.ca["issuing"].Issuing, s.ca["issuing"].Root
	long, short := []*x509.Certificate{leaf, issuing, root}, []*x509.Certificate{leaf, issuing}
	_, reason, _ := s.revocations.set().choose([][]*x509.Certificate{long}, time.Now())
	assert.Contains(t, reason, `its authority "CN=Client Issuing CA,O=Throwaway": revoked at `)
	path, reason, until := s.revocations.set().choose([][]*x509.Certificate{long, short}, time.Now())
	assert.Empty(t, reason)
	assert.Equal(t, short, path)
	assert.WithinDuration(t, time.Now().Add(72*time.Hour), until, time.Minute)
	_, reason, _ = s.revocations.set().choose([][]*x509.Certificate{{leaf}}, time.Now())
	assert.Empty(t, reason, "a certificate that is in the truststore itself")
}

// The signature of a large CRL takes long to verify.
func TestCRL_signatureIsVerifiedOncePerIssuer(t *testing.T) {
	s := newCRLScript(t, "crl.pem:copy.pem", false)
	s.run("crl.pem holds a CRL of the issuing CA and a CRL of the root CA")
	writeFile(t, filepath.Join(s.dir, "copy.pem"), must(os.ReadFile(filepath.Join(s.dir, "crl.pem"))))
	_ = s.revocations.Reload("start")
	for range 3 {
		require.Contains(t, s.ask("alice"), "200")
		require.Contains(t, s.ask("bob"), "200")
	}
	for _, list := range s.revocations.set().byIssuer {
		require.Len(t, list, 1, "and the same CRL in two files once")
		require.Len(t, list[0].verified, 1)
		for key := range list[0].verified {
			list[0].verified[key] = x509.ErrUnsupportedAlgorithm // what would be found only by verifying again
		}
	}
	assert.Contains(t, s.ask("dora"), "is not signed with the key that signed the certificate")
	c := s.revocations.set().byIssuer[nameKey(s.leaves["alice"].RawIssuer)][0]
	for i := range 2 * maxCRLIssuers {
		_ = c.check(&x509.Certificate{Raw: []byte{byte(i), byte(i >> 8)}})
		assert.LessOrEqual(t, len(c.verified), maxCRLIssuers)
	}
}

// What is read of the files is bounded for all of them together.
func TestRevocations_filesThatAreTooLarge_areNotRead(t *testing.T) {
	s := newCRLScript(t, "root.crl:issuing.crl", false)
	s.run("root.crl holds a DER CRL of the root CA")
	s.run("issuing.crl holds a DER CRL of the issuing CA")
	s.revocations.most = must(os.Stat(filepath.Join(s.dir, "root.crl"))).Size() + 100
	_ = s.revocations.Reload("start")
	assert.Contains(t, s.logged(), "files=2 crls=1 ")
	assert.Contains(t, s.lines("CRLs loaded in part, files with a fault keep their last good ones")[0]["error"],
		`issuing.crl" is not read: the files of CLIENT_CRL_PATH have more than `)
	assert.Contains(t, s.ask("alice"), "401")
	s.revocations.most = maxCRLBytes
	_ = s.revocations.Reload("test")
	assert.Contains(t, s.ask("alice"), "200")
}

// What openssl writes is read: version 1, as its sample configuration has it, and version 2.
func TestRevocations_ofOpenSSL_areRead(t *testing.T) {
	fixture.RequirePrograms(t, "openssl")
	for name, extensions := range map[string]string{
		"version 1": "",
		"version 2": "crlnumber = $dir/number\ncrl_extensions = ext\n[ext]\nauthorityKeyIdentifier = keyid\n" +
			"issuingDistributionPoint = critical, @idp\n[idp]\nonlyuser = TRUE\n",
	} {
		t.Run(name, func(t *testing.T) {
			s := newCRLScript(t, "crl.pem:root.crl", false)
			ca := s.ca["issuing"]
			for file, content := range map[string][]byte{
				"ca.pem":    pemOf("CERTIFICATE", ca.Issuing.Raw),
				"alice.pem": pemOf("CERTIFICATE", s.leaves["alice"].Raw),
				"key.pem":   pemOf("PRIVATE KEY", pkcs8(t, ca.IssuingKey)),
				"index":     nil, "number": []byte("01\n"), "root.crl": s.crl("a DER CRL of the root CA"),
				"ca.cnf": []byte("[ca]\ndefault_ca = own\n[own]\ndir = " + s.dir + "\ndatabase = $dir/index\n" +
					"certificate = $dir/ca.pem\nprivate_key = $dir/key.pem\ndefault_md = sha256\n" +
					"default_crl_days = 30\n" + extensions),
			} {
				writeFile(t, filepath.Join(s.dir, file), content)
			}
			for _, args := range []string{"-revoke alice.pem -crl_reason superseded", "-gencrl -out crl.pem"} {
				run := exec.Command("openssl", append(strings.Fields("ca -config ca.cnf"), strings.Fields(args)...)...)
				run.Dir = s.dir
				out, err := run.CombinedOutput()
				require.NoError(t, err, "%s", out)
			}
			_ = s.revocations.Reload("start")
			assert.Contains(t, s.ask("alice"), ", reason superseded, serial "+pki.Serial(s.leaves["alice"])+
				`, CRL issuer "CN=Client Issuing CA,O=Throwaway"`)
			assert.Equal(t, "200 on a new connection\n", s.ask("bob"))
		})
	}
}

// Names are the authorities' choice, and every one is a series.
func TestMetrics_issuersOfCRLs_areBounded(t *testing.T) {
	m, crls := NewMetrics(""), []*crl{}
	for i := range 2 * maxCRLLabels {
		crls = append(crls, &crl{CRL: &pki.CRL{NextUpdate: time.Unix(int64(18e8), 0)}, issuer: fmt.Sprint("CN=", i)})
	}
	labels := m.observeCRLs(crls, nil, true)
	assert.Len(t, labels, maxCRLLabels)
	assert.Equal(t, maxCRLLabels, strings.Count(written(m), "certservice_client_crl_next_update_timestamp_seconds{"))
	labels = m.observeCRLs(slices.Clone(crls[:1]), labels, true)
	assert.Len(t, labels, 1)
	assert.Equal(t, 1, strings.Count(written(m), "certservice_client_crl_next_update_timestamp_seconds{"))
}
