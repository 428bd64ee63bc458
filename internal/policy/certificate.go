package policy

import "crypto/x509"

// ReadCertificate reads the names of a certificate that was issued. What else a CA puts into one,
// such as its own organization or usages, is not the client's doing.
func ReadCertificate(cert *x509.Certificate) *Asked {
	of := newSubject(Client{Certificate: cert})
	a := &Asked{names: of.names, key: kindOf(cert.PublicKey)}
	for _, attribute := range of.attributes {
		if attribute.kind == "commonName" {
			a.attributes = append(a.attributes, attribute)
		}
	}
	a.markNamed()
	return a
}
