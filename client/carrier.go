package client

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
)

// Carrier carries HTTP requests of another protocol than the CertService API over the same dialer,
// proxy and TLS, and explains what fails in the same words: its errors are *ConnectionError. It
// keeps a connection for the next message of a transaction. Such requests carry no private key,
// so the scheme may be http, and the server need not ask for our certificate.
type Carrier struct{ client *Client }

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
	return &Carrier{c}, nil
}

// Connect sets the TLS connection for the next request up ahead, as Client.Connect does.
func (c *Carrier) Connect(ctx context.Context) {
	if c.client.enrollURL.Scheme == "https" {
		c.client.Connect(ctx)
	}
}

// CloseIdleConnections closes the connection that is kept.
func (c *Carrier) CloseIdleConnections() { c.client.transport.(*http.Transport).CloseIdleConnections() }

// RoundTrip makes one request, within Config.Timeout until its body is read or closed.
func (c *Carrier) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, cancel := c.client.withTimeout(r.Context())
	p := &progress{}
	traced := r.WithContext(httptrace.WithClientTrace(withProgress(ctx, p), c.client.trace(p)))
	traced.Header = r.Header.Clone()
	traced.Header.Set("User-Agent", c.client.userAgent)
	response, err := c.client.transport.RoundTrip(traced)
	if err != nil {
		defer cancel()
		return nil, c.client.connectionError(ctx, r.URL, p.stage(), err)
	}
	response.Body = &explainedBody{response.Body, cancel,
		func(err error) error { return c.client.connectionError(ctx, r.URL, stageAnswer, err) }}
	return response, nil
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
