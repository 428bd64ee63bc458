package certservice

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A resumed session brings a client certificate without a handshake that verifies it: each request does, with the
// clock, the truststore and the CRLs of now.
func TestServe_resumedSession_clientIsVerifiedAgain(t *testing.T) {
	for name, row := range map[string]struct {
		change func(r *resumption)
		reason string // of the audit line; "": the client is served
	}{
		"nothing has changed": {func(*resumption) {}, ""},
		"the certificate has expired": {func(r *resumption) { r.later.Store(int64(25 * time.Hour)) },
			"client certificate is not trusted: x509: certificate has expired or is not yet valid: current time "},
		"the truststore has another CA": {func(r *resumption) { r.roots.Store(poolOf(newCA(t, "other").Root)) },
			"client certificate is not trusted: x509: certificate signed by unknown authority"},
		"the certificate was revoked": {func(r *resumption) { r.publish(r.leaf.SerialNumber) },
			"client certificate is not trusted: revoked at "},
		"another certificate was revoked": {func(r *resumption) { r.publish(big.NewInt(7)) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := newResumption(t)
			resumed, status := r.ask()
			require.False(t, resumed)
			require.Equal(t, http.StatusOK, status, r.log)
			for range 2 { // the second connection, and the third
				row.change(r)
				resumed, status = r.ask()
				assert.True(t, resumed)
				if row.reason == "" {
					assert.Equal(t, http.StatusOK, status)
					continue
				}
				assert.Equal(t, http.StatusUnauthorized, status)
				eventually(t, func() bool { return r.log.has(row.reason) })
			}
		})
	}
}

// resumption is a service behind its own server, and a client that resumes its session on each connection.
type resumption struct {
	*service
	address     string
	later       atomic.Int64 // what the clock of the service is ahead, as a time.Duration
	roots       atomic.Pointer[x509.CertPool]
	revocations *Revocations
	crl         string
	number      int64
	leaf        *x509.Certificate
	resuming    *http.Client
}

func newResumption(t *testing.T) *resumption {
	r := &resumption{crl: filepath.Join(t.TempDir(), "crl.pem")}
	r.service = newService(t, goldenAuthority(t), func(cfg *HandlerConfig) {
		cfg.ClientRoots = r.roots.Load
		r.revocations = NewRevocations(RevocationsConfig{Paths: r.crl, Metrics: cfg.Metrics, Log: cfg.Log})
		cfg.Revocations = r.revocations
	})
	r.roots.Store(poolOf(r.tlsCA.Root))
	r.handler.now = func() time.Time { return time.Now().Add(time.Duration(r.later.Load())) }
	r.publish()
	own, shown := identity(t, r.tlsCA), identity(t, r.tlsCA)
	r.leaf = shown.Leaf
	r.address, _ = serve(t, r.handler, ServerConfig{
		TLS:          &tls.Config{Certificates: []tls.Certificate{own}, ClientAuth: tls.RequestClientCert},
		Authenticate: r.handler.Authenticate, Log: jsonLog(r.log)})
	r.resuming = r.clientWith(shown)
	r.resuming.Transport.(*http.Transport).TLSClientConfig.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	return r
}

// publish replaces the CRLs, which are valid longer than the certificates.
func (r *resumption) publish(revoked ...*big.Int) {
	r.number++
	list := &x509.RevocationList{Number: big.NewInt(r.number), ThisUpdate: time.Now().Add(-time.Hour),
		NextUpdate: time.Now().Add(72 * time.Hour)}
	for _, serial := range revoked {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{
			SerialNumber: serial, RevocationTime: time.Now().Add(-time.Minute)})
	}
	ca := r.tlsCA
	crls := pemOf(labelCRL, must(x509.CreateRevocationList(rand.Reader, list, ca.Issuing, ca.IssuingKey)))
	list.RevokedCertificateEntries = nil
	crls = append(crls, pemOf(labelCRL, must(x509.CreateRevocationList(rand.Reader, list, ca.Root, ca.RootKey)))...)
	writeFile(r.t, r.crl, crls)
	require.NoError(r.t, r.revocations.Reload("test"))
}

// ask sends a request on a connection of its own.
func (r *resumption) ask() (resumed bool, status int) {
	r.t.Helper()
	response, err := r.resuming.Get("https://" + r.address + "/ready")
	require.NoError(r.t, err)
	defer r.resuming.CloseIdleConnections()
	defer response.Body.Close()
	return response.TLS.DidResume, response.StatusCode
}
