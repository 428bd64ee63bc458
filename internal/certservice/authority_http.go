package certservice

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// httpClients has an HTTP client for each host and TLS settings in use. CAs on different hosts share none: a client
// gives up all its idle connections when a host closed one of them.
type httpClients struct {
	connections int // kept open to one server between requests

	mu   sync.Mutex
	made map[httpKey]*http.Client
}

type httpKey struct {
	host string
	tls  digest
}

// maxHTTPClients bounds what is kept for settings that are no longer configured. Clients in use are not affected when
// the others are forgotten; their idle connections end by themselves.
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
		// No proxy from the environment: the ONAP server used none, and a CA's server is seldom behind one.
		DialContext:         (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:     s.TLS.config(),
		TLSHandshakeTimeout: 10 * time.Second,
		Protocols:           protocols, // HTTP/2 would buffer megabytes for each request
		// net/http would read 10 MiB of each answer.
		MaxResponseHeaderBytes: 64 << 10,
		MaxIdleConnsPerHost:    c.connections,
		// Shorter than servers keep theirs: a CMP request is not sent twice, so it must not use a connection
		// that the server is about to close.
		IdleConnTimeout: 10 * time.Second,
	}}
	c.made[key] = client
	return client
}

// TLS has the settings for a CMP server at an https:// URL. The identity is not exported, so that nothing encodes its
// key.
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

func (t TLS) config() *tls.Config {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(t.Trust) > 0 {
		config.RootCAs = x509.NewCertPool()
		for _, cert := range t.Trust {
			config.RootCAs.AddCert(cert)
		}
	}
	if t.identity != nil {
		// Shown whatever CAs the server names: it is the one that is configured, and the server then says why it
		// refuses it.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return t.identity,
				nil
		}
	}
	return config
}
