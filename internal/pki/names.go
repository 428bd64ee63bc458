// Package pki reads, words, compares and verifies certificates (RFC 5280) that other people's
// programs made, in the same way for every log, report and check: PEM as files really have it,
// certificates that crypto/x509 refuses, names and serial numbers as openssl prints them, and
// certification paths with the reason why one does not verify. It makes none.
package pki

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Serial is a serial number in hexadecimal, upper case, two digits to an octet, without
// separators. A negative one, which RFC 5280 forbids and old CAs issued, has a sign.
func Serial(cert *x509.Certificate) string {
	octets, sign := cert.SerialNumber.Bytes(), ""
	if len(octets) == 0 {
		octets = []byte{0}
	}
	if cert.SerialNumber.Sign() < 0 {
		sign = "-"
	}
	return fmt.Sprintf("%s%X", sign, octets)
}

// DN is a distinguished name, given as DER, as RFC 4514 writes it: the last attribute first. The
// String of crypto/x509's Subject and Issuer puts the attributes in an order of its own.
func DN(raw []byte) string {
	var name pkix.RDNSequence
	if _, err := asn1.Unmarshal(raw, &name); err != nil {
		if name = parseName(raw); name == nil {
			return fmt.Sprintf("a name that cannot be read (%v)", err)
		}
	}
	return name.String()
}

// Names lists a certificate's subject alternative names, each with its kind, sorted; host names,
// those of e-mail addresses as well, compare without regard to case and are in lower case.
func Names(cert *x509.Certificate) []string {
	return listNames(cert.DNSNames, cert.EmailAddresses, cert.IPAddresses, cert.URIs)
}

// RequestNames is Names for a certificate signing request.
func RequestNames(csr *x509.CertificateRequest) []string {
	return listNames(csr.DNSNames, csr.EmailAddresses, csr.IPAddresses, csr.URIs)
}

func listNames(dns, emails []string, ips []net.IP, uris []*url.URL) []string {
	list := []string{}
	for _, name := range dns {
		list = append(list, "DNS:"+strings.ToLower(name))
	}
	for _, address := range emails {
		local, domain, _ := strings.Cut(address, "@")
		list = append(list, "email:"+local+"@"+strings.ToLower(domain))
	}
	for _, ip := range ips {
		list = append(list, "IP Address:"+ip.String())
	}
	for _, uri := range uris {
		list = append(list, "URI:"+uri.String())
	}
	slices.Sort(list)
	return list
}

// SameName says whether two DER Names are the same name: the same RDNs, in whatever order, with
// values compared as RFC 5280, 7.1 wants (case and runs of spaces do not matter, nor the kind of
// string). The order is let go because EJBCA gives names back in reverse and operators write them
// either way. Names that cannot be read are not the same as anything.
func SameName(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return isName(a)
	}
	return SameNameAs(a)(b)
}

// isName says whether a name has the structure of one, which is all that RDNs needs.
func isName(der cryptobyte.String) bool {
	var name cryptobyte.String
	if !der.ReadASN1(&name, cbasn1.SEQUENCE) || !der.Empty() {
		return false
	}
	for !name.Empty() {
		var rdn cryptobyte.String
		if !name.ReadASN1(&rdn, cbasn1.SET) {
			return false
		}
		for !rdn.Empty() {
			var attribute, value cryptobyte.String
			var tag cbasn1.Tag
			if !rdn.ReadASN1(&attribute, cbasn1.SEQUENCE) || !attribute.SkipASN1(cbasn1.OBJECT_IDENTIFIER) ||
				!attribute.ReadAnyASN1(&value, &tag) || !attribute.Empty() {
				return false
			}
		}
	}
	return true
}

// SameNameAs is SameName for one name and many others, and
// takes the one apart only once: it may be large.
func SameNameAs(a []byte) func(b []byte) bool {
	x, okX := normalName(a)
	return func(b []byte) bool {
		y, okY := normalName(b)
		return okX && okY && slices.Equal(x, y)
	}
}

// normalName returns the RDNs of a name in a form that can be compared, sorted.
func normalName(der []byte) ([]string, bool) {
	rdns, ok := RDNs(der)
	slices.Sort(rdns)
	return rdns, ok
}

// RDNs returns the RDNs of a DER Name in their order, each in a form that can be compared with
// others, and false for a name that cannot be read.
func RDNs(der []byte) ([]string, bool) {
	var name []attributeSET
	if rest, err := asn1.Unmarshal(der, &name); err != nil || len(rest) > 0 {
		return nil, false
	}
	rdns := make([]string, 0, len(name))
	for _, rdn := range name {
		values := make([]string, 0, len(rdn))
		for _, attribute := range rdn {
			values = append(values, attribute.Type.String()+"="+normalValue(attribute.Value))
		}
		slices.Sort(values)
		rdns = append(rdns, strings.Join(values, "+"))
	}
	return rdns, true
}

// attributeSET is an RDN (RFC 5280, 4.1.2.4); encoding/asn1 goes by the end of its name.
type attributeSET []struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue
}

// normalValue returns a string so that the same strings are equal, and any other value as its DER.
func normalValue(value asn1.RawValue) string {
	var text any
	if _, err := asn1.Unmarshal(value.FullBytes, &text); err == nil {
		if text, isString := text.(string); isString {
			return fmt.Sprintf("%q", strings.ToLower(strings.Join(strings.Fields(text), " ")))
		}
	}
	return fmt.Sprintf("%x", value.FullBytes)
}

// ShowURL is a URL without what may be secret in it: user, password, query and fragment.
func ShowURL(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}).String()
}

// OneLine puts foreign text on one line: control, format and undecodable characters become spaces,
// spaces collapse, and what is longer than limit characters is cut.
func OneLine(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
	s = strings.Join(strings.Fields(s), " ")
	if utf8.RuneCountInString(s) > limit {
		s = string([]rune(s)[:limit]) + "…"
	}
	return s
}

// FirstOf is a list, or its first elements and then how many more there are.
func FirstOf(list []string, most int) []string {
	if len(list) <= most {
		return list
	}
	return append(slices.Clone(list[:most]), fmt.Sprintf("and %d more", len(list)-most))
}
