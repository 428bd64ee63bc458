package certservice

import (
	"crypto/x509"

	"github.com/certfetcher/certfetcher/internal/cmp"
)

// sameSubjectAndNames reports whether the request asks for the subject and the subject alternative names
// that the certificate has, in whatever order. Then an update is a key update (RFC 4210, 5.3.5); else
// it is a request for another certificate, which the old one's key must not authorise.
func sameSubjectAndNames(csr *x509.CertificateRequest, cert *x509.Certificate) bool {
	return cmp.SameAlternativeNames(csr.Extensions, cert.Extensions) && cmp.SameName(csr.RawSubject, cert.RawSubject)
}
