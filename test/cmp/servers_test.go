package cmp

import (
	"bufio"
	"bytes"
	"crypto"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"math/big"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/certfetcher/certfetcher/internal/cmp"
	"github.com/certfetcher/certfetcher/test/ejbca"
	"github.com/certfetcher/certfetcher/test/fixture"
)

// servers are other people's CAs.
type servers struct{ ejbca *ejbca.Server }

// ejbca CONFIG starts what behaves like EJBCA; see package ejbca. Its variables are as devca sets them.
func startEJBCA(ts *testscript.TestScript, _ bool, args []string) {
	config := ejbca.Config{Secret: "the-secret-of-ejbca"}
	ts.Check(json.Unmarshal([]byte(args[0]), &config))
	if config.Passwords != nil {
		config.Secret = ""
	}
	s, err := ejbca.New(config)
	ts.Check(err)
	server := httptest.NewServer(s)
	ts.Defer(server.Close)
	ts.Value(servers{}).(*servers).ejbca = s
	setCA(ts, "EJBCA (its model)", server.URL+"/ejbca/publicweb/cmp/cmpRA",
		cmp.DirectoryName(s.Issuing().RawSubject).String(), "the-secret-of-ejbca", s.Root())
}

func setCA(ts *testscript.TestScript, name, url, recipient, secret string, root *x509.Certificate) {
	path := ts.MkAbs("ca-root.pem")
	ts.Check(os.WriteFile(path, fixture.CertificatesPEM(root), 0o600))
	for name, value := range map[string]string{"CMP_URL": url, "CMP_RECIPIENT": recipient, "CMP_REFERENCE": "RA",
		"CMP_SECRET": secret, "ROOT": path, "CMP_TRUST_ANCHORS": path, "CA": name} {
		ts.Setenv(name, value)
	}
}

// issued N wants so many certificates of EJBCA.
func issued(ts *testscript.TestScript, _ bool, args []string) {
	if n := len(ts.Value(servers{}).(*servers).ejbca.Issued()); args[0] != string(rune('0'+n)) {
		ts.Fatalf("%d certificates were issued, want %s", n, args[0])
	}
}

var accepting = regexp.MustCompile(`^ACCEPT .*:(\d+)\b`)

const opensslSecret = "the-secret-of-openssl"

// openSSL has openssl cmp as the server. That returns one fixed certificate. So for each request what
// stands before it reads the key, has that certified, and starts openssl with the certificate; the rest
// of the transaction goes the same way.
type openSSL struct {
	t         testing.TB
	authority *fixture.CA
	dir       string
	options   []string

	mu       sync.Mutex
	issued   int
	backends map[string]*httputil.ReverseProxy // by transactionID
}

// openssl [-signed] [OPTION...] starts it, with options of its own, and writes an identity of the
// same CA into the directory identity, as certfetcher does. With -signed it knows no secret, but
// signatures by certificates of its CA.
func startOpenSSL(ts *testscript.TestScript, _ bool, args []string) {
	t := ts.Value(testKey{}).(testing.TB)
	s := &openSSL{t: t, authority: fixture.Must(fixture.NewCA("Interop")), dir: t.TempDir(),
		backends: map[string]*httputil.ReverseProxy{}}
	root, issuing := s.write("root.pem", s.authority.Root), s.write("issuing.pem", s.authority.Issuing)
	s.options = []string{"cmp", "-config", "", "-batch", "-port", "0", "-rsp_extracerts", issuing, "-rsp_capubs", root,
		"-srv_trusted", root, "-srv_untrusted", issuing}
	signed := len(args) > 0 && args[0] == "-signed"
	secret := opensslSecret
	if signed {
		args, secret = args[1:], ""
		key := fixture.Must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
		certificate := s.certify(key.Public(), named("CN=CMP"))
		s.options = append(s.options, "-srv_cert", s.write("server.pem", certificate),
			"-srv_key", s.writeKey("server.key", key))
	} else {
		s.options = append(s.options, "-srv_ref", "RA", "-srv_secret", "pass:"+secret)
	}
	for _, arg := range args {
		s.options = append(s.options, strings.Fields(arg)...)
	}
	server := httptest.NewServer(s)
	ts.Defer(server.Close)
	recipient := cmp.DirectoryName(s.authority.Issuing.RawSubject).String()
	if signed {
		recipient = "CN=CMP" // of the server; the CA's own name is another, as with some CAs
	}
	setCA(ts, "openssl cmp", server.URL+"/pkix/", recipient, secret, s.authority.Root)
	ts.Check(os.Mkdir(ts.MkAbs("identity"), 0o700))
	key := fixture.Must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	device := s.certify(key.Public(), named("CN=device"))
	combined := fixture.Must(os.ReadFile(s.writeKey("device.key", key)))
	ts.Check(os.WriteFile(ts.MkAbs("identity/key.pem"), combined, 0o600))
	chain := fixture.CertificatesPEM(device, s.authority.Issuing)
	ts.Check(os.WriteFile(ts.MkAbs("identity/keystore.pem"), chain, 0o600))
	ts.Check(os.WriteFile(ts.MkAbs("identity/keystore-combined.pem"), append(combined, chain...), 0o600))
}

func named(dn string) *x509.CertificateRequest {
	return &x509.CertificateRequest{RawSubject: fixture.Must(cmp.ParseDN(dn))}
}

func (s *openSSL) write(name string, certificates ...*x509.Certificate) string {
	path := filepath.Join(s.dir, name)
	fixture.Must(0, os.WriteFile(path, fixture.CertificatesPEM(certificates...), 0o600))
	return path
}

func (s *openSSL) writeKey(name string, key crypto.PrivateKey) string {
	path := filepath.Join(s.dir, name)
	block := &pem.Block{Type: "PRIVATE KEY", Bytes: fixture.Must(x509.MarshalPKCS8PrivateKey(key))}
	fixture.Must(0, os.WriteFile(path, pem.EncodeToMemory(block), 0o600))
	return path
}

func (s *openSSL) certify(key crypto.PublicKey, csr *x509.CertificateRequest) *x509.Certificate {
	leaf := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), RawSubject: csr.RawSubject,
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour), DNSNames: csr.DNSNames,
		KeyUsage: x509.KeyUsageDigitalSignature}
	return s.issue(leaf, key)
}

func (s *openSSL) issue(leaf *x509.Certificate, key crypto.PublicKey) *x509.Certificate {
	der := fixture.Must(x509.CreateCertificate(rand.Reader, leaf, s.authority.Issuing, key, s.authority.IssuingKey))
	return fixture.Must(x509.ParseCertificate(der))
}

func (s *openSSL) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body := fixture.Must(io.ReadAll(r.Body))
	r.Body = io.NopCloser(bytes.NewReader(body))
	message := fixture.Must(cmp.ParsePKIMessage(body))
	s.backend(message).ServeHTTP(w, r)
}

// backend is the openssl of a transaction.
func (s *openSSL) backend(message *cmp.PKIMessage) *httputil.ReverseProxy {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := string(message.Header.TransactionID)
	if s.backends[id] != nil {
		return s.backends[id]
	}
	certificate := s.authority.Issuing // to a genm
	if csr, err := message.Requested(); err == nil {
		certificate = s.certify(csr.PublicKey, csr)
	}
	if message.Body.Type == cmp.BodyKUR { // it compares oldCertID with what it is going to return
		old := fixture.Must(x509.ParseCertificate(message.ExtraCerts[0]))
		certificate = s.issue(old, fixture.Must(message.Requested()).PublicKey)
	}
	s.issued++
	server := exec.Command("openssl", append(s.options, "-rsp_cert",
		s.write(fmt.Sprintf("issued-%d.pem", s.issued), certificate))...)
	server.Stderr = s.t.Output()
	output := fixture.Must(server.StdoutPipe())
	fixture.Must(0, server.Start())
	s.t.Cleanup(func() { _ = server.Process.Kill(); _ = server.Wait() })
	var match []string
	for lines := bufio.NewScanner(output); match == nil; {
		if !lines.Scan() {
			panic("openssl does not start: see what it has written")
		}
		match = accepting.FindStringSubmatch(lines.Text())
	}
	go io.Copy(io.Discard, output) // or the server waits for a reader
	backend := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) { p.SetURL(&url.URL{Scheme: "http", Host: "127.0.0.1:" + match[1]}) },
		// openssl forgets a transaction with its connection, and serves one at a time
		Transport: &http.Transport{MaxConnsPerHost: 1},
	}
	s.backends[id] = backend
	return backend
}

// bouncycastle [PATH] has Bouncy Castle as the CA; the path says how it behaves.
func startBouncyCastle(ts *testscript.TestScript, _ bool, args []string) {
	peer := fixture.StartBouncyCastle(ts.Value(testKey{}).(testing.TB))
	setCA(ts, "Bouncy Castle", peer.URL+strings.Join(args, ""), "CN=Bouncy Castle CA", fixture.BouncyCastleSecret,
		peer.Root)
}
