package client

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"strings"

	"github.com/certfetcher/certfetcher/internal/pki"
)

// explainHost says why the server's certificate is not for the host name.
func explainHost(server *x509.Certificate, host string) string {
	if pki.OnlyCommonName(server, host) {
		kind := "DNS:"
		if net.ParseIP(host) != nil {
			kind = "IP:"
		}
		return fmt.Sprintf("the server's certificate has the host name %q as common name (CN) only, which is not looked at (RFC 9525): "+
			"have it issued with the subject alternative name %s%s", host, kind, host)
	}
	return fmt.Sprintf("the server's certificate is not for this host name: has names %s, want %q: use one of its names in REQUEST_URL, "+
		"or have it issued with this one", certNames(server), host)
}

// explainChain says what is wrong with the chain that the server showed.
func (c *Client) explainChain(e *tls.CertificateVerificationError) string {
	shown := e.UnverifiedCertificates
	server := shown[0]
	chain := ""
	if n := len(shown); n > 1 {
		chain = fmt.Sprintf(", sent with a chain of %d whose last is issued by %q", n, shown[n-1].Issuer)
	}
	if reason := pki.HandshakeReason(e.Err, shown, c.roots); reason != "" {
		return fmt.Sprintf("the server's certificate is not trusted: %s; it is %s%s", reason, certText(server), chain)
	}
	return fmt.Sprintf("the server's certificate is not trusted: %s%s; %s: add the CA that issued it to TRUSTSTORE_PATH", certText(server), chain, c.rootsText())
}

// unreadableServer is how crypto/tls begins the error for a certificate that it cannot parse; it has no type for it.
const unreadableServer = "tls: failed to parse certificate from server: "

// explainUnreadable says that the server's certificate, or one that it sent along, cannot be parsed, "" for other errors.
func explainUnreadable(err error) string {
	if _, reason, found := strings.Cut(err.Error(), unreadableServer); found {
		return fmt.Sprintf("a certificate that the server sends cannot be parsed: %s: have it issued as RFC 5280 wants it, with a key of a common kind",
			strings.TrimPrefix(reason, "x509: "))
	}
	return ""
}
