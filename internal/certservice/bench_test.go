package certservice

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net/http/httptest"
	"testing"
)

// BenchmarkHandler_enroll measures what one enrolment costs the service apart from TLS and CMP.
func BenchmarkHandler_enroll(b *testing.B) {
	tlsCA := newCA(b, "TLS")
	client := identity(b, tlsCA)
	state := &tls.ConnectionState{PeerCertificates: []*x509.Certificate{client.Leaf, tlsCA.Issuing}}
	authority := goldenAuthority(b)
	roots := poolOf(tlsCA.Root)
	h := NewHandler(HandlerConfig{
		Directory: Static{"RA": funcAuthority(func(ctx context.Context, r Request) (Issued, error) {
			return authority.Enroll(ctx, r)
		})},
		ClientRoots: func() *x509.CertPool { return roots },
		Log:         slog.New(slog.DiscardHandler),
	})
	header := enrollHeader(b)
	b.ReportAllocs()
	for b.Loop() {
		r := httptest.NewRequest("GET", "/v1/certificate/RA", nil)
		r.Header, r.TLS = header, state
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != 200 {
			b.Fatal(w.Code, w.Body)
		}
	}
}
