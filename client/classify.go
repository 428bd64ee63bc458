package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"
)

// connectionError turns the error of a try that reached the given stage into one that an operator can
// act on. When the caller's own context ended, its cause is returned instead.
func (c *Client) connectionError(ctx context.Context, target *url.URL, reached stage, err error) error {
	// The try's context has a deadline of its own, so only cancellation is surely the caller's; a
	// deadline of the caller's is found by retry, which holds the outer context.
	if cause := context.Cause(ctx); cause != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return cause
	}
	detail, permanent := c.explain(ctx, target, reached, err)
	if detail == "" {
		return &AnswerError{Reason: fmt.Sprintf("it is not well-formed HTTP (%v)", err)}
	}
	if _, ok := alertOf(err); ok {
		var alert *net.OpError
		errors.As(err, &alert)
		err = alert // without the transport's story of which of its loops met it
	}
	return &ConnectionError{Err: fmt.Errorf("connecting to %s: %s (%w)", hostPort(target), detail, err), Permanent: permanent}
}

// explain says what went wrong, what to try, and whether that is for ever. An empty detail: the server
// answered, but not in HTTP.
func (c *Client) explain(ctx context.Context, target *url.URL, reached stage, err error) (detail string, permanent bool) {
	var (
		timeout  interface{ Timeout() bool }
		untrust  *tls.CertificateVerificationError
		noTLS    tls.RecordHeaderError
		name     *net.DNSError
		refusal  *proxyError
		network  *net.OpError
		unasked  *unaskedError
		timedOut = ctx.Err() != nil || errors.As(err, &timeout) && timeout.Timeout()
	)
	if errors.As(err, &untrust) {
		return c.explainUntrusted(target, untrust), true
	}
	if errors.As(err, &unasked) {
		return unaskedDetail, true
	}
	if unreadable := explainUnreadable(err); unreadable != "" {
		return unreadable, true
	}
	if alert, ok := alertOf(err); ok {
		return c.explainRefusal(alert)
	}
	within := " in time"
	if ctx.Err() != nil && c.timeout > 0 {
		within = " within " + c.timeout.String()
	}
	switch {
	case errors.As(err, &network) && network.Op == proxyConnect:
		return fmt.Sprintf("the proxy %s cannot be reached: check HTTPS_PROXY and NO_PROXY", c.proxyHost(target)), false
	case errors.As(err, &refusal):
		return fmt.Sprintf("the proxy %s does not connect us: check HTTPS_PROXY and NO_PROXY", refusal.host), !refusal.mayPass()
	case errors.As(err, &name) && !timedOut:
		return fmt.Sprintf("the name %q cannot be resolved: check REQUEST_URL and the cluster's DNS", name.Name), false
	case errors.As(err, &name):
		return fmt.Sprintf("the name %q was not resolved%s: check the cluster's DNS", name.Name, within), false
	case timedOut && reached == stageConnect:
		return fmt.Sprintf("time-out: no TCP connection%s: check address, port, network policies and firewalls", within), false
	case timedOut && reached == stageTLS:
		return fmt.Sprintf("time-out: TCP connects, but the TLS handshake was not done%s: check that the port speaks TLS", within), false
	case timedOut && reached == stageRequest:
		return fmt.Sprintf("time-out: connected, but no answer came%s: CertService or its CA is slow; raise REQUEST_TIMEOUT", within), false
	case timedOut:
		return fmt.Sprintf("time-out: the answer began, but was not whole%s: raise REQUEST_TIMEOUT", within), false
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused: nothing listens there (yet); check that CertService is up, and the port in REQUEST_URL", false
	case errors.As(err, &noTLS):
		return "the server does not speak TLS on this port: check the port in REQUEST_URL", false
	case reached == stageConnect:
		return "no TCP connection: check address, routes and network policies", false
	case reached == stageTLS:
		return "the TLS handshake broke off: check that the port speaks TLS 1.2 or later" + c.ownFault("; "), false
	case reached == stageRequest:
		return "the server closed the connection without an answer: see its log; " +
			"a limit on header size may be one reason" + c.ownFault("; "), false
	case errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return "the connection broke off in the middle of the answer", false
	}
	return "", false
}

// alertOf finds the TLS alert that the other side sent.
func alertOf(err error) (tls.AlertError, bool) {
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "remote error" {
		return 0, false
	}
	// The alert's own type is private to crypto/tls; its texts are those of the public one.
	for code := range 256 {
		if tls.AlertError(code).Error() == op.Err.Error() {
			return tls.AlertError(code), true
		}
	}
	return 0, false
}

// Alert codes: RFC 8446, section 6.
const (
	alertHandshakeFailure     tls.AlertError = 40
	alertBadCertificate       tls.AlertError = 42
	alertUnsupportedCert      tls.AlertError = 43
	alertCertificateRevoked   tls.AlertError = 44
	alertCertificateExpired   tls.AlertError = 45
	alertCertificateUnknown   tls.AlertError = 46
	alertUnknownCA            tls.AlertError = 48
	alertAccessDenied         tls.AlertError = 49
	alertProtocolVersion      tls.AlertError = 70
	alertInsufficientSecurity tls.AlertError = 71
	alertUnrecognizedName     tls.AlertError = 112
	alertCertificateRequired  tls.AlertError = 116
)

// ownFault is what is known here to be wrong with our certificate, after a separator; empty for nothing.
func (c *Client) ownFault(separator string) string {
	if problem := c.problem(); problem != "" {
		return separator + problem
	}
	return ""
}

// explainRefusal is explainAlert, but blames what is known to be wrong on our side before it blames the server.
func (c *Client) explainRefusal(alert tls.AlertError) (detail string, permanent bool) {
	switch alert {
	case alertUnknownCA, alertCertificateExpired, alertBadCertificate, alertUnsupportedCert, alertCertificateUnknown,
		alertAccessDenied, alertCertificateRequired, alertHandshakeFailure:
		if problem := c.problem(); problem != "" {
			return "the server refuses our client certificate: " + problem + ": " + replaceIdentity, true
		}
	}
	return explainAlert(alert)
}

// replaceIdentity is what to do about a certificate of ours with a known fault.
const replaceIdentity = "replace the one in KEYSTORE_PATH, or check this machine's clock if it should be valid"

func explainAlert(alert tls.AlertError) (detail string, permanent bool) {
	const refused = "the server refuses our client certificate"
	switch alert {
	case alertUnknownCA:
		return refused + ": it does not know the CA that issued it; check its truststore and our KEYSTORE_PATH", true
	case alertCertificateExpired:
		return refused + ": it has expired; renew the one in KEYSTORE_PATH", true
	case alertCertificateRevoked:
		return refused + ": it is revoked; replace the one in KEYSTORE_PATH", true
	case alertCertificateRequired:
		return refused + ": it got none that it can use; check KEYSTORE_PATH and the CAs that the server asks for", true
	case alertBadCertificate, alertUnsupportedCert, alertCertificateUnknown, alertAccessDenied:
		return refused + ": check KEYSTORE_PATH (issuer, dates, clientAuth usage) and the server's truststore", true
	case alertHandshakeFailure:
		return "the server refuses the TLS handshake: no client certificate that it accepts, or no cipher or curve in common; see its log", true
	case alertProtocolVersion, alertInsufficientSecurity:
		return "the server speaks no TLS that we accept, which is 1.2 or later with current ciphers", true
	case alertUnrecognizedName:
		return "the server does not know the host name in REQUEST_URL", true
	}
	return "the server ended TLS with an alert: see its log", false
}

func (c *Client) explainUntrusted(target *url.URL, e *tls.CertificateVerificationError) string {
	if len(e.UnverifiedCertificates) == 0 {
		return "the server showed no certificate"
	}
	server := e.UnverifiedCertificates[0]
	var (
		host    x509.HostnameError
		invalid x509.CertificateInvalidError
	)
	switch {
	case errors.As(e.Err, &host):
		return explainHost(server, target.Hostname())
	case errors.As(e.Err, &invalid) && invalid.Reason == x509.Expired:
		at := c.now()
		if c.tls.Time != nil {
			at = c.tls.Time()
		}
		return fmt.Sprintf("a certificate of the server is not valid now, %s: %s: have it renewed, or check this machine's clock", at.UTC().Format(time.RFC3339), certText(invalid.Cert))
	case errors.As(e.Err, &invalid):
		return fmt.Sprintf("the server's certificate is not good for a server: %s", certText(server))
	}
	return c.explainChain(e)
}

func (c *Client) rootsText() string {
	if len(c.roots) == 0 {
		return "the truststore holds no CA of it"
	}
	const most = 8
	var holds []string
	for i, r := range c.roots {
		if i == most {
			holds = append(holds, fmt.Sprintf("and %d more", len(c.roots)-most))
			break
		}
		text := fmt.Sprintf("%q", r.Subject)
		if c.now().After(r.NotAfter) {
			text += " (expired " + r.NotAfter.UTC().Format(time.RFC3339) + ")"
		}
		holds = append(holds, text)
	}
	return "the truststore holds " + strings.Join(holds, ", ")
}

func certText(cert *x509.Certificate) string {
	return fmt.Sprintf("subject %q, issuer %q, names %s, valid from %s to %s", cert.Subject, cert.Issuer, certNames(cert),
		cert.NotBefore.UTC().Format(time.RFC3339), cert.NotAfter.UTC().Format(time.RFC3339))
}

// certNames lists what a host name can match: the subject's common name is not among it (RFC 9525).
func certNames(cert *x509.Certificate) string {
	names := append([]string(nil), cert.DNSNames...)
	for _, ip := range cert.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		return "none"
	}
	const most = 20
	if len(names) > most {
		names = append(names[:most], fmt.Sprintf("and %d more", len(names)-most))
	}
	return strings.Join(names, " ")
}

// proxyConnect is the operation by which net/http tells an error on the way to a proxy from one behind it.
const proxyConnect = "proxyconnect"

func (c *Client) proxyHost(target *url.URL) string {
	if proxy, err := c.proxy(&http.Request{URL: target}); err == nil && proxy != nil {
		return proxy.Host
	}
	return "of the environment"
}

// checkProxy refuses a proxy variable that net/http would pass over, to connect without a proxy. The value is not
// shown: it may hold a password.
func checkProxy() error {
	for _, name := range []string{"HTTPS_PROXY", "https_proxy"} {
		value := os.Getenv(name)
		if value == "" {
			continue
		}
		_, asURL := url.Parse(value)
		_, asHost := url.Parse("http://" + value)
		if asURL != nil && asHost != nil {
			return fmt.Errorf("%s is no URL, want http://host:port", name)
		}
		return nil // the second is not looked at then
	}
	return nil
}

// proxyError is a proxy that answered CONNECT with an error.
type proxyError struct {
	host   string
	status int
}

func (e *proxyError) Error() string {
	return fmt.Sprintf("the proxy answered %d %s", e.status, http.StatusText(e.status))
}

func (e *proxyError) mayPass() bool { return (&StatusError{StatusCode: e.status}).mayPass() }

func proxyRefusal(_ context.Context, proxy *url.URL, _ *http.Request, resp *http.Response) error {
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	return &proxyError{host: proxy.Host, status: resp.StatusCode}
}
