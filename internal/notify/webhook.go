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

// webhook POSTs a JSON object to the application:
//
//	{"reason":"renewed","serial":"0A1B","notBefore":"2026-01-02T03:04:05Z","notAfter":"2026-04-02T03:04:05Z",
//	 "dir":"/certs","files":["/certs/keystore.p12","/certs/keystore.pass"]}
//
// Any 2xx status is success. Redirects are not followed and proxies not used: either would take the
// request elsewhere. For https, the system's and the published trusted certificates are trusted.
type webhook struct {
	url         *url.URL // what else than scheme, host and path it has may be a secret
	allowRemote bool
	timeout     time.Duration
	userAgent   string
}

// newWebhook checks the URL; errors do not show it, as it may hold a secret.
func newWebhook(s Settings, o Options) (Notifier, error) {
	if s.URL == "" {
		return nil, nil
	}
	u, err := url.Parse(s.URL)
	switch {
	case !strings.Contains(s.URL, "//"):
		return nil, errors.New("has no scheme, want http:// or https:// before the host")
	case err != nil:
		return nil, errors.New("not a URL")
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("has scheme %q, want http or https", u.Scheme)
	case u.Hostname() == "":
		return nil, errors.New("has no host")
	}
	w := &webhook{u, s.AllowRemote, s.Timeout, o.UserAgent}
	if address, err := netip.ParseAddr(u.Hostname()); err == nil {
		if err := w.checkAddress(address); err != nil {
			return nil, err
		}
	}
	return w, nil
}

func (w *webhook) checkAddress(address netip.Addr) error {
	if w.allowRemote || address.IsLoopback() {
		return nil
	}
	return fmt.Errorf("has address %s, want a loopback address such as 127.0.0.1 "+
		"as long as remote ones are not allowed", address)
}

// Kind is KindURL.
func (w *webhook) Kind() string { return KindURL }

type webhookBody struct {
	Reason    string    `json:"reason"`
	Serial    string    `json:"serial"`
	NotBefore time.Time `json:"notBefore"`
	NotAfter  time.Time `json:"notAfter"`
	Dir       string    `json:"dir"`
	Files     []string  `json:"files"`
}

// Check connects, and sends nothing. It shows of the URL no more than the host.
func (w *webhook) Check(ctx context.Context, _ []string) Finding {
	port := w.url.Port()
	if port == "" {
		port = w.url.Scheme
	}
	address := net.JoinHostPort(w.url.Hostname(), port)
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return Finding{Found: address + " does not connect", Err: err,
			Advice: "is the application up, and listening there?"}
	}
	conn.Close()
	return Finding{Found: address + " connects"}
}

// Notify sends one request.
func (w *webhook) Notify(ctx context.Context, event Event) error {
	if err := w.post(ctx, event); err != nil {
		return absentIf(syscall.ECONNREFUSED, fmt.Errorf("posting to %s: %w", pki.ShowURL(w.url), err))
	}
	return nil
}

func (w *webhook) post(ctx context.Context, event Event) error {
	body, err := json.Marshal(webhookBody{
		event.Reason, event.Serial, event.NotBefore.UTC(), event.NotAfter.UTC(), event.Dir,
		append([]string{}, event.Paths...),
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url.String(), bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", w.userAgent)
	response, err := w.client(event.Trusted).Do(request)
	if err != nil {
		// net/http puts the URL into its errors, with its query.
		return errors.Unwrap(err)
	}
	defer response.Body.Close()
	// What is read makes the error helpful; a success is one whatever follows the header.
	answer, _ := io.ReadAll(io.LimitReader(response.Body, 200))
	switch {
	case response.StatusCode >= 200 && response.StatusCode <= 299:
		return nil
	case response.StatusCode >= 300 && response.StatusCode <= 399:
		return fmt.Errorf("has status %s, want 2xx; redirects are not followed", response.Status)
	default:
		return fmt.Errorf("has status %s and answer %q, want 2xx", response.Status, answer)
	}
}

// client is made for each request: renewals are rare, the trusted certificates change, and no
// connection is to stay open in between.
func (w *webhook) client(trusted []*x509.Certificate) *http.Client {
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	for _, cert := range pki.Usable(trusted) {
		roots.AddCert(cert)
	}
	dialer := &net.Dialer{Control: func(_, resolved string, _ syscall.RawConn) error {
		address, err := netip.ParseAddrPort(resolved)
		if err != nil {
			return err
		}
		return w.checkAddress(address.Addr())
	}}
	return &http.Client{
		Transport: &http.Transport{
			DialContext: dialer.DialContext, DisableKeepAlives: true,
			TLSClientConfig: &tls.Config{RootCAs: roots},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
