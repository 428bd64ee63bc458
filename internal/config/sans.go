package config

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"net"
	"net/mail"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// sans sorts the entries of SANS into the template's names. Each entry is the first that fits of
// e-mail address, IP address, host name and URI, in the ONAP client's order.
func (l *loader) sans(text string, template *x509.CertificateRequest) {
	if text == "" {
		return
	}
	// The ONAP client split as Java does, which lets a comma at the very end pass.
	for _, entry := range strings.Split(strings.TrimSuffix(strings.TrimSpace(text), ","), ",") {
		entry = strings.TrimSpace(entry)
		switch {
		case entry == "":
			l.Reject("SANS", "an entry is empty")
			return
		case isEmail(entry):
			template.EmailAddresses = appendNew(template.EmailAddresses, entry)
		case isIP(entry):
			template.IPAddresses = appendIP(template.IPAddresses, entry)
		case isHostName(strings.TrimPrefix(entry, "*.")):
			template.DNSNames = appendNew(template.DNSNames, entry)
		default:
			u, problem := parseURI(entry)
			if problem != "" {
				l.Reject("SANS", problem)
				continue
			}
			if !slices.ContainsFunc(template.URIs, func(v *url.URL) bool { return v.String() == u.String() }) {
				template.URIs = append(template.URIs, u)
			}
		}
	}
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

// parseURI reads an absolute URI in ASCII. One that would come out of the certificate spelt otherwise
// than it was given is refused, because peers compare URIs as text.
func parseURI(s string) (u *url.URL, problem string) {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Scheme == "" || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }):
		return nil, strconv.Quote(s) + " is none of these"
	case u.String() != s:
		return nil, "write the URI " + strconv.Quote(s) + " as " + strconv.Quote(u.String())
	case !readable(u):
		return nil, strconv.Quote(s) + " has a host that readers of certificates refuse"
	}
	return u, ""
}

// readable tells by trying whether crypto/x509 reads a URI back that it writes: it is particular about hosts.
func readable(u *url.URL) bool {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return true // the request itself will say so
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{URIs: []*url.URL{u}}, key)
	if err == nil {
		_, err = x509.ParseCertificateRequest(der)
	}
	return err == nil
}
