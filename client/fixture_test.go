package client

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/test/fixture"
)

// wireRequest is one golden request of test/testdata/wire.
type wireRequest struct {
	Method, Path string
	Headers      map[string]string
}

func goldenRequest(t testing.TB, name string) wireRequest {
	t.Helper()
	var r wireRequest
	require.NoError(t, json.Unmarshal(shared("wire/"+name), &r))
	return r
}

// shared is a file of the testdata that all packages share.
func shared(name string) []byte {
	return fixture.Must(os.ReadFile(filepath.Join("../test/testdata", name)))
}

func goldenSecrets() Request {
	return Request{
		CSR: shared("pem/csr.pem"), Key: shared("pem/key.pem"),
		OldCert: shared("pem/old-certificate.pem"), OldKey: shared("pem/old-key.pem"),
	}
}

func newCA(name string) *fixture.CA { return fixture.Must(fixture.NewCA(name)) }

// identity is a key with a certificate for certservice.test and loopback; change may be nil.
func identity(t testing.TB, authority *fixture.CA, name string, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	issuer := *authority // others issue at the same time
	issuer.Change = change
	key, chain, err := issuer.Identity(name, "certservice.test")
	require.NoError(t, err)
	return tls.Certificate{Certificate: [][]byte{chain[0].Raw, chain[1].Raw}, PrivateKey: key, Leaf: chain[0]}
}

func pool(certs ...*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range certs {
		p.AddCert(c)
	}
	return p
}

// mutual is a server that demands a client certificate of its CA, and what a client of it needs.
type mutual struct {
	*httptest.Server
	ca          *fixture.CA
	cfg         Config
	connections atomic.Int32 // accepted so far
}

// newMutual starts one. change, which may be nil, sees the server before it starts.
func newMutual(t testing.TB, handler http.HandlerFunc, change func(*tls.Config)) *mutual {
	t.Helper()
	authority := newCA("Test")
	m := &mutual{Server: httptest.NewUnstartedServer(handler), ca: authority}
	m.TLS = &tls.Config{
		Certificates: []tls.Certificate{identity(t, authority, "server", nil)},
		ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: pool(authority.Root), MinVersion: tls.VersionTLS12,
	}
	if change != nil {
		change(m.TLS)
	}
	m.Config.ErrorLog = log.New(io.Discard, "", 0)
	m.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			m.connections.Add(1)
		}
	}
	m.StartTLS()
	t.Cleanup(m.Close)
	m.cfg = Config{
		URL: m.URL + "/v1/certificate/", CAName: "RA", Timeout: 10 * time.Second,
		TLS: &tls.Config{RootCAs: pool(authority.Root),
			Certificates: []tls.Certificate{identity(t, authority, "client", nil)}},
		Roots: []*x509.Certificate{authority.Root},
	}
	return m
}

// newGood starts one that gives certificates.
func newGood(t testing.TB) *mutual {
	t.Helper()
	return newMutual(t, answering(200, "answer-200.json"), nil)
}

// enroll asks for a certificate.
func enroll(t testing.TB, c *Client) error {
	t.Helper()
	_, err := c.Enroll(t.Context(), goldenSecrets())
	return err
}

// through leads to an address by way of the proxy of the environment.
func (m *mutual) through(address string) {
	m.cfg.URL = "https://certservice.test:8443/v1/certificate/"
	environmentProxy.set(address, 200)
}

func (m *mutual) client(t testing.TB) *Client {
	t.Helper()
	return fixture.Must(New(m.cfg))
}

// answering returns a handler that always gives the golden file.
func answering(status int, file string) http.HandlerFunc {
	return writing(status, "application/json", string(shared("wire/"+file)))
}

func writing(status int, contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Content-Type"] = []string{contentType}
		if contentType == "" {
			w.Header()["Content-Type"] = nil
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func clientOf(addr string, timeout time.Duration) *Client {
	return fixture.Must(New(Config{URL: "https://" + addr + "/v1/certificate/", CAName: "RA",
		TLS: &tls.Config{}, Timeout: timeout}))
}

// listen accepts one connection and gives it to serve.
func listen(t testing.TB, serve func(net.Conn)) string {
	t.Helper()
	l := fixture.Must(net.Listen("tcp", "127.0.0.1:0"))
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		serve(conn)
		conn.Close()
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String()
}

// readHello reads the client's first TLS record. A connection that is closed with unread bytes is
// reset, and the client may see that in place of what was sent before.
func readHello(c net.Conn) {
	var head [5]byte
	_, _ = io.ReadFull(c, head[:])
	_, _ = io.CopyN(io.Discard, c, int64(head[3])<<8|int64(head[4]))
}
