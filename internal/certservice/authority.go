// Package certservice is the CertService: it takes certificate requests over REST and mutual TLS,
// has them signed by a certification authority, and answers with the chain and the roots to trust.
// Paths, headers, statuses and error texts are those of the ONAP CertService API, version 1, so
// that clients written for that one need no change.
//
// The handler knows only the Authority interface; the one behind it speaks CMPv2. The package keeps
// nothing on disk, and between requests only what its rates count, so any number of replicas may
// serve. It issues no certificate itself. Who may ask for what is decided by a policy; without one
// every client that is authenticated may ask every configured authority.
package certservice

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/certfetcher/certfetcher/internal/admission"
	"github.com/certfetcher/certfetcher/internal/policy"
)

// Request is what a client asks for. CSR's signature is verified and its public key is Key's.
type Request struct {
	CSR   *x509.CertificateRequest
	Key   crypto.Signer // for the proof of possession
	asked *policy.Asked // what the CSR asks for

	// For an update only: the certificate to renew and its private key, which fit each other.
	OldCert  *x509.Certificate
	OldKey   crypto.Signer
	OldChain []*x509.Certificate // what followed OldCert in the header, unverified; often empty
}

// Issued is what an authority answers.
type Issued struct {
	Chain   []*x509.Certificate // the new certificate, then each signer, without the root
	Trusted []*x509.Certificate // roots to trust, the signing one among them
}

// Authority signs certificate requests. Its methods are called concurrently and give up when ctx
// ends. A refusal by the authority is a *RefusedError; any other error, a *FailedError among them,
// is a failure on the way to it. Their texts reach the client.
type Authority interface {
	Enroll(ctx context.Context, r Request) (Issued, error)
	Update(ctx context.Context, r Request) (Issued, error)
}

// RefusedError says that the authority refused the request.
type RefusedError struct {
	FailInfo []string // the protocol's names of the reasons, such as "badPOP"; may be empty
	Text     string   // the authority's own words; may be empty
	Err      error    // for the log; nil: the same
	// Unauthenticated: anyone on the path to the authority may have sent the refusal instead.
	Unauthenticated bool
}

// Error gives the authority's own words, with the names of the reasons that they do not contain,
// or "N/A" as the ONAP server did where there is neither.
func (e *RefusedError) Error() string {
	reasons := slices.DeleteFunc(slices.Clone(e.FailInfo),
		func(reason string) bool { return strings.Contains(e.Text, reason) })
	text := strings.Join(reasons, ", ")
	switch {
	case e.Text == "" && text == "":
		text = "N/A"
	case text == "":
		text = e.Text
	case e.Text != "":
		text = e.Text + " (" + text + ")"
	}
	if e.Unauthenticated {
		return "(not authenticated) " + text
	}
	return text
}

func (e *RefusedError) Unwrap() error { return e.Err }

// FailedError is a failure on the way to the authority, with
// what the client should know besides its text.
type FailedError struct {
	Err        error         // for the log, after the text
	Text       string        // for the client, without addresses in the operator's network; "": that of Err
	Reason     string        // for programs: ReasonNames, or "" for nothing
	RetryAfter time.Duration // 0: not known
}

func (e *FailedError) Error() string {
	if e.Text == "" {
		return e.Err.Error()
	}
	return e.Text
}

func (e *FailedError) Unwrap() error { return e.Err }

// ReasonNames is the FailedError.Reason of a certificate that the authority issued with another
// subject or other names than requested: a client that repeats an update only makes the authority
// issue one more certificate.
const ReasonNames = "unexpectedNames"

// Directory finds the authority for a CA name.
type Directory interface {
	// Lookup also returns the authority's share of the requests in progress.
	Lookup(caName string) (Authority, admission.Share, bool)
	// Ready reports whether a valid set of authorities is loaded.
	Ready() bool
	// Reload reads the set again; trigger names the cause
	// for the log. On an error the set stays as it was.
	Reload(trigger string) error
}

// failInfoOf returns the reasons of a refusal, "none" where the authority gave none,
// "not_authenticated" where another party may have sent it, and nothing for other errors.
func failInfoOf(err error) []string {
	refused, ok := errors.AsType[*RefusedError](err)
	switch {
	case !ok:
		return nil
	case refused.Unauthenticated:
		return []string{"not_authenticated"}
	case len(refused.FailInfo) == 0:
		return []string{"none"}
	default:
		return refused.FailInfo
	}
}

// httpClients has an HTTP client for each host and TLS settings in use. CAs on different hosts
// share none: a client gives up all its idle connections when a host closed one of them.
type httpClients struct {
	connections int // kept open to one server between requests

	mu   sync.Mutex
	made map[httpKey]*http.Client
}

type httpKey struct {
	host string
	tls  digest
}

// maxHTTPClients bounds what is kept for settings that are no longer configured. Clients in use
// are not affected when the others are forgotten; their idle connections end by themselves.
const maxHTTPClients = 256

func newHTTPClients(connections int) *httpClients {
	return &httpClients{connections: connections, made: map[httpKey]*http.Client{}}
}

func (c *httpClients) of(s Server) *http.Client {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := httpKey{tls: s.TLS.digest()}
	if u, err := url.Parse(s.URL); err == nil {
		key.host = u.Host
	}
	if client, ok := c.made[key]; ok {
		return client
	}
	if len(c.made) >= maxHTTPClients {
		clear(c.made)
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	client := &http.Client{Transport: &http.Transport{
		// No proxy from the environment: the ONAP server
		// used none, and a CA's server is seldom behind one.
		DialContext:         (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:     s.TLS.Config(),
		TLSHandshakeTimeout: 10 * time.Second,
		Protocols:           protocols, // HTTP/2 would buffer megabytes for each request
		// net/http would read 10 MiB of each answer.
		MaxResponseHeaderBytes: 64 << 10,
		MaxIdleConnsPerHost:    c.connections,
		// Shorter than servers keep theirs: a CMP request is not sent twice, so it must not use a
		// connection that the server is about to close.
		IdleConnTimeout: 10 * time.Second,
	}}
	c.made[key] = client
	return client
}

// TLS has the settings for a CMP server at an https:// URL. The identity is not exported, so that
// nothing encodes its key.
type TLS struct {
	Trust    []*x509.Certificate // that the server's certificate must chain to; none: the system's roots
	identity *tls.Certificate    // shown to a server that asks for it; nil: none
}

// digest tells apart settings that need connections of their own.
func (t TLS) digest() digest {
	hash := sha256.New()
	for _, cert := range t.Trust {
		hash.Write(cert.Raw)
	}
	if t.identity != nil {
		hash.Write([]byte("identity"))
		for _, der := range t.identity.Certificate {
			hash.Write(der)
		}
	}
	return digest(hash.Sum(nil))
}

// Config is for connections to the server.
func (t TLS) Config() *tls.Config {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(t.Trust) > 0 {
		config.RootCAs = x509.NewCertPool()
		for _, cert := range t.Trust {
			config.RootCAs.AddCert(cert)
		}
	}
	if t.identity != nil {
		// Shown whatever CAs the server names: it is the one that is configured, and the server
		// then says why it refuses it.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return t.identity,
				nil
		}
	}
	return config
}
