package network

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"testing"
	"time"

	"github.com/certfetcher/certfetcher/client"
	"github.com/certfetcher/certfetcher/test/chaos"
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
	csr, keyPEM := chaos.Request(t, "ECDSA-P256")
	var askers []asker
	for range n {
		identity := chaos.WriteIdentity(t, s.Transport, t.TempDir())
		askers = append(askers, asker{identity, s.Roots(), client.Request{CSR: csr, Key: keyPEM}})
	}
	return askers
}

// enroll asks the CertService at the address, a host:port, for a certificate of the CA. Without retry it asks once; the
// log is of the tries that are followed by another, and may be nil.
func (a asker) enroll(ctx context.Context, address, ca string, timeout time.Duration, retry *client.Retry,
	log *slog.Logger) error {
	c, err := client.New(client.Config{
		URL: "https://" + address + "/v1/certificate/", CAName: ca, Timeout: timeout, Retry: retry, Log: log,
		TLS: &tls.Config{Certificates: []tls.Certificate{a.identity}, RootCAs: a.roots}})
	if err != nil {
		return err
	}
	_, err = c.Enroll(ctx, a.request)
	return err
}
