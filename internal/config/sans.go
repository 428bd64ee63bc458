package config

import (
	"crypto/x509"
	"net"
	"net/mail"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// sans sorts the entries of SANS into the template's names. Each entry has its kind before it, as openssl, keytool
// and inspect print names, or is the first that fits of e-mail address, IP address, host name and URI, in the ONAP
// client's order.
func (l *loader) sans(text string, template *x509.CertificateRequest) {
	if text == "" {
		return
	}
	// The ONAP client split as Java does, which lets a comma at the very end pass.
	for _, entry := range strings.Split(strings.TrimSuffix(strings.TrimSpace(text), ","), ",") {
		entry = strings.TrimSpace(entry)
		if entry == "" {
			l.Reject("SANS", "an entry is empty")
			return
		}
		if problem := l.san(entry, template); problem != "" {
			l.Reject("SANS", problem)
		}
	}
}

// san adds one entry to the template, or says what is wrong with it.
func (l *loader) san(entry string, template *x509.CertificateRequest) (problem string) {
	kind, value, given := nameKind(entry)
	if !given {
		kind, value = guessedKind(entry), entry
	}
	switch {
	case given && value == "":
		return strconv.Quote(entry) + " has nothing after the colon"
	case kind == kindEmail && isEmail(value):
		template.EmailAddresses = appendNew(template.EmailAddresses, value)
	case kind == kindIP && isIP(value):
		template.IPAddresses = appendIP(template.IPAddresses, value)
	case kind == kindDNS && isDNSName(strings.TrimSuffix(value, ".")):
		if name, rooted := strings.CutSuffix(value, "."); rooted {
			l.Warn("SANS", "has "+strconv.Quote(value)+
				": certificates have host names without the dot at the end, so it is left out")
			value = name
		}
		template.DNSNames = appendNew(template.DNSNames, value)
	case kind == kindURI:
		return addURI(value, given, template)
	default:
		return notOfItsKind(value, kind)
	}
	return ""
}

// addURI adds a URI. One that is not said to be a URI has to have a scheme that is known, or to go on with "//":
// host:8443 and DNS:host look like URIs as well, and a certificate with such a name is of no use for TLS.
func addURI(value string, given bool, template *x509.CertificateRequest) (problem string) {
	if !given {
		if problem := noURI(value); problem != "" {
			return problem
		}
	}
	u, problem := parseURI(value)
	if problem != "" {
		return problem
	}
	if !slices.ContainsFunc(template.URIs, func(v *url.URL) bool { return v.String() == u.String() }) {
		template.URIs = append(template.URIs, u)
	}
	return ""
}

func appendNew(list []string, s string) []string {
	if slices.Contains(list, s) {
		return list
	}
	return append(list, s)
}

// isEmail tells an addr-spec (RFC 5322) that fits an rfc822Name, which is ASCII (RFC 5280, 4.2.1.6).
func isEmail(s string) bool {
	address, err := mail.ParseAddress(s)
	if err != nil || address.Address != s {
		return false
	}
	for i := range len(s) {
		if s[i] > 0x7e || s[i] <= ' ' {
			return false
		}
	}
	return isHostName(s[strings.LastIndexByte(s, '@')+1:])
}

func isIP(s string) bool {
	address, err := netip.ParseAddr(s)
	return err == nil && address.Zone() == ""
}

// appendIP adds an address in its shortest form, as iPAddress wants it: 4 octets or 16.
func appendIP(list []net.IP, s string) []net.IP {
	ip := net.IP(netip.MustParseAddr(s).Unmap().AsSlice())
	if slices.ContainsFunc(list, ip.Equal) {
		return list
	}
	return append(list, ip)
}

// isDNSName tells a host name, or one with a wildcard label before it.
func isDNSName(s string) bool { return isHostName(strings.TrimPrefix(s, "*.")) }

// isHostName tells a host name of RFC 1123 in letters, digits and hyphens. One whose last label is a
// number is none: it would be a mistyped IPv4 address.
func isHostName(s string) bool {
	labels := strings.Split(s, ".")
	for _, label := range labels {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' ||
			strings.Trim(label, alphanumeric+"-") != "" {
			return false
		}
	}
	return len(s) <= 253 && strings.Trim(labels[len(labels)-1], "0123456789") != ""
}
