package config

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

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

// notOfItsKind says why a name is not of the kind that stands before it, or what is wrong with it in other ways.
func notOfItsKind(value, kind string) string {
	if problem := noURI(value); problem != "" {
		return problem
	}
	what := map[string]string{kindDNS: "host name", kindIP: "IP address", kindEmail: "e-mail address"}[kind]
	if other := guessedKind(value); other != kind && other != kindURI {
		return strconv.Quote(value) + " is no " + what + ": write " + strconv.Quote(other+":"+value)
	}
	return strconv.Quote(value) + " is no " + what
}

// noURI says what an entry is that looks like a URI to a parser, but was meant otherwise, and how to write it; "" when
// it has nothing of that.
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
