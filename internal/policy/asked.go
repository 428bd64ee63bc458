package policy

import (
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/certfetcher/certfetcher/internal/pki"
)

// Asked is all that a request asks for.
type Asked struct {
	attributes []attribute // of the subject
	names      []generalName
	usages     []string  // of the key, simple and extended: names, or numbers of those without one
	others     []refusal // extensions that no rule can allow
	beside     []refusal // the same of the CSR's attributes, which most protocols do not pass on
	key        keyKind
}

// attribute is one of a subject's.
type attribute struct {
	kind  string // as in policy files; of others as RFC 4514 writes it, or the OID
	value string
	named bool // a common name that is a DNS name of the same request as well
}

// generalName is a subject alternative name.
type generalName struct {
	kind  nameKind
	value string // as it came; of an IP address its text
	// form is what patterns are compared with: parts without regard to case are in lower case. It is
	// empty for a name with a fault, which no pattern matches.
	form     string
	fault    string // why no rule can allow the name
	wildcard bool   // a DNS name that stands for others
	ip       netip.Addr
}

// AlwaysRefusedError says why a request is refused whatever a policy says, and without one. Its
// text is worded to follow "the CSR".
type AlwaysRefusedError string

func (e AlwaysRefusedError) Error() string { return string(e) }

func refuse(format string, args ...any) error {
	return AlwaysRefusedError(fmt.Sprintf(format, args...))
}

// ReadCSR reads what a request (RFC 2986), or one made of a CRMF template, asks for. The error is
// an AlwaysRefusedError.
func ReadCSR(csr *x509.CertificateRequest) (*Asked, error) {
	var a Asked
	extensions, err := a.readAttributes(csr.RawTBSCertificateRequest)
	if err != nil {
		return nil, err
	}
	if a.attributes, err = readSubject(csr.RawSubject); err != nil {
		return nil, err
	}
	if err := a.readExtensions(extensions); err != nil {
		return nil, err
	}
	a.markNamed()
	if len(a.attributes) == 0 && len(a.names) == 0 {
		return nil, refuse("asks for no name: it has neither a subject nor subject alternative names")
	}
	a.key = kindOf(csr.PublicKey)
	return &a, nil
}

// Whole is the request where the CSR itself goes to the CA, with all its attributes (p10cr).
func (a *Asked) Whole() *Asked {
	whole := *a
	whole.others = append(slices.Clone(a.others), a.beside...)
	return &whole
}

var (
	oidExtensionRequest          = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 14}
	oidMicrosoftExtensionRequest = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 1, 14}
)

// harmlessAttributes of a CSR name nothing that a CA puts into a certificate: challengePassword
// (RFC 2985, 5.4.1), and what Windows says about itself.
var harmlessAttributes = []string{"1.2.840.113549.1.9.7", "1.3.6.1.4.1.311.13.2.2", "1.3.6.1.4.1.311.13.2.3",
	"1.3.6.1.4.1.311.21.20"}

// ReadExtensions returns the extensions that a CSR asks for, given as its CertificationRequestInfo.
// The error is an AlwaysRefusedError.
func ReadExtensions(tbs []byte) ([]pkix.Extension, error) { return new(Asked).readAttributes(tbs) }

// readAttributes returns the extensions that are asked for. It refuses some in places where one
// program finds them and another does not (RFC 2985, 5.4.2 wants one attribute with one value).
func (a *Asked) readAttributes(tbs []byte) (extensions []pkix.Extension, err error) {
	var body, attributes cryptobyte.String
	s := cryptobyte.String(tbs)
	if !s.ReadASN1(&body, cbasn1.SEQUENCE) || !s.Empty() || !body.SkipASN1(cbasn1.INTEGER) ||
		!body.SkipASN1(cbasn1.SEQUENCE) || !body.SkipASN1(cbasn1.SEQUENCE) ||
		!body.ReadOptionalASN1(&attributes, nil, cbasn1.Tag(0).ContextSpecific().Constructed()) || !body.Empty() {
		return nil, refuse("cannot be read")
	}
	requests := 0
	for !attributes.Empty() {
		var attribute, values cryptobyte.String
		var kind asn1.ObjectIdentifier
		if !attributes.ReadASN1(&attribute, cbasn1.SEQUENCE) || !attribute.ReadASN1ObjectIdentifier(&kind) ||
			!attribute.ReadASN1(&values, cbasn1.SET) || !attribute.Empty() {
			return nil, refuse("has an attribute that cannot be read")
		}
		switch oid := kind.String(); {
		case kind.Equal(oidMicrosoftExtensionRequest):
			return nil, refuse("has Microsoft's attribute for extensions, want extensionRequest (%s)",
				oidExtensionRequest)
		case kind.Equal(oidExtensionRequest):
		case slices.Contains(harmlessAttributes, oid):
			continue
		default: // Microsoft's CA takes names from one of its own
			a.beside = append(a.beside, refusal{"attribute", attributeName(kind), byNoRule})
			continue
		}
		for !values.Empty() {
			var list cryptobyte.String
			if !values.ReadASN1(&list, cbasn1.SEQUENCE) {
				return nil, refuse("has an extension request that cannot be read")
			}
			if requests++; requests > 1 {
				return nil, refuse("has more than one extension request, want one attribute with one value")
			}
			if extensions, err = readExtensionList(list); err != nil {
				return nil, err
			}
		}
	}
	return extensions, nil
}

const byNoRule = "can be allowed by no rule"

// readExtensionList reads the elements of Extensions (RFC 5280, 4.1), one of each kind.
func readExtensionList(list cryptobyte.String) (extensions []pkix.Extension, err error) {
	seen := map[string]bool{}
	for !list.Empty() {
		var e pkix.Extension
		var fields, value cryptobyte.String
		if !list.ReadASN1(&fields, cbasn1.SEQUENCE) || !fields.ReadASN1ObjectIdentifier(&e.Id) ||
			fields.PeekASN1Tag(cbasn1.BOOLEAN) && !fields.ReadASN1Boolean(&e.Critical) ||
			!fields.ReadASN1(&value, cbasn1.OCTET_STRING) || !fields.Empty() {
			return nil, refuse("has an extension request that cannot be read")
		}
		oid := e.Id.String()
		if seen[oid] {
			return nil, refuse("asks for the extension %s twice, want one of each kind", extensionName(oid))
		}
		seen[oid] = true
		e.Value = value
		extensions = append(extensions, e)
	}
	return extensions, nil
}

// markNamed marks common names that are among the DNS names, which are judged themselves.
func (a *Asked) markNamed() {
	hosts := map[string]bool{}
	for i := range a.names {
		if a.names[i].kind == kindDNS && a.names[i].fault == "" {
			hosts[a.names[i].form] = true
		}
	}
	for i := range a.attributes {
		at := &a.attributes[i]
		at.named = at.kind == "commonName" && hosts[lowerASCII(at.value)]
	}
}

// readSubject returns the attributes of a DER Name in their order.
func readSubject(der []byte) (found []attribute, err error) {
	err = eachAttribute(der, func(kind string, tag cbasn1.Tag, value []byte) error {
		text, ok := readText(tag, value)
		switch {
		case !ok:
			return refuse("has a subject whose %s is not a readable text", kind)
		case text == "":
			return refuse("has a subject whose %s is empty", kind)
		case strings.ContainsFunc(text, unprintable):
			return refuse("has a subject whose %s %q holds control characters", kind, shorten(text))
		}
		found = append(found, attribute{kind: kind, value: text})
		return nil
	})
	return found, err
}

// eachAttribute passes on the attributes of a DER Name: each one of each RDN.
func eachAttribute(der []byte, take func(kind string, tag cbasn1.Tag, value []byte) error) error {
	unreadable := refuse("has a subject that is not a name")
	var rdns cryptobyte.String
	s := cryptobyte.String(der)
	if !s.ReadASN1(&rdns, cbasn1.SEQUENCE) || !s.Empty() {
		return unreadable
	}
	for !rdns.Empty() {
		var rdn cryptobyte.String
		if !rdns.ReadASN1(&rdn, cbasn1.SET) || rdn.Empty() {
			return unreadable
		}
		for !rdn.Empty() {
			var pair, value cryptobyte.String
			var tag cbasn1.Tag
			var oid asn1.ObjectIdentifier
			if !rdn.ReadASN1(&pair, cbasn1.SEQUENCE) || !pair.ReadASN1ObjectIdentifier(&oid) ||
				!pair.ReadAnyASN1(&value, &tag) || !pair.Empty() {
				return unreadable
			}
			if err := take(attributeName(oid), tag, value); err != nil {
				return err
			}
		}
	}
	return nil
}

// unprintable are the characters that a reader does not see, or that change how others are seen.
func unprintable(r rune) bool { return !unicode.IsGraphic(r) }

// readText decodes a DirectoryString or another string (X.680).
func readText(tag cbasn1.Tag, value []byte) (string, bool) {
	const (
		numericString, videotexString, visibleString = cbasn1.Tag(18), cbasn1.Tag(21), cbasn1.Tag(26)
		universalString, bmpString                   = cbasn1.Tag(28), cbasn1.Tag(30)
	)
	switch tag {
	case cbasn1.UTF8String:
		return string(value), utf8.Valid(value)
	case cbasn1.PrintableString, cbasn1.IA5String, cbasn1.T61String, numericString, visibleString:
		// Beyond ASCII a T61String means what each program makes of it.
		return string(value), !slices.ContainsFunc(value, func(b byte) bool { return b >= utf8.RuneSelf })
	case bmpString:
		if len(value)%2 != 0 {
			return "", false
		}
		units := make([]uint16, len(value)/2)
		for i := range units {
			units[i] = uint16(value[2*i])<<8 | uint16(value[2*i+1])
		}
		text := string(utf16.Decode(units))
		return text, !strings.ContainsRune(text, utf8.RuneError)
	case universalString:
		if len(value)%4 != 0 {
			return "", false
		}
		var text strings.Builder
		for i := 0; i < len(value); i += 4 {
			r := rune(value[i])<<24 | rune(value[i+1])<<16 | rune(value[i+2])<<8 | rune(value[i+3])
			if !utf8.ValidRune(r) {
				return "", false
			}
			text.WriteRune(r)
		}
		return text.String(), true
	}
	return "", false
}

// attributeNames are those of RFC 4519 and X.520; a policy can name the first ones.
var attributeNames = map[string]string{
	"2.5.4.3": "commonName", "2.5.4.10": "organization", "2.5.4.11": "organizationalUnit",
	"2.5.4.6": "country", "2.5.4.8": "state", "2.5.4.7": "locality", "2.5.4.5": "serialNumber",
	"2.5.4.4": "surname", "2.5.4.9": "streetAddress", "2.5.4.12": "title", "2.5.4.42": "givenName",
	"2.5.4.17": "postalCode", "2.5.4.97": "organizationIdentifier",
	"0.9.2342.19200300.100.1.1": "userID", "0.9.2342.19200300.100.1.25": "domainComponent",
	"1.2.840.113549.1.9.1": "emailAddress", "1.2.840.113549.1.9.2": "unstructuredName",
	"1.2.840.113549.1.9.8": "unstructuredAddress",
}

func attributeName(oid asn1.ObjectIdentifier) string {
	if name, ok := attributeNames[oid.String()]; ok {
		return name
	}
	return oid.String()
}

// The extensions that a request may ask for (RFC 5280, 4.2.1).
const (
	extensionKeyIdentifier    = "2.5.29.14"
	extensionKeyUsage         = "2.5.29.15"
	extensionAltName          = "2.5.29.17"
	extensionBasicConstraints = "2.5.29.19"
	extensionExtKeyUsage      = "2.5.29.37"
)

var extensionNames = map[string]string{
	extensionKeyIdentifier: "subjectKeyIdentifier", extensionKeyUsage: "keyUsage",
	extensionAltName: "subjectAltName", extensionBasicConstraints: "basicConstraints",
	extensionExtKeyUsage: "extendedKeyUsage", "2.5.29.18": "issuerAltName", "2.5.29.30": "nameConstraints",
	"2.5.29.32": "certificatePolicies", "2.5.29.9": "subjectDirectoryAttributes", "1.3.6.1.5.5.7.1.24": "tlsfeature",
}

func extensionName(oid string) string {
	if name, ok := extensionNames[oid]; ok {
		return name
	}
	return oid
}

func (a *Asked) readExtensions(extensions []pkix.Extension) error {
	for _, e := range extensions {
		var err error
		switch oid := e.Id.String(); oid {
		case extensionAltName:
			a.names, err = readNames(e.Value)
		case extensionKeyUsage:
			err = a.readKeyUsage(e.Value)
		case extensionExtKeyUsage:
			err = a.readExtKeyUsage(e.Value)
		case extensionBasicConstraints:
			err = checkBasicConstraints(e.Value)
		case extensionKeyIdentifier: // which says nothing about who the client is
		default:
			a.others = append(a.others, refusal{"extension", extensionName(oid), byNoRule})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func checkBasicConstraints(der []byte) error {
	var body cryptobyte.String
	var authority bool
	s := cryptobyte.String(der)
	if !s.ReadASN1(&body, cbasn1.SEQUENCE) || !s.Empty() ||
		body.PeekASN1Tag(cbasn1.BOOLEAN) && !body.ReadASN1Boolean(&authority) ||
		!body.SkipOptionalASN1(cbasn1.INTEGER) || !body.Empty() {
		return refuse("asks for basicConstraints that cannot be read")
	}
	if authority {
		return refuse("asks for a CA certificate (basicConstraints CA:TRUE), which is not issued here")
	}
	return nil
}

// extKeyUsages are those with a name in a policy file; others are named by their numbers.
var extKeyUsages = map[string]string{
	"1.3.6.1.5.5.7.3.1": "serverAuth", "1.3.6.1.5.5.7.3.2": "clientAuth", "1.3.6.1.5.5.7.3.3": "codeSigning",
	"1.3.6.1.5.5.7.3.4": "emailProtection", "1.3.6.1.5.5.7.3.5": "ipsecEndSystem", "1.3.6.1.5.5.7.3.6": "ipsecTunnel",
	"1.3.6.1.5.5.7.3.7": "ipsecUser", "1.3.6.1.5.5.7.3.8": "timeStamping", "1.3.6.1.5.5.7.3.9": "OCSPSigning",
	"1.3.6.1.5.5.7.3.17": "ipsecIKE", "1.3.6.1.5.5.7.3.27": "cmcCA", "1.3.6.1.5.5.7.3.28": "cmcRA",
	"2.5.29.37.0": "anyExtendedKeyUsage",
}

// refusedUsages are for a CA's keys, or would let the holder act as a CA, or as anyone: sign
// revocation data, code, or CMP messages as an authority does, or be valid for everything.
var refusedUsages = []string{"keyCertSign", "cRLSign", "anyExtendedKeyUsage", "OCSPSigning", "cmcCA", "cmcRA",
	"codeSigning"}

func (a *Asked) readKeyUsage(der []byte) error {
	usages, ok := pki.ReadKeyUsage(der)
	if !ok {
		return refuse("asks for a keyUsage that cannot be read")
	}
	for _, name := range usages {
		if slices.Contains(refusedUsages, name) {
			return refuse("asks for the key usage %s, which is not issued here", name)
		}
	}
	a.usages = append(a.usages, usages...)
	return nil
}

func (a *Asked) readExtKeyUsage(der []byte) error {
	var usages []asn1.ObjectIdentifier
	if rest, err := asn1.Unmarshal(der, &usages); err != nil || len(rest) > 0 {
		return refuse("asks for an extendedKeyUsage that cannot be read")
	}
	for _, usage := range usages {
		name, known := extKeyUsages[usage.String()]
		switch {
		case slices.Contains(refusedUsages, name):
			return refuse("asks for the extended key usage %s, which is not issued here", name)
		case !known:
			name = usage.String()
		}
		a.usages = append(a.usages, name)
	}
	return nil
}

// keyKind is the kind and size of a public key.
type keyKind struct {
	name string // RSA, or as in policy files: ECDSA-P256, Ed25519
	bits int    // of RSA keys
	text string // with the size: RSA-2048
}

func kindOf(public crypto.PublicKey) keyKind {
	if key, ok := public.(*rsa.PublicKey); ok {
		bits := key.N.BitLen()
		return keyKind{"RSA", bits, fmt.Sprintf("RSA-%d", bits)}
	}
	name, ok := pki.KeyName(public)
	if !ok {
		name = "unknown"
	}
	return keyKind{name: name, text: name}
}

// shorten keeps foreign text on a line and in bounds.
func shorten(text string) string { return pki.OneLine(text, 200) }
