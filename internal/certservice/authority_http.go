package certservice

import (
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
		// No proxy from the environment: the ONAP server used none, and a CA's server is seldom beyond one.
		DialContext:         (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:     s.TLS.config(),
		TLSHandshakeTimeout: 10 * time.Second,
		Protocols:           protocols, // HTTP/2 would buffer megabytes for each request
		// net/http would read 10 MiB of each answer.
		MaxResponseHeaderBytes: 64 << 10,
		MaxIdleConnsPerHost:    c.connections,
		// Shorter than servers keep theirs: a CMP request is not sent twice, so none must meet a connection
		// that the server is about to close.
		IdleConnTimeout: 10 * time.Second,
	}}
	c.made[key] = client
	return client
}
