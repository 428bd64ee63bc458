package certservice

import (
	"crypto/x509"
	"errors"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/certfetcher/certfetcher/internal/pki"
)

// csrFault is what is wrong with the content of a request whose structure could be read. The client is told: it is
// about what the client asked for, and worded to follow "the CSR".
type csrFault string

func (f csrFault) Error() string { return string(f) }

var errNotPKCS10 = errors.New("is not a PKCS#10 request")

// csrParts are the elements of a request (RFC 2986, 4) as they came. attributes is nil where the field is missing.
type csrParts struct {
	tbs, version, subject, spki, attributes []byte
	algorithm, signature                    []byte
}

// readCSR parses a request as crypto/x509 does, and beyond that takes two kinds that OpenSSL, Bouncy Castle and the
// ONAP server take: without the field attributes, and with characters in a PrintableString that do not belong there,
// such as an underscore. Raw, RawTBSCertificateRequest and RawSubject are the bytes that came, so that the signature
// is verified over them and the CA gets the subject as it was written. DER is required.
func readCSR(der []byte) (*x509.CertificateRequest, error) {
	parts, ok := splitCSR(der)
	if !ok {
		return nil, errNotPKCS10
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		if csr, err = parts.parseAdapted(der); err != nil {
			return nil, err
		}
	}
	return csr, checkUsages(csr.Extensions)
}

func splitCSR(der []byte) (csrParts, bool) {
	var p csrParts
	var body, tbs, element cryptobyte.String
	s := cryptobyte.String(der)
	if !s.ReadASN1(&body, cbasn1.SEQUENCE) || !s.Empty() || !body.ReadASN1Element(&element, cbasn1.SEQUENCE) {
		return p, false
	}
	p.tbs = element
	if !element.ReadASN1(&tbs, cbasn1.SEQUENCE) {
		return p, false
	}
	next := func(from *cryptobyte.String, tag cbasn1.Tag, to *[]byte) bool {
		return from.ReadASN1Element((*cryptobyte.String)(to), tag)
	}
	if !next(&tbs, cbasn1.INTEGER, &p.version) || !next(&tbs, cbasn1.SEQUENCE, &p.subject) ||
		!next(&tbs, cbasn1.SEQUENCE, &p.spki) {
		return p, false
	}
	attributes := cbasn1.Tag(0).ContextSpecific().Constructed()
	if !tbs.Empty() && !next(&tbs, attributes, &p.attributes) {
		return p, false
	}
	read := next(&body, cbasn1.SEQUENCE, &p.algorithm) && next(&body, cbasn1.BIT_STRING, &p.signature)
	return p, read && body.Empty() && tbs.Empty()
}

// parseAdapted has crypto/x509 parse a copy that says the same in a form that it takes, and puts back what came.
func (p csrParts) parseAdapted(der []byte) (*x509.CertificateRequest, error) {
	subject, ok := pki.AdaptName(p.subject)
	if !ok {
		return nil, csrFault("has a subject that is not a name, or one with other characters than ASCII in a PrintableString: " +
			"want a UTF8String for such text")
	}
	attributes := p.attributes
	if attributes == nil {
		attributes = []byte{0xa0, 0}
	}
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			for _, part := range [][]byte{p.version, subject, p.spki, attributes} {
				b.AddBytes(part)
			}
		})
		b.AddBytes(p.algorithm)
		b.AddBytes(p.signature)
	})
	adapted, err := b.Bytes()
	if err != nil {
		return nil, errNotPKCS10
	}
	csr, err := x509.ParseCertificateRequest(adapted)
	if err != nil {
		if fault := faultInAttributes(p.attributes); fault != "" {
			return nil, fault
		}
		return nil, errNotPKCS10
	}
	csr.Raw, csr.RawTBSCertificateRequest, csr.RawSubject = der, p.tbs, p.subject
	return csr, nil
}
