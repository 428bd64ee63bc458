package certservice

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestClientVerifier_remember_holdsWhileTheWholeChainIsValid(t *testing.T) {
	at := func(hour int) time.Time { return time.Date(2026, 1, 1, hour, 0, 0, 0, time.UTC) }
	roots, key := x509.NewCertPool(), sha256.Sum256([]byte("chain"))
	var v clientVerifier
	v.remember(key, roots, []*x509.Certificate{
		{NotBefore: at(2), NotAfter: at(20)},
		{NotBefore: at(1), NotAfter: at(10)}, // the issuing CA ends first
		{NotBefore: at(3), NotAfter: at(22)}, // the root begins last
	})

	assert.False(t, v.remembers(key, roots, at(3).Add(-time.Second)))
	assert.True(t, v.remembers(key, roots, at(3)))
	assert.True(t, v.remembers(key, roots, at(10)))
	assert.False(t, v.remembers(key, roots, at(10).Add(time.Second)))
	assert.False(t, v.remembers(key, x509.NewCertPool(), at(5)), "other roots")
	assert.False(t, v.remembers(sha256.Sum256(nil), roots, at(5)), "another chain")
}

func TestClientVerifier_remember_isBounded(t *testing.T) {
	roots := x509.NewCertPool()
	var v clientVerifier
	for i := range maxVerified + 10 {
		v.remember(sha256.Sum256([]byte{byte(i), byte(i >> 8)}), roots, []*x509.Certificate{{}})
		assert.LessOrEqual(t, len(v.verified), maxVerified)
	}
}

func TestClientVerifier_verify_remembersNoStranger(t *testing.T) {
	tlsCA, stranger := newCA(t, "TLS"), newCA(t, "Stranger")
	roots := poolOf(tlsCA.Root)
	var v clientVerifier
	state := func(c tls.Certificate) *tls.ConnectionState {
		return &tls.ConnectionState{PeerCertificates: []*x509.Certificate{c.Leaf, tlsCA.Issuing}}
	}

	_, reason := v.verify(state(identity(t, stranger)), roots, time.Now())
	assert.Equal(t, "client certificate is not trusted: x509: certificate signed by unknown authority", reason)
	assert.Empty(t, v.verified)
	_, reason = v.verify(state(identity(t, tlsCA)), roots, time.Now())
	assert.Empty(t, reason)
	assert.Len(t, v.verified, 1)
}

// The audit line says which algorithm it is, where crypto/x509 knows no authority.
func TestClientVerifier_verify_namesTheAlgorithm(t *testing.T) {
	tlsCA := newCA(t, "TLS")
	tlsCA.Change = func(leaf *x509.Certificate) { leaf.SignatureAlgorithm = x509.ECDSAWithSHA1 }
	client := identity(t, tlsCA)
	var v clientVerifier
	_, reason := v.verify(&tls.ConnectionState{PeerCertificates: []*x509.Certificate{client.Leaf, tlsCA.Issuing}}, poolOf(tlsCA.Root), time.Now())
	assert.Contains(t, reason, `is signed with ECDSA with SHA-1 (1.2.840.10045.4.1), which is not accepted`)
}

func TestClientVerifier_verify_nilRootsAreNotTheSystems(t *testing.T) {
	tlsCA := newCA(t, "TLS")
	file := filepath.Join(t.TempDir(), "system.pem")
	require.NoError(t, os.WriteFile(file, []byte(pemTexts([]*x509.Certificate{tlsCA.Root})[0]), 0o600))
	t.Setenv("SSL_CERT_FILE", file) // read once in a process; no other test here asks for the system's roots
	client := identity(t, tlsCA)
	state := &tls.ConnectionState{PeerCertificates: []*x509.Certificate{client.Leaf, tlsCA.Issuing}}
	var v clientVerifier

	_, reason := v.verify(state, nil, time.Now())

	assert.Equal(t, "client certificate is not trusted: x509: certificate signed by unknown authority", reason)
}

// Nobody needs a certificate for what a long chain costs.
func TestHandler_longClientChain_isNotVerified(t *testing.T) {
	s := newService(t, goldenAuthority(t), nil)
	good := identity(t, s.tlsCA)
	for _, row := range []struct{ certificates, status int }{
		{maxClientChain, http.StatusOK},
		{maxClientChain + 1, http.StatusUnauthorized},
	} {
		long := good
		for len(long.Certificate) < row.certificates {
			long.Certificate = append(long.Certificate, s.tlsCA.Issuing.Raw)
		}
		r := s.do(t, s.clientWith(t, long), http.MethodGet, "/ready", nil, nil)
		assert.Equal(t, row.status, r.StatusCode, r.text)
	}
	assert.Equal(t, "client certificate is not trusted: it came with a chain of 11 certificates, want at most 10",
		s.audit(t)["reason"])
}
