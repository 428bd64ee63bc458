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

// sans sorts the entries of SANS into the template's names. Each entry has its kind before it, as
// openssl, keytool and inspect print names, or is the first that fits of e-mail address, IP
// address, host name and URI, in the ONAP client's order.
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

// addURI adds a URI. One that is not said to be a URI has to have a scheme that is known, or to go
// on with "//": host:8443 and DNS:host look like URIs as well, and a certificate with such a name
// is useless for TLS.
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

// isEmail tells an addr-spec (RFC 5322) that fits an
// rfc822Name, which is ASCII (RFC 5280, 4.2.1.6).
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

// isHostName tells a host name of RFC 1123 in letters, digits and hyphens. One whose last label is
// a number is not a host name: it would be a mistyped IPv4 address.
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

// The kinds of names that can be asked for (RFC 5280, 4.2.1.6), as openssl prints them.
const (
	kindDNS   = "DNS"
	kindIP    = "IP"
	kindEmail = "email"
	kindURI   = "URI"
)

// kinds are what openssl, keytool, GnuTLS and inspect print before a name, in lower case.
var kinds = map[string]string{
	"dns": kindDNS, "dnsname": kindDNS, "ip": kindIP, "ip address": kindIP, "ipaddress": kindIP,
	"email": kindEmail, "rfc822name": kindEmail, "uri": kindURI, "uriname": kindURI,
}

// otherKinds are those that openssl and keytool know and that cannot be asked for.
var otherKinds = []string{
	"rid", "registered id", "oid", "dirname", "directoryname", "othername", "x400name", "edi", "ediname",
}

// uriSchemes are those that go on without "//" and that a certificate may well name.
var uriSchemes = []string{"urn", "sip", "sips", "tel", "mailto", "tag", "xmpp", "did"}

// nameKind splits an entry with its kind before it, as in DNS:app.example.org.
func nameKind(entry string) (kind, value string, given bool) {
	prefix, value, _ := strings.Cut(entry, ":")
	kind, given = kinds[strings.ToLower(strings.TrimSpace(prefix))]
	// keytool and GnuTLS print a space after the colon.
	return kind, strings.TrimSpace(value), given
}

func guessedKind(entry string) string {
	switch {
	case isEmail(entry):
		return kindEmail
	case isIP(entry):
		return kindIP
	case isDNSName(strings.TrimSuffix(entry, ".")):
		return kindDNS
	}
	return kindURI
}

// notOfItsKind says why a name is not of the kind that
// stands before it, or what is wrong with it in other ways.
func notOfItsKind(value, kind string) string {
	problem := noURI(value)
	if problem != "" {
		return problem
	}
	problem = strconv.Quote(value) + " is not " + map[string]string{
		kindDNS: "a host name", kindIP: "an IP address", kindEmail: "an e-mail address"}[kind]
	if other := guessedKind(value); other != kind && other != kindURI {
		problem += ": write " + strconv.Quote(other+":"+value)
	}
	return problem
}

// noURI says what an entry is that looks like a URI to a parser, but was meant otherwise, and how
// to write it; "" when it has nothing of that.
func noURI(entry string) string {
	quoted := strconv.Quote(entry)
	if address, err := netip.ParseAddr(entry); err == nil && address.Zone() != "" {
		plain := strconv.Quote(address.WithZone("").String())
		return quoted + " has a zone, which no certificate can name: write " + plain
	}
	if _, err := netip.ParsePrefix(entry); err == nil {
		return quoted + " is a network, and a certificate names single addresses"
	}
	if inner := strings.Trim(entry, "[]"); inner != entry && isIP(inner) {
		return quoted + " has brackets: write " + strconv.Quote(inner)
	}
	if host, port, err := net.SplitHostPort(entry); err == nil && digits(port) {
		host, _, _ = strings.Cut(host, "%") // the zone of an address
		if host = strings.TrimSuffix(host, "."); isIP(host) || isDNSName(host) {
			return quoted + " has a port, which no certificate names: write " + strconv.Quote(host)
		}
	}
	scheme, rest, found := strings.Cut(entry, ":")
	lower := strings.ToLower(scheme)
	switch {
	case !found || strings.HasPrefix(rest, "//") || slices.Contains(uriSchemes, lower):
		return ""
	case slices.Contains(otherKinds, lower):
		return quoted + " is of a kind that cannot be asked for, want DNS, IP, email or URI"
	}
	return quoted + " has the unknown scheme or kind " + strconv.Quote(scheme) +
		": write DNS:, IP: or email: before a name, and URI:" + entry + " if it is a URI"
}

func digits(text string) bool { return strings.Trim(text, "0123456789") == "" }

// parseURI reads an absolute URI in ASCII. One that would come out of the certificate spelt
// otherwise than it was given is refused, because peers compare URIs as text.
func parseURI(s string) (u *url.URL, problem string) {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Scheme == "" || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }):
		return nil, strconv.Quote(s) + " is not one of these"
	case u.String() != s:
		return nil, "write the URI " + strconv.Quote(s) + " as " + strconv.Quote(u.String())
	case !readable(u):
		return nil, strconv.Quote(s) + " has a host that readers of certificates refuse"
	}
	return u, ""
}

// readable tells by trying whether crypto/x509 reads a URI
// back that it writes: it is particular about hosts.
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
