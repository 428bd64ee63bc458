package certservice

import (
	"crypto/tls"
	"crypto/x509"
	"time"
)

// messageUnauthorized does not say which of the two it is, nor why a chain does not verify: that helps
// someone who probes the truststore. The audit line tells them apart.
const messageUnauthorized = "Client certificate is missing or not trusted"

// verifyClient returns the client's certificate, and a reason when it is missing or does not chain to
// the roots; nil roots are none. That the client holds the certificate's key is what the TLS handshake proved. Verification is done here
// for each request, not once in the handshake, for the answer 401 that the API promises, and so that an
// expired certificate or a replaced truststore ends connections kept alive and sessions resumed.
func verifyClient(state *tls.ConnectionState, roots *x509.CertPool, now time.Time) (*x509.Certificate, string) {
	if state == nil || len(state.PeerCertificates) == 0 {
		return nil, "client certificate is missing"
	}
	leaf := state.PeerCertificates[0]
	if roots == nil {
		roots = x509.NewCertPool() // to Verify, nil means the system's roots
	}
	intermediates := x509.NewCertPool()
	for _, cert := range state.PeerCertificates[1:] {
		intermediates.AddCert(cert)
	}
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots:         roots,
		Intermediates: intermediates,
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return leaf, "client certificate is not trusted: " + err.Error()
	}
	return leaf, ""
}
