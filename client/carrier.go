package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"

	"github.com/certfetcher/certfetcher/internal/requestid"
)

// Carrier carries HTTP requests of another protocol than the CertService API over the same dialer,
// proxy and TLS, and explains what fails in the same words: its errors are *ConnectionError. It
// keeps a connection for the next message of a transaction. Such requests carry no private key,
// so the scheme may be http, unless they carry a token, and the server need not ask for our
// certificate.
type Carrier struct {
	client *Client
	named  atomic.Pointer[string]
}

// RequestID is the X-Request-Id of the last answer; empty where that had none.
func (c *Carrier) RequestID() string {
	if named := c.named.Load(); named != nil {
		return *named
	}
	return ""
}

// NewCarrier checks cfg and returns the carrier to its URL. It touches no network. CAName,
// UpdateURL, Retry and AllowNoClientAuth are not used.
func NewCarrier(cfg Config) (*Carrier, error) {
	target, err := url.Parse(cfg.URL)
	if err != nil || target.Hostname() == "" || target.Scheme != "http" && target.Scheme != "https" {
		return nil, errors.New("the URL is not one, want http:// or https:// and a host")
	}
	cfg.Retry, cfg.AllowNoClientAuth = nil, true
	if cfg.TLS == nil {
		cfg.TLS = &tls.Config{}
	}
	c, err := newConnecting(cfg, target)
	if err != nil {
		return nil, err
	}
	c.transport.(*http.Transport).DisableKeepAlives = false
	return &Carrier{client: c}, nil
}

// Connect sets the TLS connection for the next request up ahead, as Client.Connect does.
func (c *Carrier) Connect(ctx context.Context) {
	if c.client.enrollURL.Scheme == "https" {
		c.client.Connect(ctx)
	}
}

// CloseIdleConnections closes the connection that is kept.
func (c *Carrier) CloseIdleConnections() { c.client.transport.(*http.Transport).CloseIdleConnections() }

// RoundTrip makes one request, within Config.Timeout until its body is read or closed. A token goes
// only to the server of Config.URL. Where a CertService says that it refuses who asks, or that its
// policy does not allow what is asked for, the error is a *StatusError.
func (c *Carrier) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, cancel := c.client.withTimeout(r.Context())
	c.named.Store(nil)
	p := &progress{}
	traced := r.WithContext(httptrace.WithClientTrace(withProgress(ctx, p), c.client.trace(p)))
	traced.Header = r.Header.Clone()
	traced.Header.Set("User-Agent", c.client.userAgent)
	requestid.Set(ctx, traced.Header)
	var secrets secretHeaders
	if r.URL.Scheme == "https" && hostPort(r.URL) == hostPort(c.client.enrollURL) {
		var err error
		if secrets, err = c.client.withToken(nil); err != nil {
			cancel()
			return nil, err
		}
		maps.Copy(traced.Header, secrets.httpHeader())
	}
	response, err := c.client.transport.RoundTrip(traced)
	if err != nil {
		defer cancel()
		return nil, c.client.connectionError(ctx, r.URL, p.stage(), err)
	}
	response.Body = &explainedBody{response.Body, cancel,
		func(err error) error { return c.client.connectionError(ctx, r.URL, stageAnswer, err) }}
	named := requestid.Of(response.Header)
	if named != secrets.redact(named) {
		named = "" // it repeats a piece of the token
	}
	c.named.Store(&named)
	refused := response.StatusCode == http.StatusUnauthorized || response.StatusCode == http.StatusForbidden
	if !refused && len(secrets) == 0 {
		return response, nil
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxBody+1))
	switch {
	case err != nil:
		return nil, err
	case refused && json.Valid(body):
		return nil, secrets.clean(c.client.statusError(response, body)) // the message cannot have been passed on
	}
	secrets.mask(response, body)
	return response, nil
}

// mask takes the token out of an answer that repeats it, whose texts may be shown. Lengths stay, for
// the sake of DER; what was signed is refused then.
func (h secretHeaders) mask(response *http.Response, body []byte) {
	for _, s := range h {
		stars := strings.Repeat("*", len(s.pem))
		body = bytes.ReplaceAll(body, s.pem, []byte(stars))
		for _, values := range response.Header {
			for i, value := range values {
				values[i] = strings.ReplaceAll(value, string(s.pem), stars)
			}
		}
	}
	response.Body = io.NopCloser(bytes.NewReader(body))
}

// explainedBody explains where an answer breaks off.
type explainedBody struct {
	io.ReadCloser
	cancel  context.CancelFunc
	explain func(error) error
}

func (b *explainedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		err = b.explain(err)
	}
	return n, err
}

func (b *explainedBody) Close() error {
	defer b.cancel()
	return b.ReadCloser.Close()
}
