package token

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/certfetcher/certfetcher/internal/files"
	"github.com/certfetcher/certfetcher/internal/pki"
)

const (
	discoveryTimeout = 10 * time.Second // for all requests of one reading
	maxDocumentBytes = 64 << 10
	maxCABytes       = 1 << 20

	jsonType = "application/json"
)

// parseURL reads a URL to which requests may go.
func parseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Scheme != "https":
		return nil, errors.New("is not an https URL")
	case u.Hostname() == "":
		return nil, errors.New("has no host")
	case u.User != nil:
		return nil, errors.New("has a user")
	}
	return u, nil
}

// shortenURL makes a URL fit for a message: without what may be a password.
func shortenURL(text string) string {
	if at := strings.LastIndexByte(text, '@'); at >= 0 {
		text = "…" + text[at:]
	}
	return shorten(text)
}

// discover returns the JSON Web Key Set of the issuer (OpenID Connect Discovery 1.0, 4). It follows
// no redirect, and uses no proxy: both would take the service's own token, or the trust in the
// keys, elsewhere. An issuer that cannot be reached so needs TOKEN_JWKS_PATH.
func (v *Verifier) discover(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, discoveryTimeout)
	defer cancel()
	client, err := v.client()
	if err != nil {
		return nil, err
	}
	defer client.CloseIdleConnections()
	document := *v.issuer
	document.Path, document.RawPath = strings.TrimSuffix(document.Path, "/")+"/.well-known/openid-configuration", ""
	data, err := v.get(ctx, client, &document, maxDocumentBytes)
	if err != nil {
		return nil, err
	}
	object, err := readObject(data, maxSetValues)
	if err != nil {
		return nil, fmt.Errorf("%s %w", &document, err)
	}
	if issuer, _ := object["issuer"].(string); issuer != v.settings.Issuer {
		return nil, fmt.Errorf("%s is of the issuer %s, want %q: set TOKEN_ISSUER to what the API server has as "+
			"--service-account-issuer", &document, shorten(issuer), v.settings.Issuer)
	}
	uri, _ := object["jwks_uri"].(string)
	keys, err := parseURL(uri)
	if err != nil {
		return nil, fmt.Errorf("%s has the jwks_uri %s, which %w", &document, shortenURL(uri), err)
	}
	data, err = v.get(ctx, client, keys, maxSetBytes)
	if denied, ok := errors.AsType[*statusError](err); ok && denied.wantsToken() && !v.isIssuer(keys) {
		// The API server names itself by an address there, where it does not get our token. It
		// serves the same path under the issuer's name.
		same := *v.issuer
		same.Path, same.RawPath, same.RawQuery = keys.Path, keys.RawPath, keys.RawQuery
		other, otherErr := v.get(ctx, client, &same, maxSetBytes)
		if otherErr == nil {
			return other, nil
		}
		err = fmt.Errorf("%w; %w", err, otherErr)
	}
	return data, err
}

// isIssuer tells whether a URL is at the issuer's host and port.
func (v *Verifier) isIssuer(u *url.URL) bool {
	port := func(u *url.URL) string {
		if port := u.Port(); port != "" {
			return port
		}
		return "443"
	}
	return u.Scheme == "https" && strings.EqualFold(u.Hostname(), v.issuer.Hostname()) && port(u) == port(v.issuer)
}

// client trusts the issuer's CAs as they are now.
func (v *Verifier) client() (*http.Client, error) {
	roots, err := v.roots()
	if err != nil {
		return nil, err
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Client{
		Transport: &http.Transport{
			DialContext:            (&net.Dialer{}).DialContext,
			TLSClientConfig:        &tls.Config{RootCAs: roots},
			Protocols:              protocols,
			DisableCompression:     true, // a small answer must not become a large one
			MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// roots are the CAs for the issuer's certificate; nil: the system's.
func (v *Verifier) roots() (*x509.CertPool, error) {
	path, name := v.settings.IssuerCA, "TOKEN_ISSUER_CA"
	if path == "" {
		path, name = v.clusterCA, "the cluster's CA"
	}
	data, _, err := files.Read(path, maxCABytes)
	if errors.Is(err, fs.ErrNotExist) && v.settings.IssuerCA == "" {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s %q %w", name, path, files.Explain(path, err))
	}
	certs, _, err := pki.PEMCertificates(data)
	if certs = pki.Usable(certs); err != nil || len(certs) == 0 {
		return nil, fmt.Errorf("%s %q has no certificate in PEM that can be used", name, path)
	}
	roots := x509.NewCertPool()
	for _, cert := range certs {
		roots.AddCert(cert)
	}
	return roots, nil
}

// statusError is an answer that is not 200.
type statusError struct {
	url    *url.URL
	status string
	code   int
	hint   string
}

func (e *statusError) Error() string { return fmt.Sprintf("%s answers %s%s", e.url, e.status, e.hint) }

func (e *statusError) wantsToken() bool {
	return e.code == http.StatusUnauthorized || e.code == http.StatusForbidden
}

// get asks for a document of at most so many bytes. The service's own token goes to the issuer's
// host only; it is read for each request, as Kubernetes replaces it.
func (v *Verifier) get(ctx context.Context, client *http.Client, u *url.URL, most int64) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	// Kubernetes answers 406 for its keys where only the one is accepted, for the rest where only the other is.
	request.Header.Set("Accept", jsonType+", application/jwk-set+json")
	hint := ": it is not the issuer's host, so it gets no token: use TOKEN_JWKS_PATH, or have the API server serve " +
		"its keys without a token"
	if v.isIssuer(u) {
		own, err := v.ownToken()
		hint = ": allow the service's own account to get it, by the ClusterRole system:service-account-issuer-discovery"
		if err != nil {
			hint = ": the service has no token to show: " + err.Error()
		} else {
			request.Header.Set("Authorization", "Bearer "+own)
		}
	}
	response, err := client.Do(request)
	if err != nil {
		if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
			return nil, fmt.Errorf("%w: set TOKEN_ISSUER_CA to the CAs of the issuer", err)
		}
		return nil, err
	}
	defer response.Body.Close()
	if code := response.StatusCode; code != http.StatusOK {
		e := &statusError{url: u, status: response.Status, code: code}
		switch {
		case e.wantsToken():
			e.hint = hint
		case code >= 300 && code <= 399:
			e.hint = ": redirects are not followed"
		}
		return nil, e
	}
	data, err := io.ReadAll(io.LimitReader(response.Body, most+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading %s: %w", u, err)
	case int64(len(data)) > most:
		return nil, fmt.Errorf("%s has more than %d bytes", u, most)
	}
	return data, nil
}

func (v *Verifier) ownToken() (string, error) {
	path := v.settings.OwnTokenPath
	data, _, err := files.Read(path, MaxBytes)
	if err != nil {
		return "", fmt.Errorf("%q %w", path, files.Explain(path, err))
	}
	own := strings.TrimSpace(string(data))
	if own == "" || len(own) > MaxBytes || !visible.MatchString(own) {
		return "", fmt.Errorf("%q holds no token", path)
	}
	return own, nil
}
