// Package service runs a real CertService on loopback for tests and the demo: the product's own
// handler behind mutual TLS with throwaway identities, and a throwaway CA as its authority.
package service

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/certfetcher/certfetcher/internal/admission"
	"github.com/certfetcher/certfetcher/internal/certservice"
	"github.com/certfetcher/certfetcher/test/fixture"
)

// Options change what a Service does. The zero value is one that works.
type Options struct {
	// Wrap may stand between the client and the CertService's handler.
	Wrap func(s *Service, next http.Handler) http.Handler
	// Authority to ask in place of the throwaway CA; nil: that one.
	Authority certservice.Authority
	// Address to listen on; empty for a free port on 127.0.0.1.
	Address string
	// TLS may change the server's side of the handshake.
	TLS func(s *Service, config *tls.Config)
}

// Service is a running CertService.
type Service struct {
	// URL is what REQUEST_URL should be.
	URL string
	// Dir holds the client's side of mutual TLS: client.{p12,jks,pem}, client-certificate.pem with
	// client-key.pem, and truststore.{p12,jks,pem}.
	Dir string
	// CA signs what is enrolled; Transport signed the identities of mutual TLS.
	CA, Transport *fixture.CA

	requests atomic.Int64
	mu       sync.Mutex
	received []string
	stop     context.CancelFunc
	done     chan error
	once     sync.Once
}

// Start writes the client's identity into dir and serves until Stop.
func Start(dir string, options Options) (*Service, error) {
	issuing, err := fixture.NewCA("Enrolment")
	if err != nil {
		return nil, err
	}
	transport, err := fixture.NewCA("Transport")
	if err != nil {
		return nil, err
	}
	config, err := serverTLS(transport)
	if err != nil {
		return nil, err
	}
	s := &Service{Dir: dir, CA: issuing, Transport: transport, done: make(chan error, 1)}
	if options.TLS != nil {
		options.TLS(s, config)
	}
	if err := transport.WriteIdentity(dir, "certfetcher"); err != nil {
		return nil, err
	}
	address := options.Address
	if address == "" {
		address = "127.0.0.1:0"
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}

	s.URL = "https://" + listener.Addr().String() + "/v1/certificate/"
	log := slog.New(slog.DiscardHandler)
	metrics, strangers := certservice.NewMetrics("test"), certservice.NewStrangers(log)
	authority := options.Authority
	if authority == nil {
		authority = Authority{issuing}
	}
	api := certservice.NewHandler(certservice.HandlerConfig{
		Directory:   Static{fixture.CAName: authority},
		ClientRoots: func() *x509.CertPool { return config.ClientCAs },
		MaxRSABits:  certservice.MostMaxRSABits, CPU: certservice.NewCPU(), Timeout: 10 * time.Second,
		Metrics: metrics, Strangers: strangers, Log: log,
	})
	var handler http.Handler = api
	if options.Wrap != nil {
		handler = options.Wrap(s, handler)
	}
	counted := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		s.keep(r.Header)
		handler.ServeHTTP(w, r)
	})
	var ctx context.Context
	ctx, s.stop = context.WithCancel(context.Background())
	go func() {
		s.done <- certservice.Serve(ctx, listener, counted, certservice.ServerConfig{
			TLS: config, Authenticate: api.Authenticate,
			ReadHeaderTimeout: 5 * time.Second, RequestTimeout: 30 * time.Second,
			IdleTimeout: time.Minute, ShutdownTimeout: 100 * time.Millisecond,
			Capacity: certservice.NewCapacity(0), Metrics: metrics, Strangers: strangers, Log: log,
		})
	}()
	return s, nil
}

// Run is Start for a test: it serves until the test ends.
func Run(t testing.TB, options Options) *Service {
	t.Helper()
	s, err := Start(t.TempDir(), options)
	require.NoError(t, err)
	t.Cleanup(s.Stop)
	return s
}

// Environment is that of a certfetcher that asks the service for a certificate; later variables take the place of
// earlier ones.
func (s *Service) Environment(volume string, variables ...string) []string {
	return fixture.Environment(s.URL, s.Dir, volume, variables...)
}

// Requests is the number of HTTP requests that arrived.
func (s *Service) Requests() int { return int(s.requests.Load()) }

// keep notes the API's headers as they came.
func (s *Service) keep(header http.Header) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range []string{"CSR", "PK", "OLD_CERT", "OLD_PK"} {
		s.received = append(s.received, header[http.CanonicalHeaderKey(name)]...)
	}
}

// Received returns the values of the API's headers in all requests so far, which nothing else may ever show.
func (s *Service) Received() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.received)
}

// Stop ends the service; what is in flight is cut off.
func (s *Service) Stop() {
	s.once.Do(func() {
		s.stop()
		<-s.done
	})
}

// Static is a Directory that never changes.
type Static map[string]certservice.Authority

// Lookup returns the authority of that name.
func (s Static) Lookup(caName string) (certservice.Authority, admission.Share, bool) {
	a, ok := s[caName]
	return a, admission.Share{Authorities: len(s)}, ok
}

// Ready is always true.
func (s Static) Ready() bool { return true }

// Reload has nothing to read and succeeds.
func (s Static) Reload(string) error { return nil }

// Authority signs with a throwaway CA.
type Authority struct{ CA *fixture.CA }

// Enroll signs the request.
func (a Authority) Enroll(_ context.Context, r certservice.Request) (certservice.Issued, error) {
	chain, err := a.CA.Issue(r.CSR)
	return certservice.Issued{Chain: chain, Trusted: []*x509.Certificate{a.CA.Root}}, err
}

// Update signs the request, for a certificate of this CA only.
func (a Authority) Update(ctx context.Context, r certservice.Request) (certservice.Issued, error) {
	if err := r.OldCert.CheckSignatureFrom(a.CA.Issuing); err != nil {
		return certservice.Issued{}, &certservice.RefusedError{FailInfo: []string{"badCertId"},
			Text: "unknown certificate"}
	}
	return a.Enroll(ctx, r)
}

func serverTLS(transport *fixture.CA) (*tls.Config, error) {
	key, chain, err := transport.Identity("certservice", "oom-cert-service")
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(transport.Root)
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		Certificates: []tls.Certificate{{Certificate: [][]byte{chain[0].Raw, chain[1].Raw},
			PrivateKey: key, Leaf: chain[0]}},
		ClientAuth: tls.RequestClientCert, ClientCAs: roots,
	}, nil
}
