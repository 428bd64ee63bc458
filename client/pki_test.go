package client

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const testdata = "../test/testdata"

// wireRequest is one golden request of test/testdata/wire.
type wireRequest struct {
	Method, Path string
	Headers      map[string]string
}

func goldenRequest(t testing.TB, name string) wireRequest {
	t.Helper()
	var r wireRequest
	require.NoError(t, json.Unmarshal(golden(t, "wire/"+name), &r))
	return r
}

func golden(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(testdata, name))
	require.NoError(t, err)
	return data
}

func goldenSecrets(t testing.TB) Request {
	return Request{CSR: golden(t, "pem/csr.pem"), Key: golden(t, "pem/key.pem"), OldCert: golden(t, "pem/old-certificate.pem"), OldKey: golden(t, "pem/old-key.pem")}
}

type testCA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newTestCA(t testing.TB, name string) testCA {
	t.Helper()
	ca := testCA{}
	ca.key, ca.cert = sign(t, nil, &x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return ca
}

// sign fills in what every certificate needs; a nil CA makes it self-signed.
func sign(t testing.TB, ca *testCA, template *x509.Certificate) (*ecdsa.PrivateKey, *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	if template.NotBefore.IsZero() {
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	}
	parent, signer := template, key
	if ca != nil {
		parent, signer = ca.cert, ca.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return key, cert
}

func (ca *testCA) identity(t testing.TB, template *x509.Certificate) tls.Certificate {
	t.Helper()
	key, cert := sign(t, ca, template)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert}
}

func (ca *testCA) server(t testing.TB) tls.Certificate {
	return ca.identity(t, &x509.Certificate{Subject: pkix.Name{CommonName: "server"}, DNSNames: []string{"certservice.test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
}

func (ca *testCA) client(t testing.TB) tls.Certificate {
	return ca.identity(t, &x509.Certificate{Subject: pkix.Name{CommonName: "client"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
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
	ca          testCA
	cfg         Config
	connections atomic.Int32 // accepted so far
}

// newMutual starts one. change, which may be nil, sees the server before it starts.
func newMutual(t testing.TB, handler http.HandlerFunc, change func(*tls.Config)) *mutual {
	t.Helper()
	ca := newTestCA(t, "Test Root")
	m := &mutual{Server: httptest.NewUnstartedServer(handler), ca: ca}
	m.TLS = &tls.Config{Certificates: []tls.Certificate{ca.server(t)}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool(ca.cert), MinVersion: tls.VersionTLS12}
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
		TLS:   &tls.Config{RootCAs: pool(ca.cert), Certificates: []tls.Certificate{ca.client(t)}, MinVersion: tls.VersionTLS12},
		Roots: []*x509.Certificate{ca.cert},
	}
	return m
}

func (m *mutual) client(t testing.TB) *Client {
	t.Helper()
	c, err := New(m.cfg)
	require.NoError(t, err)
	return c
}

// answering returns a handler that always gives the golden file.
func answering(t testing.TB, status int, file string) http.HandlerFunc {
	body := golden(t, "wire/"+file)
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		w.Write(body)
	}
}
