package certservice

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestClientVerifier_remembersAChainWhileAllOfItIsValid(t *testing.T) {
	at := func(hour int) time.Time { return time.Date(2026, 1, 1, hour, 0, 0, 0, time.UTC) }
	on, key := basis{roots: x509.NewCertPool()}, sha256.Sum256([]byte("chain"))
	var v clientVerifier
	chain := []*x509.Certificate{
		{NotBefore: at(2), NotAfter: at(20)},
		{NotBefore: at(1), NotAfter: at(10)}, // the issuing CA ends first
		{NotBefore: at(3), NotAfter: at(22)}, // the root begins last
	}
	for last, until := range map[time.Time]time.Time{at(10): {}, at(8): at(8)} { // without and with a CRL
		v.remember(key, on, chain, until)
		assert.False(t, v.remembers(key, on, at(3).Add(-time.Second)))
		assert.True(t, v.remembers(key, on, at(3)))
		assert.True(t, v.remembers(key, on, last))
		assert.False(t, v.remembers(key, on, last.Add(time.Second)))
	}
	assert.False(t, v.remembers(key, basis{x509.NewCertPool(), nil}, at(5)), "other roots")
	assert.False(t, v.remembers(key, basis{on.roots, &crlSet{}}, at(5)), "other CRLs")
	assert.False(t, v.remembers(sha256.Sum256(nil), on, at(5)), "another chain")
	for i := range maxVerified + 10 {
		v.remember(sha256.Sum256([]byte{byte(i), byte(i >> 8)}), on, []*x509.Certificate{{}}, time.Time{})
		assert.LessOrEqual(t, len(v.verified), maxVerified)
	}
}

// Without roots of its own it must not use the system's.
func TestClientVerifier_withoutRoots_trustsNoOneAndRemembersNothing(t *testing.T) {
	tlsCA := newCA(t, "TLS")
	file := filepath.Join(t.TempDir(), "system.pem")
	writeFile(t, file, pemOf("CERTIFICATE", tlsCA.Root.Raw))
	t.Setenv("SSL_CERT_FILE", file) // read once in a process; no other test here needs the system's roots
	state := &tls.ConnectionState{PeerCertificates: []*x509.Certificate{identity(t, tlsCA).Leaf, tlsCA.Issuing}}
	var v clientVerifier
	_, reason := v.verify(state, nil, time.Now())
	assert.Equal(t, "client certificate is not trusted: x509: certificate signed by unknown authority", reason)
	assert.Empty(t, v.verified)
	_, reason = v.verify(state, poolOf(tlsCA.Root), time.Now())
	assert.Empty(t, reason)
	assert.Len(t, v.verified, 1)
}

func TestHandler_log_isBounded(t *testing.T) {
	s := newService(t, failing(errors.New(strings.Repeat("x", 30000))), nil)
	s.get("/"+strings.Repeat("x", 30000), nil)
	s.audit()
	assert.Less(t, len(s.log.String()), 2000)
	s.enroll()
	assert.Equal(t, strings.Repeat("x", maxLoggedText)+"…", s.audit()["error"])

	key, template := newKey(t), &x509.CertificateRequest{}
	for i := range maxLoggedNames + 3 {
		template.DNSNames = append(template.DNSNames, fmt.Sprintf("host-%03d.example", i))
	}
	csr := must(x509.CreateCertificateRequest(rand.Reader, template, key))
	s.get(enrollPath, headerOf(t, csr, key))
	sans := s.audit()["requested"].(map[string]any)["sans"].([]any)
	require.Len(t, sans, maxLoggedNames+1)
	assert.Equal(t, []any{"DNS:host-099.example", "and 3 more"}, sans[maxLoggedNames-1:])
}

func TestMetrics_nameTheVersionAndTheCertificate(t *testing.T) {
	m := NewMetrics("1.2.3")
	m.ObserveCertificate(func() *x509.Certificate {
		return &x509.Certificate{NotBefore: time.Unix(18e8, 0), NotAfter: time.Unix(19e8, 0)}
	})
	for _, line := range []string{`build_info{version="1.2.3",go_version="go`,
		"certificate_not_before_timestamp_seconds 1800000000\n",
		"certificate_expiry_timestamp_seconds 1900000000\n"} {
		assert.Contains(t, written(m), "certservice_"+line)
	}
	assert.Contains(t, written(m), "# TYPE process_resident_memory_bytes gauge\n")
}
