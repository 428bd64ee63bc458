package certservice

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"slices"
	"strings"

	"github.com/certfetcher/certfetcher/internal/cmp"
)

// sameSubjectAndNames reports whether the request asks for the subject and the subject alternative names
// that the certificate has, in whatever order. Then an update is a key update (RFC 4210, 5.3.5); else
// it is a request for another certificate, which the old one's key must not authorise.
func sameSubjectAndNames(csr *x509.CertificateRequest, cert *x509.Certificate) bool {
	requested, ok1 := alternativeNames(csr.Extensions)
	held, ok2 := alternativeNames(cert.Extensions)
	return ok1 && ok2 && slices.Equal(requested, held) && cmp.SameName(csr.RawSubject, cert.RawSubject)
}

var oidSubjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}

// Tag of dNSName in GeneralName (RFC 5280, 4.2.1.6).
const tagDNSName = 2

// alternativeNames returns the set of the names in a subjectAltName extension, sorted. It compares
// GeneralNames as they are encoded, so that kinds which crypto/x509 does not parse count as well; only DNS
// names are put into lower case, in which they mean the same.
func alternativeNames(extensions []pkix.Extension) ([]string, bool) {
	var names []string
	for _, extension := range extensions {
		if !extension.Id.Equal(oidSubjectAltName) {
			continue
		}
		var list []asn1.RawValue
		if rest, err := asn1.Unmarshal(extension.Value, &list); err != nil || len(rest) > 0 {
			return nil, false
		}
		for _, name := range list {
			encoded := string(name.FullBytes)
			if name.Class == asn1.ClassContextSpecific && name.Tag == tagDNSName {
				encoded = strings.ToLower(encoded)
			}
			names = append(names, encoded)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), true
}
