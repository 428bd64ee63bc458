package client

import (
	"cmp"
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
	ca  *fixture.CA
	cfg Config
	// Connections that were accepted, brought a byte of a request, and were closed.
	connections, active, closed atomic.Int32
}

// newMutual is one that gives certificates. It may be changed until it starts.
func newMutual(t testing.TB) *mutual {
	t.Helper()
	authority := newCA("Test")
	m := &mutual{Server: httptest.NewUnstartedServer(writing(string(shared("wire/answer-200.json")))), ca: authority}
	m.TLS = &tls.Config{
		Certificates: []tls.Certificate{identity(t, authority, "server", nil)},
		ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: pool(authority.Root), MinVersion: tls.VersionTLS12,
	}
	m.Config.ErrorLog = log.New(io.Discard, "", 0)
	m.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		switch s {
		case http.StateNew:
			m.connections.Add(1)
		case http.StateActive:
			m.active.Add(1)
		case http.StateClosed, http.StateHijacked:
			m.closed.Add(1)
		}
	}
	t.Cleanup(m.Close)
	m.cfg = Config{
		CAName: "RA", Timeout: 10 * time.Second,
		TLS: &tls.Config{RootCAs: pool(authority.Root),
			Certificates: []tls.Certificate{identity(t, authority, "client", nil)}},
		Roots: []*x509.Certificate{authority.Root},
	}
	return m
}

func (m *mutual) start() *mutual {
	if m.URL == "" {
		m.StartTLS()
		m.cfg.URL = cmp.Or(m.cfg.URL, m.URL+"/v1/certificate/")
	}
	return m
}

func (m *mutual) client() *Client { return fixture.Must(New(m.start().cfg)) }

// enroll asks for a certificate.
func enroll(t testing.TB, c *Client) error {
	t.Helper()
	_, err := c.Enroll(t.Context(), goldenSecrets())
	return err
}

// writing answers with JSON.
func writing(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, body)
	}
}

func urlOf(address string) string { return "https://" + address + "/v1/certificate/" }

func clientOf(addr string, timeout time.Duration) *Client {
	return fixture.Must(New(Config{URL: urlOf(addr), CAName: "RA",
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
