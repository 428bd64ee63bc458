// Package pki reads, words, compares and verifies certificates (RFC 5280) that other people's programs made, in the
// same way for every log, report and check: PEM as files really have it, certificates that crypto/x509 refuses, names
// and serial numbers as openssl prints them, and certification paths with the reason why one does not verify. It makes
// none.
package pki

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
)

// Serial is a serial number in hexadecimal, upper case, two digits to an octet, without separators. A negative one,
// which RFC 5280 forbids and old CAs issued, has a sign.
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

// DN is a distinguished name, given as DER, as RFC 4514 writes it: the last attribute first. The String of
// crypto/x509's Subject and Issuer puts the attributes in an order of its own.
func DN(raw []byte) string {
	var name pkix.RDNSequence
	if _, err := asn1.Unmarshal(raw, &name); err != nil {
		if name = parseName(raw); name == nil {
			return fmt.Sprintf("a name that cannot be read (%v)", err)
		}
	}
	return name.String()
}

// Names lists a certificate's subject alternative names, each with its kind, sorted; host names, those of e-mail
// addresses as well, compare without regard to case and are in lower case.
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
