package client

import (
	"bytes"
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

	"github.com/certfetcher/certfetcher/internal/pki"
)

// explanation is what an operator needs to know of a failed try.
type explanation struct {
	problem   string // what happened; empty: the server answered, but not in HTTP
	advice    string // what to try
	permanent bool   // another try cannot help
	identity  bool   // a known fault of our own certificate may be the reason
}

func passing(problem, advice string) explanation {
	return explanation{problem: problem, advice: advice}
}

// lasting explains what another try cannot help with.
func lasting(problem, advice string) explanation {
	return explanation{problem: problem, advice: advice, permanent: true}
}

func (e explanation) String() string { return e.problem + ": " + e.advice }

// connectionError turns the error of a try that reached the given stage into one that an operator
// can act on. When the caller's own context ended, its cause is returned instead.
func (c *Client) connectionError(ctx context.Context, target *url.URL, reached stage, err error) error {
	// The try's context has a deadline of its own, so only cancellation is surely the caller's; a
	// deadline of the caller's is found by retry, which holds the outer context.
	if cause := context.Cause(ctx); cause != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return cause
	}
	e := c.explain(ctx, target, reached, err)
	if e.problem == "" {
		return &AnswerError{Reason: fmt.Sprintf("it is not well-formed HTTP (%v)", err)}
	}
	e.problem, e.advice = c.words.Replace(e.problem), c.words.Replace(e.advice)
	if alert, ok := errors.AsType[*net.OpError](err); ok && alert.Op == remoteError {
		err = alert // without the transport's account of which of its loops met it
	}
	return &ConnectionError{
		Err:     fmt.Errorf("connecting to %s: %v (%w)", hostPort(target), e, err),
		Problem: fmt.Sprintf("%s (%v)", e.problem, err), Advice: e.advice, Permanent: e.permanent,
	}
}

// explain says what went wrong.
func (c *Client) explain(ctx context.Context, target *url.URL, reached stage, err error) explanation {
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
		return c.explainUntrusted(target, untrust)
	}
	if errors.As(err, &unasked) {
		return explainUnasked
	}
	if reason, found := unreadableCertificate(err); found {
		return lasting("a certificate that the server sends cannot be parsed: "+reason,
			"have it issued as RFC 5280 wants it, with a key of a common kind")
	}
	if alert, ok := alertOf(err); ok {
		return c.explainAlert(alert)
	}
	within := " in time"
	if ctx.Err() != nil && c.timeout > 0 {
		within = " within " + c.timeout.String()
	}
	switch {
	case errors.As(err, &network) && network.Op == proxyConnect:
		return passing(fmt.Sprintf("the proxy %s cannot be reached", c.proxyHost(target)),
			"check HTTPS_PROXY and NO_PROXY")
	case errors.As(err, &refusal):
		return explanation{
			problem:   fmt.Sprintf("the proxy %s does not connect us to %s", refusal.host, target.Host),
			advice:    "check HTTPS_PROXY and NO_PROXY, and what the proxy allows",
			permanent: !refusal.mayPass(),
		}
	case errors.As(err, &name) && !timedOut:
		return passing(fmt.Sprintf("the name %q cannot be resolved", name.Name),
			"check REQUEST_URL and the cluster's DNS; a Service in another namespace is NAME.NAMESPACE")
	case errors.As(err, &name):
		return passing(fmt.Sprintf("the name %q was not resolved%s", name.Name, within),
			"check the cluster's DNS")
	case timedOut && reached == stageConnect:
		return passing("time-out: no TCP connection"+within,
			"check address, port, network policies and firewalls")
	case timedOut && reached == stageTLS:
		return passing("time-out: TCP connects, but the TLS handshake was not done"+within,
			"check that the port speaks TLS")
	case timedOut && reached == stageRequest:
		return passing("time-out: connected, but no answer came"+within,
			"CertService or its CA is slow; raise REQUEST_TIMEOUT")
	case timedOut:
		return passing("time-out: the answer began, but was not whole"+within,
			"raise REQUEST_TIMEOUT")
	case errors.Is(err, syscall.ECONNREFUSED):
		return passing("connection refused: nothing listens there (yet)",
			"check that CertService is up, and the port in REQUEST_URL")
	case errors.As(err, &noTLS):
		problem := "the server does not speak TLS on this port"
		if bytes.HasPrefix(noTLS.RecordHeader[:], []byte("HTTP")) {
			problem += ", but plain HTTP"
		}
		return passing(problem,
			"check the port in REQUEST_URL: CertService has 8443 for its API")
	case reached == stageConnect:
		return passing("no TCP connection", "check address, routes and network policies")
	case reached == stageTLS:
		return passing("the TLS handshake broke off",
			"check that the port speaks TLS 1.2 or later"+c.ownFault("; "))
	case reached == stageRequest:
		return passing("the server closed the connection without an answer",
			"see its log; a limit on header size may be one reason"+c.ownFault("; "))
	case errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return passing("the connection broke off in the middle of the answer",
			"see the log of the server and of what is between us and it")
	}
	return explanation{}
}

// remoteError is the operation of an error that is an alert of the other side.
const remoteError = "remote error"

// alertOf finds the TLS alert that the other side sent.
func alertOf(err error) (tls.AlertError, bool) {
	op, ok := errors.AsType[*net.OpError](err)
	if !ok || op.Op != remoteError {
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

// ownFault is what is known here to be wrong with our
// certificate, after a separator; empty for nothing.
func (c *Client) ownFault(separator string) string {
	if problem := c.problem(); problem != "" {
		return separator + problem
	}
	return ""
}

// replaceIdentity is what to do about a certificate of ours with a known fault.
const replaceIdentity = "replace the one in KEYSTORE_PATH, or check this machine's clock if it should be valid"

const refused = "the server refuses our client certificate"

// identityFault explains an alert that a known fault of our own certificate may be the reason of.
func identityFault(problem, advice string) explanation {
	return explanation{problem: problem, advice: advice, permanent: true, identity: true}
}

var (
	checkIdentity = identityFault(refused,
		"check KEYSTORE_PATH (issuer, dates, clientAuth usage) and the server's truststore")
	oldTLS = lasting("the server speaks no TLS that we accept, which is 1.2 or later with current ciphers",
		"configure the server for it")
)

// alerts explains those alert codes of RFC 8446, section 6, that are of a lasting kind.
var alerts = map[tls.AlertError]explanation{
	40: identityFault("the server refuses the TLS handshake: no client certificate that it accepts, "+
		"or no cipher or curve in common", "see its log"), // handshake_failure
	42: checkIdentity,                                                               // bad_certificate
	43: checkIdentity,                                                               // unsupported_certificate
	44: lasting(refused+": it is revoked", "replace the one in KEYSTORE_PATH"),      // certificate_revoked
	45: identityFault(refused+": it has expired", "renew the one in KEYSTORE_PATH"), // certificate_expired
	46: checkIdentity,                                                               // certificate_unknown
	48: identityFault(refused+": it does not know the CA that issued it",
		"check its truststore and our KEYSTORE_PATH"), // unknown_ca
	49: checkIdentity, // access_denied
	// protocol_version
	70: oldTLS,
	// insufficient_security
	71: oldTLS,
	// unrecognized_name
	112: lasting("the server does not know the host name in REQUEST_URL", "use a name that it knows"),
	116: identityFault(refused+": it got none that it can use",
		"check KEYSTORE_PATH and the CAs that the server asks for"), // certificate_required
}

// explainAlert blames what is known to be wrong on our side before it blames the server.
func (c *Client) explainAlert(alert tls.AlertError) explanation {
	e, known := alerts[alert]
	if !known {
		return passing("the server ended TLS with an alert", "see its log")
	}
	if problem := c.problem(); e.identity && problem != "" {
		e.problem, e.advice = refused+": "+problem, replaceIdentity
	}
	return e
}

func (c *Client) explainUntrusted(target *url.URL, e *tls.CertificateVerificationError) explanation {
	if len(e.UnverifiedCertificates) == 0 {
		return lasting("the server showed no certificate", "see its log")
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
		return lasting("a certificate of the server is not valid now, "+pki.Stamp(c.tls.Time())+": "+
			certText(invalid.Cert),
			"have it renewed, or check this machine's clock")
	case errors.As(e.Err, &invalid):
		return lasting("the server's certificate is not good for a server: "+certText(server),
			"have one issued with extendedKeyUsage serverAuth")
	}
	return c.explainChain(e)
}

func (c *Client) rootsText() string {
	if len(c.roots) == 0 {
		return "the truststore holds no CA of it"
	}
	var holds []string
	for _, r := range c.roots {
		text := fmt.Sprintf("%q", pki.DN(r.RawSubject))
		if c.now().After(r.NotAfter) {
			text += " (expired " + pki.Stamp(r.NotAfter) + ")"
		}
		holds = append(holds, text)
	}
	return "the truststore holds " + strings.Join(pki.FirstOf(holds, 8), ", ")
}

func certText(cert *x509.Certificate) string {
	return fmt.Sprintf("subject %q, issuer %q, names %s, valid from %s to %s", pki.DN(cert.RawSubject),
		pki.DN(cert.RawIssuer), certNames(cert), pki.Stamp(cert.NotBefore), pki.Stamp(cert.NotAfter))
}

// certNames lists what a host name can match: the subject's common name is not among it (RFC 9525).
func certNames(cert *x509.Certificate) string {
	var names []string
	for _, name := range pki.Names(cert) {
		if strings.HasPrefix(name, "DNS:") || strings.HasPrefix(name, "IP Address:") {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(pki.FirstOf(names, 20), ", ")
}

// proxyConnect is the operation by which net/http tells an
// error on the way to a proxy from one behind it.
const proxyConnect = "proxyconnect"

func (c *Client) proxyHost(target *url.URL) string {
	if proxy, err := c.proxy(&http.Request{URL: target}); err == nil && proxy != nil {
		return proxy.Host
	}
	return "of the environment"
}

// checkProxy refuses a proxy variable that net/http would pass over, to connect without a proxy.
// The value is not shown: it may hold a password.
func checkProxy() error {
	for _, name := range []string{"HTTPS_PROXY", "https_proxy"} {
		value := os.Getenv(name)
		if value == "" {
			continue
		}
		_, asURL := url.Parse(value)
		_, asHost := url.Parse("http://" + value)
		if asURL != nil && asHost != nil {
			return fmt.Errorf("%s is not a URL, want http://host:port", name)
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

func (e *proxyError) mayPass() bool { return (&StatusError{StatusCode: e.status}).MayPass() }

func proxyRefusal(_ context.Context, proxy *url.URL, _ *http.Request, resp *http.Response) error {
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	return &proxyError{host: proxy.Host, status: resp.StatusCode}
}

// explainHost says why the server's certificate is not for the host name.
func explainHost(server *x509.Certificate, host string) explanation {
	if pki.OnlyCommonName(server, host) {
		kind := "DNS:"
		if net.ParseIP(host) != nil {
			kind = "IP:"
		}
		return lasting(fmt.Sprintf("the server's certificate has the host name %q as common name (CN) only, "+
			"which is not looked at (RFC 9525)", host),
			"have it issued with the subject alternative name "+kind+host)
	}
	return lasting(fmt.Sprintf("the server's certificate is not for this host name: has names %s, want %q",
		certNames(server), host),
		"use one of its names in REQUEST_URL, or have it issued with this one")
}

// explainChain says what is wrong with the chain that the server showed.
func (c *Client) explainChain(e *tls.CertificateVerificationError) explanation {
	shown := e.UnverifiedCertificates
	text := certText(shown[0])
	if n := len(shown); n > 1 {
		text += fmt.Sprintf(", sent with a chain of %d whose last is issued by %q", n, pki.DN(shown[n-1].RawIssuer))
	}
	if reason := pki.HandshakeReason(e.Err, shown, c.roots); reason != "" {
		return lasting(fmt.Sprintf("the server's certificate is not trusted: %s; it is %s", reason, text),
			"correct that certificate; another CA in TRUSTSTORE_PATH does not help")
	}
	return lasting(fmt.Sprintf("the server's certificate is not trusted: %s; %s", text, c.rootsText()),
		"add the CA that issued it to TRUSTSTORE_PATH")
}

// unreadableCertificate finds why crypto/tls cannot parse a certificate that the server sends. It
// has no type for this error, only how its text begins.
func unreadableCertificate(err error) (reason string, found bool) {
	_, reason, found = strings.Cut(err.Error(), "tls: failed to parse certificate from server: ")
	return strings.TrimPrefix(reason, "x509: "), found
}
