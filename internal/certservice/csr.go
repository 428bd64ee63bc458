package certservice

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/certfetcher/certfetcher/internal/pki"
	"github.com/certfetcher/certfetcher/internal/policy"
)

// csrFault says what is wrong with the content of a request whose structure could be read. The
// client sees it, as it is about what the client asked for. It is worded to follow "the CSR".
type csrFault string

func (f csrFault) Error() string { return string(f) }

var errNotPKCS10 = errors.New("is not a PKCS#10 request")

// csrParts are the elements of a request (RFC 2986, 4) as
// they came. attributes is nil where the field is missing.
type csrParts struct {
	tbs, version, subject, spki, attributes []byte
	algorithm, signature                    []byte
}

// readCSR parses a request as crypto/x509 does. It also accepts two kinds that OpenSSL, Bouncy
// Castle and the ONAP server accept: without the field attributes, and with characters in a
// PrintableString that do not belong there, such as an underscore. Raw, RawTBSCertificateRequest
// and RawSubject are the original bytes, so that the signature is verified over them and the CA
// gets the subject as it was written. DER is required.
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
	return csr, nil
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

// parseAdapted lets crypto/x509 parse a copy with the same meaning in a form that it accepts, and
// restores the original bytes.
func (p csrParts) parseAdapted(der []byte) (*x509.CertificateRequest, error) {
	subject, ok := pki.AdaptName(p.subject)
	if !ok {
		return nil, csrFault(
			"has a subject that is not a name, or one with other characters than ASCII in a PrintableString: " +
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
		if fault := p.faultInExtensions(); fault != nil {
			return nil, fault
		}
		return nil, errNotPKCS10
	}
	csr.Raw, csr.RawTBSCertificateRequest, csr.RawSubject = der, p.tbs, p.subject
	return csr, nil
}

var (
	oidKeyUsage       = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidSubjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}
)

// faultInExtensions says why crypto/x509 refuses the extensions that a request asks for; nil when
// that is not the reason.
func (p csrParts) faultInExtensions() error {
	extensions, err := policy.ReadExtensions(p.tbs)
	if err != nil {
		return err
	}
	for _, e := range extensions {
		if e.Id.Equal(oidSubjectAltName) {
			if fault := faultInNames(e.Value); fault != "" {
				return fault
			}
		}
	}
	return nil
}

// faultInNames finds the first subject alternative name that is not as RFC 5280, 4.2.1.6 requires.
func faultInNames(san cryptobyte.String) csrFault {
	var names cryptobyte.String
	if !san.ReadASN1(&names, cbasn1.SEQUENCE) || !san.Empty() {
		return "asks for subject alternative names that cannot be read"
	}
	for !names.Empty() {
		var value cryptobyte.String
		var tag cbasn1.Tag
		if !names.ReadAnyASN1(&value, &tag) {
			return "asks for subject alternative names that cannot be read"
		}
		if fault := faultInName(uint8(tag)&0x1f, string(value)); fault != "" {
			return fault
		}
	}
	return ""
}

// generalIP is the kind of GeneralName of an IP address (RFC 5280, 4.2.1.6).
const generalIP = 7

// asciiNames are the kinds of GeneralName that are
// IA5Strings, with what to write instead of other characters.
var asciiNames = map[uint8]struct{ name, want string }{
	1: {"e-mail address", ""}, 2: {"DNS name", ", want its A-label (xn--…)"}, 6: {"URI", ", want it percent-encoded"},
}

func faultInName(kind uint8, value string) csrFault {
	text, isText := asciiNames[kind]
	shown := fmt.Sprintf("asks for the %s %q, which ", text.name, pki.OneLine(value, 100))
	switch n := len(value); {
	case isText && !ascii(value):
		return csrFault(shown + "is not ASCII" + text.want)
	case text.name == "URI":
		if _, err := url.Parse(value); err != nil {
			return csrFault(shown + "cannot be parsed")
		}
	case kind == generalIP && n != 4 && n != 16:
		return csrFault(fmt.Sprintf("asks for an IP address of %d bytes, want 4 or 16", n))
	}
	return ""
}

func ascii(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r > '~' })
}

// forbiddenUsages are those that a certificate with such a key must not have: RFC 8813, 3 for
// ECDSA keys, RFC 8410, 5 for Ed25519. Strict CAs refuse a request for them.
func forbiddenUsages(key crypto.PublicKey) []string {
	switch key.(type) {
	case *rsa.PublicKey:
		return nil
	case ed25519.PublicKey:
		return []string{"keyEncipherment", "dataEncipherment", "keyAgreement", "encipherOnly", "decipherOnly"}
	default:
		return []string{"keyEncipherment", "dataEncipherment"}
	}
}

// withoutForbiddenUsages returns the request without the key usages
// that its kind of key must not have, and their names. If none is left,
// no key usage is requested. The original request is not changed.
func withoutForbiddenUsages(csr *x509.CertificateRequest) (*x509.CertificateRequest, []string) {
	at := slices.IndexFunc(csr.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(oidKeyUsage) })
	if at < 0 {
		return csr, nil
	}
	asked, _ := pki.ReadKeyUsage(csr.Extensions[at].Value)
	var kept, dropped []string
	forbidden := forbiddenUsages(csr.PublicKey)
	for _, name := range asked {
		if slices.Contains(forbidden, name) {
			dropped = append(dropped, name)
		} else {
			kept = append(kept, name)
		}
	}
	if len(dropped) == 0 {
		return csr, nil
	}
	changed := *csr
	changed.Extensions = slices.Clone(csr.Extensions)
	if len(kept) == 0 {
		changed.Extensions = slices.Delete(changed.Extensions, at, at+1)
	} else {
		changed.Extensions[at].Value = keyUsageValue(kept)
	}
	return &changed, dropped
}

// keyUsageValue is the DER of a KeyUsage, a named bit list,
// which has no zero bits at its end (X.690, 11.2.2).
func keyUsageValue(names []string) []byte {
	var bits asn1.BitString
	for bit, name := range pki.KeyUsages {
		if slices.Contains(names, name) {
			for len(bits.Bytes) <= bit/8 {
				bits.Bytes = append(bits.Bytes, 0)
			}
			bits.Bytes[bit/8] |= 0x80 >> (bit % 8)
			bits.BitLength = bit + 1
		}
	}
	der, _ := asn1.Marshal(bits) // a BitString always encodes
	return der
}
