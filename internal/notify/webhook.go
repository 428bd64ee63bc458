package notify

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/certfetcher/certfetcher/internal/pki"
)

// WebhookConfig says where the request goes.
type WebhookConfig struct {
	// URL is an absolute http or https URL. A user name and password in it are sent, and not shown.
	URL string
	// AllowRemote allows addresses other than loopback ones. Without it, the address that is dialled
	// is checked, so that a name cannot lead elsewhere.
	AllowRemote bool
	// Timeout is for the whole request; more than 0.
	Timeout time.Duration
	// UserAgent is the header of that name; empty for none.
	UserAgent string
}

// Webhook POSTs a JSON object to the application:
//
//	{"reason":"renewed","serial":"0A1B","notBefore":"2026-01-02T03:04:05Z","notAfter":"2026-04-02T03:04:05Z",
//	 "dir":"/certs","files":["/certs/keystore.p12","/certs/keystore.pass"]}
//
// Any 2xx status is success. Redirects are not followed and proxies not used: either would take the
// request elsewhere. For https, the system's and the published trusted certificates are trusted.
type Webhook struct {
	config WebhookConfig
	shown  string // the URL without user, password and query
}

// NewWebhook makes a Webhook, after checking the URL; errors do not show it, as it may hold a secret.
func NewWebhook(config WebhookConfig) (*Webhook, error) {
	u, err := url.Parse(config.URL)
	switch {
	case !strings.Contains(config.URL, "//"):
		return nil, errors.New("has no scheme, want http:// or https:// before the host")
	case err != nil:
		return nil, errors.New("not a URL")
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("has scheme %q, want http or https", u.Scheme)
	case u.Hostname() == "":
		return nil, errors.New("has no host")
	}
	if address, err := netip.ParseAddr(u.Hostname()); err == nil && !config.AllowRemote && !address.Unmap().IsLoopback() {
		return nil, notLoopback(address)
	}
	shown := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
	return &Webhook{config: config, shown: shown.String()}, nil
}

func notLoopback(address netip.Addr) error {
	return fmt.Errorf("has address %s, want a loopback address such as 127.0.0.1 as long as remote ones are not allowed", address)
}

// Kind is KindURL.
func (w *Webhook) Kind() string { return KindURL }

type webhookBody struct {
	Reason    string    `json:"reason"`
	Serial    string    `json:"serial"`
	NotBefore time.Time `json:"notBefore"`
	NotAfter  time.Time `json:"notAfter"`
	Dir       string    `json:"dir"`
	Files     []string  `json:"files"`
}

// Notify sends one request.
func (w *Webhook) Notify(ctx context.Context, event Event) error {
	body, err := json.Marshal(webhookBody{event.Reason, event.Serial, event.NotBefore.UTC(), event.NotAfter.UTC(), event.Dir, append([]string{}, event.Paths...)})
	if err != nil {
		return fmt.Errorf("encoding the event: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, w.config.Timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, w.config.URL, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("posting to %s: %w", w.shown, withoutURL(err))
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", w.config.UserAgent)
	response, err := w.client(event.Trusted).Do(request)
	if err != nil {
		return absentIfRefused(fmt.Errorf("posting to %s: %w", w.shown, withoutURL(err)))
	}
	defer response.Body.Close()
	// What is read makes the error helpful; a success is one whatever follows the header.
	answer, _ := io.ReadAll(io.LimitReader(response.Body, 200))
	switch {
	case response.StatusCode >= 200 && response.StatusCode <= 299:
		return nil
	case response.StatusCode >= 300 && response.StatusCode <= 399:
		return fmt.Errorf("posting to %s: has status %s, want 2xx; redirects are not followed", w.shown, response.Status)
	default:
		return fmt.Errorf("posting to %s: has status %s and answer %q, want 2xx", w.shown, response.Status, answer)
	}
}

// client is made for each request: renewals are rare, the trusted certificates change, and no
// connection is to stay open in between.
func (w *Webhook) client(trusted []*x509.Certificate) *http.Client {
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	for _, cert := range pki.Usable(trusted) {
		roots.AddCert(cert)
	}
	dialer := &net.Dialer{Control: w.checkAddress}
	return &http.Client{
		Transport: &http.Transport{
			DialContext: dialer.DialContext, DisableKeepAlives: true,
			TLSClientConfig: &tls.Config{RootCAs: roots},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// checkAddress sees the address that a name was resolved to, before it is dialled.
func (w *Webhook) checkAddress(_, address string, _ syscall.RawConn) error {
	if w.config.AllowRemote {
		return nil
	}
	dialled, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	if !dialled.Addr().Unmap().IsLoopback() {
		return notLoopback(dialled.Addr())
	}
	return nil
}

// withoutURL drops the URL that net/http puts into its errors, with its query.
func withoutURL(err error) error {
	var urlError *url.Error
	if errors.As(err, &urlError) {
		return urlError.Err
	}
	return err
}
