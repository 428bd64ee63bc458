package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
)

// A request carries a private key. Where we have a client certificate, it goes only to a server that has asked for it
// in TLS, as a CertService does: one that does not ask is something else, or something on the way ends TLS and reads
// along. Each connection makes a full handshake, because in a resumed session a server does not ask again.

// unaskedError is a trusted server that did not ask for our certificate.
type unaskedError struct{ peer *x509.Certificate }

func (e *unaskedError) Error() string {
	return fmt.Sprintf("the server with the certificate of subject %q, issuer %q, sent no certificate request",
		e.peer.Subject, e.peer.Issuer)
}

const unaskedDetail = "the server never asked for our client certificate, so nothing was sent to it: " +
	"something on the way ends TLS (a proxy, a load balancer, a service mesh), or this is no CertService: " +
	"have TLS passed through to the CertService, check REQUEST_URL and HTTPS_PROXY, " +
	"or set ALLOW_NO_CLIENT_AUTH=true if this is meant"

// noteWhenAsked has each handshake note whether the server asks for the client certificate, and makes each a full one.
func (c *Client) noteWhenAsked(allowed bool) {
	show, certificates := c.tls.GetClientCertificate, c.tls.Certificates
	if show == nil && len(certificates) == 0 {
		return // this is no mutual TLS
	}
	c.needAsked = !allowed
	c.tls.ClientSessionCache, c.tls.SessionTicketsDisabled = nil, true
	c.tls.Renegotiation = tls.RenegotiateNever
	c.tls.GetClientCertificate = func(request *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		progressOf(request.Context()).asked.Store(true)
		if show != nil {
			return show(request)
		}
		for i := range certificates {
			if request.SupportsCertificate(&certificates[i]) == nil {
				return &certificates[i], nil
			}
		}
		return new(tls.Certificate), nil
	}
}

// dialProxy is the transport's way to a proxy that does not speak TLS itself.
func (c *Client) dialProxy(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := c.dialer.DialContext(ctx, network, addr)
	if err == nil {
		progressOf(ctx).tunnel.Store(&conn)
	}
	return conn, err
}

// tunnelled returns what the transport calls when it has made TLS through a proxy, before it writes the request. It
// closes the tunnel to a server that did not ask, so that no byte of the request can leave.
func (c *Client) tunnelled(p *progress) func(tls.ConnectionState, error) {
	return func(state tls.ConnectionState, err error) {
		if err != nil || !c.needAsked || p.asked.Load() {
			return
		}
		p.unasked.Store(&unaskedError{state.PeerCertificates[0]})
		if tunnel := p.tunnel.Load(); tunnel != nil {
			(*tunnel).Close()
		}
	}
}
