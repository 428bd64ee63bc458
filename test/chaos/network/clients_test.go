package network

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/client"
	"github.com/certfetcher/certfetcher/keygen"
	"github.com/certfetcher/certfetcher/test/fixture"
)

// asker makes single requests at a CertService, as certfetcher's client does.
type asker struct {
	identity tls.Certificate
	roots    *x509.CertPool
	request  client.Request
}

// newAskers makes several, each with an identity of its own: one client alone may not have all of a service.
func newAskers(t testing.TB, s *fixture.Stack, n int) []asker {
	t.Helper()
	key, err := keygen.GenerateKey("ECDSA-P256")
	require.NoError(t, err)
	csr, err := keygen.CreateCSR(&x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "app.example.org"}, DNSNames: []string{"app.example.org"}}, key)
	require.NoError(t, err)
	keyPEM, err := keygen.PrivateKeyPEM(key)
	require.NoError(t, err)
	var askers []asker
	for range n {
		key, chain, err := s.Transport.Identity("client")
		require.NoError(t, err)
		dir := t.TempDir()
		require.NoError(t, fixture.WriteIdentity(dir, key, chain, s.Transport.Root))
		identity, err := tls.LoadX509KeyPair(filepath.Join(dir, "client.pem"), filepath.Join(dir, "client.pem"))
		require.NoError(t, err)
		askers = append(askers, asker{identity, s.Roots(), client.Request{CSR: keygen.CSRPEM(csr), Key: keyPEM}})
	}
	return askers
}

// enroll asks the CertService at the address, a host:port, for a certificate of the CA. Without retry it asks once; the
// log is of the tries that are followed by another, and may be nil.
func (a asker) enroll(ctx context.Context, address, ca string, timeout time.Duration, retry *client.Retry,
	log *slog.Logger) error {
	c, err := client.New(client.Config{
		URL: "https://" + address + "/v1/certificate/", CAName: ca, Timeout: timeout, Retry: retry, Log: log,
		TLS: &tls.Config{Certificates: []tls.Certificate{a.identity}, RootCAs: a.roots},
	})
	if err != nil {
		return err
	}
	_, err = c.Enroll(ctx, a.request)
	return err
}
