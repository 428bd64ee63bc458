// Package client calls the CertService REST API (v1): one GET over mutual TLS (RFC 8446, RFC 5246)
// that carries a certificate signing request and its private key in headers (the API's own way of
// proving possession) and brings back a certificate chain and the certificates to trust.
//
// It tries again after failures that may pass (RFC 9110, section 10.2.3 for Retry-After), follows
// no redirect because the private key must not travel to another host, and explains why a
// connection failed in words that an operator can act on. Diagnose takes the way of a request step
// by step, without a request for a certificate. The package does not check whether the certificate
// matches the request, and it neither makes keys nor writes files.
package client

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"time"

	"github.com/certfetcher/certfetcher/internal/requestid"
)

// Config says where CertService is and how to reach it.
type Config struct {
	// URL is the enrolment endpoint, https only, with or
	// without a trailing slash; the CA name is appended.
	URL string
	// UpdateURL is the renewal endpoint. Empty: URL with its last path segment "certificate"
	// replaced by "certificate-update".
	UpdateURL string
	// CAName is the CA that shall sign.
	CAName string
	// TLS holds the client's certificate and the roots. It is cloned, never changed.
	TLS *tls.Config
	// AllowNoClientAuth lets a request go to a server that has not asked for the client
	// certificate in TLS. Without it, such a server gets nothing: it is not a CertService, or
	// something on the way ends TLS.
	AllowNoClientAuth bool
	// TokenPath is the file of a token that is read for each try and sent as a bearer token (RFC
	// 6750), through TLS to the server of URL or UpdateURL alone. That server need not ask for the
	// client certificate where there is none. Empty: no token.
	TokenPath string
	// IdentityProblem says what is wrong with the client's certificate as far as that is known
	// here, "" for nothing. It is named where a server refuses us. Nil: nothing is known.
	IdentityProblem func() string
	// Roots are the certificates in TLS.RootCAs, which a pool does not give back. They are only
	// named in the error about an untrusted server.
	Roots []*x509.Certificate
	// Dialer makes TCP connections and resolves names. Nil: a net.Dialer without settings.
	Dialer *net.Dialer
	// Proxy finds the proxy for a request. Nil: http.ProxyFromEnvironment.
	Proxy func(*http.Request) (*url.URL, error)
	// Timeout bounds each try: name, TCP, TLS, request, and the whole answer. Zero: no bound.
	Timeout time.Duration
	// Retry is when to try again. Nil: one try.
	Retry *Retry
	// UserAgent is sent as the header of that name. Empty: "certfetcher".
	UserAgent string
	// Words name in errors what a Carrier has in place of CertService and REQUEST_URL.
	// Nil: nothing.
	Words *strings.Replacer
	// Log gets one line for each failed try that is followed by another. Nil: no log.
	Log *slog.Logger
	// Now is the clock by which elapsed time and Retry-After dates are counted. Nil: time.Now.
	Now func() time.Time
}

// Request is what CertService needs, each a PEM text.
type Request struct {
	CSR, Key        []byte
	OldCert, OldKey []byte // the certificate to renew and its key; Update only
}

// Client calls one CertService for one CA. It is safe for concurrent
// use and holds no connection between calls: every try has its own, so
// that behind a load balancer the next one may reach another server.
type Client struct {
	enrollURL *url.URL
	updateURL *url.URL // nil: underivable, see Update
	tls       *tls.Config
	roots     []*x509.Certificate
	needAsked bool // for the client certificate, by the server
	tokenPath string
	problem   func() string
	timeout   time.Duration
	retry     *Retry
	userAgent string
	words     *strings.Replacer
	log       *slog.Logger
	now       func() time.Time

	dialer    *net.Dialer
	transport http.RoundTripper
	proxy     func(*http.Request) (*url.URL, error)
	ahead     ahead
}

// New checks cfg and returns the client. It touches no network.
func New(cfg Config) (*Client, error) {
	if cfg.TLS == nil {
		return nil, errors.New("the client has no TLS configuration, want one with a client certificate and roots")
	}
	if n := cfg.CAName; n == "" || n == "." || n == ".." || url.PathEscape(n) != n {
		return nil, fmt.Errorf("the CA name %q is not a path segment, want letters, digits and _.~-", n)
	}
	base, err := parseBase("request URL", cfg.URL)
	if err != nil {
		return nil, err
	}
	var update *url.URL
	if cfg.UpdateURL != "" {
		if update, err = parseBase("update URL", cfg.UpdateURL); err != nil {
			return nil, err
		}
	} else if prefix, ok := strings.CutSuffix(strings.TrimRight(base.Path, "/"), "/certificate"); ok {
		update = &url.URL{Scheme: base.Scheme, Host: base.Host, Path: prefix + "/certificate-update"}
	}
	c, err := newConnecting(cfg, base.JoinPath(cfg.CAName))
	if err != nil {
		return nil, err
	}
	if update != nil {
		c.updateURL = update.JoinPath(cfg.CAName)
	}
	return c, nil
}

// newConnecting makes the client as far as it connects, which all protocols do in the same way.
func newConnecting(cfg Config, target *url.URL) (*Client, error) {
	if r := cfg.Retry; r != nil && (r.InitialInterval <= 0 || r.MaxInterval <= 0 || r.MaxElapsed < 0) {
		return nil, fmt.Errorf(
			"the retry intervals are %s and %s within %s, want the first two above zero and none negative",
			r.InitialInterval, r.MaxInterval, r.MaxElapsed)
	}
	if cfg.Proxy == nil {
		cfg.Proxy = http.ProxyFromEnvironment
		if err := checkProxy(); err != nil {
			return nil, err
		}
	}
	if cfg.TokenPath != "" && (target.Scheme != "https" || cfg.TLS.InsecureSkipVerify) {
		return nil, errors.New("there is a token, and the URL is not https or its server is not verified: " +
			"a token goes to a verified server only")
	}
	c := &Client{
		enrollURL: target,
		tls:       cfg.TLS.Clone(),
		tokenPath: cfg.TokenPath,
		roots:     cfg.Roots,
		problem:   cfg.IdentityProblem,
		timeout:   cfg.Timeout,
		retry:     cfg.Retry,
		userAgent: cmp.Or(cfg.UserAgent, "certfetcher"),
		words:     cmp.Or(cfg.Words, strings.NewReplacer()),
		log:       cfg.Log,
		now:       cfg.Now,
		dialer:    cmp.Or(cfg.Dialer, &net.Dialer{}),
		proxy:     cfg.Proxy,
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if c.now == nil {
		c.now = time.Now
	}
	if c.tls.Time == nil {
		c.tls.Time = c.now
	}
	c.tls.NextProtos = []string{"http/1.1"}
	if c.problem == nil {
		c.problem = func() string { return "" }
	}
	c.noteWhenAsked(cfg.AllowNoClientAuth || cfg.TokenPath != "" && !showsCertificate(c.tls))
	c.transport = c.newTransport()
	return c, nil
}

// showsCertificate says whether there is a client certificate that a server could ask for.
func showsCertificate(config *tls.Config) bool {
	if config.GetClientCertificate == nil {
		return len(config.Certificates) > 0
	}
	certificate, err := config.GetClientCertificate(&tls.CertificateRequestInfo{})
	return err == nil && len(certificate.Certificate) > 0
}

func (c *Client) newTransport() *http.Transport {
	var http1 http.Protocols
	http1.SetHTTP1(true)
	return &http.Transport{
		Proxy:                  func(r *http.Request) (*url.URL, error) { return c.proxy(r) },
		OnProxyConnectResponse: proxyRefusal,
		DialContext:            c.dialProxy,
		DialTLSContext:         c.dialTLS,
		TLSClientConfig:        c.tls, // for the tunnel through a proxy, where the transport makes TLS itself
		Protocols:              &http1,
		DisableKeepAlives:      true,
		DisableCompression:     true, // nothing is unpacked, so nothing can swell
		MaxResponseHeaderBytes: 64 << 10,
	}
}

// parseBase checks a URL that a CA name will be appended to. what names it in errors, which never
// hold more of a bad URL than its scheme and host: someone may have put a password into it.
func parseBase(what, raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return nil, fmt.Errorf("the %s is not a URL, want https://host:port/v1/certificate/", what)
	case u.Scheme != "https":
		return nil, fmt.Errorf("the %s has scheme %q, want \"https\": the request carries a private key", what,
			u.Scheme)
	case u.Hostname() == "":
		return nil, fmt.Errorf("the %s has no host, want https://host:port/v1/certificate/", what)
	case u.User != nil:
		return nil, fmt.Errorf(
			"the %s for %q has a user name, want none: CertService knows its clients by certificate", what, u.Host)
	case u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf(
			"the %s for %q has a query or fragment, want a path that the CA name can be appended to", what, u.Host)
	}
	return u, nil
}

// Enroll asks for a new certificate (GET /v1/certificate/{CAName}), trying again as Config.Retry
// says. Its error is, or wraps, a *StatusError, *AnswerError or *ConnectionError of the last try,
// or the cause of ctx when that ended.
func (c *Client) Enroll(ctx context.Context, r Request) (Answer, error) {
	if len(r.CSR) == 0 || len(r.Key) == 0 {
		return Answer{}, errors.New("an enrolment needs a CSR and its key")
	}
	return c.do(ctx, "enroll", c.enrollURL, secretHeaders{{"CSR", r.CSR}, {"PK", r.Key}})
}

// Update asks for the renewal of a certificate (GET
// /v1/certificate-update/{CAName}). Errors are those of Enroll.
func (c *Client) Update(ctx context.Context, r Request) (Answer, error) {
	if len(r.CSR) == 0 || len(r.Key) == 0 || len(r.OldCert) == 0 || len(r.OldKey) == 0 {
		return Answer{}, errors.New("an update needs a CSR and its key, and the old certificate and its key")
	}
	if c.updateURL == nil {
		return Answer{},
			fmt.Errorf("deriving the update URL: the path of the request URL %q does not end in "+
				"/certificate/: set UPDATE_URL", c.enrollURL)
	}
	return c.do(ctx, "update", c.updateURL, secretHeaders{{"CSR", r.CSR}, {"PK", r.Key},
		{"OLD_CERT", r.OldCert}, {"OLD_PK", r.OldKey}})
}

// withTimeout is the context of one try.
func (c *Client) withTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	if c.timeout > 0 {
		return context.WithTimeout(ctx, c.timeout)
	}
	return context.WithCancel(ctx)
}

// secretHeaders are the API's headers before encoding, and that of a token. They are kept apart from
// http.Header so that nothing prints them by accident.
type secretHeaders []struct {
	name string
	pem  []byte // or the token
}

const (
	authorization = "Authorization"
	bearer        = "Bearer "
)

// withToken adds the token, as it is in its file now, if there is to be one.
func (c *Client) withToken(h secretHeaders) (secretHeaders, error) {
	if c.tokenPath == "" {
		return h, nil
	}
	token, err := readToken(c.tokenPath)
	return append(h[:len(h):len(h)], secretHeaders{{authorization, []byte(token)}}...), err
}

func (h secretHeaders) httpHeader() http.Header {
	header := make(http.Header, len(h)+2)
	for _, s := range h {
		if s.name == authorization {
			header.Set(authorization, bearer+string(s.pem))
			continue
		}
		// Not Set, which would write "Old_cert": peers that
		// compare names exactly see the API's spelling.
		header[s.name] = []string{base64.StdEncoding.EncodeToString(s.pem)}
	}
	return header
}

// try makes one request. A connection set up ahead that the server has closed in the meantime is
// not a failure of CertService, so it is replaced by a fresh one without counting as a try.
func (c *Client) try(ctx context.Context, target *url.URL, secrets secretHeaders) (Answer, error) {
	ctx, cancel := c.withTimeout(ctx)
	defer cancel()
	secrets, err := c.withToken(secrets)
	if err != nil {
		return Answer{}, err
	}
	for {
		p := &progress{}
		answer, err := c.roundTrip(ctx, target, secrets, p)
		var broken *ConnectionError
		if errors.As(err, &broken) && !broken.Permanent && p.madeAhead.Load() && p.stage() == stageRequest &&
			ctx.Err() == nil {
			continue
		}
		answer.asked = &secrets
		return answer, secrets.clean(err)
	}
}

func (c *Client) roundTrip(ctx context.Context, target *url.URL, secrets secretHeaders, p *progress) (Answer, error) {
	traced := httptrace.WithClientTrace(withProgress(ctx, p), c.trace(p))
	req, err := http.NewRequestWithContext(traced, http.MethodGet, target.String(), nil)
	if err != nil {
		return Answer{}, fmt.Errorf("building the request: %w", err)
	}
	req.Header = secrets.httpHeader()
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", c.userAgent)
	if c.timeout > 0 {
		// RFC 7240, 4.3, in whole seconds: so that nothing is issued for a client that has gone.
		req.Header.Set("Prefer", fmt.Sprintf("wait=%.0f", math.Ceil(c.timeout.Seconds())))
	}
	requestid.Set(ctx, req.Header)

	// The transport itself, not an http.Client: that one follows redirects.
	resp, err := c.transport.RoundTrip(req)
	if unasked := p.unasked.Load(); unasked != nil {
		err = unasked
	}
	if err != nil {
		return Answer{}, c.connectionError(ctx, target, p.stage(), err)
	}
	defer resp.Body.Close()
	answer, err := c.readAnswer(resp)
	var cut *bodyError
	var not *AnswerError
	switch {
	case errors.As(err, &cut):
		return Answer{}, c.connectionError(ctx, target, stageAnswer, cut.err)
	case errors.As(err, &not) && ctx.Err() != nil:
		// When we hang up, some servers still write something in the moment before they notice.
		return Answer{}, c.connectionError(ctx, target, stageAnswer, ctx.Err())
	}
	return answer, err
}
